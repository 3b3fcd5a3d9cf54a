//! A TCP proxy before a server, which can cut and hold up what goes through it, and spoil single answers of HTTP.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use storage_core::{Error, ErrorKind, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    time::sleep,
};

/// What happens to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything goes through.
    Pass,
    /// Those that are open are reset, and so is every new one, as by a server that is down.
    Cut,
    /// They stay open, and nothing goes through.
    Hang,
}

/// What happens to the answer to one request of HTTP/1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The proxy gives this answer, status line, headers and body, and the server never sees the request.
    Answer(String),
    /// The connection is reset after so many bytes of the answer; after none, the server has done its work all the same.
    Reset(u64),
    /// The connection is closed in good order after so many bytes of the answer.
    Truncate(u64),
    /// Nobody answers, and the server never sees the request.
    Silence,
    /// The answer comes in pieces of so many bytes, with a wait before each.
    Trickle(usize, Duration),
}

impl Fault {
    /// An answer with this status, as in `503 Slow Down`, headers that end in line breaks, and a body.
    #[must_use]
    pub fn answer(status: &str, headers: &str, body: &str) -> Self {
        let length = body.len();
        Self::Answer(format!(
            "HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        ))
    }
}

/// Is shown what one client sends, piece by piece as it comes, and may change it.
pub type Watcher = Box<dyn FnMut(&mut [u8]) + Send>;

/// A proxy on a thread of its own, because it must outlive the runtime of whoever opens a store. It ends with its owner.
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    plan: Arc<Plan>,
}

/// What is to happen to requests, and how many there were.
struct Plan {
    faults: Mutex<Vec<Planned>>,
    requests: AtomicU64,
    /// How often all connections that were open were reset.
    resets: watch::Sender<u64>,
    /// How many more bytes of answers go through, if not all.
    held: watch::Sender<Option<usize>>,
    /// The ports from which the server is reached.
    ports: Mutex<Vec<u16>>,
    watcher: Box<dyn Fn() -> Watcher + Send + Sync>,
}

struct Planned {
    skip: usize,
    times: usize,
    fault: Fault,
}

impl Proxy {
    /// A proxy before `host:port`.
    ///
    /// # Errors
    /// `Other` when there is no port or no thread for it.
    pub fn start(server: &str) -> Result<Self> {
        Self::watching(server, || Box::new(|_| {}))
    }

    /// A proxy before `host:port` that makes a watcher for each connection.
    ///
    /// # Errors
    /// As [`Proxy::start`].
    pub fn watching(server: &str, watcher: impl Fn() -> Watcher + Send + Sync + 'static) -> Result<Self> {
        let server = server.to_owned();
        let (mode, seen) = watch::channel(Mode::Pass);
        let plan = Arc::new(Plan {
            faults: Mutex::default(),
            requests: AtomicU64::new(0),
            resets: watch::Sender::new(0),
            held: watch::Sender::new(None),
            ports: Mutex::default(),
            watcher: Box::new(watcher),
        });
        let planned = plan.clone();
        let start = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            thread::spawn(move || runtime.block_on(serve(listener, server, seen, planned)));
            Ok::<_, io::Error>(address)
        };
        let address =
            start().map_err(|e| Error::new(ErrorKind::Other, "the suite's proxy cannot be started").with_source(e))?;
        Ok(Self { address, mode, plan })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Changes what happens to connections from now on.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Resets the connections that are open; new ones are served.
    pub fn reset(&self) {
        self.plan.resets.send_modify(|resets| *resets += 1);
    }

    /// Lets so many more bytes of answers through, and keeps back the others until [`release`](Self::release).
    pub fn hold(&self, behind: usize) {
        self.plan.held.send_replace(Some(behind));
    }

    /// Lets through what was kept back, and all that follows.
    pub fn release(&self) {
        self.plan.held.send_replace(None);
    }

    /// The ports by which the server knows the connections that are open.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        lock(&self.plan.ports).clone()
    }

    /// Spoils the answers to the next `times` requests behind the first `skip`. What was planned before is forgotten.
    pub fn spoil(&self, skip: usize, times: usize, fault: Fault) {
        *self.plan.faults() = vec![Planned { skip, times, fault }];
    }

    /// Forgets what was planned; says whether all of it has happened.
    pub fn forget(&self) -> bool {
        self.plan.faults().drain(..).all(|planned| planned.times == 0)
    }

