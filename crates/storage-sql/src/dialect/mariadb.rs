//! MariaDB: rows are locked one by one, readers never wait, and a transaction that would overwrite what it has not seen fails.

pub(crate) mod settings;

use sqlx::{
    Column, MySql, Row as _, TypeInfo, ValueRef,
    mysql::{MySqlArguments, MySqlConnectOptions, MySqlRow, MySqlSslMode},
};
use storage_config::Durability;
use storage_core::{Error, ErrorKind, Result};

use super::{ARGUMENTS, Begin, Dialect, FILLED, How, LEFTOVERS, SchemaLock, Tables, Types, WRITTEN, rows_of};
use crate::{
    Config,
    config::Server,
    encryption,
    error::from_sqlx,
    pool::Driver,
    value::{Row, Value},
};

#[derive(Debug)]
pub(crate) struct MariaDbDialect;

pub(crate) fn options(server: &Server, config: &Config) -> Result<MySqlConnectOptions> {
    if config.durability == Durability::Relaxed {
        return Err(Error::new(
            ErrorKind::Config,
            "what MariaDB's writes survive is a setting of the server, `innodb_flush_log_at_trx_commit`; leave out the option \
             `durability`",
        ));
    }
    let mut options: MySqlConnectOptions = server.url("mysql").parse().map_err(|e| server.unusable(e))?;
    let mut verifies = false;
    if let Some(mode) = &config.sslmode {
        let known =
            "the option `sslmode` must be one of `disabled`, `preferred`, `required`, `verify_ca`, `verify_identity`";
        let mode: MySqlSslMode = mode.parse().map_err(|_| Error::new(ErrorKind::Config, known))?;
        verifies = matches!(mode, MySqlSslMode::VerifyCa | MySqlSslMode::VerifyIdentity);
        options = options.ssl_mode(mode);
    }
    encryption::check(config, verifies)?;
    if let Some(path) = &config.sslrootcert {
        options = options.ssl_ca(path);
    }
    if let Some(path) = &config.sslcert {
        options = options.ssl_client_cert(path);
    }
    if let Some(path) = &config.sslkey {
        options = options.ssl_client_key(path);
    }
    Ok(options)
}

impl Dialect for MariaDbDialect {
    fn types(&self) -> Types {
        Types {
            id: "BIGINT AUTO_INCREMENT PRIMARY KEY",
            int: "BIGINT",
            float: "DOUBLE",
            text: "LONGTEXT CHARACTER SET utf8mb4",
            bytes: "LONGBLOB",
            key: "VARBINARY(1024)",
            head: "VARBINARY(255)",
            table: " ENGINE = InnoDB ROW_FORMAT = DYNAMIC",
            clustered: " ENGINE = InnoDB ROW_FORMAT = DYNAMIC",
        }
    }

    fn sound(&self, table: &str) -> String {
        let within = |path: &str, kind: &str| {
            format!("COALESCE(JSON_TYPE(JSON_EXTRACT({table}.metadata, '{path}')), '{kind}') = '{kind}'")
        };
        let parts = [within("$", "OBJECT"), within("$.fields", "OBJECT"), within("$.tags", "ARRAY")].join(" AND ");
        format!("CASE WHEN JSON_VALID({table}.metadata) THEN {parts} ELSE 0 END AND {table}.size >= 0")
    }

    fn see_deletes(&self, tables: &Tables, condition: &str) -> Option<String> {
        let entries = &tables.entries;
        // The inner count sees what the transaction sees, the outer one what there is, which stays so until the end.
        Some(format!(
            "SELECT count(*), (SELECT count(*) FROM {entries} WHERE {condition}) FROM {entries} WHERE {condition} FOR UPDATE"
        ))
    }

    fn quote(&self, identifier: &str) -> String {
        format!("`{identifier}`")
    }

    fn count_names(&self, names: usize) -> String {
        let list = vec!["lower(?)"; names].join(", ");
        format!(
            "SELECT count(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND lower(table_name) IN ({list})"
        )
    }

    fn create_sequence(&self, tables: &Tables) -> Option<String> {
        // Without a name of its own it would be of the session's default engine, which may not survive a crash.
        Some(format!("CREATE SEQUENCE IF NOT EXISTS {} ENGINE = InnoDB", tables.sequence))
    }

    fn add_owner(&self, uploads: &str, past: &str) -> String {
        // Names of foreign keys are those of the whole database; the table of the past has one of its own.
        format!(
            "ALTER TABLE {uploads} ADD COLUMN IF NOT EXISTS past BIGINT, \
             ADD FOREIGN KEY IF NOT EXISTS {past} (past) REFERENCES {past} (version) ON DELETE CASCADE"
        )
    }

