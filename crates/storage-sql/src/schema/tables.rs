//! The tables, in the steps in which the schema grew.

use crate::dialect::{Dialect, Tables};

/// How many steps there are.
pub(super) const STEPS: usize = 2;

/// The statements that lead from this version of the schema to the next. Where they cannot be part of a transaction, an
/// interrupted step is made again, so each statement leaves alone what is there.
pub(super) fn step(from: i64, dialect: &dyn Dialect, tables: &Tables) -> Vec<String> {
    match from {
        0 => first(dialect, tables),
        _ => second(dialect, tables),
    }
}

/// Values, what queries ask for, and chunks.
fn first(dialect: &dyn Dialect, tables: &Tables) -> Vec<String> {
    let Tables { entries, fields, tags, uploads, chunks, indexes, meta, .. } = tables;
    let t = dialect.types();
    let (id, int, bytes) = (t.id, t.int, t.bytes);
    let create = "CREATE TABLE IF NOT EXISTS";
    let index = |name: &str, table: &str, columns: &str| {
        let name = dialect.quote(&format!("{}_{name}", tables.plain[0]));
        format!("CREATE INDEX IF NOT EXISTS {name} ON {table} ({columns})")
    };
    let owner = format!("FOREIGN KEY (entry) REFERENCES {entries} (id) ON DELETE CASCADE");
    let mut statements = vec![
        format!(
            "{create} {meta} (one {int} PRIMARY KEY CHECK (one = 1), schema_version {int} NOT NULL, sequence {int} NOT NULL){}",
            t.table
        ),
        format!("INSERT INTO {meta} SELECT 1, 0, 0 WHERE NOT EXISTS (SELECT 1 FROM {meta})"),
    ];
    statements.extend(dialect.create_sequence(tables));
    statements.extend([
        format!(
            "{create} {entries} (id {id}, entry_key {} NOT NULL UNIQUE, version {int} NOT NULL, nonce {int} NOT NULL, \
             size {int} NOT NULL, created_at {int} NOT NULL, updated_at {int} NOT NULL, content_type {bytes}, \
             metadata {} NOT NULL, chunk {int}, upload {int}, data {bytes}, described {int} NOT NULL, \
             leftovers {int} NOT NULL){}",
            t.key, t.text, t.table
        ),
        index("by_created_at", entries, "created_at"),
        index("by_updated_at", entries, "updated_at"),
        format!(
            "{create} {fields} (entry {int} NOT NULL, idx {int} NOT NULL, name {bytes} NOT NULL, kind {int} NOT NULL, \
             int_value {int}, float_value {}, text_value {bytes}, head {}, field {int}, PRIMARY KEY (entry, idx), {owner}){}",
            t.float, t.head, t.clustered
        ),
        index("by_field", fields, "field, kind, int_value, float_value, head"),
        format!(
            "{create} {tags} (entry {int} NOT NULL, idx {int} NOT NULL, tag {bytes} NOT NULL, head {} NOT NULL, \
             PRIMARY KEY (entry, idx), {owner}){}",
            t.head, t.clustered
        ),
        index("by_tag", tags, "head"),
        format!("{create} {uploads} (upload {id}, entry {int}, touched_at {int} NOT NULL, {owner}){}", t.table),
        index("by_entry", uploads, "entry"),
        format!(
            "{create} {chunks} (upload {int} NOT NULL, idx {int} NOT NULL, data {bytes} NOT NULL, \
             PRIMARY KEY (upload, idx), FOREIGN KEY (upload) REFERENCES {uploads} (upload) ON DELETE CASCADE){}",
            t.table
        ),
        format!("{create} {indexes} (id {id}, name {bytes} NOT NULL){}", t.table),
    ]);
    statements
}

/// Versions that were replaced. Chunks belong to an entry, to one of these, or to nobody yet.
fn second(dialect: &dyn Dialect, tables: &Tables) -> Vec<String> {
    let Tables { uploads, past, .. } = tables;
    let t = dialect.types();
    let (int, bytes) = (t.int, t.bytes);
    let index = |name: &str, table: &str, columns: &str| {
        let name = dialect.quote(&format!("{}_{name}", tables.plain[0]));
        format!("CREATE INDEX IF NOT EXISTS {name} ON {table} ({columns})")
    };
    vec![
        format!(
            "CREATE TABLE IF NOT EXISTS {past} (version {int} PRIMARY KEY, entry_key {} NOT NULL, nonce {int} NOT NULL, \
             size {int} NOT NULL, created_at {int} NOT NULL, updated_at {int} NOT NULL, metadata {} NOT NULL, \
             chunk {int}, upload {int}, data {bytes}){}",
            t.key, t.text, t.table
        ),
        index("by_version", past, "entry_key, version"),
        dialect.add_owner(uploads, past),
        index("by_past", uploads, "past"),
    ]
}

/// The columns that each table must have, and since which version of the schema.
pub(super) fn shape(tables: &Tables) -> [(i64, &str, &'static str); 8] {
    [
        (
            1,
            &tables.entries,
            "id, entry_key, version, nonce, size, created_at, updated_at, content_type, metadata, chunk, upload, data, \
             described, leftovers",
        ),
        (1, &tables.fields, "entry, idx, name, kind, int_value, float_value, text_value, head, field"),
        (1, &tables.tags, "entry, idx, tag, head"),
        (1, &tables.uploads, "upload, entry, touched_at"),
        (1, &tables.chunks, "upload, idx, data"),
        (1, &tables.indexes, "id, name"),
        (2, &tables.past, "version, entry_key, nonce, size, created_at, updated_at, metadata, chunk, upload, data"),
        (2, &tables.uploads, "past"),
    ]
}
