//! Runs the conformance tests of packages that declare targets, and puts their reports together.
//!
//! A package declares its targets in `[package.metadata.storage-conformance]`: `targets` names them, `features` what they
//! need to be built.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use lexopt::{Arg, Parser, ValueExt};
use serde::Deserialize;

use crate::{
    Result,
    html::html,
    junit::junit,
    report::Report,
    services,
    shell::{cargo, metadata, root, target_dir},
};

/// What was asked for.
pub(crate) struct Options {
    pub(crate) backends: Vec<String>,
    pub(crate) format: Format,
    pub(crate) out: Option<PathBuf>,
    pub(crate) manifest: PathBuf,
    pub(crate) seed: Option<u64>,
    /// Where the packages are built, if not where cargo would.
    pub(crate) target_dir: Option<PathBuf>,
    /// Only the check of bounded memory, with so many MiB.
    pub(crate) stream_mib: Option<u64>,
    /// Only the checks of dropped writes, with so many of them.
    pub(crate) drops: Option<u64>,
    /// Only say which targets there are.
    pub(crate) list: bool,
    /// Where `cargo test` has left reports already, so that what they tell is not run again.
    pub(crate) done: Option<PathBuf>,
}

impl Options {
    pub(crate) fn all() -> Self {
        Self {
            backends: Vec::new(),
            format: Format::Table,
            out: None,
            manifest: root().join("Cargo.toml"),
            seed: None,
            target_dir: None,
            stream_mib: None,
            drops: None,
            list: false,
            done: None,
        }
    }

    pub(crate) fn parse(mut args: Parser) -> Result<Self> {
        let mut options = Self::all();
        while let Some(arg) = args.next()? {
            match arg {
                Arg::Long("backend") => {
                    let names = args.value()?.string()?;
                    let names = names.split(',').map(str::trim).filter(|s| !s.is_empty());
                    options.backends.extend(names.map(str::to_owned));
                }
                Arg::Long("format") => {
                    let name = args.value()?.string()?;
                    options.format = Format::named(&name).ok_or_else(|| {
                        format!("`{name}` is no format; known are {}", Format::NAMES.map(|(name, _)| name).join(", "))
                    })?;
                }
                Arg::Long("out") => {
                    let file = PathBuf::from(args.value()?);
                    if Format::of(&file).is_none() {
                        let name = file.display();
                        return Err(format!("`{name}` must end in .json, .xml (JUnit) or .html").into());
                    }
                    options.out = Some(file);
                }
                Arg::Long("manifest-path") => {
                    options.manifest = fs::canonicalize(args.value()?)?;
                }
                Arg::Long("list") => options.list = true,
                Arg::Long("seed") => options.seed = Some(args.value()?.parse()?),
                other => return Err(other.unexpected().into()),
            }
        }
        Ok(options)
    }
}

/// How a report is written.
#[derive(Clone, Copy)]
pub(crate) enum Format {
    Table,
    Json,
    Junit,
    Html,
}

impl Format {
    const NAMES: [(&str, Format); 4] =
        [("table", Self::Table), ("json", Self::Json), ("junit", Self::Junit), ("html", Self::Html)];

    fn named(name: &str) -> Option<Self> {
        Self::NAMES.into_iter().find(|(known, _)| *known == name).map(|(_, format)| format)
    }

    fn of(file: &Path) -> Option<Self> {
        match file.extension()?.to_str()? {
            "json" => Some(Self::Json),
            "xml" => Some(Self::Junit),
            "html" => Some(Self::Html),
            _ => None,
        }
    }

    fn render(self, report: &Report) -> String {
        match self {
            Self::Table => report.table(),
            Self::Json => report.to_json(),
            Self::Junit => junit(report),
            Self::Html => html(report),
        }
    }
}

/// What a package says about its conformance test.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Declared {
    targets: Vec<String>,
    #[serde(default)]
    features: Vec<String>,
}

/// Runs what was asked for, and prints the outcome.
pub(crate) fn run(options: Options) -> Result<ExitCode> {
    if options.list {
        return list(&options);
    }
    let report = report(&options)?;
    if let Some(out) = &options.out {
        let format = Format::of(out).unwrap_or(Format::Json);
        fs::write(out, format.render(&report)).map_err(|e| format!("cannot write {}: {e}", out.display()))?;
    }
    println!("{}", options.format.render(&report).trim_end());
    let reasons =
        || report.backends.iter().flat_map(|backend| &backend.checks).filter_map(|check| check.reason.as_ref());
    services::report_missing(|variable| reasons().any(|reason| reason.contains(variable)))?;
    Ok(ExitCode::from(u8::from(report.has_failed())))
}

/// Runs what was asked for.
pub(crate) fn report(options: &Options) -> Result<Report> {
    let packages = declared(&options.manifest)?;
    let known: Vec<&str> = packages.values().flat_map(|p| &p.targets).map(String::as_str).collect();
    if known.is_empty() {
        let manifest = options.manifest.display();
        return Err(
            format!("no package of {manifest} has `[package.metadata.storage-conformance]` with `targets`").into()
        );
    }
    let backends = named(&options.backends, &known)?;
    let mut report = Report::default();
    for (package, declared) in &packages {
        let wanted = |name: &&str| options.backends.is_empty() || backends.contains(name);
        let targets: Vec<&str> = declared.targets.iter().map(String::as_str).filter(wanted).collect();
        if !targets.is_empty() {
            let done = options.done.as_ref().and_then(|dir| done(&dir.join(format!("{package}.json")), &targets));
            report = report.merge(match done {
                Some(done) => done,
                None => test(package, declared, &targets, options)?,
            });
        }
    }
    Ok(report)
}

