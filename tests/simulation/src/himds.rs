//! HIMDS in memory: its cache, its key files, its identities, and its faults.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::sync::watch;

use crate::dice::Dice;
use crate::fault::Fault;
use crate::keys::{IDENTITIES, KEYS};
use crate::machine::Files;
use crate::observer::{Delivery, Facts, Observer, Offer};
use crate::timeline::{Shift, Timeline};

/// How long a key is good for.
const KEY_LIFE: Duration = Duration::from_secs(30);
/// With a clock so wrong, HIMDS trusts no certificate of Entra.
const CERTIFICATES: Duration = Duration::from_hours(24);

/// What HIMDS is like in this run.
#[derive(Clone, Copy, Debug)]
pub struct Temper {
    /// The life of a new token.
    pub lifetime: Duration,
    /// It keeps a token until this much is left.
    pub renews_below: Duration,
    /// It knows `bypass_cache`, as agents from 1.66 on do.
    pub can_be_bypassed: bool,
    /// It closes the connection after each challenge.
    pub closes: bool,
    /// The kernel takes a moment until somebody holds the other end.
    pub accepts_late: bool,
    /// With a clock that is wrong by days it gets nothing from Entra.
    pub checks_certificates: bool,
}

/// HIMDS.
#[derive(Clone, Debug)]
pub struct Himds(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    temper: Temper,
    timeline: Timeline,
    observer: Observer,
    keys_dir: PathBuf,
    owner: u32,
    state: Mutex<State>,
    recovered: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    dice: Dice,
    up: bool,
    faults: Vec<(Fault, f64)>,
    kept: [Option<u64>; KEYS.len()],
    principals: [u64; IDENTITIES],
    minted: u64,
    conversations: u64,
    /// The faults of conversations that go on over another connection: it is the conversation that a
    /// fault happens to.
    continued: VecDeque<Option<Fault>>,
    key_files: BTreeMap<String, KeyFile>,
}

#[derive(Debug)]
struct KeyFile {
    name: String,
    /// By the boot clock.
    until: Duration,
}

impl Himds {
    /// Not up yet.
    pub fn new(
        temper: Temper,
        timeline: Timeline,
        observer: Observer,
        files: &Files,
        dice: Dice,
    ) -> Self {
        Self(Arc::new(Inner {
            temper,
            timeline,
            observer,
            keys_dir: files.tokens.clone(),
            owner: files.owner,
            state: Mutex::new(State {
                dice,
                up: false,
                faults: Vec::new(),
                kept: [None; KEYS.len()],
                principals: [1; IDENTITIES],
                minted: 0,
                conversations: 0,
                continued: VecDeque::new(),
                key_files: BTreeMap::new(),
            }),
            recovered: watch::Sender::new(0),
        }))
    }

    /// It is up from now on.
    pub fn start(&self) {
        self.lock().up = true;
        self.0.observer.lock().up();
    }

    /// A fault happens from now on, to this share of conversations.
    pub fn begin(&self, fault: Fault, share: f64) {
        self.lock().faults.push((fault, share));
        self.0.observer.lock().fault(fault, true);
    }

    /// It does not happen any more; whoever hangs in it is let go.
    pub fn end(&self, fault: Fault) {
        let mut state = self.lock();
        if let Some(at) = state.faults.iter().position(|(other, _)| *other == fault) {
            state.faults.remove(at);
        }
        drop(state);
        self.0.observer.lock().fault(fault, false);
        self.0.recovered.send_modify(|count| *count += 1);
    }

    /// The machine is connected anew: this identity is another principal, and nothing is kept.
    pub fn change_principal(&self, identity: usize) {
        let mut state = self.lock();
        state.principals[identity] += 1;
        let principal = state.principals[identity];
        for (key, kept) in state.kept.iter_mut().enumerate() {
            if KEYS[key].identity() == identity {
                *kept = None;
            }
        }
        drop(state);
        self.offer_all();
        self.0.observer.lock().new_principal(principal);
    }

    /// Ends when a fault ends.
    pub async fn recovery(&self) {
        let mut recovered = self.0.recovered.subscribe();
        recovered.mark_unchanged();
        recovered.changed().await.unwrap_or_default();
    }

    /// The user that it runs as.
    pub fn owner(&self) -> u32 {
        self.0.owner
    }

    /// What it is like.
    pub fn temper(&self) -> Temper {
        self.0.temper
    }

    /// Where everything is told.
    pub fn observer(&self) -> &Observer {
        &self.0.observer
    }

    /// A number for a new conversation, and the fault that happens to it.
    pub fn begin_conversation(&self) -> (u64, Option<Fault>) {
        let mut state = self.lock();
        state.conversations += 1;
        let number = state.conversations;
        if let Some(fault) = state.continued.pop_front() {
            return (number, fault);
        }
        if !state.up {
            return (number, Some(Fault::Refused));
        }
        let drawn = state.dice.unit();
        let fault = state.faults.last().filter(|(_, share)| drawn < *share);
        (number, fault.map(|(fault, _)| *fault))
    }

    /// The connection is closed after the challenge; the conversation goes on over the next one.
    pub fn expect_another(&self, fault: Option<Fault>) {
        self.lock().continued.push_back(fault);
    }

    /// How long it takes over something.
    pub fn pause(&self, most: Duration) -> Duration {
        self.lock().dice.between(Duration::from_millis(1), most)
    }

