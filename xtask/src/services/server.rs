//! One server of this checkout: where it lies, how it is started and stopped.

use std::{
    env, fs,
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::{
    description::{Description, Stop},
    place::{self, Owner, is_free, make_empty, remove},
    process::{Process, ended, signal_all},
};
use crate::{Result, shell::root};

/// How long a server may take until it answers, and until it has ended.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one that runs already may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How much of the log is shown.
const TAIL: usize = 20;

/// A server, and the directory `target/services/NAME` with what is known about it.
pub(crate) struct Server {
    pub(crate) description: Description,
    dir: PathBuf,
}

/// What was started: `state.json`. It stays when the server is killed, so that the next one gets the same port.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Started {
    process: Process,
    port: u16,
}

/// What a server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    NotInstalled,
    Stopped,
    Paused,
    Silent,
    Running,
}

impl Server {
    /// The servers of this checkout.
    pub(crate) fn all() -> Result<Vec<Self>> {
        let all = Description::all(&root().join("conformance/services"))?;
        Ok(all.into_iter().map(|description| Self::new(description, &root().join("target/services"))).collect())
    }

    fn new(description: Description, dir: &Path) -> Self {
        let dir = dir.join(&description.name);
        Self { description, dir }
    }

    pub(crate) fn name(&self) -> &str {
        &self.description.name
    }

    /// The version that is installed, if it is.
    pub(crate) fn version(&self) -> Result<Option<String>> {
        let output = self.function("version", 0, Path::new("/"))?.stderr(Stdio::null()).output()?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(Some(version).filter(|version| output.status.success() && !version.is_empty()))
    }

    /// Where it can be reached, if it lives.
    pub(crate) fn address(&self) -> Option<String> {
        self.living().map(|started| self.description.address(started.port))
    }

    pub(crate) fn state(&self) -> Result<State> {
        Ok(match self.living() {
            Some(started) if started.process.is_paused() => State::Paused,
            Some(started) if self.is_ready(started.port)? => State::Running,
            Some(_) => State::Silent,
            None if self.version()?.is_some() => State::Stopped,
            None => State::NotInstalled,
        })
    }

    /// Runs it, unless it does, and returns when it answers.
    pub(crate) fn up(&self) -> Result<String> {
        let _lock = self.lock()?;
        if let Some(started) = self.living() {
            signal_all(&started.process.family(), Signal::CONT);
            if self.answers(started, ANSWER)? {
                return Ok(self.description.address(started.port));
            }
            eprintln!("{}: runs, but does not answer; it is started anew", self.name());
            self.end(started, self.signal())?;
        }
        let name = self.name();
        let version = self
            .version()?
            .ok_or_else(|| format!("{name} is not installed; run `cargo xtask services install {name}`"))?;
        self.sweep()?;
        let data = self.prepare(&version)?;
        let before = Instant::now();
        let port = self.port()?;
        let started = match self.start(port, &data) {
            // Another program can have been faster.
            Err(_) if !is_free(port, self.description.head.ports) => self.start(self.port()?, &data),
            result => result,
        }?;
        let seconds = before.elapsed().as_secs_f32();
        eprintln!("{name}: {} {version} answers after {seconds:.1} s", self.description.title);
        Ok(self.description.address(started.port))
    }

    /// Ends it in order, and forgets its port.
    pub(crate) fn down(&self) -> Result<bool> {
        if !self.dir.exists() {
            return Ok(false);
        }
        let _lock = self.lock()?;
        let living = self.living();
        if let Some(started) = living {
            self.end(started, self.signal())?;
        }
        self.sweep()?;
        remove(&self.record())?;
        Ok(living.is_some())
    }

    /// Ends it as a crash would; its port stays its own.
    pub(crate) fn kill(&self) -> Result<()> {
        let _lock = self.lock()?;
        self.end(self.must_live()?, Signal::KILL)?;
        // It may have started one more in its last moment.
        self.sweep()
    }

    /// Ends it in order, and runs it again at the same port.
    pub(crate) fn restart(&self) -> Result<String> {
        {
            let _lock = self.lock()?;
            self.end(self.must_live()?, self.signal())?;
        }
        self.up()
    }

    /// Makes it stand still: connections stay open, and nothing answers.
    pub(crate) fn pause(&self) -> Result<()> {
        let _lock = self.lock()?;
        let process = self.must_live()?.process;
        // Twice, because a process that is not paused yet can have started another.
        signal_all(&process.family(), Signal::STOP);
        signal_all(&process.family(), Signal::STOP);
        Ok(())
    }

    /// Ends a pause.
    pub(crate) fn resume(&self) -> Result<()> {
        let _lock = self.lock()?;
        signal_all(&self.must_live()?.process.family(), Signal::CONT);
        Ok(())
    }

    fn signal(&self) -> Signal {
        match self.description.head.signal {
            Stop::Term => Signal::TERM,
            Stop::Int => Signal::INT,
        }
    }

    /// One command at a time; a second one waits.
    fn lock(&self) -> Result<File> {
        fs::create_dir_all(&self.dir)?;
        let lock = File::create(self.dir.join("lock"))?;
        lock.lock()?;
        Ok(lock)
    }

    fn record(&self) -> PathBuf {
        self.dir.join("state.json")
    }

    /// What was started last, whether it lives or not.
    fn started(&self) -> Option<Started> {
        // A record that cannot be read is that of a server whose start was interrupted.
        serde_json::from_slice(&fs::read(self.record()).ok()?).ok()
    }

    fn living(&self) -> Option<Started> {
        self.started().filter(|started| started.process.lives())
    }

    fn must_live(&self) -> Result<Started> {
        let name = self.name();
        Ok(self.living().ok_or_else(|| format!("{name} does not run; run `cargo xtask services up {name}`"))?)
    }

