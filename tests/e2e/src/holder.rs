//! A daemon that is started again whenever it ends, by a stand-in for systemd that holds what it gives it.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Setup, World, eventually};

/// The stand-in, for [`Setup::wrapper`].
pub fn holder() -> Vec<String> {
    let script = include_str!("holder.py");
    ["python3", "-c", script, "{dir}/held"]
        .map(str::to_owned)
        .to_vec()
}

impl World {
    /// One with a daemon that is started again.
    pub async fn held() -> Self {
        Self::held_with(Setup::default()).await
    }

    /// The same with a set-up of its own.
    pub async fn held_with(setup: Setup) -> Self {
        let wrapper = holder();
        Self::with(Setup { wrapper, ..setup }).await
    }

    /// The names of what is held that begin with this, once for each descriptor.
    pub fn names_held(&self, prefix: &str) -> Vec<String> {
        let names = fs::read_to_string(self.path("held")).unwrap_or_default();
        let meant = names.lines().filter(|name| name.starts_with(prefix));
        meant.map(str::to_owned).collect()
    }

    /// The daemon that serves now.
    pub async fn daemon_pid(&self) -> Pid {
        Pid::from_raw(self.status().await.pid.cast_signed())
    }

    /// Ends the daemon with a signal, and waits for the next one.
    pub async fn replace_daemon(&self, signal: Signal) {
        let before = self.daemon_pid().await;
        kill(before, signal).unwrap();
        eventually("another daemon serves", || async {
            let status = self.admin_client().status().await;
            status.is_ok_and(|status| status.pid.cast_signed() != before.as_raw())
        })
        .await;
    }
}
