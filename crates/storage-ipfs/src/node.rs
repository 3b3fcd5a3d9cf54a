//! The RPC API of a Kubo node: <https://docs.ipfs.tech/reference/kubo/rpc/>. What it was seen to do, beside what it says, stands in the
//! tests.

use std::{fmt, time::Duration};

use bytes::Bytes;
use cid::Cid;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use storage_core::{Error, ErrorKind, Result};

use crate::{
    Config, error,
    http::{self, Answer},
    plain::Plain,
    unixfs::{self, MAX_BLOCK},
};

/// The oldest version with what is used here.
const OLDEST: (u32, u32) = (0, 38);

/// A node, and how to speak to it.
pub(crate) struct Node {
    client: reqwest::Client,
    address: String,
    user: Option<(String, storage_config::Secret)>,
    token: Option<storage_config::Secret>,
    pub(crate) timeout: Duration,
    /// The same node, for the calls that need no more than that client can.
    plain: Option<Plain>,
}

/// A pin, and what it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pin {
    pub(crate) cid: Cid,
    pub(crate) name: String,
}

/// A line of `pin/ls` with `stream`.
#[derive(Deserialize)]
struct PinLine {
    #[serde(rename = "Cid", default)]
    cid: String,
    #[serde(rename = "Name", default)]
    name: String,
}

#[derive(Deserialize)]
struct Version {
    #[serde(rename = "Version")]
    version: String,
}

#[derive(Deserialize)]
struct Listing {
    #[serde(rename = "Entries")]
    entries: Option<Vec<Listed>>,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "Name")]
    name: String,
}

impl Node {
    pub(crate) fn new(config: &Config) -> Result<Self> {
        Ok(Self {
            client: http::client(config.timeout)?,
            address: config.address.clone(),
            user: config.user.clone(),
            token: config.token.clone(),
            timeout: config.timeout,
            plain: Plain::new(config),
        })
    }

    /// A call of a command; `query` must be percent-encoded by [`arg`] where it holds names.
    pub(crate) fn request(&self, command: &str, query: &str) -> reqwest::RequestBuilder {
        let url = format!("{}/api/v0/{command}?{query}", self.address);
        let request = self.client.post(url);
        match (&self.token, &self.user) {
            (Some(token), _) => request.bearer_auth(token.expose()),
            (None, Some((user, password))) => request.basic_auth(user, Some(password.expose())),
            (None, None) => request,
        }
    }

    /// The end of a query that bounds a call on the node, too. A time without a unit would be taken for none.
    fn bounded(&self) -> String {
        format!("timeout={}ms", self.timeout.as_millis())
    }

    async fn call(&self, command: &str, query: &str) -> Result<Answer> {
        // The node gives up first, so that its own words arrive.
        let limit = self.timeout + self.timeout / 8;
        Answer::to(self.request(command, &format!("{query}&{}", self.bounded())), limit).await
    }

    pub(crate) async fn json<T: DeserializeOwned>(&self, command: &str, query: &str) -> Result<T> {
        self.call(command, query).await?.json().await
    }

    /// A call whose answer is empty.
    pub(crate) async fn done(&self, command: &str, query: &str) -> Result<()> {
        self.call(command, query).await?.whole(MAX_BLOCK).await.map(drop)
    }

    /// The version, for a node that is new enough.
    pub(crate) async fn version(&self) -> Result<String> {
        let version = match &self.plain {
            // What that client cannot explain is asked for again.
            Some(plain) => match plain.version().await {
                Err(e) if e.kind() == ErrorKind::Config => self.json::<Version>("version", "").await?.version,
                version => version?,
            },
            None => self.json::<Version>("version", "").await?.version,
        };
        let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
        match (numbers.next().flatten(), numbers.next().flatten()) {
            (Some(major), Some(minor)) if (major, minor) >= OLDEST => Ok(version),
            (Some(_), Some(_)) => Err(error::wrong(format!(
                "the IPFS node is too old; Kubo {}.{} or newer is needed",
                OLDEST.0, OLDEST.1
            ))),
            _ => Err(error::no_node()),
        }
    }

    /// The node's configuration.
    pub(crate) async fn configuration(&self) -> Result<serde_json::Value> {
        match &self.plain {
            Some(plain) => plain.configuration().await,
            None => self.json("config/show", "").await,
        }
    }