    fn now(&self) -> &'static str {
        "CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)"
    }

    fn version(&self, tables: &Tables, _: usize) -> String {
        format!("NEXTVAL({})", tables.sequence)
    }

    fn begin(&self, _: &Tables, begin: Begin) -> String {
        match begin {
            // Nobody sees a part of it, and what it replaces it locks.
            Begin::Write | Begin::Isolated => "START TRANSACTION".into(),
            // At READ COMMITTED the place of a key without a value is not locked, so that a batch of puts could come between two
            // keys of this one.
            Begin::Deletes => "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION".into(),
            Begin::Snapshot => {
                "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION WITH CONSISTENT SNAPSHOT".into()
            }
        }
    }

    fn schema_lock(&self, tables: &Tables) -> SchemaLock {
        // Statements that change the schema end every transaction, so a lock beside them is needed. Its name is short enough
        // as a hash, whatever the database and the table are called.
        let name = format!("CONCAT('storage-sql ', SHA1(CONCAT(DATABASE(), '.{}')))", tables.plain[0]);
        SchemaLock {
            lock: Some(format!("SELECT GET_LOCK({name}, 60)")),
            unlock: Some(format!("SELECT RELEASE_LOCK({name})")),
        }
    }

    fn index_of(&self, tables: &Tables) -> String {
        // What a statement that writes reads is locked until the end of its transaction, as long as it is there.
        let Tables { meta, indexes, .. } = tables;
        format!("(SELECT i.id FROM {meta} m LEFT JOIN {indexes} i ON i.name = ? WHERE m.one = 1)")
    }

    fn lock_indexes(&self, tables: &Tables) -> Option<String> {
        Some(format!("SELECT one FROM {} WHERE one = 1 FOR UPDATE", tables.meta))
    }

    fn write(&self, tables: &Tables, how: How, rows: usize, plain: bool) -> String {
        let (entries, now, version) = (&tables.entries, self.now(), self.version(tables, 0));
        let columns = ARGUMENTS.join(", ");
        let insert = format!("INSERT INTO {entries} ({FILLED}, {columns})");
        // Assignments are made in their order, each sees those before it. The guard stays what it was: an entry that has
        // nothing outside of its row gets one that has nothing either.
        let own = |text: &str| {
            text.replace("described", &format!("{entries}.described")).replace("upload", &format!("{entries}.upload"))
        };
        let (guard, leftovers) = (own("described = 0 AND upload IS NULL"), own(LEFTOVERS));
        let set = |column: &str, value: &str| match plain {
            true => format!("{column} = IF({guard}, {value}, {entries}.{column})"),
            false => format!("{column} = {value}"),
        };
        let newest = if how == How::Match { "VALUES(version)" } else { &version };
        let later = format!("GREATEST({entries}.updated_at, VALUES(updated_at))");
        let mut all = vec![set("leftovers", &leftovers), set("version", newest), set("updated_at", &later)];
        all.extend(ARGUMENTS[..8].iter().map(|column| set(column, &format!("VALUES({column})"))));
        let set = all.join(", ");
        match how {
            How::Replace => {
                let rows = rows_of(self.version_rows(tables, rows));
                format!("{insert} VALUES {rows} ON DUPLICATE KEY UPDATE {set} RETURNING {WRITTEN}")
            }
            How::Create => {
                let rows = rows_of(self.version_rows(tables, rows));
                format!("{insert} VALUES {rows} ON DUPLICATE KEY UPDATE nonce = nonce RETURNING {WRITTEN}")
            }
            How::Match => {
                let places = vec!["?"; ARGUMENTS.len() - 1].join(", ");
                let guard = if plain { " AND o.described = 0 AND o.upload IS NULL" } else { "" };
                let sound = self.sound("o");
                format!(
                    "{insert} SELECT {version}, {now}, {now}, 0, {places}, o.entry_key FROM {entries} o \
                     WHERE o.entry_key = ? AND o.version = ? AND o.nonce = ?{guard} AND {sound} FOR UPDATE \
                     ON DUPLICATE KEY UPDATE {set} RETURNING {WRITTEN}"
                )
            }
        }
    }
}

impl Driver for MySql {
    fn text(sql: String) -> String {
        sql
    }

    fn bind(values: Vec<Value>) -> Result<MySqlArguments> {
        use sqlx::Arguments;

        let mut arguments = MySqlArguments::default();
        for value in values {
            let added = match value {
                Value::Null => arguments.add(None::<i64>),
                Value::Int(value) => arguments.add(value),
                Value::Float(value) => arguments.add(value),
                Value::Text(value) => arguments.add(value),
                Value::Bytes(value) => arguments.add(&value[..]),
            };
            added.map_err(|e| from_sqlx(sqlx::Error::Encode(e)))?;
        }
        Ok(arguments)
    }

    fn read(row: &MySqlRow) -> Result<Row, sqlx::Error> {
        let mut columns = Vec::with_capacity(row.len());
        for column in row.columns() {
            let index = column.ordinal();
            let kind = column.type_info().name();
            columns.push(match kind {
                _ if row.try_get_raw(index)?.is_null() => Value::Null,
                "DOUBLE" => Value::Float(row.try_get(index)?),
                _ if kind.contains("INT UNSIGNED") => {
                    Value::Int(row.try_get::<u64, _>(index)?.try_into().unwrap_or(i64::MAX))
                }
                _ if kind.contains("INT") => Value::Int(row.try_get(index)?),
                _ if kind.contains("TEXT") || kind.contains("CHAR") => Value::Text(row.try_get(index)?),
                _ => Value::Bytes(row.try_get::<Vec<u8>, _>(index)?.into()),
            });
        }
        Ok(Row::new(columns))
    }
}
