//! The process of the check `errors/secrets_redacted`, which provokes errors and looks at everything that is printed.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{TryStreamExt, stream};
use storage_core::{Body, Error, GetOptions, Metadata, PutOptions, Query};

use super::{Child, say};
use crate::{Outcome, assert::expect, proxy::Mode};

/// Everything is printed, and nothing may give a secret away.
pub(super) async fn provoke(child: Child) -> Outcome {
    let logged = Logged::default();
    let writer = logged.clone();
    let logging = tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::TRACE);
    logging.with_ansi(false).with_writer(move || writer.clone()).init();
    let secrets = child.target.secrets();
    let clean = |what: &str, text: &str| {
        let found = secrets.found_in(text);
        expect(found.is_none(), || format!("{what}: expected no secret, saw {}", found.unwrap_or_default()))
    };
    let told = |what: &str, error: Option<Error>| {
        let Some(error) = error else { return Ok(()) };
        let mut text = format!("{error}\n{error:?}\n{error:#?}");
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text += &format!("\n{cause}\n{cause:?}");
            source = cause.source();
        }
        clean(&format!("the error of {what}"), &text)
    };
    let s = child.open().await?;
    clean("Debug of the handle", &format!("{s:?} {s:#?} {:?} {:?}", s.backend(), s.info()))?;
    s.put_with("key", "value", PutOptions::new().metadata(Metadata::new().tag("t").field("f", 1))).await?;
    s.get("key").await?;
    told("a range beyond the end", s.get_with("key", GetOptions::new().range(100..)).await.err())?;
    told("a copy of nothing", s.copy("absent", "to").await.err())?;
    told("a short body", s.put("key", Body::with_len(5, stream::empty())).await.err())?;
    s.query(Query::new().equals("f", 1)).await?.try_collect::<Vec<_>>().await?;
    s.clear().await?;
    let network = |mode| child.namespace.network().map(|proxy| proxy.set(mode));
    // Most targets have none.
    let _ = network(Mode::Cut);
    told("a put without a network", s.put("key", "value").await.err())?;
    told("a get without a network", s.get("key").await.err())?;
    told("opening without a network", child.target.open(&child.namespace).await.err())?;
    let _ = network(Mode::Pass);
    // Where there is nothing to give up the handle alone is closed.
    told("disconnecting", s.disconnect().await.err())?;
    told("a get after disconnecting", s.get("key").await.err())?;
    drop(s);
    clean("the log", &logged.text())?;
    say("done");
    Ok(())
}

/// What was logged.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Logged {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl std::io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
