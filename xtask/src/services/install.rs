//! Brings the programs of servers onto the machine: Debian packages, and what a description's `install` fetches.

use std::{fs, path::Path, process::Command};

use rustix::process::getuid;

use super::{place::cache, server::Server};
use crate::Result;

/// Installs those that are not.
pub(crate) fn install(servers: &[Server]) -> Result<()> {
    let mut missing = Vec::new();
    for server in servers {
        match server.version()? {
            Some(version) => eprintln!("{}: {} {version} is installed", server.name(), server.description.title),
            None => missing.push(server),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let cache = cache()?;
    fs::create_dir_all(&cache)?;
    // Two installations at once would meet in the cache.
    let lock = fs::File::create(cache.join("lock"))?;
    lock.lock()?;
    packages(&missing)?;
    for server in missing {
        let name = server.name();
        eprintln!("{name}: installing");
        if !server.function("install", 0, Path::new("/"))?.status()?.success() {
            return Err(format!("{name}: the installation failed, see above").into());
        }
        let version = server.version()?.ok_or_else(|| {
            format!("{name}: after the installation, `version` in conformance/services/{name}.sh still fails")
        })?;
        eprintln!("{name}: {} {version} is installed", server.description.title);
    }
    Ok(())
}

/// Installs the Debian packages that these servers need, in one go.
fn packages(servers: &[&Server]) -> Result<()> {
    let wanted = servers.iter().flat_map(|server| server.description.head.apt.split_whitespace());
    let packages: Vec<&str> = wanted.filter(|package| !is_installed(package)).collect();
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if Command::new("apt-get").arg("--version").output().is_err() {
        return Err(format!(
            "there is no apt-get here; install what Debian calls {list}, so that its programs are on the PATH"
        )
        .into());
    }
    if !getuid().is_root() {
        return Err(format!("packages are missing; run as root: apt-get install --no-install-recommends {list}").into());
    }
    eprintln!("installing {list}");
    apt(&["update"])?;
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(packages);
    apt(&arguments)
}

fn is_installed(package: &str) -> bool {
    let query = Command::new("dpkg-query").args(["--show", "--showformat=${Status}", package]).output();
    query.is_ok_and(|output| output.stdout == b"install ok installed")
}

/// Runs apt-get; what it prints is shown if it fails.
fn apt(arguments: &[&str]) -> Result<()> {
    let mut apt = Command::new("apt-get");
    apt.args(["--quiet", "--quiet"]).args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    let output = apt.output()?;
    if output.status.success() {
        return Ok(());
    }
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(format!("`apt-get {}` failed ({}):\n{out}{err}", arguments.join(" "), output.status).into())
}
