//! The policy in force: one value that is replaced as a whole.
//!
//! Short names in it stand for resources of the machine's cloud. Until that is known, the same
//! files are kept as they would be under every cloud: what one of them would allow is not yet to
//! be refused for good.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arcbroker_client::wire::{PolicyStatus, ReloadAnswer, SCHEMA, TimedGrant};
use arcbroker_policy::{Cloud, Diagnostics, Policy};
use arcbroker_policy_files::{Loaded, Options, load_each};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::place::Place;
use crate::shadow::Shadow;

/// The policy in force and how it came to be.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The policy.
    pub policy: Arc<Policy>,
    /// What short names stand for.
    pub place: Place,
    /// Unix seconds.
    pub loaded_at: u64,
    /// What it should not have.
    pub warnings: Arc<[String]>,
    /// Why the last reload was refused.
    pub reload_error: Option<Arc<str>>,
    /// What is tried beside it.
    pub shadow: Option<Arc<Shadow>>,
    /// While the cloud is not known: what would be in force in each of the others.
    others: Vec<(Cloud, Compiled)>,
}

/// A policy and its warnings, or why there is none.
type Compiled = Result<(Arc<Policy>, Arc<[String]>), Arc<str>>;

/// Replaces the policy.
#[derive(Debug)]
pub struct Reloader {
    options: Options,
    shadow: Options,
    clock: Clock,
    rules: watch::Sender<Arc<Rules>>,
    /// How many reloads have begun to read.
    begun: AtomicU64,
    /// Which of them was the last that had its say.
    settled: AtomicU64,
    /// The same two of the shadow policy.
    shadows: (AtomicU64, AtomicU64),
}

impl Reloader {
    /// Loads the policy for the first time. Blocks.
    ///
    /// `kept` is where the machine is, as the daemon before was told it, if `place` does not say. Files that are of no
    /// use there keep no daemon from starting: when it was told, they did not end the one before either.
    ///
    /// # Errors
    ///
    /// All that is wrong with it.
    pub fn start(
        options: Options,
        shadow: Options,
        place: Place,
        kept: Option<Place>,
        clock: Clock,
    ) -> Result<Self, Arc<str>> {
        let loaded = load_each(&options, &place.candidates());
        let mut rules = Rules::new(loaded, place, &clock)?;
        if let Some(kept) = kept.filter(|_| !rules.place.is_settled()) {
            rules = rules.settled(kept);
            if let Some(error) = &rules.reload_error {
                tracing::error!("{error}");
            }
        }
        rules.shadow = Shadow::load(&shadow, rules.place.cloud(), None);
        Ok(Self {
            options,
            shadow,
            clock,
            rules: watch::Sender::new(Arc::new(rules)),
            begun: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            shadows: <(AtomicU64, AtomicU64)>::default(),
        })
    }

    /// The policy in force, now and later.
    pub fn watch(&self) -> watch::Receiver<Arc<Rules>> {
        self.rules.subscribe()
    }

    /// Loads the policy again. One with any error is refused whole, and the old one stays.
    ///
    /// Several may run at a time: what one of them has read does not replace what a later one has.
    pub async fn reload(&self) {
        let turn = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let (options, clouds) = (self.options.clone(), self.rules.borrow().place.candidates());
        let loading = tokio::task::spawn_blocking(move || load_each(&options, &clouds));
        self.reload_shadow().await;
        match loading.await {
            // The cloud may have become known meanwhile.
            Ok(loaded) => self.replace(turn, |old| {
                let new = Rules::new(loaded, old.place.clone(), &self.clock)?;
                Ok(Rules {
                    shadow: old.shadow.clone(),
                    ..new
                })
            }),
            Err(error) => self.replace(turn, |_| {
                let what = "loading ended unexpectedly";
                Err(format!("{what} ({error}); this is a defect of arcbroker").into())
            }),
        }
    }

    /// Loads what is tried beside the policy again.
    pub async fn reload_shadow(&self) {
        let (begun, settled) = &self.shadows;
        let turn = begun.fetch_add(1, Ordering::Relaxed) + 1;
        let (options, old) = (self.shadow.clone(), Arc::clone(&self.rules.borrow()));
        let load = move || Shadow::load(&options, old.place.cloud(), old.shadow.as_ref());
        match tokio::task::spawn_blocking(load).await {
            Ok(shadow) => self.rules.send_modify(|rules| {
                if settled.fetch_max(turn, Ordering::Relaxed) < turn {
                    Arc::make_mut(rules).shadow = shadow;
                }
            }),
            Err(error) => tracing::error!(%error, "loading the shadow policy ended unexpectedly"),
        }
    }

