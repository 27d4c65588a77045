//! The daemon as `daemon.rs` assembles it, with its real files, without sockets.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arcbroker_broker::audit::AuditLog;
use arcbroker_broker::config::{self, Settings};
use arcbroker_broker::daemon::{self, World};
use arcbroker_broker::gate::Gate;
use arcbroker_broker::peer::Peer;
use arcbroker_broker::place::Place;
use arcbroker_broker::registry::Registry;
use arcbroker_broker::rules::Reloader;
use arcbroker_broker::service::Service;
use arcbroker_broker::upkeep;
use arcbroker_client::wire::path;
use arcbroker_policy::{Caller, Diagnostics, Identity};
use hyper::{Method, Request};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::keys::{self, KEYS, Key};

/// A machine with a daemon on it.
#[derive(Debug)]
pub struct Machine {
    /// What answers requests.
    pub service: Arc<Service>,
    reloader: Arc<Reloader>,
    /// What is not known yet is being found out.
    looking: Arc<AtomicBool>,
    /// Holds the daemon: told to stop, it would answer differently.
    _stop: watch::Sender<bool>,
    files: Files,
}

/// The files of a machine.
#[derive(Debug)]
pub struct Files {
    /// Where HIMDS puts key files.
    pub tokens: PathBuf,
    /// Who owns all of them, and HIMDS's socket.
    pub owner: u32,
    policy: PathBuf,
    audit: PathBuf,
    _dir: TempDir,
}

impl Files {
    /// In memory where that can be.
    pub fn make() -> Self {
        let memory = Path::new("/dev/shm");
        let mut builder = tempfile::Builder::new();
        builder.prefix("arcbroker-simulation-");
        let dir = if memory.is_dir() {
            builder.tempdir_in(memory)
        } else {
            builder.tempdir()
        };
        let dir = dir.expect("a temporary directory can be made");
        let make = |name| {
            let path = dir.path().join(name);
            fs::create_dir(&path).expect("the directory is ours");
            path
        };
        Self {
            tokens: make("tokens"),
            policy: make("policy.d"),
            audit: make("audit"),
            owner: fs::metadata(dir.path()).expect("it was just made").uid(),
            _dir: dir,
        }
    }

    fn settings(&self) -> Settings {
        let text = format!(
            "[upstream]\nkind = \"himds\"\ntokens-dir = {:?}\nowners = [{owner}]\n[policy]\ndir = {:?}\nowners = [{owner}]\n[audit]\nfile = {:?}\njournald = false\n",
            self.tokens,
            self.policy,
            self.audit.join("audit.jsonl"),
            owner = self.owner,
        );
        let mut diagnostics = Diagnostics::new();
        let settings = config::read("broker.toml", text.as_bytes(), &mut diagnostics);
        settings.unwrap_or_else(|| panic!("{diagnostics}"))
    }

    fn write_policy(&self, text: &str) {
        fs::write(self.policy.join("simulation.toml"), text).expect("the directory is ours");
    }
}

impl Machine {
    /// A daemon that is about to start.
    pub fn new(files: Files, world: World) -> Self {
        files.write_policy(&keys::policy(false));
        let settings = files.settings();
        let clock = world.clock.clone();
        let place = Place::configured(settings.cloud);
        let (policy, shadow) = (settings.policy.clone(), settings.shadow());
        let reloader = Reloader::start(policy, shadow, place, None, clock.clone());
        let reloader = Arc::new(reloader.unwrap_or_else(|error| panic!("{error}")));
        let gate = Arc::new(Gate::new(settings.limits, clock.clone()));
        let registry = Arc::new(Registry::new(settings.endpoints));
        let audit = AuditLog::open(&settings.audit, clock).expect("the file can be made");
        let (stop, stopped) = watch::channel(false);
        let service = daemon::assemble(
            &settings,
            world,
            &reloader,
            Arc::new(audit),
            (&gate, &registry),
            stopped,
        );
        Self {
            service: Arc::new(service),
            reloader,
            looking: Arc::default(),
            _stop: stop,
            files,
        }
    }

