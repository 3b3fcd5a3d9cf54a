//! A contestant in a process of its own, because its libraries cannot be linked beside ours.

use std::{path::Path, process::Stdio, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::Mutex,
};

use crate::{Result, measure::Contestant, subject::Operation};

/// The other process, which takes a line for each sample and answers with one.
pub(crate) struct Elsewhere {
    lists: bool,
    talk: Mutex<(ChildStdin, Lines<BufReader<ChildStdout>>)>,
    _child: Child,
}

impl Elsewhere {
    /// Starts it on a database with an empty table, and lets it write what is read later.
    pub(crate) async fn start(program: &Path, service: &str, address: &str, table: &str) -> Result<Self> {
        let mut child = Command::new(program)
            .args([service, address, table])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (stdin, stdout) = (child.stdin.take().ok_or("no input")?, child.stdout.take().ok_or("no output")?);
        let mut lines = BufReader::new(stdout).lines();
        let lists = match lines.next_line().await?.as_deref() {
            Some("ready, lists") => true,
            Some("ready") => false,
            other => return Err(format!("the other process is not ready, but says {other:?}").into()),
        };
        Ok(Self { lists, talk: Mutex::new((stdin, lines)), _child: child })
    }
}

impl Contestant for Elsewhere {
    fn can(&self, operation: Operation) -> bool {
        match operation {
            Operation::Get | Operation::Stat | Operation::Put => true,
            Operation::List => self.lists,
            _ => false,
        }
    }

    fn sample(&self, operation: Operation, tasks: usize, times: usize) -> BoxFuture<'_, Result<Duration>> {
        Box::pin(async move {
            let (input, output) = &mut *self.talk.lock().await;
            let place = Operation::ALL.iter().position(|known| *known == operation).ok_or("an unknown operation")?;
            input.write_all(format!("{place} {tasks} {times}\n").as_bytes()).await?;
            let answer = output.next_line().await?.ok_or("the other process has ended")?;
            Ok(Duration::from_nanos(answer.parse()?))
        })
    }
}
