//! Policies of a few rules, and worlds with them.

use serde_json::Value;

use crate::{Connection, Ground, Setup, World};

/// A policy file with a rule for each pair of the lines of its subjects and its resource. The name of a
/// rule is made of both.
pub fn rules(rules: &[(&str, &str)]) -> String {
    let rule = |(subject, resource): &(&str, &str)| {
        let subjects = subject.replace(['"', '\n'], " ");
        format!(
            "[[rule]]\nname = \"{resource} for {subjects}\"\n{subject}\nresources = \"{resource}\"\n"
        )
    };
    let rules: Vec<String> = rules.iter().map(rule).collect();
    format!("version = 1\n{}", rules.concat())
}

impl World {
    /// Starts with these rules, and callers on this ground.
    pub async fn with_rules(policy: &[(&str, &str)], ground: Option<&Ground>) -> Self {
        Self::with(Setup {
            policy: rules(policy),
            config: vec![("callers", ground.map(Ground::config).unwrap_or_default())],
            ..Setup::default()
        })
        .await
    }
}

impl Connection {
    /// How the broker sees who connected.
    pub async fn whoami(&mut self) -> Value {
        self.get("/v1/whoami").await.json()
    }
}