/// Says which targets there are, and of each whether its checks can run here, which its own test knows.
fn list(options: &Options) -> Result<ExitCode> {
    for (package, declared) in declared(&options.manifest)? {
        let mut command = cargo(["test", "--quiet", "--test", "conformance", "--package", &package]);
        command.arg("--manifest-path").arg(&options.manifest);
        if !declared.features.is_empty() {
            command.args(["--features", &declared.features.join(",")]);
        }
        command.env("STORAGE_CONFORMANCE_LIST", "1");
        services::provide(&mut command)?;
        let output = command.output()?;
        if !output.status.success() {
            return Err(format!("{package}:\n{}", String::from_utf8_lossy(&output.stderr)).into());
        }
        print!("{package}\n{}", String::from_utf8_lossy(&output.stdout));
    }
    Ok(ExitCode::SUCCESS)
}

/// The targets of these names, or all, by their package.
pub(crate) fn wanted(names: &[String]) -> Result<BTreeMap<String, Vec<String>>> {
    let packages = declared(&root().join("Cargo.toml"))?;
    let known: Vec<&str> = packages.values().flat_map(|p| &p.targets).map(String::as_str).collect();
    let found = named(names, &known)?;
    let of = |declared: &Declared| -> Vec<String> {
        let wanted = |name: &&String| names.is_empty() || found.contains(&name.as_str());
        declared.targets.iter().filter(wanted).cloned().collect()
    };
    let all = packages.iter().map(|(package, declared)| (package.clone(), of(declared)));
    Ok(all.filter(|(_, targets)| !targets.is_empty()).collect())
}

/// The targets of these names. A name that no target has stands for all that begin with it, as `s3` for `s3-ceph`.
fn named<'a>(names: &[String], known: &[&'a str]) -> Result<Vec<&'a str>> {
    let mut targets = Vec::new();
    for name in names {
        let exactly = known.contains(&name.as_str());
        let begins = |target: &str| target.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('-'));
        let before = targets.len();
        targets.extend(known.iter().filter(|target| if exactly { *target == name } else { begins(target) }));
        if targets.len() == before {
            return Err(format!("there is no backend `{name}`; known are {}", known.join(", ")).into());
        }
    }
    Ok(targets)
}

/// The report in this file, if it is about all of these targets.
fn done(file: &Path, targets: &[&str]) -> Option<Report> {
    let report = Report::from_json(&fs::read_to_string(file).ok()?).ok()?;
    let about = |target: &&str| report.backends.iter().any(|backend| backend.name == *target);
    targets.iter().all(about).then_some(report)
}

fn declared(manifest: &Path) -> Result<BTreeMap<String, Declared>> {
    let metadata = metadata(manifest, false)?;
    let mut packages = BTreeMap::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        if let Some(declared) = package["metadata"].get("storage-conformance") {
            let declared = Declared::deserialize(declared)
                .map_err(|e| format!("{name}: [package.metadata.storage-conformance]: {e}"))?;
            packages.insert(name.to_owned(), declared);
        }
    }
    Ok(packages)
}

fn test(package: &str, declared: &Declared, targets: &[&str], options: &Options) -> Result<Report> {
    let dir = target_dir();
    fs::create_dir_all(&dir)?;
    let file = fs::canonicalize(dir)?.join(format!("conformance-{package}.json"));
    // What an earlier run wrote must not be taken for this one's.
    match fs::remove_file(&file) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
        _ => {}
    }
    eprintln!("{package}: {}", targets.join(", "));
    let mut command = cargo(["test", "--quiet", "--test", "conformance", "--package", package]);
    command.arg("--manifest-path").arg(&options.manifest);
    if let Some(dir) = &options.target_dir {
        command.arg("--target-dir").arg(dir);
    }
    if !declared.features.is_empty() {
        command.args(["--features", &declared.features.join(",")]);
    }
    command.env("STORAGE_CONFORMANCE_REPORT", &file);
    command.env("STORAGE_CONFORMANCE_TARGETS", targets.join(","));
    if let Some(seed) = options.seed {
        command.env("STORAGE_CONFORMANCE_SEED", seed.to_string());
    }
    if let Some(mib) = options.stream_mib {
        command.env("STORAGE_CONFORMANCE_STREAM_MIB", mib.to_string()).env("STORAGE_CONFORMANCE_SECONDS", "3600");
        command.args(["--", "stream/bounded_memory"]);
    }
    if let Some(drops) = options.drops {
        command.env("STORAGE_CONFORMANCE_DROPS", drops.to_string()).env("STORAGE_CONFORMANCE_SECONDS", "3600");
        command.args(["--", "dropped/"]);
    }
    services::provide(&mut command)?;
    let output = command.output()?;
    let Ok(json) = fs::read_to_string(&file) else {
        return Err(format!(
            "{package} wrote no report ({}):\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
        .into());
    };
    let report = Report::from_json(&json)?;
    if output.status.success() == report.has_failed() {
        return Err(format!("{package}: the report and the test's outcome ({}) differ", output.status).into());
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn a_name_stands_for_its_target_or_for_all_that_begin_with_it() {
        let known = ["sqlite", "sqlite-versions", "s3-ceph", "s3-moto-versions", "s30-other"];
        let of = |name: &str| named(&[name.to_owned()], &known).map_err(|e| e.to_string());
        assert_eq!(of("sqlite"), Ok(vec!["sqlite"]));
        assert_eq!(of("s3"), Ok(vec!["s3-ceph", "s3-moto-versions"]));
        assert_eq!(of("s"), Err(format!("there is no backend `s`; known are {}", known.join(", "))));
    }
}
