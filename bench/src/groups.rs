//! Who is measured beside whom: only what promises the same.

use std::{path::Path, sync::Arc};

use object_store::{ObjectStore, local::LocalFileSystem, memory::InMemory};
use opendal::{Operator, services};
use storage_core::Storage;
use storage_fs::{Durability, Fs};
use storage_memory::Memory;
use tempfile::TempDir;

use crate::{
    Result,
    measure::{self, Contestant, Row},
    subject::{self, Operation, Subject, TASKS},
};

pub(crate) const OURS: &str = "storage";
pub(crate) const OBJECT_STORE: &str = "object_store";
pub(crate) const OPENDAL: &str = "OpenDAL";
/// The groups, as the notes name them.
pub(crate) const MEMORY: &str = "Memory";
pub(crate) const READS: &str = "Local files, reads";
pub(crate) const DURABLE: &str = "Local files, durable writes";
pub(crate) const HALF: &str = "Local files, the file synced but not its directory";
pub(crate) const RELAXED: &str = "Local files, writes that are not synced";

/// The rows that are compared with one another.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) rows: Vec<Row>,
}

pub(crate) type Contestants = Vec<(&'static str, Box<dyn Contestant>)>;

/// Everything, one group after the other. What a group wrote is gone before the next begins.
pub(crate) async fn run(dir: &Path, quick: bool) -> Result<Vec<Group>> {
    use Operation::{Get, List, Put, Read, Stat, Write};
    let writes = [Put, Write];
    let mut groups = Vec::new();

    let (ours, peer, dal) = (memory(), in_memory(), Operator::new(services::Memory::default())?);
    fill(&ours).await?;
    fill(&peer).await?;
    fill(&dal).await?;
    let all = vec![entry(OURS, &ours).await?, entry(OBJECT_STORE, &peer).await?, entry(OPENDAL, &dal).await?];
    groups.push(group(MEMORY, all, &[Put, Get, Stat, List, Write, Read], quick).await?);
    check((&ours, &peer, &dal)).await?;
    drop((ours, peer, dal));

    let roots = [TempDir::new_in(dir)?, TempDir::new_in(dir)?];
    let (ours, peer) = (fs(&roots[0], Durability::Full).await?, local(&roots[1], true)?);
    let all = vec![entry(OURS, &ours).await?, entry(OBJECT_STORE, &peer).await?];
    groups.push(group(DURABLE, all, &writes, quick).await?);
    subject::check_written(&ours).await?;
    subject::check_written(&peer).await?;
    drop((ours, peer, roots));

    let root = TempDir::new_in(dir)?;
    let dal = operator(&root)?;
    groups.push(group(HALF, vec![entry(OPENDAL, &dal).await?], &writes, quick).await?);
    subject::check_written(&dal).await?;
    drop((dal, root));

    let roots = [TempDir::new_in(dir)?, TempDir::new_in(dir)?];
    let (ours, peer) = (fs(&roots[0], Durability::Relaxed).await?, local(&roots[1], false)?);
    let all = vec![entry(OURS, &ours).await?, entry(OBJECT_STORE, &peer).await?];
    groups.push(group(RELAXED, all, &writes, quick).await?);
    subject::check_written(&ours).await?;
    subject::check_written(&peer).await?;
    drop((ours, peer, roots));

    let roots = [TempDir::new_in(dir)?, TempDir::new_in(dir)?, TempDir::new_in(dir)?];
    let ours = fs(&roots[0], Durability::Relaxed).await?;
    let (peer, dal) = (local(&roots[1], false)?, operator(&roots[2])?);
    fill(&ours).await?;
    fill(&peer).await?;
    // OpenDAL would sync each of the files; those of object_store are the same to it.
    fill(&local(&roots[2], false)?).await?;
    let all = vec![entry(OURS, &ours).await?, entry(OBJECT_STORE, &peer).await?, entry(OPENDAL, &dal).await?];
    groups.push(group(READS, all, &[Get, Stat, List, Read], quick).await?);
    Ok(groups)
}

pub(crate) async fn group(
    name: &'static str,
    contestants: Contestants,
    operations: &[Operation],
    quick: bool,
) -> Result<Group> {
    let mut rows = Vec::new();
    for operation in operations {
        for tasks in [1, TASKS] {
            eprintln!("{name}: {operation}, {tasks} in flight");
            rows.push(measure::row(&contestants, *operation, tasks, quick).await?);
        }
    }
    Ok(Group { name, rows })
}

/// A contestant that has the values which puts replace.
pub(crate) async fn entry<S: Subject>(
    library: &'static str,
    subject: &S,
) -> Result<(&'static str, Box<dyn Contestant>)> {
    subject::fill_replaced(subject).await?;
    Ok((library, Box::new(subject.clone())))
}

async fn fill<S: Subject>(subject: &S) -> Result<()> {
    subject::fill_small(subject).await?;
    subject::fill_large(subject).await
}

async fn check((ours, peer, dal): (&impl Subject, &impl Subject, &impl Subject)) -> Result<()> {
    subject::check_written(ours).await?;
    subject::check_written(peer).await?;
    subject::check_written(dal).await
}

fn memory() -> Storage {
    let mut config = storage_memory::Config::default();
    // The peers keep no older versions.
    config.max_versions = std::num::NonZeroUsize::MIN;
    Storage::new(Memory::with_config(config))
}

fn in_memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

async fn fs(root: &TempDir, durability: Durability) -> Result<Storage> {
    let mut config = storage_fs::Config::default();
    config.root = root.path().to_owned();
    config.durability = durability;
    Ok(Storage::new(Fs::connect(config).await?))
}

fn local(root: &TempDir, fsync: bool) -> Result<Arc<dyn ObjectStore>> {
    Ok(Arc::new(LocalFileSystem::new_with_prefix(root.path())?.with_fsync(fsync)))
}

/// Writes by renaming, as the others do, rather than in place.
fn operator(root: &TempDir) -> Result<Operator> {
    let path = |path: &Path| path.to_str().map(str::to_owned).ok_or("the path is not UTF-8");
    let service = services::Fs::default().root(&path(root.path())?);
    Ok(Operator::new(service.atomic_write_dir(&path(&root.path().join(".staging"))?))?)
}
