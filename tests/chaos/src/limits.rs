//! What the system may refuse the daemon while it runs.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use arcbroker_e2e::{DAEMON_UID, SmallDisk, User, is_root};

use crate::intruder::SQUATTER;

/// Sets a soft limit of a running daemon, as prlimit(1) writes it: `--nofile=3:`.
///
/// A process may do that to another of its own user only, root without `CAP_SYS_RESOURCE` too.
pub fn set_limit(pid: i32, limit: &str) {
    let daemon = User {
        uid: DAEMON_UID,
        gid: DAEMON_UID,
        groups: &[],
    };
    let mut words = Vec::new();
    if is_root() {
        words.push("setpriv".to_owned());
        words.extend(daemon.setpriv());
    }
    words.extend([
        "prlimit".to_owned(),
        format!("--pid={pid}"),
        limit.to_owned(),
    ]);
    let output = Command::new(&words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
}

/// Whether this machine lets us mount.
pub fn can_mount(scratch: &Path) -> bool {
    SmallDisk::mount(scratch).is_some()
}

/// A tokens directory that is not the one it was.
#[derive(Debug)]
pub struct MovedDir {
    dir: PathBuf,
    aside: PathBuf,
}

impl MovedDir {
    /// Moves it aside and leaves nothing.
    pub fn away(dir: PathBuf) -> Self {
        let aside = dir.with_file_name("tokens.aside");
        fs::rename(&dir, &aside).unwrap();
        Self { dir, aside }
    }

    /// Moves it aside and puts one in its place that somebody else can write to.
    pub fn swapped(dir: PathBuf) -> Self {
        let moved = Self::away(dir);
        fs::create_dir(&moved.dir).unwrap();
        if is_root() {
            chown(&moved.dir, Some(SQUATTER.uid), None).unwrap();
        }
        set_mode(&moved.dir, 0o777);
        moved
    }

    /// Moves it aside and puts a link to it in its place.
    pub fn linked(dir: PathBuf) -> Self {
        let moved = Self::away(dir);
        symlink(&moved.aside, &moved.dir).unwrap();
        moved
    }

    /// Puts it back.
    pub fn put_back(self) {
        if self.dir.is_symlink() {
            fs::remove_file(&self.dir).unwrap();
        } else if self.dir.exists() {
            fs::remove_dir_all(&self.dir).unwrap();
        }
        fs::rename(&self.aside, &self.dir).unwrap();
    }
}

/// Sets the permission bits of a file or directory.
pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}