    /// A challenge: writes a key file, and gives its path.
    pub fn challenge(&self, fault: Option<Fault>) -> PathBuf {
        let boot = self.0.timeline.moment().now.boot;
        let mut state = self.lock();
        self.sweep(&mut state, boot);
        let number = state.dice.draw();
        let (name, key) = (format!("{number:016x}.key"), format!("key-{number:016x}"));
        let path = self.0.keys_dir.join(&name);
        if fault != Some(Fault::KeyMissing) {
            let content = match fault {
                Some(Fault::KeyRotated) => "key-of-another-challenge",
                _ => &key,
            };
            fs::write(&path, content).expect("the temporary directory can be written");
        }
        if fault == Some(Fault::KeyUntrusted) {
            fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("the file is ours");
        }
        let until = boot + KEY_LIFE;
        state.key_files.insert(key, KeyFile { name, until });
        path
    }

    /// Whether this key was given out, and is used for the first time.
    pub fn accepts(&self, key: &str) -> bool {
        let boot = self.0.timeline.moment().now.boot;
        let mut state = self.lock();
        let Some(file) = state.key_files.remove(key) else {
            return false;
        };
        fs::remove_file(self.0.keys_dir.join(file.name)).unwrap_or_default();
        boot < file.until
    }

    fn sweep(&self, state: &mut State, boot: Duration) {
        state.key_files.retain(|_, file| {
            let keep = boot < file.until;
            if !keep {
                fs::remove_file(self.0.keys_dir.join(&file.name)).unwrap_or_default();
            }
            keep
        });
    }

    /// Whether Entra gives it anything: with a clock that is wrong by days, no certificate is valid.
    pub fn reaches_entra(&self) -> bool {
        !self.0.temper.checks_certificates || self.0.timeline.wall().size() <= CERTIFICATES
    }

    /// The token for a key, from its cache unless it is to be passed by.
    pub fn token(&self, key: usize, bypass: bool, fault: Option<Fault>) -> Delivery {
        let moment = self.0.timeline.moment();
        let temper = self.0.temper;
        let mut state = self.lock();
        let kept = state.kept[key].map(|token| (token, self.expiry(token)));
        // HIMDS looks at the clock that everybody looks at.
        let left =
            |expires_on: u64| Duration::from_secs(expires_on).saturating_sub(moment.now.wall);
        let bypass = bypass && temper.can_be_bypassed;
        let (token, keep) = match (fault, kept) {
            (Some(Fault::SameAgain), Some((token, _))) => (token, true),
            (Some(Fault::Short(life)), _) => {
                (self.mint(&mut state, key, moment.truth, life), false)
            }
            (Some(Fault::Expired), _) => {
                let past = moment.truth.saturating_sub(Duration::from_mins(1));
                (
                    self.mint(&mut state, key, past, Duration::from_secs(1)),
                    false,
                )
            }
            (Some(Fault::Sooner), Some((_, expires_on))) => {
                let life = Duration::from_secs(expires_on).saturating_sub(moment.truth) / 2;
                (self.mint(&mut state, key, moment.truth, life), false)
            }
            (_, Some((token, expires_on))) if !bypass && left(expires_on) > temper.renews_below => {
                (token, true)
            }
            _ => (
                self.mint(&mut state, key, moment.truth, temper.lifetime),
                true,
            ),
        };
        if keep {
            state.kept[key] = Some(token);
        }
        drop(state);
        self.offer_all();
        let honest = left(self.expiry(token)).as_secs();
        let expires_in = match fault {
            Some(Fault::LongExpiresIn) => honest + 3600,
            Some(Fault::ShortExpiresIn) => honest / 2,
            _ => honest,
        };
        Delivery { token, expires_in }
    }

    fn expiry(&self, token: u64) -> u64 {
        let seen = self.0.observer.lock();
        seen.facts(token).map_or(0, |facts| facts.expires_on)
    }

    fn mint(&self, state: &mut State, key: usize, issued: Duration, life: Duration) -> u64 {
        state.minted += 1;
        let (number, principal) = (state.minted, state.principals[KEYS[key].identity()]);
        let expires_on = (issued + life).as_secs();
        let claims = serde_json::json!({
            "aud": KEYS[key].resource,
            "iat": issued.as_secs(),
            "exp": expires_on,
            "oid": format!("00000000-0000-4000-8000-{:04x}{principal:08x}", KEYS[key].identity()),
            "tid": "72f988bf-86f1-41af-91ab-2d7cd011db47",
            "uti": format!("uti-{number}"),
            "xms_mirid": "/subscriptions/s/resourcegroups/g/providers/Microsoft.HybridCompute/machines/m",
        });
        let payload = URL_SAFE_NO_PAD.encode(claims.to_string());
        let text = format!("eyJhbGciOiJub25lIn0.{payload}.no-signature-{number}");
        self.0
            .observer
            .lock()
            .minted(number, Facts::new(key, text, principal, expires_on));
        number
    }

    /// Tells the observer what could be had.
    fn offer_all(&self) {
        let kept = self.lock().kept;
        let temper = self.0.temper;
        self.0.observer.lock().offers = kept.map(|kept| Offer {
            kept,
            renews_below: temper.renews_below,
            can_be_bypassed: temper.can_be_bypassed,
        });
    }

    /// Whether a wall clock that is so wrong leaves tokens a life that can be judged.
    pub fn is_sane(&self, wall: Shift) -> bool {
        let certificates = !self.0.temper.checks_certificates || wall.size() <= CERTIFICATES;
        match wall {
            Shift::Ahead(by) => certificates && by * 2 < self.0.temper.lifetime,
            Shift::Behind(_) => certificates,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
