//! The schema: looked at before anything is touched, then created under the write lock, so that any number of processes may
//! connect at once.

use storage_core::{Error, ErrorKind, Result};

use crate::{
    Config,
    dialect::{Connection, Database, Tables, Value},
};

/// The version of the schema that this version of the crate reads and writes.
const SCHEMA: i64 = 1;

/// Makes sure that the schema is there and that the fields named are indexed. Returns all that are.
pub(crate) async fn prepare(database: &dyn Database, tables: &Tables, config: &Config) -> Result<Vec<String>> {
    let mut connection = database.acquire().await?;
    let connection = &mut *connection;
    let indexed = inspect(connection, database, tables).await?;
    database.prepare(connection).await?;
    let complete = |indexed: &Vec<String>| config.indexes.iter().all(|name| indexed.contains(name));
    if let Some(indexed) = indexed.filter(complete) {
        return Ok(indexed);
    }
    connection.begin(tables, true).await?;
    if inspect(connection, database, tables).await?.is_none() {
        for statement in database.create(tables) {
            connection.execute(statement, vec![]).await?;
        }
    }
    for name in &config.indexes {
        index(connection, tables, name).await?;
    }
    let indexed = inspect(connection, database, tables).await?;
    connection.commit().await?;
    indexed.ok_or_else(|| foreign(tables))
}

/// The fields that are indexed; `None` when there is no schema yet.
async fn inspect(
    connection: &mut dyn Connection,
    database: &dyn Database,
    tables: &Tables,
) -> Result<Option<Vec<String>>> {
    let names = tables.plain.iter().map(|name| Value::Text(name.clone()));
    let sql = database.count_names(tables.plain.len());
    let mut rows = connection.fetch(sql, names.collect()).await?;
    let taken = rows.pop().ok_or_else(|| foreign(tables))?.int()?;
    if taken == 0 {
        return Ok(None);
    }
    let not_ours = |e: Error| match e.kind() {
        ErrorKind::Other | ErrorKind::NotFound | ErrorKind::Corrupt if !is_damage(&e) => foreign(tables).with_source(e),
        _ => e,
    };
    let sql = format!("SELECT schema, sequence FROM {}", tables.meta);
    let mut rows = connection.fetch(sql, vec![]).await.map_err(not_ours)?;
    let mut row = rows.pop().ok_or_else(|| foreign(tables))?;
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
    for (table, columns) in shape(tables) {
        let sql = format!("SELECT {columns} FROM {table} LIMIT 0");
        connection.fetch(sql, vec![]).await.map_err(not_ours)?;
    }
    let sql = format!("SELECT name FROM {}", tables.indexes);
    let mut indexed = Vec::new();
    for mut row in connection.fetch(sql, vec![]).await? {
        indexed.push(String::from_utf8_lossy(&row.bytes()?).into_owned());
    }
    Ok(Some(indexed))
}

/// The columns that each table must have.
fn shape(tables: &Tables) -> [(&str, &'static str); 6] {
    [
        (&tables.entries, "version, nonce, key, size, created_at, updated_at, content_type, metadata, chunk, data"),
        (&tables.fields, "version, name, kind, int_value, float_value, text_value, indexed"),
        (&tables.tags, "version, tag"),
        (&tables.uploads, "upload, version, touched_at"),
        (&tables.chunks, "upload, idx, data"),
        (&tables.indexes, "name"),
    ]
}

/// Indexes a field: from now on every writer marks it, whatever its own configuration says.
async fn index(connection: &mut dyn Connection, tables: &Tables, name: &str) -> Result<()> {
    let Tables { indexes, fields, .. } = tables;
    let sql =
        format!("INSERT INTO {indexes} (name) SELECT ? WHERE NOT EXISTS (SELECT 1 FROM {indexes} WHERE name = ?)");
    let name = Value::bytes(name);
    if connection.execute(sql, vec![name.clone(), name.clone()]).await? > 0 {
        let sql = format!("UPDATE {fields} SET indexed = 1 WHERE name = ?");
        connection.execute(sql, vec![name]).await?;
    }
    Ok(())
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
