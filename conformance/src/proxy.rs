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
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};

mod exchange;

use exchange::Exchange;

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
        let exchange = Exchange::new(&plan, client_out);
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
