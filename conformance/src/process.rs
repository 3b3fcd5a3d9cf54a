//! Other processes of a check: the program runs itself, and the two talk in lines through pipes.

mod child;
mod provoke;

use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Child as Running, ChildStdin, Command, ExitCode, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::timeout,
};

use crate::{Failure, Outcome, Target, calls::Calls, target::Place};
pub(crate) use child::{Child, say};

/// Tells a process that it is one of the suite's, and what to do.
const ORDER: &str = "STORAGE_CONFORMANCE_CHILD";
/// How a process says why it gives up.
const FAILED: &str = "failed ";
/// How long a process may take for its next line until it counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether this program does what it is told when it runs itself.
static ANSWERS: AtomicBool = AtomicBool::new(false);

/// What a process is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    target: String,
    task: String,
    place: Place,
    argument: u64,
    seed: u64,
}

/// Lets this program run itself for checks of several processes. Call it first in `main`, with the targets of all runs, and
/// end with the code if there is one: then this process was one of those.
///
/// [`main!`](crate::main) does it. A program that only calls [`run`](crate::run) reports those checks as not run.
#[must_use]
pub fn answer(targets: &[Target]) -> Option<ExitCode> {
    ANSWERS.store(true, Ordering::Relaxed);
    let order = env::var(ORDER).ok()?;
    let done = serde_json::from_str(&order).map_err(|e| format!("the order cannot be read: {e}"));
    Some(match done.and_then(|order: Order| child::obey(targets, order)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            say(&format!("{FAILED}{}", message.replace('\n', " ")));
            ExitCode::FAILURE
        }
    })
}

/// Another process, as the check sees it. It is killed when this is dropped.
pub(crate) struct Process {
    running: Running,
    input: ChildStdin,
    lines: UnboundedReceiver<String>,
    calls: Calls,
}

impl Process {
    /// Starts a process with this task on a store of the target.
    pub(crate) fn start(target: &Target, place: Place, task: &str, argument: u64, seed: u64) -> Outcome<Self> {
        Self::noted(target, place, task, argument, seed, Calls::new())
    }

    /// The same for a check, where what the process says counts as progress.
    pub(crate) fn noted(
        target: &Target,
        place: Place,
        task: &str,
        argument: u64,
        seed: u64,
        calls: Calls,
    ) -> Outcome<Self> {
        if !ANSWERS.load(Ordering::Relaxed) {
            return Err(Failure::NotRun("this program does not run itself: see storage_conformance::answer".into()));
        }
        let order = Order { target: target.name().to_owned(), task: task.to_owned(), place, argument, seed };
        let order = serde_json::to_string(&order).map_err(|e| e.to_string())?;
        let start = || {
            let mut command = Command::new(env::current_exe()?);
            let mut running = command
                .env(ORDER, order)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::inherit())
                .spawn()?;
            let (input, output) = (running.stdin.take(), running.stdout.take());
            let (input, output) = input.zip(output).ok_or_else(|| std::io::Error::other("it has no pipes"))?;
            let (sender, lines) = unbounded_channel();
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(std::io::Result::ok) {
                    // Nobody listens any more once the check has failed.
                    let _ = sender.send(line);
                }
            });
            Ok(Self { running, input, lines, calls })
        };
        start().map_err(|e: std::io::Error| format!("another process cannot be started: {e}").into())
    }

    /// The next line it says.
    pub(crate) async fn hear(&mut self) -> Outcome<String> {
        match timeout(PATIENCE, self.lines.recv()).await {
            Ok(Some(line)) => match line.strip_prefix(FAILED) {
                Some(reason) => Err(format!("in another process: {reason}").into()),
                None => {
                    self.calls.came();
                    Ok(line)
                }
            },
            Ok(None) => Err("expected another process to go on, saw it end".into()),
            Err(_) => Err("hung: expected the next step of another process, saw none".into()),
        }
    }

    /// Waits until it says this.
    pub(crate) async fn expect(&mut self, expected: &str) -> Outcome {
        let line = self.hear().await?;
        crate::assert::expect_eq("what another process says", line.as_str(), expected)
    }

    /// Says a line to it.
    pub(crate) fn say(&mut self, line: &str) -> Outcome {
        writeln!(self.input, "{line}").map_err(|e| format!("another process does not listen: {e}").into())
    }

    /// Kills it, and returns what it had said before that was not heard yet.
    pub(crate) async fn kill(mut self) -> Outcome<Vec<String>> {
        let killed = self.running.kill().and_then(|()| self.running.wait());
        killed.map_err(|e| format!("another process cannot be killed: {e}"))?;
        let mut rest = Vec::new();
        while let Some(line) = self.lines.recv().await {
            rest.push(line);
        }
        Ok(rest)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.running.kill();
        let _ = self.running.wait();
    }
}
