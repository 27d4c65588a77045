//! A running `arcbrokerd`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{DAEMON_UID, HIMDS_GID, SOCKET_GID, binary, eventually, is_root};

/// A running daemon. It is killed when it is dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts the daemon with the user that it is tested under. Its standard error goes to `log`.
    pub fn spawn(config: &Path, log: &Path) -> Self {
        Self::spawn_through(&[], config, log)
    }

    /// The same below another program, such as strace(1).
    pub fn spawn_through(wrapper: &[&str], config: &Path, log: &Path) -> Self {
        let mut words: Vec<String> = wrapper.iter().map(ToString::to_string).collect();
        if is_root() {
            words.extend([
                "setpriv".to_owned(),
                format!("--reuid={DAEMON_UID}"),
                format!("--regid={DAEMON_UID}"),
            ]);
            words.extend([
                format!("--groups={HIMDS_GID},{SOCKET_GID}"),
                "--no-new-privs".to_owned(),
            ]);
        }
        // Below a program that is killed at the end of the test, it would live on.
        if !wrapper.is_empty() {
            words.extend(["setpriv", "--pdeathsig=KILL"].map(str::to_owned));
        }
        words.push(binary("arcbrokerd").display().to_string());
        let (program, arguments) = words.split_first().unwrap();
        let stderr = File::options().create(true).append(true).open(log).unwrap();
        let child = Command::new(program)
            .args(arguments)
            .arg("--config")
            .arg(config)
            .env_remove("JOURNAL_STREAM")
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        Self {
            child,
            log: log.to_owned(),
        }
    }

    /// The process id: that of the daemon, unless it runs below another program.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> ExitStatus {
        let child = std::cell::RefCell::new(&mut self.child);
        eventually("the daemon ends", || async {
            child.borrow_mut().try_wait().unwrap().is_some()
        })
        .await;
        self.child.wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended long ago.
        self.child.kill().unwrap_or_default();
        self.child.wait().unwrap();
    }
}

/// Stops a daemon without ending it, and waits until it stands still.
pub async fn freeze(daemon: Pid) {
    kill(daemon, Signal::SIGSTOP).unwrap();
    eventually("the daemon stands still", || async { state(daemon) == "T" }).await;
}

/// What the kernel says a process does, in one letter.
pub(crate) fn state(pid: Pid) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, after_name) = stat.rsplit_once(") ").unwrap();
    after_name[..1].to_owned()
}