    /// The directory of its data, filled if it is new.
    fn prepare(&self, version: &str) -> Result<PathBuf> {
        let data = self.data()?;
        let mark = self.dir.join("prepared");
        // Data of another version, or of an interrupted preparation, are of no use.
        let is_prepared = fs::read_to_string(&mark).is_ok_and(|by| by == version) && data.exists();
        if is_prepared {
            return Ok(data);
        }
        remove(&mark)?;
        make_empty(&data, self.user()?)?;
        let log = File::create(self.log())?;
        let mut prepare = self.function("prepare", 0, &data)?;
        if !prepare.stdout(log.try_clone()?).stderr(log).status()?.success() {
            return Err(self.failed("its data directory cannot be prepared"));
        }
        fs::write(&mark, version)?;
        Ok(data)
    }

    fn data(&self) -> Result<PathBuf> {
        place::data(&self.dir, self.user()?)
    }

    /// The user and group that run it, if not those who ask.
    fn user(&self) -> Result<Option<Owner>> {
        self.description.head.user.as_deref().map_or(Ok(None), place::instead_of_root)
    }

    /// The port it had, the one of its description, or another that is free.
    fn port(&self) -> Result<u16> {
        let count = self.description.head.ports;
        let usual = self.description.head.port;
        let had = self.started().map(|started| started.port).filter(|port| *port != usual);
        for port in had.into_iter().chain([usual]) {
            if is_free(port, count) {
                return Ok(port);
            }
            eprintln!("{}: port {port} is taken by another program", self.name());
        }
        place::free_ports(count)
    }

    fn start(&self, port: u16, data: &Path) -> Result<Started> {
        let log = File::create(self.log())?;
        let mut server = self.function("start", port, data)?;
        server.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut child = server.spawn()?;
        let process = Process::with_pid(child.id());
        let Some(started) = process.map(|process| Started { process, port }) else {
            return Err(self.failed(&format!("it ended at once ({})", child.wait()?)));
        };
        // At once, so that the next command finds it when this one is interrupted.
        fs::write(self.record(), serde_json::to_vec(&started)?)?;
        if self.answers(started, PATIENCE)? {
            return Ok(started);
        }
        let what = match child.try_wait()? {
            Some(status) => format!("it ended ({status})"),
            None => format!("it does not answer within {} s", PATIENCE.as_secs()),
        };
        self.end(started, Signal::KILL)?;
        Err(self.failed(&what))
    }

    /// Whether it answers within this time. One that ends does not.
    fn answers(&self, started: Started, within: Duration) -> Result<bool> {
        let before = Instant::now();
        while started.process.lives() {
            if self.is_ready(started.port)? {
                return Ok(true);
            }
            if before.elapsed() > within {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(false)
    }

    fn is_ready(&self, port: u16) -> Result<bool> {
        let mut ready = self.function("ready", port, Path::new("/"))?;
        Ok(ready.stdout(Stdio::null()).stderr(Stdio::null()).status()?.success())
    }

    /// Sends the signal to the server, and kills what is left.
    fn end(&self, started: Started, signal: Signal) -> Result<()> {
        let family = started.process.family();
        started.process.signal(signal);
        // A paused process takes a signal only when it goes on.
        signal_all(&family, Signal::CONT);
        if signal == Signal::KILL || !ended(&family, PATIENCE) {
            signal_all(&family, Signal::KILL);
        }
        if ended(&family, PATIENCE) { Ok(()) } else { Err(format!("{} cannot be ended", self.name()).into()) }
    }

    /// Ends what is left of a server whose first process is gone, as after a crash.
    fn sweep(&self) -> Result<()> {
        let left = Process::left_in(&self.data()?);
        if left.is_empty() {
            return Ok(());
        }
        eprintln!("{}: {} processes of an earlier run are killed", self.name(), left.len());
        signal_all(&left, Signal::KILL);
        if ended(&left, PATIENCE) { Ok(()) } else { Err(format!("{} cannot be ended", self.name()).into()) }
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// What went wrong, the end of the log, and what to do.
    fn failed(&self, what: &str) -> Box<dyn std::error::Error> {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n  ");
        let (name, dir) = (self.name(), self.dir.display());
        format!(
            "{name}: {what}; the end of {dir}/log:\n  {tail}\n\
             mend what it says, or remove {dir} and run `cargo xtask services up {name}` again"
        )
        .into()
    }

    /// One of the functions in the description, as a command.
    pub(crate) fn function(&self, function: &str, port: u16, data: &Path) -> Result<Command> {
        // As text, for the user who runs it may not be able to read the file.
        let defined = format!("if declare -F {function} >/dev/null; then {function}; fi");
        let script = format!("{}\n{defined}\n", self.description.text);
        // A session of its own, so that it outlives the terminal. A function other than `start` may not hang.
        let wrapper: &[&str] = match function {
            "start" => &["setsid"],
            "ready" => &["timeout", "--kill-after=1", "5"],
            // Some are built from their sources.
            "install" => &["timeout", "1800"],
            _ => &["timeout", "600"],
        };
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]).args(["bash", "-euo", "pipefail", "-c", &script, self.name()]);
        command.current_dir(data).stdin(Stdio::null());
        if function != "install" {
            // What is set for other servers (PGHOST, PYTHONPATH, …) must not reach this one.
            let path = env::var_os("PATH").unwrap_or_default();
            command.env_clear().env("PATH", path).env("HOME", data).env("LC_ALL", "C.UTF-8");
            if let Some(user) = self.user()? {
                command.uid(user.uid).gid(user.gid);
            }
        }
        command.env("CACHE", place::cache()?).env("DATA", data).env("PORT", port.to_string());
        Ok(command)
    }
}