    /// Everything that the daemon does from time to time.
    pub fn tick(&self) {
        upkeep::sweep(&self.service);
        if self.is_settled() || self.looking.swap(true, Ordering::Relaxed) {
            return;
        }
        let (service, reloader) = (Arc::clone(&self.service), Arc::clone(&self.reloader));
        let looking = Arc::clone(&self.looking);
        tokio::spawn(async move {
            upkeep::look(&service, &reloader).await;
            looking.store(false, Ordering::Relaxed);
        });
    }

    /// Whether there is nothing left to be found out.
    fn is_settled(&self) -> bool {
        self.service.rules.borrow().place.is_settled()
            && self
                .service
                .board
                .upstream
                .record()
                .last_success_at
                .is_some()
    }

    /// For how long ticks will certainly do nothing; `None` where the next one may do something.
    ///
    /// A tick acts on a slot only when that is wanted and due, and `refresh_in` is the time until
    /// then: it shrinks as fast as the boot clock runs, unless a clock is moved. What else can
    /// change a slot is a request for another token, a command, a fetch that runs, or the retry of
    /// one that failed. So where every wanted slot holds a token that is not due, none has a failure,
    /// and no fetch is under way, ticks do nothing until the first token is due, or one of these
    /// things happens. One of the tests proves that a run with all ticks has the same trace.
    pub fn idle_for(&self) -> Option<Duration> {
        if !self.is_settled() {
            return None;
        }
        let mut idle = Duration::MAX;
        for report in self.service.tokens.reports() {
            if report.flying || report.view.failure.is_some() {
                return None;
            }
            match report.view.refresh_in {
                Some(left) if !left.is_zero() => idle = idle.min(left),
                _ if report.wanted => return None,
                // Nobody wants it. Who comes back for it is a request for another token.
                _ => {}
            }
        }
        Some(idle)
    }

    /// How many entries the cache has.
    pub fn entries(&self) -> usize {
        self.service.tokens.reports().len()
    }

    /// Which keys have a fetch under way.
    pub fn flying(&self) -> [bool; KEYS.len()] {
        let mut flying = [false; KEYS.len()];
        for report in self.service.tokens.reports() {
            let client_id = match &report.key.identity {
                Identity::ClientId(id) => Some(id.to_string()),
                _ => None,
            };
            let same = |key: &Key| {
                key.resource == report.key.resource.as_str()
                    && key.client_id == client_id.as_deref()
            };
            if let Some(key) = KEYS.iter().position(same) {
                flying[key] = report.flying;
            }
        }
        flying
    }

    /// Drops all tokens, or has all refreshed, as the administrator would over the socket. Gives
    /// the status.
    pub async fn command(&self, flush: bool) -> u16 {
        let path = if flush { path::FLUSH } else { path::REFRESH };
        let request = Request::builder().method(Method::POST).uri(path);
        let request = request.header("host", "localhost").body(());
        let (head, ()) = request.expect("it is made of constants").into_parts();
        let root = Peer {
            caller: Caller::new(0, 0, Vec::new()),
            user: None,
            pid: None,
            invocation: None,
            endpoint: None,
        };
        self.service
            .answer_admin(&root, &head)
            .await
            .status()
            .as_u16()
    }

    /// How many audit records are written.
    pub fn written(&self) -> u64 {
        self.service.audit.state().0
    }

    /// Puts the policy in force, with the revocable rule or without; a policy with a mistake comes
    /// first, and must change nothing.
    pub async fn set_policy(&self, whole: bool) {
        self.files.write_policy("version = 1\n[[rule]]\nuser = ");
        self.reloader.reload().await;
        self.files.write_policy(&keys::policy(!whole));
        self.reloader.reload().await;
    }

    /// Where audit records are written now.
    pub fn audit_file(&self) -> PathBuf {
        self.files.audit.join("audit.jsonl")
    }

    /// Rotates the audit file as logrotate(8) does, and gives the old one.
    pub fn rotate(&self) -> PathBuf {
        let rotated = self.files.audit.join("audit.jsonl.1");
        // After a time without a directory, and without a request since, there is none.
        if fs::rename(self.audit_file(), &rotated).is_ok() {
            self.service.audit.follow_rotation();
        }
        rotated
    }

    /// Takes the audit directory away, with everything in it, or makes it anew.
    pub fn set_audit(&self, gone: bool) {
        let done = if gone {
            fs::remove_dir_all(&self.files.audit)
        } else {
            fs::create_dir(&self.files.audit)
        };
        done.expect("the directory is ours");
    }
}