    /// The cloud of the machine is known now, once and for all. Whether that is news.
    pub fn settle(&self, place: &Place) -> bool {
        if self.rules.borrow().place.is_settled() || !place.is_settled() {
            return false;
        }
        tracing::info!(cloud = %place.cloud(), "it is known now what short names of resources stand for");
        if let Some(warning) = place.warning() {
            tracing::warn!("{warning}");
        }
        self.rules
            .send_modify(|rules| *rules = Arc::new(rules.settled(place.clone())));
        if let Some(error) = &self.rules.borrow().reload_error {
            tracing::error!("{error}");
        }
        true
    }

    fn replace(&self, turn: u64, make: impl FnOnce(&Rules) -> Result<Rules, Arc<str>>) {
        self.rules.send_modify(|rules| {
            // One at a time comes here.
            if self.settled.fetch_max(turn, Ordering::Relaxed) > turn {
                return;
            }
            match make(rules) {
                Ok(new) => {
                    tracing::info!(
                        rules = new.policy.rules(),
                        hash = new.policy.hash(),
                        "policy reloaded"
                    );
                    *rules = Arc::new(new);
                }
                Err(error) => {
                    tracing::error!(
                        "the new policy is refused and the old one stays in force:\n{error}"
                    );
                    Arc::make_mut(rules).reload_error = Some(error);
                }
            }
        });
    }
}

impl Rules {
    fn new(loaded: Vec<(Cloud, Loaded)>, place: Place, clock: &Clock) -> Result<Self, Arc<str>> {
        let mut others: Vec<_> = loaded
            .into_iter()
            .map(|(cloud, loaded)| (cloud, compiled(loaded)))
            .collect();
        let (policy, warnings) = take(&mut others, place.cloud())?;
        if !warnings.is_empty() {
            tracing::warn!("the policy has warnings:\n{}", warnings.join("\n"));
        }
        if place.is_settled() {
            others.clear();
        }
        Ok(Self {
            policy,
            warnings: with_warning(&warnings, &place),
            place,
            loaded_at: clock.now().wall.as_secs(),
            reload_error: None,
            shadow: None,
            others,
        })
    }

    /// The same files in the cloud that the machine turned out to be in.
    fn settled(&self, place: Place) -> Self {
        let mut new = self.clone();
        let chosen = new
            .others
            .iter()
            .find(|(cloud, _)| *cloud == place.cloud())
            .map(|(_, compiled)| compiled.clone());
        match chosen {
            // The one that is in force already.
            None => {}
            Some(Ok((policy, warnings))) => (new.policy, new.warnings) = (policy, warnings),
            Some(Err(error)) => {
                let what = format!(
                    "the policy cannot be used in {}, where this machine is; the names of {} stay in force:\n{error}",
                    place.cloud(),
                    self.place.cloud()
                );
                new.reload_error = Some(what.into());
            }
        }
        new.others.clear();
        new.warnings = with_warning(&new.warnings, &place);
        new.place = place;
        new
    }

    /// The policy as it would be in force in a cloud that the machine may turn out to be in.
    pub fn under(&self, cloud: Cloud) -> &Policy {
        let other = self.others.iter().find(|(other, _)| *other == cloud);
        match other {
            Some((_, Ok((policy, _)))) => policy,
            _ => &self.policy,
        }
    }

    /// What a command to reload is told.
    pub fn reload_answer(&self) -> ReloadAnswer {
        ReloadAnswer {
            schema: SCHEMA,
            rules: self.policy.rules(),
            hash: self.policy.hash().to_owned(),
            error: self.reload_error.as_deref().map(str::to_owned),
            warnings: self.warnings.to_vec(),
        }
    }

    /// What `status` shows.
    pub fn status(&self, dir: &str, grants: Vec<TimedGrant>) -> PolicyStatus {
        PolicyStatus {
            dir: dir.to_owned(),
            hash: self.policy.hash().to_owned(),
            rules: self.policy.rules(),
            loaded_at: self.loaded_at,
            reload_error: self.reload_error.as_deref().map(str::to_owned),
            warnings: self.warnings.to_vec(),
            grants,
            shadow: self.shadow.as_ref().map(|shadow| shadow.status()),
        }
    }
}

fn compiled(loaded: Loaded) -> Compiled {
    let texts = |diagnostics: &Diagnostics| diagnostics.iter().map(ToString::to_string).collect();
    match loaded {
        Ok((policy, diagnostics)) => Ok((Arc::new(policy), texts(&diagnostics))),
        Err(diagnostics) => Err(diagnostics.to_string().into()),
    }
}

fn take(each: &mut Vec<(Cloud, Compiled)>, cloud: Cloud) -> Compiled {
    match each.iter().position(|(other, _)| *other == cloud) {
        Some(place) => each.swap_remove(place).1,
        None => Err("it was not loaded for this cloud; this is a defect of arcbroker".into()),
    }
}

fn with_warning(warnings: &[String], place: &Place) -> Arc<[String]> {
    warnings.iter().cloned().chain(place.warning()).collect()
}

#[cfg(test)]
mod tests;
