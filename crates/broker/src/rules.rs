//! The policy in force: one value that is replaced as a whole.

use std::sync::Arc;

use arcbroker_client::wire::PolicyStatus;
use arcbroker_policy::{Cloud, Diagnostics, Policy};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::policy_files::{self, Options};

/// The policy in force and how it came to be.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The policy.
    pub policy: Arc<Policy>,
    /// Unix seconds.
    pub loaded_at: u64,
    /// What it should not have.
    pub warnings: Arc<[String]>,
    /// Why the last reload was refused.
    pub reload_error: Option<Arc<str>>,
}

/// Replaces the policy.
#[derive(Debug)]
pub struct Reloader {
    options: Options,
    cloud: Cloud,
    clock: Clock,
    rules: watch::Sender<Rules>,
}

impl Reloader {
    /// Loads the policy for the first time. Blocks.
    ///
    /// # Errors
    ///
    /// All that is wrong with it.
    pub fn start(options: Options, cloud: Cloud, clock: Clock) -> Result<Self, Diagnostics> {
        let rules = read(&options, cloud, &clock)?;
        Ok(Self {
            options,
            cloud,
            clock,
            rules: watch::Sender::new(rules),
        })
    }

    /// The policy in force, now and later.
    pub fn watch(&self) -> watch::Receiver<Rules> {
        self.rules.subscribe()
    }

    /// Loads the policy again. One with any error is refused whole, and the old one stays.
    pub async fn reload(&self) {
        let (options, cloud, clock) = (self.options.clone(), self.cloud, self.clock.clone());
        let read = tokio::task::spawn_blocking(move || read(&options, cloud, &clock)).await;
        match read {
            Ok(Ok(rules)) => {
                tracing::info!(
                    rules = rules.policy.rules(),
                    hash = rules.policy.hash(),
                    "policy reloaded"
                );
                self.rules.send_replace(rules);
            }
            Ok(Err(diagnostics)) => self.refuse(&diagnostics.to_string()),
            Err(error) => self.refuse(&format!(
                "loading ended unexpectedly ({error}); this is a defect of arcbroker"
            )),
        }
    }

    fn refuse(&self, error: &str) {
        tracing::error!("the new policy is refused and the old one stays in force:\n{error}");
        self.rules
            .send_modify(|rules| rules.reload_error = Some(error.into()));
    }
}

impl Rules {
    /// What `status` shows.
    pub fn status(&self, dir: &str) -> PolicyStatus {
        PolicyStatus {
            dir: dir.to_owned(),
            hash: self.policy.hash().to_owned(),
            rules: self.policy.rules(),
            loaded_at: self.loaded_at,
            reload_error: self.reload_error.as_deref().map(str::to_owned),
            warnings: self.warnings.to_vec(),
        }
    }
}

fn read(options: &Options, cloud: Cloud, clock: &Clock) -> Result<Rules, Diagnostics> {
    let mut diagnostics = Diagnostics::new();
    let Some(policy) = policy_files::load(options, cloud, &mut diagnostics) else {
        return Err(diagnostics);
    };
    if !diagnostics.is_empty() {
        tracing::warn!("the policy has warnings:\n{diagnostics}");
    }
    Ok(Rules {
        policy: Arc::new(policy),
        loaded_at: clock.now().wall.as_secs(),
        warnings: diagnostics.iter().map(ToString::to_string).collect(),
        reload_error: None,
    })
}
