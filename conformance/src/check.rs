//! What a check is, and the list of all of them.

use std::fmt;

use futures_util::future::BoxFuture;
use storage_core::{Capabilities, Error};

use crate::Context;

include!(concat!(env!("OUT_DIR"), "/checks.rs"));

/// Every check, by group and in the order of the source.
#[must_use]
pub fn checks() -> &'static [Check] {
    CHECKS
}

/// A rule of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Promise {
    /// The section of `docs/contract.md` that it stands in.
    pub section: &'static str,
    /// The rule, as it stands there.
    pub rule: &'static str,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (docs/contract.md, {})", self.rule, self.section)
    }
}

/// Code that proves rules of the contract.
#[derive(Debug)]
#[non_exhaustive]
pub struct Check {
    /// The file in `src/checks`.
    pub group: &'static str,
    /// The function in it.
    pub name: &'static str,
    /// What it tries, as a sentence.
    pub tries: &'static str,
    /// The rules of the contract that name it.
    pub promises: &'static [Promise],
    /// What must be declared for the rules to apply. Without it the check proves that the operation is refused.
    pub needs: Capabilities,
    /// Whether the profile `basic` leaves it out.
    pub full: bool,
    pub(crate) run: fn(Context) -> BoxFuture<'static, Outcome>,
}

impl Check {
    /// `group/name`: stable, and what filters and reports use.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}", self.group, self.name)
    }

    /// The names of the capabilities it needs.
    pub fn needs(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.needs.iter().filter_map(|(name, needed)| needed.then_some(name))
    }
}

/// What a check, or a step of one, comes to.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Why a check did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The rule does not hold: what was expected and what was seen.
    Failed(String),
    /// The rule cannot be tried here, and why.
    NotRun(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Failed(message) | Self::NotRun(message)) = self;
        f.write_str(message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Failed(format!("expected the call to succeed, saw {error:?}"))
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::Failed(message)
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Self {
        Self::Failed(message.to_owned())
    }
}
