//! Processes, as `/proc` shows them.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// A process. Its number is used again after its end, its number and the time of its start are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pid: i32,
    /// In ticks since the machine started.
    started: u64,
}

/// A line of `/proc/PID/stat`.
#[derive(Debug, PartialEq)]
struct Stat {
    state: char,
    parent: i32,
    terminal: i32,
    started: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(line: &str) -> Option<Self> {
        // The second field is a name in brackets, in which anything can be.
        let (_, rest) = line.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            terminal: fields.get(4)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }

    /// Whether it has ended, and nobody asked yet how.
    fn ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

impl Process {
    /// The process that has this number now.
    pub(crate) fn with_pid(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        let stat = Stat::read(pid).filter(|stat| !stat.ended())?;
        Some(Self { pid, started: stat.started })
    }

    fn stat(self) -> Option<Stat> {
        Stat::read(self.pid).filter(|stat| stat.started == self.started && !stat.ended())
    }

    pub(crate) fn lives(self) -> bool {
        self.stat().is_some()
    }

    pub(crate) fn is_paused(self) -> bool {
        self.stat().is_some_and(|stat| stat.state == 'T')
    }

    /// The process, its children, and theirs; the process first.
    pub(crate) fn family(self) -> Vec<Self> {
        let others: Vec<_> = all().collect();
        let mut family: Vec<Self> = Some(self).filter(|process| process.lives()).into_iter().collect();
        let mut next = 0;
        while let Some(parent) = family.get(next).map(|process| process.pid) {
            let children = others.iter().filter(|(_, stat)| stat.parent == parent);
            family.extend(children.map(|(pid, stat)| Self { pid: *pid, started: stat.started }));
            next += 1;
        }
        family
    }

    /// Those without a terminal that work in this directory: what is left of a server whose first process is gone.
    pub(crate) fn left_in(dir: &Path) -> Vec<Self> {
        let works_here = |pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir);
        let left = all().filter(|(pid, stat)| stat.terminal == 0 && works_here(*pid));
        left.map(|(pid, stat)| Self { pid, started: stat.started }).collect()
    }

    /// Sends a signal; to a process that has ended, none.
    pub(crate) fn signal(self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.lives()) {
            // It may end in this moment, and then there is nothing to do.
            let _ = kill_process(pid, signal);
        }
    }
}

/// All that live.
fn all() -> impl Iterator<Item = (i32, Stat)> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, Stat::read(pid)?))).filter(|(_, stat)| !stat.ended())
}

/// Sends a signal to all of them.
pub(crate) fn signal_all(processes: &[Process], signal: Signal) {
    for process in processes {
        process.signal(signal);
    }
}

/// Whether all of them end in this time.
pub(crate) fn ended(processes: &[Process], within: Duration) -> bool {
    let started = Instant::now();
    while processes.iter().any(|process| process.lives()) {
        if started.elapsed() > within {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        process::{Command, Stdio},
    };

    use rustix::process::{WaitOptions, waitpid};

    use super::*;

    #[test]
    fn a_line_is_read_whatever_the_name() {
        let line = "7 (a) b) S 3 7 7 34816 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 2 3";
        assert_eq!(Stat::parse(line), Some(Stat { state: 'S', parent: 3, terminal: 34816, started: 4711 }));
        assert_eq!(Stat::parse("7 (a"), None);
    }

    #[test]
    fn a_number_used_again_is_another_process() {
        let own = Process::with_pid(std::process::id()).unwrap();
        assert!(own.lives());
        let former = Process { started: own.started - 1, ..own };
        assert!(!former.lives());
        assert_eq!(former.family(), []);
        // This would end the test.
        former.signal(Signal::KILL);
    }

    #[test]
    fn what_is_left_is_found_by_its_directory() {
        let dir = std::env::temp_dir().join(format!("xtask-left-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let mut child = Command::new("setsid")
            .args(["bash", "-c", "echo; read"])
            .current_dir(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let left = Process::left_in(&dir);
        assert_eq!(left, [Process::with_pid(child.id()).unwrap()]);
        signal_all(&left, Signal::KILL);
        child.wait().unwrap();
        assert_eq!(Process::left_in(&dir), []);
        fs::remove_dir(&dir).unwrap();
    }

    #[test]
    fn a_family_is_paused_and_ended() {
        let mut child =
            Command::new("bash").args(["-c", "sleep 60 & echo; wait"]).stdout(Stdio::piped()).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let bash = Process::with_pid(child.id()).unwrap();
        let family = bash.family();
        assert_eq!((family.len(), family[0]), (2, bash));
        bash.signal(Signal::STOP);
        waitpid(Pid::from_raw(bash.pid), WaitOptions::UNTRACED).unwrap();
        assert!(bash.is_paused());
        signal_all(&family, Signal::KILL);
        assert!(ended(&family, Duration::from_secs(10)));
        assert!(!bash.lives(), "an ended process is not alive, although nobody has asked how it ended");
        child.wait().unwrap();
    }
}
