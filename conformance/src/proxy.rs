//! A TCP proxy before a server, which can cut and hold up what goes through it.

use std::{fmt, io, net::SocketAddr, thread};

use storage_core::{Error, ErrorKind, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
};

/// What happens to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Everything goes through.
    Pass,
    /// Those that are open are reset, and so is every new one, as by a server that is down.
    Cut,
    /// They stay open, and nothing goes through.
    Hang,
}

/// A proxy on a thread of its own, because it must outlive the runtime of whoever opens a store. It ends with its owner.
pub(crate) struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
}

impl Proxy {
    /// A proxy before `host:port`.
    pub(crate) fn start(server: &str) -> Result<Self> {
        let server = server.to_owned();
        let (mode, seen) = watch::channel(Mode::Pass);
        let start = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            thread::spawn(move || runtime.block_on(serve(listener, server, seen)));
            Ok::<_, io::Error>(address)
        };
        let address =
            start().map_err(|e| Error::new(ErrorKind::Other, "the suite's proxy cannot be started").with_source(e))?;
        Ok(Self { address, mode })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Changes what happens to connections from now on.
    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("address", &self.address).field("mode", &*self.mode.borrow()).finish()
    }
}

async fn serve(listener: std::net::TcpListener, server: String, mut mode: watch::Receiver<Mode>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // An error says that the owner is gone.
            changed = mode.changed() => if changed.is_ok() { continue } else { return },
        };
        if let Ok((client, _)) = accepted {
            tokio::spawn(connection(client, server.clone(), mode.clone()));
        }
    }
}

/// One connection, until either side ends it or it is cut.
async fn connection(mut client: TcpStream, server: String, mut mode: watch::Receiver<Mode>) {
    let gate = mode.clone();
    let through = async {
        // While nothing goes through, a new connection is accepted and hears nothing.
        gate.clone().wait_for(|mode| *mode != Mode::Hang).await.ok()?;
        let mut upstream = TcpStream::connect(&server).await.ok()?;
        for stream in [&client, &upstream] {
            // One that is gone already ends with the first byte.
            let _ = stream.set_nodelay(true);
        }
        let ((client_in, client_out), (upstream_in, upstream_out)) = (client.split(), upstream.split());
        tokio::join!(pump(client_in, upstream_out, gate.clone()), pump(upstream_in, client_out, gate));
        Some(())
    };
    let cut = tokio::select! {
        ended = through => ended.is_none(),
        cut = mode.wait_for(|mode| *mode == Mode::Cut) => cut.is_ok(),
    };
    if cut {
        // Closed like this it is reset, not ended in good order.
        let _ = client.set_zero_linger();
    }
}

/// Moves bytes until one side ends, whenever they may go through.
async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut mode: watch::Receiver<Mode>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read) = from.read(&mut buffer).await {
        let open = mode.wait_for(|mode| *mode != Mode::Hang).await.is_ok();
        if read == 0 || !open || to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    // The other side may have closed it.
    let _ = to.shutdown().await;
}