    /// How many requests there have been, those included that the server never saw.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.plan.requests.load(Ordering::Acquire)
    }

    /// Drives a future until so many further requests have come, and drops it; or to its end.
    pub async fn drop_after(&self, requests: u64, future: impl Future) {
        let until = self.requests() + requests;
        let reached = async {
            while self.requests() < until {
                sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            _ = future => {}
            () = reached => {}
        }
    }
}

impl Plan {
    fn faults(&self) -> MutexGuard<'_, Vec<Planned>> {
        lock(&self.faults)
    }

    /// How many of so many bytes of an answer go through now.
    fn through(&self, bytes: usize) -> usize {
        let mut through = bytes;
        self.held.send_if_modified(|held| {
            through = held.map_or(bytes, |left| left.min(bytes));
            *held = held.map(|left| left - through);
            false
        });
        through
    }

    /// Takes note of a request; says what is to happen to it.
    fn request(&self) -> Option<Fault> {
        self.requests.fetch_add(1, Ordering::AcqRel);
        let mut faults = self.faults();
        let planned = faults.first_mut()?;
        if planned.skip > 0 {
            planned.skip -= 1;
            return None;
        }
        planned.times = planned.times.checked_sub(1)?;
        Some(planned.fault.clone())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("address", &self.address)
            .field("mode", &*self.mode.borrow())
            .finish_non_exhaustive()
    }
}

async fn serve(listener: std::net::TcpListener, server: String, mut mode: watch::Receiver<Mode>, plan: Arc<Plan>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // An error says that the owner is gone.
            changed = mode.changed() => if changed.is_ok() { continue } else { return },
        };
        if let Ok((client, _)) = accepted {
            tokio::spawn(connection(client, server.clone(), mode.clone(), plan.clone()));
        }
    }
}

/// How a connection ends before its time.
enum End {
    Reset,
    Close,
}

/// One connection, until either side ends it or it is cut.
async fn connection(mut client: TcpStream, server: String, mut mode: watch::Receiver<Mode>, plan: Arc<Plan>) {
    let gate = mode.clone();
    let mut resets = plan.resets.subscribe();
    let through = async {
        // While nothing goes through, a new connection is accepted and hears nothing.
        gate.clone().wait_for(|mode| *mode != Mode::Hang).await.map_err(|_| End::Reset)?;
        let mut upstream = TcpStream::connect(&server).await.map_err(|_| End::Reset)?;
        for stream in [&client, &upstream] {
            // One that is gone already ends with the first byte.
            let _ = stream.set_nodelay(true);
        }
        let _open = Open::new(&plan, &upstream);
        let ((client_in, client_out), (upstream_in, upstream_out)) = (client.split(), upstream.split());
        let exchange = Exchange { plan: &plan, current: Mutex::default(), client: client_out.into() };
        tokio::try_join!(exchange.up(client_in, upstream_out, gate.clone()), exchange.down(upstream_in, gate))
    };
    let reset = tokio::select! {
        ended = through => matches!(ended, Err(End::Reset)),
        cut = mode.wait_for(|mode| *mode == Mode::Cut) => cut.is_ok(),
        reset = resets.changed() => reset.is_ok(),
    };
    if reset {
        // Closed like this it is reset, not ended in good order.
        let _ = client.set_zero_linger();
    }
}

/// Notes the port of a connection to the server as long as that is open.
struct Open<'a> {
    plan: &'a Plan,
    port: Option<u16>,
}

impl<'a> Open<'a> {
    fn new(plan: &'a Plan, upstream: &TcpStream) -> Self {
        let port = upstream.local_addr().ok().map(|address| address.port());
        lock(&plan.ports).extend(port);
        Self { plan, port }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        lock(&self.plan.ports).retain(|port| Some(*port) != self.port);
    }
}

/// Both directions of a connection, which tell each other where a request begins.
struct Exchange<'a> {
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

impl Exchange<'_> {
    fn current(&self) -> MutexGuard<'_, Current> {
        lock(&self.current)
    }

    /// Moves bytes from the client until it ends, whenever they may go through.
    async fn up(
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
    async fn down(&self, mut server: ReadHalf<'_>, mut mode: watch::Receiver<Mode>) -> Result<(), End> {
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
