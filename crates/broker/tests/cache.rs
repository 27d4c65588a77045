//! The token cache over simulated time: a scripted source, tokio's paused clock, no sockets.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arcbroker_broker::cache::{Acquired, From, Options, TokenCache};
use arcbroker_broker::chance::Chance;
use arcbroker_broker::clock::{Clock, Now};
use arcbroker_broker::slot::Wish;
use arcbroker_broker::token::{AccessToken, Class, FetchError, Issue, TokenSource, Wanted};
use arcbroker_broker::turns::{self, Turns};
use arcbroker_client::Secret;
use arcbroker_policy::{
    Accounts, Caller, Cloud, Diagnostics, Grant, Identity, Policy, Resource, RuleSet, SourceFile,
};
use tokio::time::{Instant, advance, sleep};

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const VAULT: &str = "https://vault.azure.net";

/// What the source does when it is asked.
#[derive(Clone, Copy)]
enum Script {
    /// Gives a token with this life after this time.
    Give {
        life: Duration,
        after: Duration,
    },
    Fail(Class),
    Panic,
}

#[derive(Clone)]
struct Scripted {
    clock: Clock,
    script: Arc<Mutex<Script>>,
    asked: Arc<Mutex<HashMap<String, usize>>>,
    running: Arc<AtomicUsize>,
    most_running: Arc<AtomicUsize>,
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
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_running.fetch_max(running, Ordering::SeqCst);
        let script = *self.script.lock().unwrap();
        let result = match script {
            Script::Give { life, after } => {
                sleep(after).await;
                let now = self.clock.now();
                let issue = Issue {
                    access_token: Secret::from(format!("token-{number}-{}", key.resource)),
                    expires_on: (now.wall + life).as_secs(),
                    expires_in: None,
                    not_before: String::new(),
                    client_id: None,
                };
                Ok(AccessToken::new(&issue, &key.resource, now).unwrap())
            }
            Script::Fail(class) => Err(FetchError::new(class, "scripted")),
            Script::Panic => panic!("scripted"),
        };
        self.running.fetch_sub(1, Ordering::SeqCst);
        result
    }
}

struct World {
    cache: TokenCache<Scripted>,
    source: Scripted,
    policy: Policy,
}

