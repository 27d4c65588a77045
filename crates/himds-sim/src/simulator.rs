//! A simulator that runs: started, asked about, told to misbehave, stopped.

use std::{
    fmt, io,
    net::SocketAddr,
    os::{fd::AsRawFd as _, unix::fs::DirBuilderExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::sys::socket::{Shutdown, shutdown};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use crate::{
    challenge::KeyRing,
    control::{self, ControlSocket},
    crowd::Crowd,
    fault::{Fault, FaultSet},
    fault_table::Name,
    imds::Limits,
    journal::{Entry, Journal, Kind},
    key_file::Owner,
    keys,
    options::Options,
    route::Site,
    server,
    token::TokenCache,
};

/// A running simulator. Dropping it ends it, too: its port is free and its key files are gone
/// when the drop is done; [`Simulator::stop`] also waits for the tasks.
pub struct Simulator {
    site: Arc<Site>,
    listeners: Vec<Arc<TcpListener>>,
    connections: Arc<AtomicU64>,
    stop: watch::Sender<bool>,
    servers: JoinSet<()>,
    others: JoinSet<()>,
    _control: Option<ControlSocket>,
}

impl Simulator {
    /// Starts one on the current tokio runtime. When this returns, it accepts connections.
    ///
    /// # Errors
    ///
    /// If the address cannot be listened on, the tokens directory cannot be made, the owner of the
    /// key files does not exist, or the control socket cannot be bound; the error says which.
    #[expect(
        clippy::unused_async,
        reason = "it must be called on a runtime, and this says so"
    )]
    pub async fn start(options: Options) -> io::Result<Self> {
        keys::warm_up();
        let dir = tokens_dir(&options)?;
        let keys = Arc::new(KeyRing::new(&options, dir)?);
        let listeners = server::bind(options.listen, options.ipv6)?;
        let listeners: Vec<Arc<TcpListener>> = listeners.into_iter().map(Arc::new).collect();
        let address = listeners
            .first()
            .map_or(Ok(options.listen), |listener| listener.local_addr())?;
        let control = options
            .control
            .as_deref()
            .map(ControlSocket::bind)
            .transpose()?;
        let site = Arc::new(site(options, address, keys));
        let (stop, stopped) = watch::channel(false);
        let connections = Arc::new(AtomicU64::new(0));
        let (mut servers, mut others) = (JoinSet::new(), JoinSet::new());
        for listener in listeners.iter().map(Arc::clone) {
            let numbers = Arc::clone(&connections);
            servers.spawn(server::serve(
                listener,
                Arc::clone(&site),
                numbers,
                stopped.clone(),
            ));
        }
        if let Some(control) = &control {
            others.spawn(control::serve(control.listener(), Arc::clone(&site)));
        }
        others.spawn(sweep(Arc::clone(&site.keys)));
        Ok(Self {
            site,
            listeners,
            connections,
            stop,
            servers,
            others,
            _control: control,
        })
    }

    /// Its base URL, like `http://127.0.0.1:40342`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.site.address
    }

    /// The directory that key files are written to, as challenges name it.
    pub fn tokens_dir(&self) -> &Path {
        &self.site.keys.dir
    }

    /// What it was started with.
    pub fn options(&self) -> &Options {
        &self.site.options
    }

    /// Puts a fault in force, in place of one of the same name.
    pub fn set_fault(&self, fault: Fault) {
        self.site.faults.set(fault);
    }

    /// Ends the fault of this name; a name that no fault has changes nothing.
    pub fn clear_fault(&self, name: &str) {
        if let Some(name) = Name::named(name) {
            self.site.faults.remove(name);
        }
    }

    /// Ends all faults.
    pub fn clear_faults(&self) {
        self.site.faults.clear();
    }

    /// Everything that it was asked, in the order of arrival.
    pub fn journal(&self) -> Vec<Entry> {
        self.site.journal.entries()
    }

    /// Forgets what it was asked.
    pub fn clear_journal(&self) {
        self.site.journal.clear();
    }

    /// How many challenges the journal tells of.
    pub fn challenges(&self) -> usize {
        self.count(|entry| entry.kind == Kind::Challenge)
    }

    /// How many requests for a token the journal tells of, with and without a key.
    pub fn token_requests(&self) -> usize {
        self.count(|entry| entry.path.starts_with("/metadata/identity/oauth2/token"))
    }

    /// How many answers with a token the journal tells of.
    pub fn tokens(&self) -> usize {
        self.count(|entry| entry.kind == Kind::Token)
    }

    /// How many connections were ever accepted.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// How many requests it was answering at one time at most.
    pub fn most_at_once(&self) -> usize {
        self.site.crowd.most()
    }

    /// Ends it: connections are cut, the port is free, its key files are removed.
    pub async fn stop(mut self) {
        self.release();
        self.others.shutdown().await;
        while self.servers.join_next().await.is_some() {}
    }

    fn count(&self, wanted: impl Fn(&Entry) -> bool) -> usize {
        self.site
            .journal
            .entries()
            .iter()
            .filter(|entry| wanted(entry))
            .count()
    }

    fn release(&self) {
        self.stop.send_replace(true);
        for listener in &self.listeners {
            // The tasks that also hold the listener may end later; the port must be free now.
            let _ = shutdown(listener.as_raw_fd(), Shutdown::Both);
        }
        self.site.keys.close();
    }
}

/// Says where it is, and nothing of the keys and tokens that it holds.
impl fmt::Debug for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulator")
            .field("address", &self.address())
            .finish_non_exhaustive()
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.release();
    }
}

fn site(options: Options, address: SocketAddr, keys: Arc<KeyRing>) -> Site {
    let faults = Arc::new(FaultSet::default());
    for fault in &options.faults {
        faults.set(fault.clone());
    }
    let journal = Arc::new(Journal::new(options.clock.clone()));
    let (tokens, limits) = (TokenCache::default(), Limits::default());
    Site {
        options,
        address,
        faults,
        journal,
        keys,
        tokens,
        limits,
        crowd: Crowd::default(),
    }
}

/// Absolute, so that a challenge can name it, and otherwise as it was given.
fn tokens_dir(options: &Options) -> io::Result<PathBuf> {
    let dir = std::path::absolute(&options.tokens_dir)?;
    let name = dir
        .to_str()
        .filter(|name| name.bytes().all(|byte| byte >= b' ' && byte != 0x7f));
    let explain = |kind, what: &str| {
        io::Error::new(
            kind,
            format!("the tokens directory {}: {what}", dir.display()),
        )
    };
    if name.is_none() {
        return Err(explain(
            io::ErrorKind::InvalidInput,
            "its name cannot stand in a header; choose one of plain text",
        ));
    }
    if !options.imds && !dir.is_dir() {
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(&dir);
        made.map_err(|error| explain(error.kind(), &format!("cannot be made: {error}")))?;
        if let Some(owner) = &options.key_owner {
            Owner::named(owner)?.take_over(&dir)?;
        }
    }
    Ok(dir)
}

async fn sweep(keys: Arc<KeyRing>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        keys.sweep();
    }
}
