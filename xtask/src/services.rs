//! Real servers on loopback, without Docker: see docs/services.md.
//!
//! What is known about a server stands in its description, `conformance/services/NAME.sh`. Here is what is the same for all.

mod description;
mod install;
mod place;
mod process;
mod server;

use std::{env, process::Command};

use lexopt::{Parser, ValueExt};

use self::server::{Server, State};
use crate::Result;

pub(crate) fn run(mut args: Parser) -> Result<()> {
    let verb = args.value().map_err(|_| "say what: install, up, down, status, env, restart, kill, pause or resume")?;
    let verb = verb.string()?;
    let mut names = Vec::new();
    while let Some(arg) = args.next()? {
        match arg {
            lexopt::Arg::Value(list) => {
                let list = list.string()?;
                names.extend(list.split(',').filter(|name| !name.is_empty()).map(str::to_owned));
            }
            other => return Err(other.unexpected().into()),
        }
    }
    match verb.as_str() {
        "install" => install::install(&needed_or(&names)?),
        "up" => up(&needed_or(&names)?),
        "down" => down(&all_or(&names)?),
        "status" => status(&all_or(&names)?),
        "env" => {
            for server in all_or(&names)? {
                if let Some(address) = server.address() {
                    println!("export {}={}", server.description.head.variable, quoted(&address));
                }
            }
            Ok(())
        }
        "restart" => {
            for server in named(&names)? {
                println!("{}={}", server.description.head.variable, server.restart()?);
            }
            Ok(())
        }
        "kill" => named(&names)?.iter().try_for_each(Server::kill),
        "pause" => named(&names)?.iter().try_for_each(Server::pause),
        "resume" => named(&names)?.iter().try_for_each(Server::resume),
        unknown => Err(format!("`services` has no command `{unknown}`; see `cargo xtask help`").into()),
    }
}

/// Starts what the workspace's backends need.
pub(crate) fn up_needed() -> Result<()> {
    up(&needed_or(&[])?)
}

/// Starts one server.
pub(crate) fn up_one(name: &str) -> Result<()> {
    up(&all_or(&[name.to_owned()])?)
}

/// Tells tests where the running servers are. What the caller has set stays.
pub(crate) fn provide(tests: &mut Command) -> Result<()> {
    for server in Server::all()? {
        let variable = &server.description.head.variable;
        if let Some(address) = server.address().filter(|_| !is_set(variable)) {
            tests.env(variable, address);
            // A test that must see the server go and come back runs this in a shell.
            let this = env::current_exe()?;
            tests
                .env(format!("{variable}_RESTART"), format!("'{}' services restart {}", this.display(), server.name()));
        }
    }
    Ok(())
}

/// Says which tests could not run for want of a server: those that need this variable, in case it concerns them.
pub(crate) fn report_missing(concerns: impl Fn(&str) -> bool) -> Result<()> {
    for server in needed_or(&[])? {
        let variable = &server.description.head.variable;
        if server.address().is_none() && !is_set(variable) && concerns(variable) {
            let name = server.name();
            eprintln!(
                "not run: what needs {name}, for {variable} is not set; `cargo xtask services up {name}` starts it"
            );
        }
    }
    Ok(())
}

fn is_set(variable: &str) -> bool {
    env::var_os(variable).is_some_and(|value| !value.is_empty())
}

fn up(servers: &[Server]) -> Result<()> {
    for server in servers {
        println!("{}={}", server.description.head.variable, server.up()?);
    }
    Ok(())
}

fn down(servers: &[Server]) -> Result<()> {
    for server in servers {
        if server.down()? {
            eprintln!("{}: stopped", server.name());
        }
    }
    Ok(())
}

fn status(servers: &[Server]) -> Result<()> {
    let mut rows = vec![["name", "label", "version", "state", "address"].map(str::to_owned)];
    for server in servers {
        let state = match server.state()? {
            State::NotInstalled => "not installed",
            State::Stopped => "stopped",
            State::Paused => "paused",
            State::Silent => "does not answer",
            State::Running => "running",
        };
        rows.push([
            server.name().to_owned(),
            server.description.head.label.name().to_owned(),
            server.version()?.unwrap_or_default(),
            state.to_owned(),
            server.address().unwrap_or_default(),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let widths: [usize; 5] = std::array::from_fn(width);
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        println!("{}", cells.join("  ").trim_end());
    }
    Ok(())
}

/// The named ones, or those that the workspace's backends need.
fn needed_or(names: &[String]) -> Result<Vec<Server>> {
    let mut servers = all_or(names)?;
    servers.retain(|server| !names.is_empty() || server.description.head.needed);
    Ok(servers)
}

/// The named ones, or all.
fn all_or(names: &[String]) -> Result<Vec<Server>> {
    let mut servers = Server::all()?;
    if let Some(unknown) = names.iter().find(|name| !servers.iter().any(|server| server.name() == **name)) {
        let known: Vec<&str> = servers.iter().map(Server::name).collect();
        return Err(format!("there is no server `{unknown}`; known are {}", known.join(", ")).into());
    }
    servers.retain(|server| names.is_empty() || names.iter().any(|name| server.name() == name));
    Ok(servers)
}

fn named(names: &[String]) -> Result<Vec<Server>> {
    if names.is_empty() {
        return Err("name the server".into());
    }
    all_or(names)
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
