//! A backend behind a network: every call goes to a server and back before the sound backend answers it.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, LazyLock},
    thread,
    time::Duration,
};

use storage_core::{
    BackendInfo, BatchOptions, Body, CopyOptions, DeleteOptions, Entry, EntryStream, Error, ErrorKind, GetOptions, Key,
    ListOptions, ListStream, Object, PutOptions, Query, RenameOptions, Result, StatOptions, StorageBackend,
    Transaction, async_trait,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Mutex,
    time::timeout,
};

use super::table;
use crate::{Namespace, methods::each_method};

table! {
    Memory, connect;
    is_behind_a_network = Flaw::None => [];
    never_connects_again = Flaw::OneConnection => ["errors/unreachable_times_out", "faults/server_restart"];
    a_lost_server_is_other = Flaw::Other => ["errors/unreachable_times_out", "faults/server_restart"];
    waits_for_ever = Flaw::NoTimeout => ["errors/unreachable_times_out"];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    OneConnection,
    Other,
    NoTimeout,
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
        let address = namespace.address(&server.to_string())?;
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
            Ok(Ok(())) => return Ok(()),
            Ok(Err(e)) => e,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        *connection = Connection { stream: None, lost: true };
        let kind = if self.flaw == Flaw::Other { ErrorKind::Other } else { ErrorKind::Unavailable };
        Err(Error::new(kind, "the server does not answer; start it").with_source(error))
    }
}

impl Connection {
    async fn ask(&mut self, address: &str, flaw: Flaw) -> io::Result<()> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None if self.lost && flaw == Flaw::OneConnection => return Err(io::ErrorKind::NotConnected.into()),
            None => TcpStream::connect(address).await?,
        };
        let mut answer = [0; 4];
        stream.write_all(b"ping").await?;
        stream.read_exact(&mut answer).await?;
        // Dropped before the answer it would be out of step.
        self.stream = Some(stream);
        Ok(())
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
    (is_connected $s:ident $call:expr) => { $call.await };
    // The store below is shared by several instances; each handle closes itself.
    (disconnect $s:ident $call:expr) => { Err(Error::unsupported("disconnecting")) };
    ($name:ident $s:ident $call:expr) => {
        {
            $s.ask().await?;
            $call.await
        }
    };
}
each_method!(distant);
