//! A key that is on its way from one store to another.
//!
//! | at the new home | at the old home | the value is |
//! |---|---|---|
//! | a value | whatever | that of the new home |
//! | nothing, or a claim | a value | that of the old home |
//! | nothing, or a claim | nothing | absent |
//!
//! Nobody writes at the old home. Whoever moves the value first puts a **claim** at the new home, then reads the old value, and writes it in
//! place of the very claim; a delete removes the old value first and then what is at the new home, the claim included. So no move that began
//! before a delete brings the value back, and none replaces what was written meanwhile.

use std::sync::Arc;

use storage_core::{
    Body, Condition, DeleteOptions, Entry, Error, ErrorKind, Etag, FieldValue, GetOptions, Key, Metadata, Object,
    PutOptions, Result, StatOptions,
};

use super::{Child, Inner};
use crate::names;

/// How often it is begun again when the key is written by others meanwhile.
const TRIES: usize = 16;
/// How many bytes a claim has.
pub(super) const CLAIM: u64 = 64;
/// Its content type.
const TYPE: &str = "application/vnd.storage-multi.claim";
/// The metadata field with the set in it, which no user of the set knows.
const FIELD: &str = "storage.multi";

/// What is at the new home.
enum There {
    Nothing,
    Claim(Etag),
    Value(Entry),
}

/// What a move did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    /// The value was written to its new home, so many bytes.
    Value(u64),
    /// It was there already, or is no more.
    Nothing,
}

pub(super) fn written_by_others() -> Error {
    Error::new(ErrorKind::Conflict, "the value is written by others all the while; try again")
}

fn other_etag() -> Error {
    Error::new(ErrorKind::PreconditionFailed, "the value has another etag, or there is none")
}

fn is_lost_race(e: &Error) -> bool {
    !e.is_ambiguous()
        && matches!(e.kind(), ErrorKind::PreconditionFailed | ErrorKind::AlreadyExists | ErrorKind::Conflict)
}

/// Two stores, between which a key is.
pub(super) struct Between<'a> {
    pub(super) inner: &'a Inner,
    pub(super) old: &'a Child,
    pub(super) new: &'a Child,
    pub(super) key: &'a Key,
}

