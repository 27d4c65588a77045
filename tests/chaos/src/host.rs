//! Faults of the machine: its directories, its limits, its disk.

use std::fs;
use std::path::PathBuf;

use arcbroker_e2e::{SmallDisk, eventually};
use nix::sys::signal::Signal;

use crate::limits::{MovedDir, set_limit, set_mode};
use crate::stage::Stage;

/// What is wrong with the machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Host {
    /// The directory of key files is gone.
    TokensDirGone,
    /// There is another one in its place.
    TokensDirSwapped,
    /// There is a link to it in its place.
    TokensDirLinked,
    /// Everybody may write to it.
    TokensDirWritable,
    /// The daemon may open no more files.
    DaemonDescriptors,
    /// The daemon's files may not grow.
    DaemonFileSize,
    /// The disk of the audit file is full.
    AuditDiskFull,
    /// The audit file was rotated, and no new one can be made.
    AuditDirReadOnly,
}

/// What is needed to put it right again.
#[derive(Debug, Default)]
pub struct Damage {
    moved: Option<MovedDir>,
    disk: Option<SmallDisk>,
}

impl Host {
    /// As the table names them.
    pub const NAMES: [(&str, Self); 8] = [
        ("tokens-dir-gone", Self::TokensDirGone),
        ("tokens-dir-swapped", Self::TokensDirSwapped),
        ("tokens-dir-linked", Self::TokensDirLinked),
        ("tokens-dir-writable", Self::TokensDirWritable),
        ("daemon-descriptors", Self::DaemonDescriptors),
        ("daemon-file-size", Self::DaemonFileSize),
        ("audit-disk-full", Self::AuditDiskFull),
        ("audit-dir-read-only", Self::AuditDirReadOnly),
    ];

    /// Puts it in force.
    pub async fn strike(self, stage: &mut Stage) {
        let (tokens, log) = (stage.world.path("tokens"), stage.world.path("log.d"));
        let daemon = stage.world.daemon.pid();
        match self {
            Self::TokensDirGone => stage.host.moved = Some(MovedDir::away(tokens)),
            Self::TokensDirSwapped => stage.host.moved = Some(MovedDir::swapped(tokens)),
            Self::TokensDirLinked => stage.host.moved = Some(MovedDir::linked(tokens)),
            Self::TokensDirWritable => set_mode(&tokens, 0o2777),
            Self::DaemonDescriptors => set_limit(daemon, "--nofile=3:"),
            Self::DaemonFileSize => set_limit(daemon, "--fsize=1:"),
            Self::AuditDiskFull => {
                let disk = SmallDisk::mount(&log).unwrap();
                disk.fill();
                stage.host.disk = Some(disk);
                reopen(stage).await;
            }
            Self::AuditDirReadOnly => {
                fs::rename(audit(stage), log.join("audit.jsonl.1")).unwrap();
                set_mode(&log, 0o550);
                reopen(stage).await;
            }
        }
    }

    /// Takes it away.
    pub fn lift(self, stage: &mut Stage) {
        let daemon = stage.world.daemon.pid();
        match self {
            Self::TokensDirGone | Self::TokensDirSwapped | Self::TokensDirLinked => {
                stage.host.moved.take().unwrap().put_back();
            }
            Self::TokensDirWritable => set_mode(&stage.world.path("tokens"), 0o2750),
            Self::DaemonDescriptors => set_limit(daemon, "--nofile=1024:"),
            Self::DaemonFileSize => set_limit(daemon, "--fsize=unlimited:"),
            Self::AuditDiskFull => stage.host.disk.as_ref().unwrap().make_room(),
            Self::AuditDirReadOnly => set_mode(&stage.world.path("log.d"), 0o750),
        }
    }
}

fn audit(stage: &Stage) -> PathBuf {
    stage.world.path("log.d/audit.jsonl")
}

/// Has the daemon open its audit file anew, and waits until it has tried.
async fn reopen(stage: &mut Stage) {
    stage.world.daemon.signal(Signal::SIGHUP);
    let (path, daemon) = (audit(stage), &stage.world.daemon);
    eventually("the daemon looks for its audit file", || async {
        path.exists() || daemon.log().contains("cannot be opened anew")
    })
    .await;
}
