//! What a server holds.

use std::collections::BTreeMap;

/// An object.
#[derive(Clone, Debug, Default)]
pub struct Object {
    /// Its bytes.
    pub body: Vec<u8>,
    /// The headers that describe it, as they are sent back.
    pub headers: Vec<(String, String)>,
    /// A number that no other write gets.
    pub generation: u64,
}

impl Object {
    /// An etag, in quotes.
    #[must_use]
    pub fn etag(&self) -> String {
        format!("\"etag-{}\"", self.generation)
    }
}

/// Objects and uploads.
#[derive(Debug)]
pub struct Store {
    /// The objects, by name.
    pub objects: BTreeMap<String, Object>,
    /// Uploads by their ids: what they are to become, and their parts.
    pub uploads: BTreeMap<String, (Object, BTreeMap<u32, Vec<u8>>)>,
    /// The blocks of Azure, by the names of blob and block.
    pub blocks: BTreeMap<(String, String), Vec<u8>>,
    /// The most names on a page.
    pub page: usize,
    /// Whether answers have the headers that only the cloud has.
    pub marked: bool,
    /// Whether the bucket says that it keeps versions. It keeps the newest.
    pub versioned: bool,
    next: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            uploads: BTreeMap::new(),
            blocks: BTreeMap::new(),
            page: 1000,
            marked: true,
            versioned: false,
            next: 1000,
        }
    }
}

impl Store {
    /// Writes an object, and returns what it has become.
    pub fn put(&mut self, name: &str, body: &[u8], headers: Vec<(String, String)>) -> Object {
        let object = Object { body: body.to_vec(), headers, generation: self.number() };
        self.objects.insert(name.to_owned(), object.clone());
        object
    }

    /// A number that nothing else gets.
    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The names on a page, objects and what lies below, and the last of them if there are more.
    pub(crate) fn page(
        &self,
        prefix: &str,
        after: Option<&str>,
        delimited: bool,
        limit: usize,
    ) -> (Vec<String>, Vec<String>, Option<String>) {
        let (mut names, mut below) = (Vec::new(), Vec::new());
        for name in self.objects.keys().filter(|name| name.starts_with(prefix)) {
            let slash = name[prefix.len()..].find('/').filter(|_| delimited);
            let position = slash.map_or(name.as_str(), |at| &name[..=prefix.len() + at]);
            if after.is_some_and(|after| position <= after) || below.last().is_some_and(|last| last == position) {
                continue;
            }
            if names.len() + below.len() == limit.min(self.page) {
                let last = names.last().into_iter().chain(below.last()).max().cloned();
                return (names, below, last);
            }
            if slash.is_some() { &mut below } else { &mut names }.push(position.to_owned());
        }
        (names, below, None)
    }
}
