//! Where servers lie: directories, users, ports.

use std::{
    env, fs, io,
    net::TcpListener,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::getuid;

use crate::Result;

/// Where programs are put that are no packages of the system.
pub(crate) fn cache() -> Result<PathBuf> {
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute()).or_else(home);
    let cache = cache.ok_or("neither XDG_CACHE_HOME nor HOME is set, so there is no place for programs")?;
    Ok(cache.join("storage-services"))
}

/// A user and group.
#[derive(Clone, Copy)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// This user, when root asks; other users run a server themselves.
pub(crate) fn instead_of_root(user: &str) -> Result<Option<Owner>> {
    let id = |what| -> Result<u32> {
        let output = Command::new("id").args([what, user]).output()?;
        let id = String::from_utf8_lossy(&output.stdout);
        let id = id.trim().parse();
        Ok(id.map_err(|_| format!("there is no user `{user}`, who would run it instead of root"))?)
    };
    if getuid().is_root() { Ok(Some(Owner { uid: id("-u")?, gid: id("-g")? })) } else { Ok(None) }
}

/// The directory of a server's data: in the server's own directory or, when the user who runs it cannot get there, in /var/tmp.
pub(crate) fn data(dir: &Path, user: Option<Owner>) -> Result<PathBuf> {
    let Some(user) = user else {
        return Ok(dir.join("data"));
    };
    let reaches = Command::new("test").arg("-x").arg(dir).uid(user.uid).gid(user.gid).status()?;
    if reaches.success() {
        return Ok(dir.join("data"));
    }
    let shared = Path::new("/var/tmp/storage-services");
    fs::create_dir_all(shared)?;
    if fs::symlink_metadata(shared)?.uid() != getuid().as_raw() {
        return Err(format!("{} belongs to another user; remove it", shared.display()).into());
    }
    Ok(shared.join(dir.to_string_lossy().trim_matches('/').replace('/', "-")))
}

/// Whether nobody listens at these ports.
pub(crate) fn is_free(port: u16, count: u16) -> bool {
    (0..count).all(|n| port.checked_add(n).is_some_and(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()))
}

/// So many free ports in a row.
pub(crate) fn free_ports(count: u16) -> Result<u16> {
    for _ in 0..100 {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        if is_free(port, count) {
            return Ok(port);
        }
    }
    Err(format!("there are no {count} free ports in a row").into())
}

/// Removes a file, if it is there.
pub(crate) fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(format!("cannot remove {}: {e}", file.display()).into()),
        _ => Ok(()),
    }
}

/// Makes an empty directory that only its owner sees.
pub(crate) fn make_empty(dir: &Path, owner: Option<Owner>) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    if let Some(owner) = owner {
        chown(dir, Some(owner.uid), Some(owner.gid))?;
    }
    Ok(())
}
