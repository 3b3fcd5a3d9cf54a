//! What goes through one connection of the proxy.

use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::tcp::{ReadHalf, WriteHalf},
    sync::watch,
    time::sleep,
};

use super::{End, Fault, Mode, Plan, lock};

/// Both directions of a connection, which tell each other where a request begins.
pub(super) struct Exchange<'a> {
    plan: &'a Plan,
    current: Mutex<Current>,
    client: tokio::sync::Mutex<WriteHalf<'a>>,
}

/// The request under way.
#[derive(Default)]
struct Current {
    /// Whether the server has not said anything since the client has.
    asking: bool,
    answered: u64,
    fault: Option<Fault>,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(plan: &'a Plan, client: WriteHalf<'a>) -> Self {
        Self { plan, current: Mutex::default(), client: client.into() }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        lock(&self.current)
    }

    /// Moves bytes from the client until it ends, whenever they may go through.
    pub(super) async fn up(
        &self,
        mut client: ReadHalf<'_>,
        mut server: WriteHalf<'_>,
        mut mode: watch::Receiver<Mode>,
    ) -> Result<(), End> {
        let (mut buffer, mut watcher) = (vec![0; 64 << 10], (self.plan.watcher)());
        while let Ok(read) = client.read(&mut buffer).await {
            watcher(&mut buffer[..read]);
            let open = mode.wait_for(|mode| *mode != Mode::Hang).await.is_ok();
            if read == 0 || !open {
                break;
            }
            let fault = self.begun();
            match fault {
                Some(Fault::Silence) => continue,
                Some(Fault::Answer(answer)) => {
                    drain(&mut client, &buffer[..read]).await;
                    let mut client = self.client.lock().await;
                    // The client may be gone.
                    let _ = client.write_all(answer.as_bytes()).await;
                    return Err(End::Close);
                }
                _ => {}
            }
            if server.write_all(&buffer[..read]).await.is_err() {
                break;
            }
        }
        // The other side may have closed it.
        let _ = server.shutdown().await;
        Ok(())
    }

    /// The fault of the request that these bytes from the client belong to.
    fn begun(&self) -> Option<Fault> {
        let mut current = self.current();
        if !current.asking {
            *current = Current { asking: true, answered: 0, fault: self.plan.request() };
        }
        current.fault.clone()
    }

    /// Moves bytes from the server until it ends, whenever and as far as they may go through.
    pub(super) async fn down(&self, mut server: ReadHalf<'_>, mut mode: watch::Receiver<Mode>) -> Result<(), End> {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read) = server.read(&mut buffer).await {
            let open = mode.wait_for(|mode| *mode != Mode::Hang).await.is_ok();
            if read == 0 || !open {
                break;
            }
            let (fault, before) = {
                let mut current = self.current();
                current.asking = false;
                current.answered += read as u64;
                (current.fault.clone(), current.answered - read as u64)
            };
            let (bytes, end) = match fault {
                Some(Fault::Reset(at)) if before + read as u64 > at => (at.saturating_sub(before), Some(End::Reset)),
                Some(Fault::Truncate(at)) if before + read as u64 > at => (at.saturating_sub(before), Some(End::Close)),
                _ => (read as u64, None),
            };
            let at_once = self.plan.through(bytes as usize);
            let mut client = self.client.lock().await;
            let (piece, wait) = match fault {
                Some(Fault::Trickle(piece, wait)) => (piece.max(1), wait),
                _ => (buffer.len(), Duration::ZERO),
            };
            let (now, held) = buffer[..bytes as usize].split_at(at_once);
            if !held.is_empty() {
                let mut gate = self.plan.held.subscribe();
                let open = client.write_all(now).await.is_ok() && gate.wait_for(Option::is_none).await.is_ok();
                if !open {
                    return Ok(());
                }
            }
            let rest = if held.is_empty() { now } else { held };
            for piece in rest.chunks(piece) {
                if !wait.is_zero() {
                    sleep(wait).await;
                }
                if client.write_all(piece).await.is_err() {
                    return Ok(());
                }
            }
            if let Some(end) = end {
                // What was written must arrive before the reset.
                let _ = client.flush().await;
                return Err(end);
            }
        }
        // The other side may have closed it.
        let _ = self.client.lock().await.shutdown().await;
        Ok(())
    }
}

/// Reads the rest of a request: a connection that is closed with bytes unread is reset, and the answer may be lost.
async fn drain(client: &mut ReadHalf<'_>, begun: &[u8]) {
    let mut request = begun.to_vec();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
            let end = request.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
            let mut left = (end + length.unwrap_or(0)).saturating_sub(request.len());
            while left > 0 {
                match client.read(&mut buffer).await {
                    Ok(read) if read > 0 => left = left.saturating_sub(read),
                    _ => return,
                }
            }
            return;
        }
        match client.read(&mut buffer).await {
            Ok(read) if read > 0 => request.extend_from_slice(&buffer[..read]),
            _ => return,
        }
    }
}
