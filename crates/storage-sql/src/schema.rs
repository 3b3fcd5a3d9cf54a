//! The schema: looked at before anything is touched, then created or migrated under a lock, so that any number of processes may
//! connect at once.

mod tables;

use std::collections::BTreeMap;

use storage_core::{Error, ErrorKind, Result};

use crate::{
    Config,
    dialect::{Begin, Tables},
    open,
    pool::{Connection, Database},
    turn::Turn,
    value::Value,
};

/// The version of the schema that this version of the crate reads and writes.
const SCHEMA: i64 = tables::STEPS as i64;

/// The fields that are indexed, and the numbers that stand for them.
type Indexed = BTreeMap<String, i64>;

/// What is there.
enum Found {
    Nothing,
    /// An older version of ours. A schema that was not finished has the version 0.
    Old(i64),
    Current(Indexed),
}

/// Makes sure that the schema is there and that the fields named are indexed. Returns all that are.
pub(crate) async fn prepare(database: &dyn Database, tables: &Tables, config: &Config) -> Result<Indexed> {
    let mut connection = database.acquire().await?;
    let connection = &mut *connection;
    let found = inspect(connection, database, tables).await?;
    open::prepare(config, connection).await?;
    if let Found::Current(indexed) = found
        && config.indexes.iter().all(|name| indexed.contains_key(name))
    {
        return Ok(indexed);
    }
    let dialect = database.dialect();
    let schema_lock = dialect.schema_lock(tables);
    // A connection that is dropped before the end is closed, which undoes or unlocks what it has begun.
    Turn::default().begin(connection, dialect, tables, Begin::Write, config.busy_timeout).await?;
    if let Some(lock) = schema_lock.lock {
        let locked = connection.fetch(lock, vec![]).await?.pop().map(|mut row| row.int()).transpose()?;
        if locked != Some(1) {
            return Err(Error::new(ErrorKind::Timeout, "another program is changing the tables; try again"));
        }
    }
    let from = match inspect(connection, database, tables).await? {
        Found::Nothing => 0,
        Found::Old(version) => version,
        Found::Current(_) => SCHEMA,
    };
    for step in from..SCHEMA {
        for statement in tables::step(step, database.dialect(), tables) {
            connection.run(statement).await?;
        }
        let sql = format!("UPDATE {} SET schema_version = ?", tables.meta);
        connection.execute(sql, vec![(step + 1).into()]).await?;
    }
    if !config.indexes.is_empty()
        && let Some(lock) = database.dialect().lock_indexes(tables)
    {
        // A writer that does not see the index leaves its fields unmarked, so it must have ended before they are marked.
        connection.run(lock).await?;
    }
    for name in &config.indexes {
        index(connection, tables, name).await?;
    }
    let Found::Current(indexed) = inspect(connection, database, tables).await? else {
        return Err(foreign(tables));
    };
    connection.commit().await?;
    if let Some(unlock) = schema_lock.unlock {
        connection.fetch(unlock, vec![]).await?;
    }
    Ok(indexed)
}

async fn inspect(connection: &mut dyn Connection, database: &dyn Database, tables: &Tables) -> Result<Found> {
    let names = tables.plain.iter().map(|name| Value::Text(name.clone()));
    let sql = database.dialect().count_names(tables.plain.len());
    let mut rows = connection.fetch(sql, names.collect()).await?;
    let taken = rows.pop().ok_or_else(|| foreign(tables))?.int()?;
    if taken == 0 {
        return Ok(Found::Nothing);
    }
    let not_ours = |e: Error| match e.kind() {
        ErrorKind::Other | ErrorKind::NotFound | ErrorKind::Corrupt if !is_damage(&e) => foreign(tables).with_source(e),
        _ => e,
    };
    let sql = format!("SELECT schema_version, sequence FROM {}", tables.meta);
    let mut rows = connection.fetch(sql, vec![]).await.map_err(not_ours)?;
    let Some(mut row) = rows.pop() else {
        // Where the schema is not created in a transaction, somebody may be at it, or have been interrupted.
        return match database.dialect().schema_lock(tables).unlock {
            Some(_) => Ok(Found::Old(0)),
            None => Err(foreign(tables)),
        };
    };
    let schema = row.int().map_err(not_ours)?;
    if schema > SCHEMA {
        return Err(Error::new(
            ErrorKind::Config,
            format!(
                "the table {} has the schema version {schema}, this program knows versions up to {SCHEMA}; use a newer one",
                tables.entries
            ),
        ));
    }
    row.int().map_err(not_ours)?;
    for (_, table, columns) in tables::shape(tables).into_iter().filter(|(since, ..)| *since <= schema) {
        let sql = format!("SELECT {columns} FROM {table} LIMIT 0");
        connection.fetch(sql, vec![]).await.map_err(not_ours)?;
    }
    if schema < SCHEMA {
        return Ok(Found::Old(schema));
    }
    let sql = format!("SELECT name, id FROM {}", tables.indexes);
    let mut indexed = Indexed::new();
    for mut row in connection.fetch(sql, vec![]).await? {
        indexed.insert(String::from_utf8_lossy(&row.bytes()?).into_owned(), row.int()?);
    }
    Ok(Found::Current(indexed))
}

/// Indexes a field: from now on every writer marks it, whatever its own configuration says.
async fn index(connection: &mut dyn Connection, tables: &Tables, name: &str) -> Result<()> {
    let Tables { indexes, fields, .. } = tables;
    let name = Value::bytes(name);
    let sql = format!("SELECT id FROM {indexes} WHERE name = ?");
    if !connection.fetch(sql.clone(), vec![name.clone()]).await?.is_empty() {
        return Ok(());
    }
    let insert = format!("INSERT INTO {indexes} (name) VALUES (?)");
    connection.execute(insert, vec![name.clone()]).await?;
    let id = connection.fetch(sql, vec![name.clone()]).await?.pop().ok_or_else(|| foreign(tables))?.int()?;
    let sql = format!("UPDATE {fields} SET field = ? WHERE name = ?");
    connection.execute(sql, vec![id.into(), name]).await.map(drop)
}

/// Whether the file is damaged, rather than just not ours: only the database itself can tell.
fn is_damage(e: &Error) -> bool {
    e.kind() == ErrorKind::Corrupt && std::error::Error::source(e).is_some()
}

fn foreign(tables: &Tables) -> Error {
    Error::new(
        ErrorKind::Config,
        format!(
            "the database has a table {} or one that begins so which this crate has not made; choose another `table`",
            tables.entries
        ),
    )
}
