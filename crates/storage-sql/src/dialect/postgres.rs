//! PostgreSQL: rows are locked one by one, readers never wait, and transactions are serializable.

pub(crate) mod settings;

use sqlx::{
    Column, Postgres, Row as _, TypeInfo, ValueRef,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgArguments, PgConnectOptions, PgRow, PgSslMode, PgTypeInfo, types::Oid},
};
use storage_core::{Error, ErrorKind, Result};

use super::{Begin, Dialect, SchemaLock, Tables, Types};
use crate::{
    Config,
    config::Server,
    encryption,
    error::from_sqlx,
    pool::Driver,
    value::{Row, Value},
};

#[derive(Debug)]
pub(crate) struct PostgresDialect;

pub(crate) fn options(server: &Server, config: &Config) -> Result<PgConnectOptions> {
    let mut options: PgConnectOptions = server.url("postgres").parse().map_err(|e| server.unusable(e))?;
    if let Some(mode) = &config.sslmode {
        let known =
            "the option `sslmode` must be one of `disable`, `allow`, `prefer`, `require`, `verify-ca`, `verify-full`";
        options = options.ssl_mode(mode.parse().map_err(|_| Error::new(ErrorKind::Config, known))?);
    }
    encryption::check(config, matches!(options.get_ssl_mode(), PgSslMode::VerifyCa | PgSslMode::VerifyFull))?;
    if let Some(path) = &config.sslrootcert {
        options = options.ssl_root_cert(path);
    }
    if let Some(path) = &config.sslcert {
        options = options.ssl_client_cert(path);
    }
    if let Some(path) = &config.sslkey {
        options = options.ssl_client_key(path);
    }
    Ok(options.application_name("storage-sql").options(settings::startup(config)))
}

impl Dialect for PostgresDialect {
    fn types(&self) -> Types {
        Types {
            id: "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
            int: "BIGINT",
            float: "DOUBLE PRECISION",
            text: "TEXT",
            bytes: "BYTEA",
            key: "BYTEA",
            head: "BYTEA",
            table: "",
            clustered: "",
        }
    }

    fn sound(&self, table: &str) -> String {
        // There is no function that tells whether a text is JSON, but what this crate writes is regular. No `?` stands for "at most
        // one", since that is an argument.
        const TEXT: &str = r#""([^"\\]|\\.)*""#;
        const FIELD: &str = r#"(true|false|null|-{0,1}[0-9][-+.0-9eE]*|"([^"\\]|\\.)*")"#;
        let sound = format!(
            r#"^\{{("content_type":{TEXT}){{0,1}},{{0,1}}("fields":\{{{TEXT}:{FIELD}(,{TEXT}:{FIELD})*\}}){{0,1}},{{0,1}}("tags":\[{TEXT}(,{TEXT})*\]){{0,1}}\}}$"#
        );
        format!("{table}.metadata ~ '{sound}' AND {table}.size >= 0")
    }

    fn see_deletes(&self, tables: &Tables, condition: &str) -> Option<String> {
        let entries = &tables.entries;
        // An insert does not mind that a row is gone which the transaction sees; a lock does.
        Some(format!(
            "WITH seen AS (SELECT id FROM {entries} WHERE {condition} ORDER BY entry_key FOR UPDATE) \
             SELECT count(*), count(*) FROM seen"
        ))
    }

    fn count_names(&self, names: usize) -> String {
        let list = vec!["?"; names].join(", ");
        format!(
            "SELECT count(*) FROM pg_catalog.pg_class WHERE relname IN ({list}) AND relnamespace = \
             (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema())"
        )
    }

    fn create_sequence(&self, tables: &Tables) -> Option<String> {
        Some(format!("CREATE SEQUENCE IF NOT EXISTS {}", tables.sequence))
    }

    fn now(&self) -> &'static str {
        "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"
    }

    fn version(&self, tables: &Tables, _: usize) -> String {
        format!("nextval('{}')", tables.sequence)
    }

    fn begin(&self, tables: &Tables, begin: Begin) -> String {
        match begin {
            Begin::Write => "BEGIN ISOLATION LEVEL READ COMMITTED".into(),
            // What a transaction sees is settled by its first statement but a lock, so that it sees every index whose making
            // does not wait for it.
            Begin::Snapshot | Begin::Isolated | Begin::Deletes => {
                let Tables { indexes, meta, .. } = tables;
                format!(
                    "BEGIN ISOLATION LEVEL SERIALIZABLE; LOCK TABLE {indexes} IN ACCESS SHARE MODE; SELECT one FROM {meta}"
                )
            }
        }
    }

    fn lock_indexes(&self, tables: &Tables) -> Option<String> {
        // Whoever reads them has locked them until the end of the transaction, though not against much.
        Some(format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", tables.indexes))
    }

    fn schema_lock(&self, tables: &Tables) -> SchemaLock {
        let name = &tables.plain[0];
        let lock = format!(
            "SELECT 1 FROM pg_advisory_xact_lock(hashtextextended('storage-sql ' || current_schema() || '.{name}', 0))"
        );
        SchemaLock { lock: Some(lock), unlock: None }
    }
}

/// A null of whatever type the statement needs.
struct Null;

impl sqlx::Type<Postgres> for Null {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(0))
    }
}

impl sqlx::Encode<'_, Postgres> for Null {
    fn encode_by_ref(&self, _: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Ok(IsNull::Yes)
    }
}

impl Driver for Postgres {
    /// Arguments have numbers here. No text of ours has a `?` that is not one.
    fn text(sql: String) -> String {
        let mut numbered = String::with_capacity(sql.len() + 64);
        for (i, part) in sql.split('?').enumerate() {
            if i > 0 {
                numbered += "$";
                numbered += &i.to_string();
            }
            numbered += part;
        }
        numbered
    }

    fn bind(values: Vec<Value>) -> Result<PgArguments> {
        use sqlx::Arguments;

        let mut arguments = PgArguments::default();
        for value in values {
            let added = match value {
                Value::Null => arguments.add(Null),
                Value::Int(value) => arguments.add(value),
                Value::Float(value) => arguments.add(value),
                Value::Text(value) => arguments.add(value),
                Value::Bytes(value) => arguments.add(&value[..]),
            };
            added.map_err(|e| from_sqlx(sqlx::Error::Encode(e)))?;
        }
        Ok(arguments)
    }

    fn read(row: &PgRow) -> Result<Row, sqlx::Error> {
        let mut columns = Vec::with_capacity(row.len());
        for column in row.columns() {
            let index = column.ordinal();
            columns.push(match column.type_info().name() {
                _ if row.try_get_raw(index)?.is_null() => Value::Null,
                "INT8" => Value::Int(row.try_get(index)?),
                "INT4" => Value::Int(row.try_get::<i32, _>(index)?.into()),
                "FLOAT8" => Value::Float(row.try_get(index)?),
                "BYTEA" => Value::Bytes(row.try_get::<Vec<u8>, _>(index)?.into()),
                _ => Value::Text(row.try_get(index)?),
            });
        }
        Ok(Row::new(columns))
    }
}