    /// A block, whatever its bytes are. One that is not there is looked for elsewhere only if the node may.
    pub(crate) async fn block(&self, cid: &Cid, offline: bool) -> Result<Bytes> {
        if let Some(bytes) = unixfs::inlined(cid) {
            return Ok(bytes);
        }
        self.call("block/get", &format!("arg={cid}&offline={offline}")).await?.whole(MAX_BLOCK).await
    }

    /// A part of a file as the node puts it together, which is not verified.
    pub(crate) async fn cat(&self, cid: &Cid, offset: u64, length: u64) -> Result<Answer> {
        self.call("cat", &format!("arg={cid}&offset={offset}&length={length}&offline=true")).await
    }

    /// Whether content is pinned by itself, and under which name.
    pub(crate) async fn pin(&self, cid: &Cid) -> Result<Option<Pin>> {
        let query = format!("arg={cid}&type=recursive&names=true&stream=true");
        let pins = self.pin_lines(&query).await?;
        futures_util::pin_mut!(pins);
        match pins.next().await {
            Some(Ok(pin)) => Ok(Some(pin)),
            Some(Err(e)) if error::is_not_found(&e) => Ok(None),
            Some(Err(e)) => Err(e),
            None => Ok(None),
        }
    }

    /// All pins whose name begins so.
    pub(crate) async fn pins(&self, name: &str) -> Result<impl Stream<Item = Result<Pin>> + Send + use<>> {
        let query = format!("type=recursive&names=true&stream=true&name={}", arg(name));
        let name = name.to_owned();
        let pins = self.pin_lines(&query).await?;
        Ok(pins.try_filter(move |pin| std::future::ready(pin.name.starts_with(&name))))
    }

    async fn pin_lines(&self, query: &str) -> Result<impl Stream<Item = Result<Pin>> + Send + use<>> {
        // Not bounded on the node: a list of all pins takes as long as it takes, each piece within the time.
        let answer = Answer::to(self.request("pin/ls", query), self.timeout).await;
        let answer = match answer {
            Err(e) if error::is_not_found(&e) => return Ok(stream::empty().left_stream()),
            answer => answer?,
        };
        let pins = lines(answer).map(|line| {
            let line: PinLine = serde_json::from_slice(&line?).map_err(|_| error::unreadable())?;
            let cid = Cid::try_from(line.cid.as_str()).map_err(|_| error::unreadable())?;
            Ok(Pin { cid, name: line.name })
        });
        Ok(pins.right_stream())
    }

    /// Pins content with all that lies below it, which must be on the node, unless it may look for it elsewhere.
    pub(crate) async fn pin_add(&self, cid: &Cid, name: &str, offline: bool) -> Result<()> {
        #[derive(Deserialize)]
        struct Pinned {
            #[serde(rename = "Pins")]
            pins: Option<Vec<String>>,
        }
        let query = format!("arg={cid}&recursive=true&progress=false&name={}&offline={offline}", arg(name));
        let pinned: Pinned = self.json("pin/add", &query).await?;
        let of_it = |pin: &String| Cid::try_from(pin.as_str()).is_ok_and(|pinned| pinned.hash() == cid.hash());
        if pinned.pins.unwrap_or_default().iter().any(of_it) { Ok(()) } else { Err(error::unreadable()) }
    }

