//! Which files the daemon opens and where it connects to, by the word of the kernel.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{World, eventually, is_root};

/// strace(1) around the daemon, where there is one and it may look.
#[derive(Debug)]
pub struct Trace {
    dir: TempDir,
    is_there: bool,
    calls: &'static str,
}

impl Trace {
    /// What is opened.
    ///
    /// Says so where it cannot be used: what only it can show is then not tested.
    pub fn new(test: &str) -> Self {
        Self::of(test, "open,openat,openat2")
    }

    /// Whatever is sent or connected to anywhere.
    pub fn network(test: &str) -> Self {
        Self::of(test, "connect,sendto,sendmsg,sendmmsg")
    }

    fn of(test: &str, calls: &'static str) -> Self {
        // Without root, nobody may look into a daemon that may not be dumped.
        let is_there = is_root() && Command::new("strace").arg("-V").output().is_ok();
        if !is_there {
            eprintln!(
                "SKIPPED a part of {test}: which system calls are made is only known with strace and root"
            );
        }
        Self {
            dir: tempfile::tempdir().unwrap(),
            is_there,
            calls,
        }
    }

    /// To be set as [`Setup::wrapper`](crate::Setup::wrapper).
    pub fn wrapper(&self) -> Vec<String> {
        if !self.is_there {
            return Vec::new();
        }
        let file = self.dir.path().join("trace").display().to_string();
        // -D: the daemon stays the child of the test, and takes strace with it when it ends.
        [
            "strace",
            "-D",
            "-f",
            "-A",
            "-e",
            &format!("trace={}", self.calls),
            "-o",
            &file,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// Ends the daemon, and gives every call that did so or tried to.
    pub async fn calls(&self, world: &mut World) -> Option<String> {
        let end = format!("{} ", world.daemon.pid());
        world.daemon.signal(Signal::SIGTERM);
        world.daemon.wait().await;
        if !self.is_there {
            return None;
        }
        let read = || fs::read_to_string(self.dir.path().join("trace")).unwrap();
        eventually("strace has written everything", || async {
            read()
                .lines()
                .any(|line| line.starts_with(&end) && line.contains("+++ exited"))
        })
        .await;
        Some(read())
    }
}
