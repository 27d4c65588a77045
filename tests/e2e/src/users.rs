//! Users that exist only as numbers.

use std::io::{self, Write};

use nix::unistd::{getegid, geteuid};

/// The daemon, when the tests run as root.
pub const DAEMON_UID: u32 = 64_001;
/// The group that may read key files.
pub const HIMDS_GID: u32 = 64_002;
/// The group that may connect to the token socket.
pub const SOCKET_GID: u32 = 64_003;

/// A caller: numbers that need no account.
#[derive(Clone, Copy, Debug)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: &'static [u32],
}

impl User {
    /// A user who may connect.
    pub const fn in_socket_group(uid: u32) -> Self {
        Self {
            uid,
            gid: uid,
            groups: &[SOCKET_GID],
        }
    }

    /// The arguments for setpriv(1) that make a program run as this user.
    pub fn setpriv(&self) -> Vec<String> {
        let groups: Vec<_> = self.groups.iter().map(ToString::to_string).collect();
        let groups = if groups.is_empty() {
            "--clear-groups".to_owned()
        } else {
            format!("--groups={}", groups.join(","))
        };
        vec![
            format!("--reuid={}", self.uid),
            format!("--regid={}", self.gid),
            groups,
        ]
    }

    /// The words of a command that runs these as this user; needs root.
    pub fn run(&self, command: &[&str]) -> Vec<String> {
        let mut words = vec!["setpriv".to_owned()];
        words.extend(self.setpriv());
        words.extend(command.iter().map(ToString::to_string));
        words
    }

    /// The user who runs the tests.
    pub fn current() -> Self {
        Self {
            uid: geteuid().as_raw(),
            gid: getegid().as_raw(),
            groups: &[],
        }
    }
}

/// Whether other users can be had.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// True where other users cannot be had; says so, because a test that is skipped must be seen.
pub fn skip_unless_root(test: &str) -> bool {
    if !is_root() {
        skip(test, "it needs root, to run programs as other users");
    }
    !is_root()
}

/// Says that a test is skipped, past libtest, which keeps the output of good tests to itself.
pub fn skip(test: &str, why: &str) {
    let line = format!("SKIPPED {test}: {why}\n");
    io::stderr().write_all(line.as_bytes()).unwrap();
}
