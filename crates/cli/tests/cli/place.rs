//! A machine's policy directories, configuration and audit file, in a temporary directory.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::support::{Broker, Ran, answer, command};

pub(crate) struct Place {
    dir: TempDir,
    broker: Option<Broker>,
}

impl Place {
    /// No daemon runs.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let owner = fs::metadata(dir.path()).unwrap().uid();
        let at = dir.path().display();
        let config = format!(
            "[policy]\ndir = \"{at}/policy.d\"\nshadow-dir = \"{at}/shadow.d\"\nowners = [{owner}]\n\
             [audit]\nfile = \"{at}/audit.jsonl\"\n[limits]\nconnections = 7\n"
        );
        fs::write(dir.path().join("broker.toml"), config).unwrap();
        for name in ["policy.d", "shadow.d"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::set_permissions(dir.path().join(name), Permissions::from_mode(0o755)).unwrap();
        }
        Self { dir, broker: None }
    }

    /// A daemon that reads this policy answers so to each reload, and is asked for its status first.
    pub(crate) fn with_daemon(reloads: &[&str]) -> Self {
        let mut place = Self::new();
        let status = format!(
            r#"{{"schema":1,"version":"0.1.0","pid":1,"started_at":1,"uptime_seconds":60,"health":"healthy",
            "reasons":[],"outage_budget_seconds":null,
            "upstream":{{"kind":"himds","endpoint":"http://127.0.0.1:40342","last_success_at":null,"last_failure_at":null,"last_failure":null,"token_requests":0}},
            "policy":{{"dir":"{}","hash":"0","rules":0,"loaded_at":1,"reload_error":null,"warnings":[]}},
            "audit":{{"file":null,"required":true,"sequence":0,"error":null}},
            "tokens":[],"requests":{{"issued":0,"denied":0,"malformed":0,"unavailable":0,"abandoned":0}},
            "connections":{{"open":1,"refused":0}}}}"#,
            place.path("policy.d").display()
        );
        let reloads = reloads.iter().map(|error| {
            let body =
                format!(r#"{{"schema":1,"rules":0,"hash":"0","error":{error},"warnings":[]}}"#);
            answer(200, "", &body)
        });
        let answers = std::iter::once(answer(200, "", &status)).chain(reloads);
        place.broker = Some(Broker::answering(answers.collect()));
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// All names below a directory, hidden ones too.
    pub(crate) fn names(&self, dir: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(dir)).unwrap().map(Result::unwrap);
        let mut names: Vec<_> = entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The command, with `DIR` for this directory in what it prints.
    pub(crate) fn run(&self, line: &str) -> Ran {
        let socket = match &self.broker {
            Some(broker) => broker.path.clone(),
            None => self.path("nobody.sock"),
        };
        let mut command = command(line);
        command
            .env("ARCBROKER_CONFIG", self.path("broker.toml"))
            .env("ARCBROKER_ADMIN_SOCKET", socket);
        let ran: Ran = command
            .current_dir(self.dir.path())
            .output()
            .unwrap()
            .into();
        let hide = |text: String| text.replace(&self.dir.path().display().to_string(), "DIR");
        Ran {
            stdout: hide(ran.stdout),
            stderr: hide(ran.stderr),
            ..ran
        }
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        let broker = self.broker.as_ref();
        let requests = broker.map(Broker::requests).unwrap_or_default();
        let first = |request: &String| request.lines().next().unwrap_or_default().to_owned();
        requests.iter().map(first).collect()
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}
