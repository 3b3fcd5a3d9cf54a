//! What a store honours, found out by trying it on objects of our own.

use std::sync::Arc;

use futures_util::{StreamExt, future::try_join_all, stream};
use object_store::{
    Error as Failed, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, PutResult, path::Path,
};
use storage_core::{Error, ErrorKind, Metadata, Result};

use crate::{CloudExtensions, ListRequest, Naming, Profile, error, meta, names::Names, pages::Pages, write::bare};

/// How many writers race for one object, to see whether conditions are more than a look before the write.
const RACERS: usize = 4;

/// What was found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Findings {
    /// Attributes come back as they were given.
    pub(crate) attributes: bool,
    /// The store says that it encrypts what is written.
    pub(crate) encrypted: bool,
    /// Conditions on writes are honoured, also when several write at once.
    pub(crate) conditions: bool,
    /// But only of etags without their quotes, as in Ceph.
    pub(crate) unquoted: bool,
}

/// Writes, reads and deletes a few objects, which proves that the store can be reached and used.
pub(crate) async fn probe(
    store: &Arc<dyn ObjectStore>,
    native: Option<&Arc<dyn CloudExtensions>>,
    names: &Names,
    profile: &Profile,
) -> Result<Findings> {
    let token = meta::text(&meta::token());
    let places = [names.probe(&token), names.probe(&format!("{token}-beside"))];
    let findings = findings(&**store, &places, profile).await;
    let [place, beside] = places;
    if let Err(error) = remove(store, native, profile, &place, beside).await {
        // Nothing else writes under these names and nothing lists them, so that they stay does no harm.
        tracing::warn!(%place, %error, "probes could not be deleted");
    }
    findings
}

async fn remove(
    store: &Arc<dyn ObjectStore>,
    native: Option<&Arc<dyn CloudExtensions>>,
    profile: &Profile,
    place: &Path,
    beside: Path,
) -> Result<()> {
    if let Some(native) = native.filter(|native| native.versioned()) {
        // A plain delete would leave every version.
        let ask = ListRequest { prefix: place.to_string(), limit: 1000, ..ListRequest::default() };
        let mut pages = Pages::of_versions(native.clone(), profile.naming, ask);
        while let Some(page) = pages.page().await? {
            for found in page.objects {
                if let (Ok(place), Some(version)) = (Path::parse(&found.name), &found.version) {
                    native.delete(&place, Some(version)).await?;
                }
            }
        }
        return Ok(());
    }
    let places = [below(place), beside, place.clone()].map(Ok);
    // One that cannot be deleted must not keep the others; below an object a hierarchical store finds no directory.
    let deleted: Vec<_> = store.delete_stream(stream::iter(places).boxed()).collect().await;
    for deleted in deleted {
        match deleted {
            Ok(_) | Err(Failed::NotFound { .. }) => {}
            Err(e) => return Err(error::write(e)),
        }
    }
    Ok(())
}

async fn findings(store: &dyn ObjectStore, [place, beside]: &[Path; 2], profile: &Profile) -> Result<Findings> {
    let mut found = Findings::default();
    attributes(store, place, &mut found).await?;
    if profile.naming != Naming::Hierarchical {
        let both = store.put(&below(place), "0".into()).await;
        both.map_err(|e| {
            let message = "the store cannot hold both `a` and `a/b`, or cannot be written; in the first case its naming is hierarchical";
            Error::new(ErrorKind::Config, message).with_source(error::read(e))
        })?;
    }
    match profile.tries_conditions {
        true => conditions(store, [place, beside], profile, &mut found).await?,
        false => found.conditions = true,
    }
    Ok(found)
}

