//! Which database a configuration means, and what it can do.

use storage_core::{BackendInfo, Capabilities, Error, ErrorKind, Isolation, Result};

use crate::{
    Config,
    config::Place,
    dialect, error,
    pool::{Connection, Connections, Database},
    setup::Kind,
};

/// The database, to which nothing was connected yet.
pub(crate) fn database(config: &Config) -> Result<(Box<dyn Database>, BackendInfo)> {
    match &config.place {
        #[cfg(feature = "sqlite")]
        Place::Sqlite(path) => {
            let options = dialect::sqlite::options(path.clone(), config)?;
            // As it was when it was opened, wherever the program is by then.
            let files = Kind::File(crate::files::Files::new(options.get_filename().to_owned()));
            let path = path.clone();
            let opening = Box::new(move |e| error::while_opening(e, &path));
            let first = options.clone().create_if_missing(true);
            let dialect = &dialect::sqlite::SqliteDialect;
            let connections = Connections::<sqlx::Sqlite>::new(first, options, dialect, config, files, opening);
            let mut info = info("sqlite", "SQLite", Isolation::Serializable);
            // SQLite's largest file at its usual page size, <https://www.sqlite.org/limits.html>, rounded down.
            info.limits.value = 16 << 40;
            info.limits.time_granularity = std::time::Duration::from_millis(1);
            Ok((Box::new(connections), info))
        }
        #[cfg(feature = "postgres")]
        Place::Postgres(server) => {
            let options = dialect::postgres::options(server, config)?;
            let setup = Kind::Server(dialect::postgres::settings::setup(config));
            let opening = Box::new(error::from_sqlx);
            let dialect = &dialect::postgres::PostgresDialect;
            let connections =
                Connections::<sqlx::Postgres>::new(options.clone(), options, dialect, config, setup, opening);
            Ok((Box::new(connections), info("postgres", "PostgreSQL", Isolation::Serializable)))
        }
        #[cfg(feature = "mysql")]
        Place::MariaDb(server) => {
            let options = dialect::mariadb::options(server, config)?;
            let setup = Kind::Server(dialect::mariadb::settings::setup(config, options.get_database()));
            let opening = Box::new(error::from_sqlx);
            let dialect = &dialect::mariadb::MariaDbDialect;
            let connections =
                Connections::<sqlx::MySql>::new(options.clone(), options, dialect, config, setup, opening);
            Ok((Box::new(connections), info("mariadb", "MariaDB", Isolation::Snapshot)))
        }
        #[allow(unreachable_patterns, reason = "with all features there is no other place")]
        _ => Err(Error::new(
            ErrorKind::Config,
            "this program was built without that database; enable the feature `sqlite`, `postgres` or `mysql` of storage-sql",
        )),
    }
}

/// Looks whether the database can be used, and sets what it as a whole must be set to.
pub(crate) async fn prepare(config: &Config, connection: &mut dyn Connection) -> Result<()> {
    match &config.place {
        #[cfg(feature = "sqlite")]
        Place::Sqlite(_) => dialect::sqlite::prepare(connection, config.busy_timeout).await,
        #[cfg(feature = "postgres")]
        Place::Postgres(_) => dialect::postgres::settings::warn(connection).await,
        #[cfg(feature = "mysql")]
        Place::MariaDb(_) => dialect::mariadb::settings::warn(connection).await,
        #[allow(unreachable_patterns, reason = "with all features there is no other place")]
        _ => {
            let _ = connection;
            Ok(())
        }
    }
}

fn info(id: &str, name: &str, isolation: Isolation) -> BackendInfo {
    let capabilities = Capabilities::new()
        .atomic()
        .streaming()
        .conditional()
        .conditional_delete()
        .version_etags()
        .transactions()
        .queryable();
    let mut info = BackendInfo::new(id, capabilities);
    info.name = name.into();
    info.description = env!("CARGO_PKG_DESCRIPTION").into();
    info.version = env!("CARGO_PKG_VERSION").into();
    info.isolation = isolation;
    info
}
