//! Whether a listing gets on, page by page. A server that repeats pages or tokens would never end it.

use std::{
    cmp::Ordering,
    collections::HashSet,
    hash::{BuildHasher, RandomState},
};

use storage_core::{Error, ErrorKind, Result};

use crate::{ListedObject, Naming, Page};

/// The most pages without anything on them that follow one another. A store that searches far for the next name may have some.
const EMPTY: usize = 10_000;

/// Takes care that each name is shown once, in order, and that the listing ends.
pub(crate) struct Progress {
    hasher: RandomState,
    order: fn(&str, &str) -> Ordering,
    /// The last name so far.
    last: Option<String>,
    /// What the page before held, as far as that must be known.
    before: HashSet<u64>,
    /// The tokens since the listing has got on, and in a listing of versions, which have no order, all of them and each page.
    seen: HashSet<u64>,
    empty: usize,
}

impl Progress {
    pub(crate) fn new(naming: Naming) -> Self {
        Self {
            hasher: RandomState::new(),
            order: if naming == Naming::FlatUtf16 { utf16 } else { Ord::cmp },
            last: None,
            before: HashSet::new(),
            seen: HashSet::new(),
            empty: 0,
        }
    }

    /// Takes note of a page of objects. What the page before had already is left out.
    ///
    /// # Errors
    /// `Other` for a page that holds nothing new, or names that belong before those of the page before.
    pub(crate) fn objects(&mut self, page: &mut Page) -> Result<()> {
        if page.objects.is_empty() && page.prefixes.is_empty() {
            return self.nothing();
        }
        let order = self.order;
        let ordered = |a: &ListedObject, b: &ListedObject| order(&a.name, &b.name);
        if !page.objects.is_sorted_by(|a, b| ordered(a, b).is_lt()) {
            page.objects.sort_by(ordered);
            page.objects.dedup_by(|a, b| a.name == b.name);
        }
        let names = |page: &Page| -> Vec<u64> {
            let names = page.objects.iter().map(|found| &found.name).chain(&page.prefixes);
            names.map(|name| self.hasher.hash_one(name)).collect()
        };
        let held = names(page);
        if let Some(last) = &self.last {
            let is_new = |name: &str| order(name, last).is_gt();
            let known = |name: &str| self.before.contains(&self.hasher.hash_one(name));
            let old = page.objects.iter().map(|found| &found.name).chain(&page.prefixes).filter(|name| !is_new(name));
            if let Some(name) = { old }.find(|name| !known(name)) {
                return Err(unordered(name, last));
            }
            page.objects.retain(|found| is_new(&found.name));
            page.prefixes.retain(|prefix| is_new(prefix));
        }
        let names = page.objects.last().map(|found| &found.name).into_iter().chain(&page.prefixes);
        let last = names.max_by(|a, b| order(a, b)).cloned();
        self.last = Some(last.ok_or_else(|| endless("it shows the same names again"))?);
        self.before = held.into_iter().collect();
        self.seen.clear();
        self.empty = 0;
        Ok(())
    }

    /// The same for a page of versions.
    ///
    /// # Errors
    /// `Other` for a page that was there already.
    pub(crate) fn versions(&mut self, page: &mut Page) -> Result<()> {
        if page.objects.is_empty() {
            return self.nothing();
        }
        let hashed = |found: &ListedObject| self.hasher.hash_one((&found.name, &found.version));
        let mut held = HashSet::new();
        let before = std::mem::take(&mut self.before);
        page.objects.retain(|found| {
            let hash = hashed(found);
            held.insert(hash) && !before.contains(&hash)
        });
        let whole = page.objects.iter().map(hashed).collect::<Vec<_>>();
        if whole.is_empty() || !self.seen.insert(self.hasher.hash_one(whole)) {
            return Err(endless("it shows the same versions again"));
        }
        self.before = held;
        self.empty = 0;
        Ok(())
    }

    /// Takes note of the token of the next page, and of that which was sent for this one.
    ///
    /// # Errors
    /// `Other` for one that was there already.
    pub(crate) fn token(&mut self, next: &str, sent: Option<&str>) -> Result<()> {
        if sent == Some(next) || !self.seen.insert(self.hasher.hash_one((next, "token"))) {
            return Err(endless("it repeats its continuation token"));
        }
        Ok(())
    }

    fn nothing(&mut self) -> Result<()> {
        self.empty += 1;
        match self.empty > EMPTY {
            true => Err(endless("thousands of its pages hold nothing")),
            false => Ok(()),
        }
    }
}

/// The order of Azure: that of the units of UTF-16.
fn utf16(a: &str, b: &str) -> Ordering {
    a.encode_utf16().cmp(b.encode_utf16())
}

fn endless(why: &str) -> Error {
    let message =
        format!("the server's listing does not end: {why}; check `endpoint` and what stands before the server");
    Error::new(ErrorKind::Other, message)
}

