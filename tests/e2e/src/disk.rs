//! A disk that can be filled.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::DAEMON_UID;

/// A file system of two pages, mounted over a directory; needs root.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts it; `None` where nothing can be mounted.
    pub fn mount(over: &Path) -> Option<Self> {
        let options = format!("size=8k,mode=750,uid={DAEMON_UID}");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "none"])
            .arg(over)
            .output()
            .ok()?;
        mount.status.success().then(|| Self(over.to_owned()))
    }

    /// Leaves no room.
    pub fn fill(&self) {
        // Writing stops at the end of the disk.
        fs::write(self.0.join("filler"), vec![0; 64 * 1024]).unwrap_err();
    }

    /// Leaves room again.
    pub fn make_room(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount")
            .arg("--lazy")
            .arg(&self.0)
            .status()
            .unwrap();
        assert!(unmounted.success());
    }
}