    /// Pins a directory, whose block this is, with the content that it holds.
    pub(crate) async fn pin_directory(&self, (cid, block): &(Cid, Bytes), name: &str, offline: bool) -> Result<()> {
        #[derive(Deserialize)]
        struct Put {
            #[serde(rename = "Key")]
            key: String,
        }
        let begun = tokio::time::Instant::now();
        let (mut pause, mut misses) = (Duration::from_millis(2), 0);
        loop {
            let query = format!("cid-codec=dag-pb&mhtype=sha2-256&pin=false&{}", self.bounded());
            let (kind, body) = crate::add::form("block", block);
            let request = self.request("block/put", &query).header(::http::header::CONTENT_TYPE, kind).body(body);
            let put: Put = Answer::to(request, self.timeout).await?.json().await?;
            if !Cid::try_from(put.key.as_str()).is_ok_and(|put| put == *cid) {
                return Err(error::unreadable());
            }
            match self.pin_add(cid, name, offline).await {
                // Either the content is not there, or the node has collected the directory before it was pinned.
                Err(e) if error::is_not_found(&e) => {
                    misses += u32::from(self.block(cid, true).await.is_ok());
                    if misses > 1 || begun.elapsed() > self.timeout {
                        return Err(e);
                    }
                }
                pinned => return pinned,
            }
            tokio::time::sleep(pause.mul_f64(fastrand::f64())).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }

    /// Unpins content; it need not be pinned. It does not take longer than this.
    pub(crate) async fn pin_rm(&self, cid: &Cid, limit: Duration) -> Result<()> {
        let removed = match &self.plain {
            Some(plain) => plain.pin_rm(cid, limit).await,
            None => {
                let request = self.request("pin/rm", &format!("arg={cid}&timeout={}ms", limit.as_millis()));
                match tokio::time::timeout(limit, async { Answer::to(request, limit).await?.whole(MAX_BLOCK).await })
                    .await
                {
                    Ok(answer) => answer.map(drop),
                    Err(_) => Err(error::timed_out()),
                }
            }
        };
        match removed {
            Err(e) if error::is_not_found(&e) => Ok(()),
            removed => removed,
        }
    }

    /// Collects the blocks on the node that nothing pins.
    pub(crate) async fn collect(&self) -> Result<()> {
        let answer =
            Answer::to(self.request("repo/gc", "quiet=true&stream-errors=true"), Duration::from_secs(600)).await?;
        let removed = lines(answer);
        futures_util::pin_mut!(removed);
        while let Some(line) = removed.next().await.transpose()? {
            #[derive(Deserialize)]
            struct Removed {
                #[serde(rename = "Error", default)]
                error: String,
            }
            let line: Removed = serde_json::from_slice(&line).map_err(|_| error::unreadable())?;
            if !line.error.is_empty() {
                return Err(error::from_message(&line.error));
            }
        }
        Ok(())
    }

    /// The names in a directory of MFS; none if there is no such directory.
    pub(crate) async fn names(&self, path: &str) -> Result<Vec<String>> {
        match self.json::<Listing>("files/ls", &format!("arg={}", arg(path))).await {
            Ok(listing) => Ok(listing.entries.unwrap_or_default().into_iter().map(|listed| listed.name).collect()),
            Err(e) if error::is_not_found(&e) => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    /// Removes a file or directory of MFS; it need not be there.
    pub(crate) async fn remove(&self, path: &str) -> Result<()> {
        match self.done("files/rm", &format!("arg={}&recursive=true&force=true", arg(path))).await {
            Err(e) if error::is_not_found(&e) => Ok(()),
            removed => removed,
        }
    }

    /// Writes a small file of MFS, and the directories above it.
    pub(crate) async fn write(&self, path: &str, content: &str) -> Result<()> {
        let query = format!("arg={}&create=true&parents=true&truncate=true&flush=true&{}", arg(path), self.bounded());
        let (kind, body) = crate::add::form("value", content.as_bytes());
        let request = self.request("files/write", &query).header(::http::header::CONTENT_TYPE, kind).body(body);
        Answer::to(request, self.timeout).await?.whole(MAX_BLOCK).await.map(drop)
    }
}

/// The lines of an answer. One that ends within a line has broken off.
pub(crate) fn lines(answer: Answer) -> impl Stream<Item = Result<Bytes>> + Send {
    stream::try_unfold((answer, Vec::new()), |(mut answer, mut rest): (Answer, Vec<u8>)| async move {
        loop {
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let later = rest.split_off(end + 1);
                rest.truncate(end);
                return Ok(Some((Bytes::from(rest), (answer, later))));
            }
            match answer.piece().await? {
                Some(piece) => rest.extend_from_slice(&piece),
                None if rest.is_empty() => return Ok(None),
                None => return Err(error::cut_short()),
            }
        }
    })
    .try_filter(|line| std::future::ready(!line.is_empty()))
}

/// A name as a part of a query.
pub(crate) fn arg(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").finish_non_exhaustive()
    }
}

/// What an error is that the node has refused a name with.
pub(crate) fn about_content(e: Error) -> Error {
    match e.kind() {
        ErrorKind::Timeout => Error::new(
            ErrorKind::Unavailable,
            "no node delivered the content in time; check the content identifier, or try again later",
        )
        .with_source(e),
        _ if error::is_not_found(&e) => {
            Error::new(ErrorKind::NotFound, "the IPFS node does not have the content, and no other delivers it")
                .with_source(e)
        }
        _ => e,
    }
}
