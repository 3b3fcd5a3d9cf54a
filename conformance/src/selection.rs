//! What to run: seed, time limit, and what is left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::PathBuf,
    time::Duration,
};

use crate::{Check, Target, checks};

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
    /// Whether each check runs on one target only of those of a [group](Target::group).
    pub sample: bool,
    /// Checks that a sample leaves to another target, by its name.
    pub(crate) elsewhere: BTreeMap<String, String>,
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
            sample: false,
            elsewhere: BTreeMap::new(),
        }
    }

    /// What the environment asks for: `STORAGE_CONFORMANCE_SEED`, `…_SECONDS`, `…_DISABLE`, `…_TARGETS` and `…_SAMPLE`,
    /// `STORAGE_TEST_REQUIRE`.
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
        selection.sample = variable("SAMPLE")?.is_some();
        selection.disabled = names(variable("DISABLE")?);
        let known: BTreeSet<String> = checks().iter().map(|check| check.path()).collect();
        if let Some(unknown) = selection.disabled.difference(&known).next() {
            return Err(format!("STORAGE_CONFORMANCE_DISABLE names {unknown:?}, which is no check"));
        }
        Ok(selection)
    }

    /// The same for one of these targets: a sample leaves to others of its group what they are to run.
    pub(crate) fn of(&self, target: &Target, all: &[Target]) -> Self {
        let mut own = self.clone();
        if let Some(group) = target.of_group().filter(|_| self.sample) {
            let runs = |other: &&Target| self.require_servers || other.unavailable().is_none();
            let group: Vec<&Target> = all.iter().filter(|other| other.of_group() == Some(group)).filter(runs).collect();
            for check in checks() {
                if let Some(runner) = runner(check, &group).filter(|runner| *runner != target.name()) {
                    own.elsewhere.insert(check.path(), runner.to_owned());
                }
            }
        }
        own
    }
}

/// Checks that are tried on servers only.
const ON_SERVERS: [&str; 2] = ["errors/unreachable_times_out", "faults/server_restart"];
/// Checks that are tried only where the target says how others leave things in the store.
const FOREIGN: [&str; 1] = ["keys/foreign_names_do_not_break_listing"];

/// Which target of a group runs a check in a sample: always the same one of those that can prove something, or else of all.
fn runner<'a>(check: &Check, group: &[&'a Target]) -> Option<&'a str> {
    let proves = |target: &&&Target| {
        let pinned: BTreeMap<_, _> = target.required().iter().collect();
        let path = check.path();
        let server = check.group != "network" && !ON_SERVERS.contains(&path.as_str());
        let foreign = !FOREIGN.contains(&path.as_str());
        check.needs().all(|name| pinned.get(name) == Some(&true))
            && (server || target.is_on_server())
            && (foreign || target.knows_foreign())
            && !target.is_unsteady(&path)
    };
    let able: Vec<&&Target> = group.iter().filter(proves).collect();
    let able = if able.is_empty() { group.iter().collect() } else { able };
    let able: Vec<_> = able.into_iter().flat_map(|target| vec![target; if target.is_slow() { 1 } else { 4 }]).collect();
    let hash = check.path().bytes().fold(0_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
    able.get(usize::try_from(hash % able.len().max(1) as u64).ok()?).map(|target| target.name())
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

/// Where the report of this name is to be written, if anywhere: `STORAGE_CONFORMANCE_REPORT`, or in it if that is a
/// directory.
pub(crate) fn report_file(name: &str) -> Result<Option<PathBuf>, String> {
    let path = variable("REPORT")?.map(PathBuf::from);
    Ok(path.map(|path| if path.is_dir() { path.join(format!("{name}.json")) } else { path }))
}

fn names(list: Option<String>) -> BTreeSet<String> {
    let list = list.unwrap_or_default();
    let names = list.split(',').map(str::trim);
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use storage_core::{Capabilities, Error, StorageBackend};

    use super::Selection;
    use crate::{Target, checks};

    fn target(name: &str, pinned: Capabilities, group: Option<&str>) -> Target {
        let target = Target::new(name, |_| async { Err::<Arc<dyn StorageBackend>, _>(Error::unsupported("opening")) })
            .requires(pinned);
        group.into_iter().fold(target, Target::group)
    }

    #[test]
    fn a_sample_runs_each_check_once_in_a_group_and_where_it_proves_something() {
        let none = Capabilities::new();
        let targets = [
            target("a", none.versioning(), Some("g")),
            target("b", none, Some("g")),
            target("c", none, Some("g")),
            target("alone", none, None),
        ];
        let mut selection = Selection::new(1);
        let left = |selection: &Selection| targets.each_ref().map(|target| selection.of(target, &targets).elsewhere);
        assert!(left(&selection).iter().all(BTreeMap::is_empty));
        selection.sample = true;
        let left = left(&selection);
        assert!(left[3].is_empty());
        for check in checks() {
            let runs: Vec<usize> = (0..3).filter(|index| !left[*index].contains_key(&check.path())).collect();
            assert_eq!(runs.len(), 1, "{}", check.path());
            // A check that needs more than any of them declares runs anywhere.
            let only_versions = check.needs().eq(["versioning"]);
            assert!(!only_versions || runs == [0], "{}", check.path());
        }
        assert!(left[..3].iter().all(|left| left.len() < checks().len()), "each target has its share");
        // One that is slow has a smaller share.
        let pair = [target("quick", none, Some("g")), target("slow", none, Some("g")).slow()];
        let [quick, slow] = pair.each_ref().map(|target| checks().len() - selection.of(target, &pair).elsewhere.len());
        assert!(slow > 0 && quick > 2 * slow && quick + slow == checks().len(), "{quick} and {slow}");
        // A server that fails a check now and then does not run it in a sample.
        let path = checks()[0].path();
        let steady = target("steady", none, Some("g"));
        for first in [true, false] {
            let mut both = vec![target("unsteady", none, Some("g")).unsteady([path.as_str()]), steady.clone()];
            if first {
                both.reverse();
            }
            let left = both.iter().filter(|target| selection.of(target, &both).elsewhere.contains_key(&path));
            assert_eq!(left.map(Target::name).collect::<Vec<_>>(), ["unsteady"]);
        }
    }
}
