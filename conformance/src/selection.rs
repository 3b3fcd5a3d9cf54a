//! What to run: seed, time limit, and what is left out.

use std::{collections::BTreeSet, env, time::Duration};

use crate::checks;

/// What a run is asked to do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Selection {
    /// Where all randomness comes from. It stays below 2³², so that every reader of JSON keeps it.
    pub seed: u64,
    /// How long a check may take before it counts as hung.
    pub time_limit: Duration,
    /// Checks (`group/name`) that are not run, and reported so.
    pub disabled: BTreeSet<String>,
    /// Only these targets, unless it is empty.
    pub targets: BTreeSet<String>,
    /// Whether a target without its server fails, instead of not being run.
    pub require_servers: bool,
}

impl Selection {
    /// Everything, with this seed, 60 seconds for each check.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            time_limit: Duration::from_secs(60),
            disabled: BTreeSet::new(),
            targets: BTreeSet::new(),
            require_servers: false,
        }
    }

    /// What the environment asks for: `STORAGE_CONFORMANCE_SEED`, `…_SECONDS`, `…_DISABLE` and `…_TARGETS`, `STORAGE_TEST_REQUIRE`.
    ///
    /// # Errors
    /// A message for a seed that is no number or a check that does not exist.
    pub fn from_env() -> Result<Self, String> {
        let mut selection = Self::new(u64::from(fastrand::u32(..)));
        if let Some(text) = variable("SEED")? {
            selection.seed =
                text.parse().map_err(|_| format!("STORAGE_CONFORMANCE_SEED is {text:?}, which is no number"))?;
        }
        selection.require_servers = servers_are_required();
        if let Some(text) = variable("SECONDS")? {
            let seconds =
                text.parse().map_err(|_| format!("STORAGE_CONFORMANCE_SECONDS is {text:?}, which is no number"))?;
            selection.time_limit = Duration::from_secs(seconds);
        }
        selection.targets = names(variable("TARGETS")?);
        selection.disabled = names(variable("DISABLE")?);
        let known: BTreeSet<String> = checks().iter().map(|check| check.path()).collect();
        if let Some(unknown) = selection.disabled.difference(&known).next() {
            return Err(format!("STORAGE_CONFORMANCE_DISABLE names {unknown:?}, which is no check"));
        }
        Ok(selection)
    }
}

/// The value of `STORAGE_CONFORMANCE_<name>`, if it is set and not empty.
pub(crate) fn variable(name: &str) -> Result<Option<String>, String> {
    let name = format!("STORAGE_CONFORMANCE_{name}");
    match env::var(&name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(format!("{name} is not UTF-8")),
    }
}

/// Whether `STORAGE_TEST_REQUIRE` says that no test may be passed over for want of a server.
pub(crate) fn servers_are_required() -> bool {
    env::var_os("STORAGE_TEST_REQUIRE").is_some_and(|value| !value.is_empty())
}

fn names(list: Option<String>) -> BTreeSet<String> {
    let list = list.unwrap_or_default();
    let names = list.split(',').map(str::trim);
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}
