//! What exports ask of a node: MFS, and CARs.

use bytes::Bytes;
use cid::Cid;
use futures_util::TryStreamExt;
use serde::Deserialize;
use storage_core::{Body, ByteStream, Result};

use crate::{
    add, error,
    node::{Node, arg, lines},
};

/// What MFS says of a path.
pub(crate) struct Stat {
    pub(crate) cid: Cid,
    pub(crate) is_directory: bool,
}

/// Calls for exports.
impl Node {
    pub(crate) async fn stat(&self, path: &str) -> Result<Option<Stat>> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(rename = "Hash")]
            hash: String,
            #[serde(rename = "Type")]
            kind: String,
        }
        match self.json::<Answer>("files/stat", &format!("arg={}", arg(path))).await {
            Ok(stat) => {
                let cid = Cid::try_from(stat.hash.as_str()).map_err(|_| error::unreadable())?;
                Ok(Some(Stat { cid, is_directory: stat.kind == "directory" }))
            }
            Err(e) if error::is_not_found(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub(crate) async fn make_directory(&self, path: &str) -> Result<()> {
        self.done("files/mkdir", &format!("arg={}&parents=true&cid-version=1&flush=false", arg(path))).await
    }

    pub(crate) async fn link(&self, cid: &Cid, path: &str) -> Result<()> {
        let query = format!("arg=/ipfs/{cid}&arg={}&parents=true&flush=false&offline=true", arg(path));
        self.done("files/cp", &query).await
    }

    pub(crate) async fn flush(&self, path: &str) -> Result<()> {
        self.json::<serde_json::Value>("files/flush", &format!("arg={}", arg(path))).await.map(drop)
    }

    pub(crate) async fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.done("files/mv", &format!("arg={}&arg={}&flush=true", arg(from), arg(to))).await
    }

    pub(crate) async fn write_stream(&self, path: &str, pieces: ByteStream) -> Result<()> {
        let query = format!(
            "arg={}&create=true&parents=true&truncate=true&raw-leaves=true&cid-version=1&flush=false",
            arg(path)
        );
        add::send(self.request("files/write", &query), pieces, self.timeout).await.map(drop)
    }

    /// Stores the blocks of a CAR with one root, and pins that.
    pub(crate) async fn import(&self, body: Body) -> Result<Cid> {
        #[derive(Deserialize)]
        struct Imported {
            #[serde(rename = "Root")]
            root: Option<Root>,
        }
        #[derive(Deserialize)]
        struct Root {
            #[serde(rename = "Cid")]
            cid: Link,
            #[serde(rename = "PinErrorMsg", default)]
            error: String,
        }
        #[derive(Deserialize)]
        struct Link {
            #[serde(rename = "/")]
            cid: String,
        }
        let request = self.request("dag/import", "pin-roots=true&silent=false&stats=false&allow-big-block=false");
        let answer = add::send(request, body.into_stream(), self.timeout).await?;
        let lines: Vec<Bytes> = lines(answer).try_collect().await?;
        let mut roots = lines.iter().filter_map(|line| serde_json::from_slice::<Imported>(line).ok()?.root);
        match (roots.next(), roots.next()) {
            (Some(root), None) if root.error.is_empty() => {
                Cid::try_from(root.cid.cid.as_str()).map_err(|_| error::unreadable())
            }
            (Some(root), None) => Err(error::from_message(&root.error)),
            _ => Err(crate::car::no_car()),
        }
    }
}
