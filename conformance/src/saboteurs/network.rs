//! A backend behind a network: every call goes to a server and back before the sound backend answers it.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, LazyLock},
    thread,
    time::Duration,
};

use storage_core::{BackendInfo, Error, ErrorKind, Object, Result, StorageBackend, async_trait};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Mutex,
    time::timeout,
};

use super::table;
use crate::Namespace;

table! {
    Memory, connect;
    is_behind_a_network = Flaw::None => [];
    never_connects_again = Flaw::OneConnection => ["errors/unreachable_times_out", "faults/server_restart", "network/broken_reads", "network/broken_uploads", "network/busy_server", "network/lost_answers"];
    a_lost_server_is_other = Flaw::Other => ["errors/unreachable_times_out", "faults/server_restart", "network/broken_reads", "network/broken_uploads", "network/lost_answers"];
    waits_for_ever = Flaw::NoTimeout => ["errors/unreachable_times_out"];
    a_lost_answer_is_a_refusal = Flaw::Late => ["network/broken_uploads", "network/busy_server", "network/lost_answers"];
    hands_out_what_came = Flaw::Part => ["network/broken_reads"];
    a_busy_server_is_other = Flaw::BusyIsOther => ["network/busy_server"];
    forgets_how_long_to_wait = Flaw::NoWait => ["network/busy_server"];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    OneConnection,
    Other,
    NoTimeout,
    /// Asks the server when the work is done, and says that it is not if no answer comes.
    Late,
    /// Takes half a value for the whole when no answer comes.
    Part,
    BusyIsOther,
    NoWait,
}

/// A server that says back what it hears.
static SERVER: LazyLock<io::Result<SocketAddr>> = LazyLock::new(|| {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || io::copy(&mut stream.try_clone()?, &mut stream));
        }
    });
    Ok(address)
});

fn connect(inner: Arc<dyn StorageBackend>, namespace: Namespace, flaw: Flaw) -> super::Opening {
    Box::pin(async move {
        let server = SERVER.as_ref().map_err(|e| Error::new(ErrorKind::Other, e.to_string()))?;
        let address = namespace.http_address(&server.to_string())?;
        let distant = Distant { inner, flaw, address, connection: Mutex::default() };
        distant.ask().await?;
        Ok(Arc::new(distant) as Arc<dyn StorageBackend>)
    })
}

#[derive(Debug)]
struct Distant {
    inner: Arc<dyn StorageBackend>,
    flaw: Flaw,
    address: String,
    connection: Mutex<Connection>,
}

#[derive(Debug, Default)]
struct Connection {
    stream: Option<TcpStream>,
    lost: bool,
}

impl Distant {
    /// Goes to the server and back.
    async fn ask(&self) -> Result<()> {
        let patience = Duration::from_secs(if self.flaw == Flaw::NoTimeout { 3600 } else { 1 });
        let mut connection = self.connection.lock().await;
        let asked = timeout(patience, connection.ask(&self.address, self.flaw)).await;
        let error = match asked {
            Ok(Ok(answer)) if answer == *REQUEST => return Ok(()),
            Ok(Ok(answer)) => self.busy(&answer),
            Ok(Err(e)) => self.lost(e),
            Err(_) => self.lost(io::ErrorKind::TimedOut.into()),
        };
        *connection = Connection { stream: None, lost: true };
        Err(error)
    }

    fn lost(&self, error: io::Error) -> Error {
        let kind = if self.flaw == Flaw::Other { ErrorKind::Other } else { ErrorKind::Unavailable };
        Error::new(kind, "the server does not answer; start it").with_source(error)
    }

    /// What the server says in place of what it was told. All that it ever asks for is a second.
    fn busy(&self, answer: &[u8]) -> Error {
        let kind = match answer {
            _ if self.flaw == Flaw::BusyIsOther => ErrorKind::Other,
            b"HTTP/1.1 429" => ErrorKind::RateLimited,
            _ => ErrorKind::Unavailable,
        };
        let error = Error::new(kind, "the server has no time; try again later");
        if self.flaw == Flaw::NoWait { error } else { error.with_retry_after(Duration::from_secs(1)) }
    }

    /// What comes of a call, with the way to the server and back.
    async fn through<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        if self.flaw == Flaw::Late {
            let done = call.await;
            self.ask().await?;
            return done;
        }
        self.ask().await?;
        call.await
    }

    /// The same for a value.
    async fn read(&self, call: impl Future<Output = Result<Option<Object>>>) -> Result<Option<Object>> {
        let asked = self.ask().await;
        let object = call.await?;
        match (asked, object) {
            (Err(e), Some(object)) if self.flaw == Flaw::Part && e.retry_after().is_none() => {
                let bytes = object.body.bytes(u64::MAX).await?;
                let (half, mut entry) = (bytes.slice(..bytes.len() / 2), object.entry);
                entry.size = half.len() as u64;
                Ok(Some(Object::new(entry, half)))
            }
            (asked, object) => asked.map(|()| object),
        }
    }
}

/// As long as the beginning of an answer that a busy server gives, so that it can be read in place of it.
const REQUEST: &[u8; 12] = b"GET / \r\n\r\n  ";

impl Connection {
    async fn ask(&mut self, address: &str, flaw: Flaw) -> io::Result<[u8; 12]> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None if self.lost && flaw == Flaw::OneConnection => return Err(io::ErrorKind::NotConnected.into()),
            None => TcpStream::connect(address).await?,
        };
        let mut answer = [0; REQUEST.len()];
        stream.write_all(REQUEST).await?;
        stream.read_exact(&mut answer).await?;
        // Dropped before the answer it would be out of step.
        self.stream = Some(stream);
        Ok(answer)
    }
}

macro_rules! distant {
    ($($name:ident [$($parameter:tt)*] [$($argument:tt)*] -> $result:ty;)*) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl StorageBackend for Distant {
            fn info(&self) -> &BackendInfo {
                self.inner.info()
            }
            $(async fn $name(&self, $($parameter)*) -> $result {
                distant!($name self self.inner.$name($($argument)*))
            })*
        }
    };
    (health $s:ident $call:expr) => { $call.await };
    // The store below is shared by several instances; each handle closes itself.
    (disconnect $s:ident $call:expr) => { Ok(()) };
    (get $s:ident $call:expr) => { $s.read($call).await };
    ($name:ident $s:ident $call:expr) => { $s.through($call).await };
}
storage_core::each_method!(distant);
