//! What a session asks of a database and of one connection to it, the same for every driver.

use std::fmt;

use storage_core::{Result, async_trait};

use crate::{
    dialect::Dialect,
    value::{Row, Value},
};

/// A database that can be reached.
#[async_trait]
pub(crate) trait Database: fmt::Debug + Send + Sync + 'static {
    fn dialect(&self) -> &'static dyn Dialect;

    /// A connection of the pool; it goes back when dropped.
    async fn acquire(&self) -> Result<Box<dyn Connection>>;

    /// Keeps in view the files of the database, if it has any.
    async fn watch(&self) -> Result<()>;

    /// The same with the log, which there must be by now.
    async fn watch_log(&self) -> Result<()>;

    /// Looks whether all the files are those that were opened.
    fn check(&self) -> Result<()>;

    /// Whether the log of a file was so long at the last check that it is to be cut now; `anew` if somebody who read has just ended.
    fn is_long(&self, anew: bool) -> bool;

    fn is_closed(&self) -> bool;

    /// Closes the connections that are in the pool, and every other as soon as it comes back.
    async fn close(&self);
}

/// One connection. Dropped inside a transaction, or while a statement runs, it is closed, which rolls the transaction back.
#[async_trait]
pub(crate) trait Connection: Send {
    /// Runs a statement with `?` for each argument, and returns how many rows it changed.
    async fn execute(&mut self, sql: String, arguments: Vec<Value>) -> Result<u64>;

    /// Runs a statement with `?` for each argument, and returns the rows it yields.
    async fn fetch(&mut self, sql: String, arguments: Vec<Value>) -> Result<Vec<Row>>;

    /// Runs statements without arguments.
    async fn run(&mut self, sql: String) -> Result<()>;

    /// Begins a transaction with these statements.
    async fn begin(&mut self, sql: String) -> Result<()>;

    async fn commit(&mut self) -> Result<()>;

    async fn rollback(&mut self) -> Result<()>;
}
