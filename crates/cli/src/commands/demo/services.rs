//! The two programs of the demo, from beside this one, and their ends.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use super::{Error, READY_WITHIN, Stage};

/// Where the programs are.
#[derive(Debug)]
pub(super) struct Programs {
    pub(super) arcbroker: PathBuf,
    himds_sim: PathBuf,
    arcbrokerd: PathBuf,
}

impl Programs {
    pub(super) fn beside_this_one() -> Result<Self, Error> {
        let arcbroker = env::current_exe().map_err(|source| Error::Start {
            name: "arcbroker",
            source,
        })?;
        let beside = |name| {
            let path = arcbroker.with_file_name(name);
            if path.is_file() {
                Ok(path)
            } else {
                Err(Error::Missing(path))
            }
        };
        Ok(Self {
            himds_sim: beside("himds-sim")?,
            arcbrokerd: beside("arcbrokerd")?,
            arcbroker,
        })
    }

    /// The simulator, and the lines that it prints: where they are dropped, its printing fails.
    pub(super) fn simulator(
        &self,
        stage: &Stage,
    ) -> Result<(Service, Lines<BufReader<ChildStdout>>), Error> {
        let args = [
            "--listen".into(),
            "127.0.0.1:0".into(),
            "--tokens-dir".into(),
            stage.challenge_keys().into_os_string(),
        ];
        let mut service = self.start("himds-sim", &self.himds_sim, &args, stage, Stdio::piped())?;
        let lines = service
            .child
            .stdout
            .take()
            .map(|stdout| BufReader::new(stdout).lines());
        let lines = lines.ok_or(Error::Start {
            name: "himds-sim",
            source: std::io::ErrorKind::BrokenPipe.into(),
        })?;
        Ok((service, lines))
    }

    pub(super) fn broker(&self, stage: &Stage) -> Result<Service, Error> {
        let args = ["--config".into(), stage.configuration().into_os_string()];
        self.start("arcbrokerd", &self.arcbrokerd, &args, stage, Stdio::null())
    }

    /// Beneath this process, so that it ends even if this one is killed; in a process group of its
    /// own, so that Ctrl-C reaches this process alone, which then stops the others in order.
    fn start(
        &self,
        name: &'static str,
        program: &Path,
        args: &[OsString],
        stage: &Stage,
        stdout: Stdio,
    ) -> Result<Service, Error> {
        let (log, stderr) = stage.log(name)?;
        let child = Command::new(&self.arcbroker)
            .arg("beneath")
            .arg(std::process::id().to_string())
            .arg(program)
            // What follows is the program's: `--config` is an option of ours, too.
            .arg("--")
            .args(args)
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .map_err(|source| Error::Start { name, source })?;
        Ok(Service { name, child, log })
    }
}

/// A program that runs.
#[derive(Debug)]
pub(super) struct Service {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Waits for what shows that it is ready, for its end, or for the deadline.
    pub(super) async fn ready<T>(&mut self, sign: impl Future<Output = T>) -> Result<T, Error> {
        let waited = tokio::select! {
            sign = tokio::time::timeout(READY_WITHIN, sign) => sign,
            ended = self.ended() => return Err(ended),
        };
        waited.map_err(|_| Error::NotReady {
            name: self.name,
            log: self.last_words(),
        })
    }

    /// Waits for it to end by itself.
    pub(super) async fn ended(&mut self) -> Error {
        match self.child.wait().await {
            Ok(status) => Error::Ended {
                name: self.name,
                status,
                log: self.last_words(),
            },
            Err(source) => Error::Start {
                name: self.name,
                source,
            },
        }
    }

    /// Asks it to end, and makes it end if it does not.
    pub(super) async fn stop(mut self) {
        if let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            // It may have ended by itself just now; it is not yet waited for, so the pid is its own.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        if tokio::time::timeout(STOP_WITHIN, self.child.wait())
            .await
            .is_err()
        {
            // Nothing is left to be done if even that fails.
            let _ = self.child.kill().await;
        }
    }

    fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let start = lines.len().saturating_sub(LAST_LINES);
        lines.get(start..).unwrap_or_default().join("\n")
    }
}

/// The first line; if there is none, the end of the program says why.
pub(super) async fn address(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    match lines.next_line().await {
        Ok(Some(line)) => line,
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

/// The broker gives open connections 15 s to end; this is a bit longer, so that it is not killed at that.
const STOP_WITHIN: Duration = Duration::from_secs(17);

const LAST_LINES: usize = 20;