async fn attributes(store: &dyn ObjectStore, place: &Path, found: &mut Findings) -> Result<()> {
    let attributes = meta::attributes(&Metadata::new());
    let options = PutOptions::from(attributes.clone());
    // A value that nobody else writes, so that what comes back proves that it was kept.
    let value = meta::text(&meta::token());
    match attempt(store.put_opts(place, value.clone().into(), options).await)? {
        Some(result) => found.encrypted = encrypted(&result),
        None => {
            let plain = store.put(place, value.clone().into()).await;
            plain.map_err(error::read)?;
        }
    }
    let lost =
        "the store does not give back what was written; check the address of the store and what stands before it";
    let read = store.get(place).await.map_err(|e| match e {
        e @ Failed::NotFound { .. } => Error::new(ErrorKind::Config, lost).with_source(e),
        e => error::read(e),
    })?;
    found.attributes = read.attributes.get(&meta::ATTRIBUTE) == attributes.get(&meta::ATTRIBUTE);
    match read.bytes().await.map_err(error::read)? == value {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Config, lost)),
    }
}

/// Some stores ignore the condition, so each kind is tried once where it must hold and once where it must not; then several
/// write at once, and one of them must win.
async fn conditions(
    store: &dyn ObjectStore,
    [place, beside]: [&Path; 2],
    profile: &Profile,
    found: &mut Findings,
) -> Result<()> {
    let put = |payload, mode| put(store, place, payload, mode, profile);
    if put("1", PutMode::Create).await? != Put::Lost {
        return Ok(());
    }
    let Put::Won(Some(first)) = put("2", PutMode::Overwrite).await? else {
        return Ok(());
    };
    let mut update = profile.update(first.clone());
    let mut second = put("3", update.clone()).await?;
    if second == Put::Lost && bare(&first) != first {
        update = profile.update(bare(&first).to_owned());
        second = put("3", update.clone()).await?;
        found.unquoted = true;
    }
    let Put::Won(Some(second)) = second else {
        return Ok(());
    };
    let stale = put("4", update).await? == Put::Lost;
    let second = if found.unquoted { bare(&second).to_owned() } else { second };
    found.conditions = stale
        && one_wins(store, place, profile.update(second), profile).await?
        && one_wins(store, beside, PutMode::Create, profile).await?;
    Ok(())
}

async fn one_wins(store: &dyn ObjectStore, place: &Path, mode: PutMode, profile: &Profile) -> Result<bool> {
    const VALUES: [&str; RACERS] = ["a", "b", "c", "d"];
    let racing = VALUES.map(|value| put(store, place, value, mode.clone(), profile));
    let ended = try_join_all(racing).await?;
    let won = ended.iter().filter(|put| matches!(put, Put::Won(_))).count();
    let lost = ended.iter().filter(|put| matches!(put, Put::Lost | Put::Nameless)).count();
    Ok(won == 1 && lost == RACERS - 1)
}

#[derive(PartialEq)]
enum Put {
    /// With the new etag.
    Won(Option<String>),
    Lost,
    /// In a way that some stores have no name for.
    Nameless,
    /// The store says that it has no such condition.
    Unknown,
}

async fn put(
    store: &dyn ObjectStore,
    place: &Path,
    payload: &'static str,
    mode: PutMode,
    profile: &Profile,
) -> Result<Put> {
    let payload = PutPayload::from_static(payload.as_bytes());
    let conditional = mode != PutMode::Overwrite;
    match store.put_opts(place, payload, mode.into()).await {
        Err(Failed::AlreadyExists { .. } | Failed::Precondition { .. }) => Ok(Put::Lost),
        Err(e) if conditional && error::is_lost_race(&e) => Ok(Put::Nameless),
        other => match attempt(other) {
            Ok(Some(result)) => Ok(Put::Won(profile.shown(result.e_tag, result.version))),
            Ok(None) => Ok(Put::Unknown),
            Err(e) if e.kind() == ErrorKind::Conflict => Ok(Put::Lost),
            Err(e) => Err(e),
        },
    }
}

/// `None` for what the store says it cannot do.
fn attempt<T>(result: object_store::Result<T>) -> Result<Option<T>> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(e) => {
            let error = error::read(e);
            if error.kind() == ErrorKind::Unsupported { Ok(None) } else { Err(error) }
        }
    }
}

#[cfg(feature = "http")]
fn encrypted(result: &PutResult) -> bool {
    result.extensions.get::<crate::http::ResponseHints>().is_some_and(|said| said.encrypted)
}

#[cfg(not(feature = "http"))]
fn encrypted(_: &PutResult) -> bool {
    false
}

fn below(place: &Path) -> Path {
    place.clone().join("below")
}