fn unordered(name: &str, last: &str) -> Error {
    let message = format!(
        "the server does not list in the order of names: it shows {name:?} after {last:?}; such a server, or kind of bucket, is not \
         supported"
    );
    Error::new(ErrorKind::Other, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(names: &[&str]) -> Page {
        let (prefixes, objects): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.ends_with('/'));
        let found = |name: &&str| ListedObject {
            name: (*name).to_owned(),
            size: 0,
            modified: None,
            etag: None,
            version: Some((*name).to_owned()),
            deleted: false,
        };
        Page {
            objects: objects.iter().map(found).collect(),
            prefixes: prefixes.into_iter().map(str::to_owned).collect(),
            next: None,
        }
    }

    /// What is shown of these pages, each with a token for the next.
    fn shown(pages: &[&[&str]], token: impl Fn(usize) -> String) -> Result<Vec<String>> {
        let mut progress = Progress::new(Naming::Flat);
        let mut shown = Vec::new();
        let mut sent = None;
        for (at, names) in pages.iter().enumerate() {
            let mut page = page(names);
            progress.objects(&mut page)?;
            let mut names: Vec<_> = page.objects.into_iter().map(|found| found.name).chain(page.prefixes).collect();
            names.sort();
            shown.extend(names);
            let next = token(at);
            progress.token(&next, sent.as_deref())?;
            sent = Some(next);
        }
        Ok(shown)
    }

    #[test]
    fn each_name_is_shown_once() {
        let fresh = |at: usize| at.to_string();
        for pages in [
            &[&["a", "b", "c/", "d"][..], &[], &["e"]][..],
            &[&["a", "a", "b", "c/", "d"], &["d", "e"]],
            &[&["a", "b", "a", "b", "c/", "d"], &["c/", "d", "e"]],
            &[&["b", "a", "d", "c/"], &["e", "e"]],
        ] {
            assert_eq!(shown(pages, fresh).unwrap(), ["a", "b", "c/", "d", "e"], "{pages:?}");
        }
    }

    #[test]
    fn what_does_not_get_on_is_an_error() {
        let fresh = |at: usize| at.to_string();
        for (pages, words) in [
            (&[&["a", "b"][..], &["a", "b"]][..], "same names"),
            (&[&["a"], &["a"]], "same names"),
            (&[&["a", "b/"], &["b/"]], "same names"),
            (&[&["a", "c"], &["b"]], "order of names"),
            (&[&["c"], &["d"], &["c", "d"]], "order of names"),
        ] {
            let error = shown(pages, fresh).unwrap_err();
            assert!(error.kind() == ErrorKind::Other && error.message().contains(words), "{pages:?}: {error:?}");
        }
        let error = shown(&[&["a"], &["b"], &["c"]], |_| "same".into()).unwrap_err();
        assert!(error.message().contains("token"), "{error:?}");
        // A cycle of pages without names.
        let error = shown(&[&["a"], &[], &[], &[]], |at| (at % 2).to_string()).unwrap_err();
        assert!(error.message().contains("token"), "{error:?}");
        let error = shown(&vec![&[][..]; EMPTY + 1], fresh).unwrap_err();
        assert!(error.message().contains("nothing"), "{error:?}");
        shown(&vec![&[][..]; EMPTY], fresh).unwrap();
    }

    #[test]
    fn versions_have_no_order_and_end_too() {
        let mut progress = Progress::new(Naming::Flat);
        let mut first = page(&["k", "k", "a"]);
        progress.versions(&mut first).unwrap();
        assert_eq!(first.objects.len(), 2);
        let mut second = page(&["a", "b"]);
        progress.versions(&mut second).unwrap();
        assert_eq!(second.objects.len(), 1);
        progress.versions(&mut page(&["c"])).unwrap();
        assert!(progress.versions(&mut page(&["c"])).is_err());
        let mut cycle = Progress::new(Naming::Flat);
        let pages = [&["a", "b"][..], &["c", "d"], &["a", "b"]];
        let ended: Vec<_> = pages.iter().map(|names| cycle.versions(&mut page(names)).is_ok()).collect();
        assert_eq!(ended, [true, true, false]);
        let mut tokens = Progress::new(Naming::Flat);
        let ended = ["1", "2", "1"].map(|token| tokens.token(token, None).is_ok());
        assert_eq!(ended, [true, true, false]);
    }

    #[test]
    fn azure_has_an_order_of_its_own() {
        let mut progress = Progress::new(Naming::FlatUtf16);
        progress.objects(&mut page(&["😀", "\u{ff5e}"])).unwrap();
        assert!(Progress::new(Naming::Flat).objects(&mut page(&["\u{ff5e}", "😀"])).is_ok());
        assert_eq!(progress.last.as_deref(), Some("\u{ff5e}"));
    }
}
