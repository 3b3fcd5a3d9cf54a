//! One server of this checkout: where it lies, how it is started and stopped.

use std::{
    env, fs,
    fs::File,
    io,
    net::TcpListener,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Signal, getuid};
use serde::{Deserialize, Serialize};

use super::{
    description::{Description, Stop},
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
        let _lock = self.lock()?;
        let living = self.living();
        if let Some(started) = living {
            self.end(started, self.signal())?;
        }
        remove(&self.record())?;
        Ok(living.is_some())
    }

    /// Ends it as a crash would; its port stays its own.
    pub(crate) fn kill(&self) -> Result<()> {
        let _lock = self.lock()?;
        self.end(self.must_live()?, Signal::KILL)
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
        let user = self.user()?;
        let data = self.data(user)?;
        let mark = self.dir.join("prepared");
        // Data of another version, or of an interrupted preparation, are of no use.
        let is_prepared = fs::read_to_string(&mark).is_ok_and(|by| by == version) && data.exists();
        if is_prepared {
            return Ok(data);
        }
        remove(&mark)?;
        make_empty(&data, user)?;
        let log = File::create(self.log())?;
        let mut prepare = self.function("prepare", 0, &data)?;
        if !prepare.stdout(log.try_clone()?).stderr(log).status()?.success() {
            return Err(self.failed("its data directory cannot be prepared"));
        }
        fs::write(&mark, version)?;
        Ok(data)
    }

    /// Where its data lie: beside the record, or, when the user who runs it cannot get there, in /var/tmp.
    fn data(&self, user: Option<(u32, u32)>) -> Result<PathBuf> {
        let Some((uid, gid)) = user else {
            return Ok(self.dir.join("data"));
        };
        let reaches = Command::new("test").arg("-x").arg(&self.dir).uid(uid).gid(gid).status()?;
        if reaches.success() {
            return Ok(self.dir.join("data"));
        }
        let shared = Path::new("/var/tmp/storage-services");
        fs::create_dir_all(shared)?;
        if fs::metadata(shared)?.uid() != getuid().as_raw() {
            return Err(format!("{} belongs to another user; remove it", shared.display()).into());
        }
        fs::set_permissions(shared, fs::Permissions::from_mode(0o755))?;
        let checkout = root().to_string_lossy().trim_matches('/').replace('/', "-");
        Ok(shared.join(checkout).join(self.name()))
    }

    /// The user and group that run it, if not those who ask.
    fn user(&self) -> Result<Option<(u32, u32)>> {
        match &self.description.head.user {
            Some(user) if getuid().is_root() => Ok(Some((id("-u", user)?, id("-g", user)?))),
            _ => Ok(None),
        }
    }

    /// The port it had, the one of its description, or another that is free.
    fn port(&self) -> Result<u16> {
        let count = self.description.head.ports;
        let had = self.started().map(|started| started.port);
        let wanted = had.into_iter().chain([self.description.head.port]);
        for port in wanted {
            if is_free(port, count) {
                return Ok(port);
            }
            eprintln!("{}: port {port} is taken by another program", self.name());
        }
        for _ in 0..100 {
            let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
            if is_free(port, count) {
                return Ok(port);
            }
        }
        Err(format!("there are no {count} free ports in a row").into())
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

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// What went wrong, the end of the log, and what to do.
    fn failed(&self, what: &str) -> Box<dyn std::error::Error> {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
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
            _ => &["timeout", "600"],
        };
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]).args(["bash", "-euo", "pipefail", "-c", &script, self.name()]);
        command.current_dir(data).stdin(Stdio::null());
        if function != "install" {
            // What is set for other servers (PGHOST, PYTHONPATH, …) must not reach this one.
            let path = env::var_os("PATH").unwrap_or_default();
            command.env_clear().env("PATH", path).env("HOME", data).env("LC_ALL", "C.UTF-8");
            if let Some((uid, gid)) = self.user()? {
                command.uid(uid).gid(gid);
            }
        }
        command.env("CACHE", cache()?).env("DATA", data).env("PORT", port.to_string());
        Ok(command)
    }
}

/// Where programs are put that are no packages of the system.
pub(crate) fn cache() -> Result<PathBuf> {
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute()).or_else(home);
    let cache = cache.ok_or("neither XDG_CACHE_HOME nor HOME is set, so there is no place for programs")?;
    Ok(cache.join("storage-services"))
}

fn id(what: &str, user: &str) -> Result<u32> {
    let output = Command::new("id").args([what, user]).output()?;
    let id = String::from_utf8_lossy(&output.stdout);
    id.trim().parse().map_err(|_| format!("there is no user `{user}`, who would run it instead of root").into())
}

fn is_free(port: u16, count: u16) -> bool {
    (0..count).all(|n| port.checked_add(n).is_some_and(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()))
}

fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(format!("cannot remove {}: {e}", file.display()).into()),
        _ => Ok(()),
    }
}

/// An empty directory that only its owner sees.
fn make_empty(dir: &Path, owner: Option<(u32, u32)>) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    if let Some((uid, gid)) = owner {
        chown(dir, Some(uid), Some(gid))?;
    }
    Ok(())
}