impl World {
    fn new() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        let burden = turns::Options {
            conversations: 2,
            per_second: 5,
        };
        Self::under(burden, options)
    }

    /// With an upstream that may be asked as often as one likes.
    fn unburdened(options: Options) -> Self {
        let burden = turns::Options {
            conversations: 1000,
            per_second: 1000,
        };
        Self::under(burden, options)
    }

    fn under(burden: turns::Options, options: Options) -> Self {
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
        };
        let turns = Arc::new(Turns::new(burden, clock.clone(), Chance::system()));
        Self {
            cache: TokenCache::new(source.clone(), turns, clock, Chance::system(), options),
            source,
            policy: allow_all(),
        }
    }

    fn script(&self, script: Script) {
        *self.source.script.lock().unwrap() = script;
    }

    fn grant(&self, resource: &str) -> Grant {
        let caller = Caller {
            uid: 7,
            gid: 7,
            groups: Vec::new(),
        };
        self.policy
            .decide(
                &caller,
                &Identity::System,
                &Resource::exact(resource).unwrap(),
            )
            .unwrap()
    }

    async fn token(&self) -> Result<Acquired, FetchError> {
        self.cache.token(&self.grant(VAULT), Wish::default()).await
    }

    /// The token's text, by its number.
    async fn number(&self) -> String {
        let acquired = self.token().await.unwrap();
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

    fn asked(&self) -> usize {
        self.source.asked.lock().unwrap().values().sum()
    }

    /// Lets time pass as the daemon sees it: a sweep every 30 s.
    async fn pass(&self, time: Duration) {
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
async fn settle() {
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}

fn allow_all() -> Policy {
    let file = SourceFile {
        name: "all.toml".into(),
        bytes: b"version = 1\n[[rule]]\nname = \"all\"\nuser = 7\nresources = [\"*\"]\n".to_vec(),
    };
    let mut diagnostics = Diagnostics::new();
    let rules = RuleSet::parse(&[file], Cloud::Public, &mut diagnostics).unwrap();
    rules.compile(&Accounts::default(), &mut diagnostics)
}

async fn ask_together(world: &Arc<World>, many: usize) -> Vec<Result<Acquired, FetchError>> {
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

#[tokio::test(start_paused = true)]
async fn i1_all_who_ask_at_once_share_one_fetch_and_one_token() {
    let world = Arc::new(World::new());
    world.script(Script::Give {
        life: DAY,
        after: Duration::from_secs(3),
    });
    let answers = ask_together(&world, 1000).await;
    let digests: std::collections::HashSet<_> = answers
        .iter()
        .map(|answer| Arc::clone(answer.as_ref().unwrap().token.digest_text()))
        .collect();
    assert_eq!((digests.len(), world.asked()), (1, 1));
    assert_eq!(world.token().await.unwrap().from, From::Cache);
    assert_eq!(world.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn b15_all_who_wait_for_a_failure_get_it_and_it_is_remembered() {
    let world = Arc::new(World::new());
    world.script(Script::Fail(Class::Permanent));
    for answer in ask_together(&world, 100).await {
        assert_eq!(answer.unwrap_err().class, Class::Permanent);
    }
    assert_eq!(world.asked(), 1);
    advance(Duration::from_secs(50)).await;
    assert!(world.token().await.is_err());
    assert_eq!(world.asked(), 1, "remembered for a minute");
    advance(Duration::from_secs(20)).await;
    world.script(Script::Give {
        life: DAY,
        after: Duration::ZERO,
    });
    assert!(world.token().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn i10_clients_that_go_away_change_nothing_for_others() {
    let world = Arc::new(World::new());
    world.script(Script::Give {
        life: DAY,
        after: Duration::from_secs(5),
    });
    let leaders: Vec<_> = (0..1000)
        .map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.token().await })
        })
        .collect();
    settle().await;
    let last = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.token().await }
    });
    settle().await;
    leaders.iter().for_each(tokio::task::JoinHandle::abort);
    assert!(last.await.unwrap().is_ok());
    assert_eq!(world.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_refreshed_at_half_of_its_life_and_nobody_waits() {
    let world = World::new();
    assert_eq!(world.number().await, "1");
    world.pass(10 * HOUR).await;
    assert_eq!(world.asked(), 1);
    world.pass(4 * HOUR).await;
    assert_eq!(world.asked(), 2, "by the sweep, without a request");
    let acquired = world.token().await.unwrap();
    assert_eq!(acquired.from, From::Cache);
    assert_eq!(world.number().await, "2");
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_nobody_wants_any_more_is_left_to_expire() {
    let world = World::new();
    world.script(Script::Give {
        life: 30 * HOUR,
        after: Duration::ZERO,
    });
    world.token().await.unwrap();
    world.pass(200 * HOUR).await;
    assert_eq!(
        world.asked(),
        2,
        "once within the day after the request, and then no more"
    );
}

#[tokio::test(start_paused = true)]
async fn b16_b18_an_outage_takes_no_token_away_before_its_time() {
    let world = World::new();
    world.script(Script::Give {
        life: HOUR,
        after: Duration::ZERO,
    });
    world.token().await.unwrap();
    world.script(Script::Fail(Class::Down));
    world.pass(54 * MINUTE).await;
    let during = Instant::now();
    assert_eq!(world.number().await, "1");
    assert_eq!(Instant::now(), during, "and nobody waits for it");
    world.pass(4 * MINUTE).await;
    assert_eq!(world.number().await, "1", "until a minute is left");
    world.pass(2 * MINUTE).await;
    assert_eq!(world.token().await.unwrap_err().class, Class::Down);
    world.script(Script::Give {
        life: HOUR,
        after: Duration::ZERO,
    });
    world.pass(Duration::from_secs(40)).await;
    assert_eq!(
        world.token().await.unwrap().from,
        From::Cache,
        "I14: back within 40 s, without a request"
    );
}

#[tokio::test(start_paused = true)]
async fn i14_after_an_outage_every_wanted_token_is_fresh_within_40_seconds_and_a_sweep() {
    let world = World::new();
    world.script(Script::Give {
        life: 10 * HOUR,
        after: Duration::ZERO,
    });
    world.token().await.unwrap();
    world.script(Script::Fail(Class::Server));
    world.pass(7 * HOUR).await;
    let before = world.asked();
    world.script(Script::Give {
        life: 10 * HOUR,
        after: Duration::ZERO,
    });
    world.pass(Duration::from_secs(90)).await;
    assert_eq!(world.asked(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn an_outage_does_not_make_the_broker_hammer_upstream() {
    let world = World::new();
    world.script(Script::Give {
        life: 4 * HOUR,
        after: Duration::ZERO,
    });
    world.token().await.unwrap();
    world.pass(3 * HOUR).await;
    let before = world.asked();
    world.script(Script::Fail(Class::Hostile));
    let mut left = 600;
    while left > 0 {
        world.token().await.unwrap();
        advance(Duration::from_secs(1)).await;
        settle().await;
        left -= 1;
    }
    let calls = world.asked() - before;
    assert!(
        calls <= 30,
        "{calls} calls in 10 minutes with a request each second"
    );
}

#[tokio::test(start_paused = true)]
async fn b17_with_little_left_a_request_waits_for_a_better_token() {
    let world = World::with(Options {
        interest: Duration::ZERO,
        ..Options::default()
    });
    world.script(Script::Give {
        life: HOUR,
        after: Duration::from_secs(2),
    });
    assert_eq!(world.number().await, "1");
    advance(56 * MINUTE).await;
    let before = Instant::now();
    assert_eq!(world.number().await, "2");
    assert_eq!(Instant::now() - before, Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn with_little_left_and_a_slow_upstream_there_is_the_old_token_in_time() {
    let world = World::with(Options {
        interest: Duration::ZERO,
        ..Options::default()
    });
    world.script(Script::Give {
        life: HOUR,
        after: Duration::ZERO,
    });
    world.token().await.unwrap();
    world.script(Script::Give {
        life: HOUR,
        after: Duration::from_secs(50),
    });
    advance(58 * MINUTE + Duration::from_secs(45)).await;
    let before = Instant::now();
    assert_eq!(world.number().await, "1");
    assert_eq!(
        (Instant::now() - before).as_secs(),
        15,
        "a minute before its end it is too late"
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_waits_no_longer_than_its_patience() {
    let world = World::new();
    world.script(Script::Give {
        life: DAY,
        after: Duration::from_secs(45),
    });
    let before = Instant::now();
    assert_eq!(world.token().await.unwrap_err().class, Class::Deadline);
    assert_eq!((Instant::now() - before).as_secs(), 20);
    advance(Duration::from_secs(30)).await;
    settle().await;
    assert_eq!(
        world.token().await.unwrap().from,
        From::Cache,
        "the fetch went on without it"
    );
    assert_eq!(world.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_is_tried_for_two_seconds() {
    let world = World::new();
    world.script(Script::Fail(Class::Down));
    let before = Instant::now();
    assert_eq!(world.token().await.unwrap_err().class, Class::Down);
    let waited = (Instant::now() - before).as_millis();
    assert!((1_300..=2_100).contains(&waited), "{waited} ms");
    assert_eq!(world.asked(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_fetch_is_a_failure_and_not_the_end() {
    let world = World::new();
    world.script(Script::Panic);
    assert_eq!(world.token().await.unwrap_err().class, Class::Broken);
    world.script(Script::Give {
        life: DAY,
        after: Duration::ZERO,
    });
    advance(Duration::from_secs(3)).await;
    assert!(world.token().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn b13_two_spellings_of_a_resource_are_two_tokens() {
    let world = World::new();
    for resource in [VAULT, "https://vault.azure.net/", VAULT] {
        assert!(
            world
                .cache
                .token(&world.grant(resource), Wish::default())
                .await
                .is_ok()
        );
    }
    assert_eq!(world.source.asked.lock().unwrap().len(), 2);
    assert_eq!(world.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn i20_the_number_of_slots_is_bounded() {
    let world = World::unburdened(Options {
        slots: 8,
        ..Options::default()
    });
    for number in 0..100 {
        world
            .cache
            .token(&world.grant(&format!("https://r{number}")), Wish::default())
            .await
            .unwrap();
        assert!(world.cache.reports().len() <= 8);
    }
    let before = world.asked();
    world
        .cache
        .token(&world.grant("https://r99"), Wish::default())
        .await
        .unwrap();
    assert_eq!(world.asked(), before, "the one used last is still there");
}

#[tokio::test(start_paused = true)]
async fn i2_a_slot_that_is_evicted_while_it_is_fetched_is_not_fetched_twice() {
    let world = Arc::new(World::unburdened(Options {
        slots: 2,
        ..Options::default()
    }));
    world.script(Script::Give {
        life: DAY,
        after: Duration::from_secs(10),
    });
    let first = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.token().await }
    });
    settle().await;
    let others: Vec<_> = (0..10)
        .map(|number| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                world
                    .cache
                    .token(&world.grant(&format!("https://r{number}")), Wish::default())
                    .await
            })
        })
        .collect();
    settle().await;
    let again = world.token().await.unwrap();
    assert_eq!(
        again.token.digest(),
        first.await.unwrap().unwrap().token.digest()
    );
    for other in others {
        other.await.unwrap().unwrap();
    }
    assert_eq!(world.source.asked.lock().unwrap()[VAULT], 1);
}

#[tokio::test(start_paused = true)]
async fn i11_made_up_resources_cost_upstream_five_calls_a_second_and_push_nothing_out() {
    let world = World::new();
    world.token().await.unwrap();
    let mut refused = 0;
    for number in 0..1000 {
        let grant = world.grant(&format!("https://r{number}"));
        if let Err(error) = world.cache.token(&grant, Wish::default()).await {
            assert_eq!(error.class, Class::Busy);
            assert!(error.retry_after.unwrap() <= Duration::from_secs(1));
            refused += 1;
        }
        advance(Duration::from_millis(10)).await;
    }
    assert_eq!(refused, 1000 - (4 + 49));
    assert_eq!(world.asked(), 1000 - refused + 1);
    assert_eq!(
        world.cache.reports().len(),
        world.asked(),
        "a slot for each that was fetched"
    );
    assert_eq!(world.token().await.unwrap().from, From::Cache);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_lost_in_an_outage_comes_back_without_a_request() {
    let world = World::new();
    world.script(Script::Give {
        life: HOUR,
        after: Duration::ZERO,
    });
    world.token().await.unwrap();
    world.script(Script::Fail(Class::Down));
    world.pass(2 * HOUR).await;
    world.script(Script::Give {
        life: HOUR,
        after: Duration::ZERO,
    });
    world.pass(MINUTE).await;
    assert_eq!(world.token().await.unwrap().from, From::Cache);
}

#[tokio::test(start_paused = true)]
async fn a_failure_from_the_start_is_not_tried_again_without_a_request() {
    let world = World::new();
    world.script(Script::Fail(Class::Permanent));
    world.token().await.unwrap_err();
    world.pass(10 * MINUTE).await;
    assert_eq!(world.asked(), 1);
}
