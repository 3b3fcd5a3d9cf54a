//! Files of a directory into a store and back.

use std::{
    fs,
    path::{Path, PathBuf},
};

use futures_util::TryStreamExt;
use storage_core::{Body, Entry, GetOptions, Metadata, PutOptions, Storage};

use crate::Result;

/// A file to import.
pub(crate) struct File {
    /// Its path below the directory, with `/` between the parts.
    pub(crate) name: String,
    /// Its size in bytes.
    pub(crate) size: u64,
    path: PathBuf,
}

/// All regular files below a directory.
pub(crate) fn files(directory: &Path) -> Result<Vec<File>> {
    let mut found = Vec::new();
    let mut open = vec![(directory.to_owned(), String::new())];
    while let Some((directory, prefix)) = open.pop() {
        let read = |e| format!("cannot read the directory {}: {e}", directory.display());
        for entry in fs::read_dir(&directory).map_err(read)? {
            let entry = entry.map_err(read)?;
            let path = entry.path();
            let Some(name) = entry.file_name().to_str().map(|name| format!("{prefix}{name}")) else {
                println!("  Skipped {}: its name is not UTF-8.", path.display());
                continue;
            };
            let kind = entry.file_type()?;
            if kind.is_dir() {
                open.push((path, format!("{name}/")));
            } else if kind.is_file() {
                let size = entry.metadata()?.len();
                found.push(File { name, size, path });
            }
        }
    }
    if found.is_empty() {
        return Err(format!("there are no files in {}", directory.display()).into());
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Streams a file into the store, and says in its metadata what it is.
pub(crate) async fn put(storage: &Storage, prefix: &str, file: &File) -> Result<Entry> {
    let kind = mime_guess::from_path(&file.path).first_or_octet_stream();
    let mut metadata = Metadata::new().content_type(kind.essence_str()).tag("imported");
    if kind.type_() == mime_guess::mime::TEXT {
        let text = fs::read_to_string(&file.path)?;
        metadata = metadata.field("lines", text.lines().count() as i64);
        if let Some(title) = text.lines().find_map(|line| line.strip_prefix("# ")) {
            metadata = metadata.field("title", title);
        }
    }
    let options = PutOptions::new().metadata(metadata);
    Ok(storage.put_with(format!("{prefix}{}", file.name), Body::from_file(&file.path).await?, options).await?)
}

/// Compares what the store gives back with what is on disk, piece by piece.
pub(crate) async fn verify(storage: &Storage, prefix: &str, file: &File) -> Result<()> {
    let key = format!("{prefix}{}", file.name);
    let object = storage.open(key.as_str(), GetOptions::new()).await?;
    let mut body = object.ok_or_else(|| format!("{key} is not there"))?.body.into_stream();
    let expected = fs::read(&file.path)?;
    let mut at = 0;
    while let Some(piece) = body.try_next().await? {
        let end = at + piece.len();
        if expected.get(at..end) != Some(&*piece) {
            return Err(format!("{key} differs from the file behind byte {at}").into());
        }
        at = end;
    }
    if at < expected.len() {
        return Err(format!("{key} has {at} bytes, the file {}", expected.len()).into());
    }
    Ok(())
}
