//! An upstream that misbehaves, and what it was asked meanwhile.

use std::fs;

use himds_sim::{Authorization, Entry};
use nix::unistd::geteuid;

use crate::{Answer, World, eventually};

const TOKEN: &str = "/metadata/identity/oauth2/token";

impl World {
    /// A policy under which the user who runs the tests may have a token for anything.
    pub fn anything() -> String {
        let uid = geteuid();
        format!("version = 1\n[[rule]]\nname = \"anything\"\nuser = {uid}\nresources = [\"*\"]\n")
    }

    /// Puts a fault of the simulator in force: `NAME[=VALUE][:COUNT]`.
    pub fn fault(&self, fault: &str) {
        self.simulator().set_fault(fault.parse().unwrap());
    }

    /// Waits until HIMDS gives tokens again: after failures it is left alone for a while.
    pub async fn recover(&self) {
        const RESOURCE: &str = "https%3A%2F%2Frecovered.example";
        eventually("HIMDS is asked again", || async {
            self.command(&format!("/v1/flush?resource={RESOURCE}"))
                .await;
            self.token(RESOURCE).await.status == 200
        })
        .await;
    }

    /// The requests for a token that the simulator was asked, in order.
    pub fn asked(&self) -> Vec<Entry> {
        let mut journal = self.simulator().journal();
        journal.retain(|entry| entry.path == TOKEN);
        journal
    }

    /// Those of them that brought something secret.
    pub fn with_key(&self) -> Vec<Entry> {
        let mut asked = self.asked();
        asked.retain(|entry| entry.authorization != Authorization::Absent);
        asked
    }

    /// Writes `to` for `from` in the configuration, and starts the daemon with it.
    pub async fn reconfigure(&mut self, from: &str, to: &str) {
        let path = self.path("broker.toml");
        let config = fs::read_to_string(&path).unwrap();
        assert!(config.contains(from), "there is no {from} in:\n{config}");
        fs::write(&path, config.replace(from, to)).unwrap();
        self.restart_daemon().await;
    }

    /// Everything that the daemon says to anybody: its log, its status, its audit file.
    pub async fn said(&self) -> String {
        let audit = fs::read_to_string(self.path("log.d/audit.jsonl")).unwrap_or_default();
        self.daemon.log() + &self.admin("/v1/status").await.body + &audit
    }
}

impl Answer {
    /// The `error` of the body.
    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }
}
