//! What the numbers were measured on, without saying which machine that is.

use std::{fs, path::Path, process::Command};

use crate::Result;

/// The lock file of the workspace says which versions were built.
const LOCK: &str = include_str!("../../Cargo.lock");

#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) filesystem: String,
    pub(crate) system: String,
    pub(crate) date: String,
    /// Of the minute before.
    pub(crate) load: f64,
}

impl Machine {
    pub(crate) fn look(dir: &Path) -> Result<Self> {
        let load = fs::read_to_string("/proc/loadavg")?;
        Ok(Self {
            cores: std::thread::available_parallelism()?.get(),
            filesystem: filesystem(dir)?,
            system: output(Command::new("uname").arg("-sm"))?,
            date: output(Command::new("date").args(["-u", "+%F"]))?,
            load: load.split(' ').next().unwrap_or_default().parse()?,
        })
    }
}

/// The version of a dependency as it was built.
pub(crate) fn version(krate: &str) -> &'static str {
    let after = LOCK.split_once(&format!("name = \"{krate}\"\nversion = \"")).map(|(_, after)| after);
    after.and_then(|after| after.split('"').next()).unwrap_or("?")
}

fn filesystem(dir: &Path) -> Result<String> {
    // `stat` cannot tell ext2, ext3 and ext4 apart.
    let table = output(Command::new("df").arg("--output=fstype").arg(dir))?;
    Ok(table.lines().last().unwrap_or_default().to_owned())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("{} failed", command.get_program().display()).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
