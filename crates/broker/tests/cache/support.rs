//! A cache over a source that does what a test says.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
pub(crate) use std::sync::atomic::{AtomicUsize, Ordering};
pub(crate) use std::sync::{Arc, Mutex};
pub(crate) use std::time::Duration;

pub(crate) use arcbroker_broker::cache::{Acquired, From, Options, TokenCache};
use arcbroker_broker::chance::Chance;
use arcbroker_broker::clock::{Clock, Now};
use arcbroker_broker::deposits::Deposits;
use arcbroker_broker::manager::{Kept, Manager};
pub(crate) use arcbroker_broker::slot::Wish;
use arcbroker_broker::token::{AccessToken, Issue, TokenSource, Wanted};
pub(crate) use arcbroker_broker::token::{Class, FetchError};
pub(crate) use arcbroker_broker::turns::{self, Turns};
use arcbroker_client::Secret;
use arcbroker_policy::{
    Accounts, Caller, Cloud, Diagnostics, Grant, Identity, Policy, Resource, RuleSet, SourceFile,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sd_notify::NotifyState;
pub(crate) use tokio::time::{Instant, advance, sleep};

pub(crate) const MINUTE: Duration = Duration::from_mins(1);
pub(crate) const HOUR: Duration = Duration::from_hours(1);
pub(crate) const DAY: Duration = Duration::from_hours(24);
pub(crate) const VAULT: &str = "https://vault.azure.net";

/// What the source does when it is asked.
#[derive(Clone, Copy)]
pub(crate) enum Script {
    /// Gives a token with this life after this time.
    Give {
        life: Duration,
        after: Duration,
    },
    /// Gives the token that it gave before, with what is left of this life, unless it is asked past
    /// its cache and honours that.
    Keep {
        life: Duration,
        after: Duration,
        honours: bool,
    },
    Fail(Class),
    Panic,
}

#[derive(Clone)]
pub(crate) struct Scripted {
    pub(crate) clock: Clock,
    script: Arc<Mutex<Script>>,
    pub(crate) asked: Arc<Mutex<HashMap<String, usize>>>,
    /// How often it was asked past its cache.
    pub(crate) bypassed: Arc<AtomicUsize>,
    /// Whom its tokens name.
    pub(crate) principal: Arc<Mutex<&'static str>>,
    kept: Arc<Mutex<HashMap<String, (String, Duration)>>>,
    running: Arc<AtomicUsize>,
    pub(crate) most_running: Arc<AtomicUsize>,
}

impl TokenSource for Scripted {
    async fn fetch(&self, wanted: &Wanted) -> Result<AccessToken, FetchError> {
        let key = &wanted.key;
        let number = {
            let mut asked = self.asked.lock().unwrap();
            let number = asked.entry(key.resource.to_string()).or_default();
            *number += 1;
            *number
        };
        self.bypassed
            .fetch_add(usize::from(wanted.bypass), Ordering::SeqCst);
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_running.fetch_max(running, Ordering::SeqCst);
        let script = *self.script.lock().unwrap();
        let result = match script {
            Script::Give { life, after } => {
                sleep(after).await;
                let text = self.text(number);
                Ok(self.issue(wanted, text, self.clock.now().wall + life))
            }
            Script::Keep {
                life,
                after,
                honours,
            } => {
                sleep(after).await;
                let fresh = || (self.text(number), self.clock.now().wall + life);
                let mut kept = self.kept.lock().unwrap();
                let entry = kept.entry(key.resource.to_string()).or_insert_with(fresh);
                if wanted.bypass && honours {
                    *entry = fresh();
                }
                let (text, ends) = entry.clone();
                Ok(self.issue(wanted, text, ends))
            }
            Script::Fail(class) => Err(FetchError::new(class, "scripted")),
            Script::Panic => panic!("scripted"),
        };
        self.running.fetch_sub(1, Ordering::SeqCst);
        result
    }
}

impl Scripted {
    fn text(&self, number: usize) -> String {
        let claims = format!(r#"{{"oid":"{}"}}"#, self.principal.lock().unwrap());
        format!("token-{number}-.{}.s", URL_SAFE_NO_PAD.encode(claims))
    }

    fn issue(&self, wanted: &Wanted, text: String, ends: Duration) -> AccessToken {
        let issue = Issue {
            access_token: Secret::from(text),
            expires_on: ends.as_secs(),
            expires_in: None,
            not_before: String::new(),
            client_id: None,
        };
        AccessToken::new(&issue, &wanted.key.resource, self.clock.now()).unwrap()
    }
}

/// A service manager that holds what it is asked to.
fn holder(held: &Arc<Mutex<Kept>>) -> Manager {
    let held = Arc::clone(held);
    Manager::from_fn(move |state, descriptors| {
        let name = state.iter().find_map(|state| match state {
            NotifyState::FdName(name) => Some((*name).to_owned()),
            _ => None,
        });
        let (name, mut held) = (name.unwrap(), held.lock().unwrap());
        if matches!(state.first(), Some(NotifyState::FdStoreRemove)) {
            held.remove(&name);
        } else {
            let copies = descriptors
                .iter()
                .map(|one| one.try_clone_to_owned().unwrap());
            held.entry(name).or_default().extend(copies);
        }
        Ok(())
    })
}

pub(crate) struct World {
    pub(crate) cache: TokenCache<Scripted>,
    pub(crate) source: Scripted,
    policy: Policy,
    held: Arc<Mutex<Kept>>,
    burden: turns::Options,
    options: Options,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Options::default())
    }

    pub(crate) fn with(options: Options) -> Self {
        let burden = turns::Options {
            conversations: 2,
            per_second: 5,
        };
        Self::under(burden, options)
    }

    /// With an upstream that may be asked as often as one likes.
    pub(crate) fn unburdened(options: Options) -> Self {
        let burden = turns::Options {
            conversations: 1000,
            per_second: 1000,
        };
        Self::under(burden, options)
    }

    pub(crate) fn under(burden: turns::Options, options: Options) -> Self {
        let start = Instant::now();
        let clock = Clock::from_fn(move || {
            let passed = Instant::now() - start;
            Now {
                wall: Duration::from_hours(500_000) + passed,
                boot: HOUR + passed,
            }
        });
        let source = Scripted {
            clock: clock.clone(),
            script: Arc::new(Mutex::new(Script::Give {
                life: DAY,
                after: Duration::ZERO,
            })),
            asked: Arc::default(),
            running: Arc::default(),
            most_running: Arc::default(),
            bypassed: Arc::default(),
            principal: Arc::new(Mutex::new("machine")),
            kept: Arc::default(),
        };
        Self::over(source, Arc::default(), burden, options)
    }

    fn over(
        source: Scripted,
        held: Arc<Mutex<Kept>>,
        burden: turns::Options,
        options: Options,
    ) -> Self {
        let clock = source.clock.clone();
        let turns = Arc::new(Turns::new(burden, clock.clone(), Chance::system()));
        Self {
            cache: TokenCache::new(
                source.clone(),
                turns,
                clock,
                Chance::system(),
                Deposits::new(holder(&held), "scripted"),
                options,
            ),
            source,
            policy: allow_all(),
            held,
            burden,
            options,
        }
    }

    /// A daemon for which the same things are held, and which does not know of them yet.
    pub(crate) fn unaware(&self) -> Self {
        let (source, held) = (self.source.clone(), Arc::clone(&self.held));
        Self::over(source, held, self.burden, self.options)
    }

    /// The next daemon, and how many tokens it has from the start.
    pub(crate) fn restart(&self) -> (Self, usize) {
        let next = self.unaware();
        let copies = |all: &Vec<OwnedFd>| all.iter().map(|one| one.try_clone().unwrap()).collect();
        let given = self
            .held
            .lock()
            .unwrap()
            .iter()
            .map(|(name, all)| (name.clone(), copies(all)))
            .collect();
        let restored = next.cache.restore(given);
        (next, restored)
    }

    /// How many slots are held for it.
    pub(crate) fn held(&self) -> usize {
        self.held.lock().unwrap().len()
    }

    pub(crate) fn script(&self, script: Script) {
        *self.source.script.lock().unwrap() = script;
    }

    pub(crate) fn grant(&self, resource: &str) -> Grant {
        let caller = Caller::new(7, 7, Vec::new());
        self.policy
            .decide(
                &caller,
                &Identity::System,
                &Resource::exact(resource).unwrap(),
            )
            .unwrap()
    }

    pub(crate) async fn token(&self) -> Result<Acquired, FetchError> {
        self.cache.token(&self.grant(VAULT), Wish::default()).await
    }

    /// The number of the token that a request gets.
    pub(crate) async fn number(&self) -> String {
        self.number_of(&self.token().await.unwrap())
    }

    pub(crate) fn number_of(&self, acquired: &Acquired) -> String {
        let text =
            String::from_utf8(acquired.token.answer(self.source.clock.now()).concat()).unwrap();
        text.split('"')
            .nth(3)
            .unwrap()
            .split('-')
            .nth(1)
            .unwrap()
            .to_owned()
    }

    pub(crate) fn asked(&self) -> usize {
        self.source.asked.lock().unwrap().values().sum()
    }

    /// Lets time pass as the daemon sees it: a sweep every 30 s.
    pub(crate) async fn pass(&self, time: Duration) {
        let mut left = time;
        while !left.is_zero() {
            let step = left.min(Duration::from_secs(30));
            // Not `advance`: time has to stop at each retry on the way.
            sleep(step).await;
            self.cache.sweep();
            settle().await;
            left -= step;
        }
    }
}

/// Lets every task that can run do so.
pub(crate) async fn settle() {
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}

pub(crate) fn allow_all() -> Policy {
    let file = SourceFile {
        name: "all.toml".into(),
        bytes: b"version = 1\n[[rule]]\nname = \"all\"\nuser = 7\nresources = [\"*\"]\n".to_vec(),
    };
    let mut diagnostics = Diagnostics::new();
    let rules = RuleSet::parse(&[file], Cloud::Public, &mut diagnostics).unwrap();
    rules.compile(&Accounts::default(), &mut diagnostics)
}

pub(crate) async fn ask_together(
    world: &Arc<World>,
    many: usize,
) -> Vec<Result<Acquired, FetchError>> {
    let asks: Vec<_> = (0..many)
        .map(|_| {
            let world = Arc::clone(world);
            tokio::spawn(async move { world.token().await })
        })
        .collect();
    let mut answers = Vec::new();
    for ask in asks {
        answers.push(ask.await.unwrap());
    }
    answers
}