impl Between<'_> {
    fn below(&self) -> Result<Key> {
        names::key_below(self.key)
    }

    async fn at_new(&self) -> Result<There> {
        let stored = self.new.backend.stat(&self.below()?, StatOptions::new()).await;
        Ok(match stored.map_err(|e| self.new.error(e))? {
            None => There::Nothing,
            Some(entry) => match entry.etag.clone().filter(|_| self.inner.is_claim(&entry)) {
                Some(etag) => There::Claim(etag),
                None => There::Value(entry),
            },
        })
    }

    async fn at_old(&self) -> Result<Option<Entry>> {
        self.old.backend.stat(&self.below()?, StatOptions::new()).await.map_err(|e| self.old.error(e))
    }

    pub(super) async fn stat(&self) -> Result<Option<Entry>> {
        if let There::Value(entry) = self.at_new().await? {
            return self.new.entry(entry).map(Some);
        }
        if let Some(entry) = self.at_old().await? {
            return self.old.entry(entry).map(Some);
        }
        // It may have arrived.
        match self.at_new().await? {
            There::Value(entry) => self.new.entry(entry).map(Some),
            _ => Ok(None),
        }
    }

    pub(super) async fn get(&self, options: &GetOptions) -> Result<Option<Object>> {
        for _ in 0..TRIES {
            if let There::Value(_) = self.at_new().await? {
                return self.new.get(&self.below()?, options.clone()).await;
            }
            if self.at_old().await?.is_some() {
                match self.old.get(&self.below()?, options.clone()).await {
                    // It has gone, which does not mean that another is there.
                    Ok(None) => continue,
                    Err(e) if e.kind() == ErrorKind::PreconditionFailed && self.at_old().await?.is_none() => continue,
                    found => return found,
                }
            }
            if !matches!(self.at_new().await?, There::Value(_)) {
                return options.check_current(None).map(|()| None);
            }
        }
        Err(written_by_others())
    }

    pub(super) async fn put(&self, body: Body, options: PutOptions) -> Result<Entry> {
        let again = body.try_clone();
        let mut body = Some(body);
        for _ in 0..TRIES {
            let (condition, is_of_claim) = self.condition_at_new(options.condition.as_ref()).await?;
            let mut options = options.clone();
            options.condition = condition;
            let Some(value) = body.take() else { break };
            match self.new.backend.put(&self.below()?, value, options).await {
                Ok(entry) => return self.new.entry(entry),
                // Another claimed the key, or brought its value.
                Err(e) if is_of_claim && is_lost_race(&e) => body = again.as_ref().and_then(Body::try_clone),
                Err(e) => return Err(self.new.error(e)),
            }
        }
        Err(written_by_others())
    }

    /// What must hold at the new home, and whether it is about something else than a value there.
    async fn condition_at_new(&self, condition: Option<&Condition>) -> Result<(Option<Condition>, bool)> {
        let condition = match condition {
            None => return Ok((None, false)),
            Some(Condition::IfMatch(etag)) => match self.new.etag(etag) {
                Some(own) => return Ok((Some(Condition::IfMatch(own)), false)),
                None => Condition::IfMatch(self.claim_at(etag).await?),
            },
            Some(condition) => {
                let there = self.at_new().await?;
                if matches!(there, There::Value(_)) || self.at_old().await?.is_some() {
                    return Err(Error::new(ErrorKind::AlreadyExists, "the key already has a value"));
                }
                match there {
                    There::Claim(etag) => Condition::IfMatch(etag),
                    _ => condition.clone(),
                }
            }
        };
        Ok((Some(condition), true))
    }

    /// Removes the value, if it has this etag.
    pub(super) async fn delete(&self, etag: Option<&Etag>) -> Result<()> {
        let below = self.below()?;
        let at_new = match etag {
            None => DeleteOptions::new(),
            Some(etag) => match self.at_new().await? {
                There::Value(_) => DeleteOptions::new().if_match(&self.new.etag(etag).ok_or_else(other_etag)?),
                _ => {
                    let claim = self.claim_at(etag).await?;
                    self.delete_old().await?;
                    self.inner.unclaim(self.new, &below, &claim).await?;
                    return match self.at_new().await? {
                        // It may have been brought here before it was removed there.
                        There::Value(_) => Err(written_by_others().ambiguous()),
                        _ => Ok(()),
                    };
                }
            },
        };
        self.delete_old().await?;
        self.new.backend.delete(&below, at_new).await.map_err(|e| self.new.error(e))
    }

    async fn delete_old(&self) -> Result<()> {
        self.old.backend.delete(&self.below()?, DeleteOptions::new()).await.map_err(|e| self.old.error(e))
    }

    /// Claims the key while the value at the old home has this etag. Answers that of the claim.
    async fn claim_at(&self, etag: &Etag) -> Result<Etag> {
        let own = self.old.etag(etag).ok_or_else(other_etag)?;
        for _ in 0..TRIES {
            let Some(claim) = self.claim().await? else { return Err(other_etag()) };
            if let Some(claim) = claim {
                let there = self.at_old().await?;
                Condition::IfMatch(own).check(there.as_ref())?;
                return Ok(claim);
            }
        }
        Err(written_by_others())
    }

    /// Claims the key: the outer `None` if a value is there, the inner one if another was faster.
    async fn claim(&self) -> Result<Option<Option<Etag>>> {
        let condition = match self.at_new().await? {
            There::Value(_) => return Ok(None),
            There::Claim(etag) => Condition::IfMatch(etag),
            There::Nothing => Condition::IfAbsent,
        };
        let body = format!("{}{:032x}", self.inner.set, fastrand::u128(..));
        let mut metadata = Metadata::new().field(FIELD, self.inner.set.as_str());
        metadata.content_type = Some(TYPE.into());
        let options = PutOptions::new().metadata(Arc::new(metadata)).condition(condition);
        match self.new.backend.put(&self.below()?, body.into(), options).await {
            Ok(entry) => match entry.etag {
                Some(etag) => Ok(Some(Some(etag))),
                None => Err(Error::unsupported("moving values into a store without etags")),
            },
            Err(e) if is_lost_race(&e) => Ok(Some(None)),
            Err(e) => Err(self.new.error(e)),
        }
    }

    /// Brings the value to its new home.
    pub(super) async fn bring(&self) -> Result<Moved> {
        let below = self.below()?;
        for _ in 0..TRIES {
            let Some(claim) = self.claim().await? else {
                self.delete_old().await?;
                return Ok(Moved::Nothing);
            };
            let Some(claim) = claim else { continue };
            let object = self.old.backend.get(&below, GetOptions::new()).await.map_err(|e| self.old.error(e))?;
            let Some(object) = object else {
                self.inner.unclaim(self.new, &below, &claim).await?;
                return Ok(Moved::Nothing);
            };
            let size = object.entry.size;
            let mut options = PutOptions::new().if_match(&claim);
            options.metadata = object.entry.metadata.clone();
            let body = crate::error::body_above(&self.old.name, object.body);
            match self.new.backend.put(&below, body, options).await {
                Ok(_) => {
                    self.delete_old().await?;
                    return Ok(Moved::Value(size));
                }
                Err(e) if is_lost_race(&e) => {}
                Err(e) => return Err(self.new.error(e)),
            }
        }
        Err(written_by_others())
    }
}

impl Inner {
    /// Whether this entry of a store is a claim.
    pub(super) fn is_claim(&self, entry: &Entry) -> bool {
        entry.size == CLAIM
            && entry.metadata.as_ref().is_some_and(|metadata| {
                metadata.content_type.as_deref() == Some(TYPE)
                    && metadata.fields.get(FIELD) == Some(&FieldValue::String(self.set.clone()))
            })
    }

    /// Removes a claim that leads to nothing, where the store can do that under a condition. Whether it is gone.
    pub(super) async fn unclaim(&self, child: &Child, below: &Key, claim: &Etag) -> Result<bool> {
        if !child.backend.info().capabilities.conditional_delete {
            return Ok(false);
        }
        match child.backend.delete(below, DeleteOptions::new().if_match(claim)).await {
            Err(e) if !is_lost_race(&e) => Err(child.error(e)),
            _ => Ok(true),
        }
    }
}
