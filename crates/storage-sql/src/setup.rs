//! What a new connection is looked at for: the files that it leads to, or the settings of its session.

use storage_core::{Error, ErrorKind, Result};

use crate::{files::Files, pool::Connection, value::Row};

/// What the connections lead to.
#[cfg_attr(not(all(feature = "sqlite", feature = "postgres")), allow(dead_code, reason = "each has its databases"))]
pub(crate) enum Kind {
    File(Files),
    Server(Setup),
}

impl Kind {
    pub(crate) fn files(&self) -> Option<&Files> {
        match self {
            Self::File(files) => Some(files),
            Self::Server(_) => None,
        }
    }
}

/// What a new connection to a server begins with.
pub(crate) struct Setup {
    /// Sets all that this crate relies on and that any user may set.
    pub(crate) statements: String,
    /// Asks for what only the server's administrator sets; yields one row.
    pub(crate) question: String,
    /// Refuses a connection that would break a promise.
    pub(crate) check: Check,
}

type Check = Box<dyn Fn(&mut Row) -> Result<()> + Send + Sync>;

impl Setup {
    pub(crate) async fn run(&self, connection: &mut dyn Connection) -> Result<()> {
        connection.run(self.statements.clone()).await?;
        let row = connection.fetch(self.question.clone(), vec![]).await?.pop();
        (self.check)(&mut row.ok_or_else(|| Error::new(ErrorKind::Other, "the server does not tell its settings"))?)
    }
}
