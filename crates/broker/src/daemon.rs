//! Puts the parts together, serves, and takes them apart again.

use std::io;
use std::sync::Arc;

use arcbroker_client::wire::path;
use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::ability::Ability;
use crate::audit::{AuditError, AuditLog};
use crate::bypass::Bypasses;
use crate::cache::TokenCache;
use crate::chance::Chance;
use crate::clock::Clock;
use crate::config::Settings;
use crate::decisions::Decisions;
use crate::deposits::{self, Deposits};
use crate::desk::Desk;
use crate::detect::Choice;
use crate::dial::Connector;
use crate::documents::Documents;
use crate::endpoints::{Endpoints, Shared};
use crate::evidence::Observer;
use crate::gate::{self, Gate};
use crate::keep;
use crate::kind::Kind;
use crate::listen::{ListenError, Listener, Passed};
use crate::manager::{Kept, Manager};
use crate::names::UserNames;
use crate::place::{self, Place};
use crate::process;
use crate::pulse::Pulse;
use crate::registry::Registry;
use crate::reply::Body;
use crate::rounds::Rounds;
use crate::rules::Reloader;
use crate::server::{Handler, Limits, Server, Visitor};
use crate::service::Service;
use crate::status::StatusBoard;
use crate::throttle;
use crate::ticker::Ticker;
use crate::timed_grants::TimedGrants;
use crate::turns::{self, Turns};
use crate::upkeep::{Signal, tend, tick};
use crate::upstream::Upstream;

/// Those of the admin socket, counted apart: callers must not be able to lock root out.
const ADMIN_LIMITS: gate::Options = gate::Options {
    all: 64,
    per_user: 64,
    per_unit: 64,
    requests: throttle::Options {
        per_user: 0,
        per_unit: 0,
    },
};

/// Processes of administrators that are remembered; each costs a file descriptor.
const ADMIN_REMEMBERED: u64 = 16;

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The policy has mistakes.
    #[error("the policy cannot be used:\n{0}")]
    Policy(Arc<str>),
    /// The group of the token socket does not exist.
    #[error("{0}")]
    Group(String),
    /// systemd passed a socket that is none of ours.
    #[error(
        "systemd passed a socket with the name `{0}`: write FileDescriptorName=token or \
         FileDescriptorName=admin into its unit"
    )]
    Passed(String),
    /// A socket cannot be served.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Decisions cannot be recorded.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// There is no timer.
    #[error("no timer can be had: {0}")]
    Timer(io::Error),
    /// The network namespace cannot be told.
    #[error("no endpoints can be served: {0}")]
    Endpoints(io::Error),
    /// A listener broke.
    #[error("no more connections can be accepted: {0}")]
    Accept(io::Error),
}

struct TokenHandler(Arc<Service>, Desk);
struct AdminHandler(Arc<Service>);

impl Handler for TokenHandler {
    async fn handle(&self, visitor: Visitor<'_>, request: Request<Incoming>) -> Response<Body> {
        if request.uri().path() == path::ENDPOINT {
            return self.1.answer(visitor, request);
        }
        self.0.answer(visitor.peer, &request.into_parts().0).await
    }
}

impl Handler for AdminHandler {
    async fn handle(&self, visitor: Visitor<'_>, request: Request<Incoming>) -> Response<Body> {
        let (head, _) = request.into_parts();
        self.0.answer_admin(visitor.peer, &head).await
    }
}

/// What the daemon sees of the world, besides files and sockets.
#[derive(Clone, Debug)]
pub struct World {
    /// The time.
    pub clock: Clock,
    /// Jitter.
    pub chance: Chance,
    /// How upstream is reached.
    pub connector: Connector,
    /// Who started the daemon, and holds things for the next one.
    pub manager: Manager,
}

impl World {
    /// The real one.
    pub fn system() -> Self {
        Self {
            clock: Clock::system(),
            chance: Chance::system(),
            connector: Connector::tcp(),
            manager: Manager::systemd(),
        }
    }
}

/// Serves until it is told to stop. Must be called inside a tokio runtime.
///
/// # Errors
///
/// [`DaemonError`]; nobody has been answered then, unless it is `Accept`.
pub async fn run(
    mut settings: Settings,
    mut passed: Passed,
    world: World,
    signals: mpsc::Receiver<Signal>,
) -> Result<(), DaemonError> {
    let ability = Ability::probe(settings.callers.clone());
    ability.tell();
    settings.policy.units = ability.units().map_err(Into::into);
    let observer = Observer::new(ability, world.clock.clone());
    settings.upstream.decide(&world.connector).await;
    let source = settings.upstream.source();
    let machine = passed.take_held(place::KEPT);
    let configured = Place::configured(settings.cloud);
    let kept = Place::kept(&machine, &source);
    let (policy, shadow) = (settings.policy.clone(), settings.shadow());
    let reloader = Reloader::start(policy, shadow, configured, kept, world.clock.clone());
    let reloader = reloader.map_err(DaemonError::Policy)?;
    let reloader = Arc::new(reloader);
    let audit = AuditLog::open(&settings.audit, world.clock.clone())?;
    audit.start()?;
    let audit = Arc::new(audit);
    settings.limits.all = process::affordable(settings.limits.all);
    let gate = Arc::new(Gate::new(settings.limits, world.clock.clone()));
    let admin_gate = Arc::new(Gate::new(ADMIN_LIMITS, world.clock.clone()));
    let registry = Arc::new(Registry::new(settings.endpoints));
    let (stop, stopped) = watch::channel(false);
    let (clock, manager) = (world.clock.clone(), world.manager.clone());
    settings.turns = bearable(settings.turns, &settings.upstream.choice);
    let service = Arc::new(assemble(
        &settings,
        world,
        &reloader,
        audit,
        (&gate, &registry),
        stopped.clone(),
    ));
    let held_endpoints = take_over(&service, &mut passed, &manager);
    let (token, admin) = listen(&settings, passed)?;
    let ticker = Ticker::new(tick(&manager)).map_err(DaemonError::Timer)?;
    let names = UserNames::new();
    let (desk, newcomers) = Desk::new(Arc::clone(&registry));
    // Those of the endpoints take turns with those of the socket.
    let (rounds, admin_rounds) = (Arc::<Rounds>::default(), Arc::<Rounds>::default());
    let shared = Shared {
        service: Arc::clone(&service),
        gate: Arc::clone(&gate),
        limits: Limits::default(),
        rounds: Arc::clone(&rounds),
        registry,
        clock,
        manager: manager.clone(),
    };
    let endpoints = Endpoints::new(shared, newcomers, held_endpoints, &observer);
    let endpoints = endpoints.map_err(DaemonError::Endpoints)?;
    let admin_observer = observer.remembering(ADMIN_REMEMBERED);
    let token_handler = TokenHandler(Arc::clone(&service), desk);
    let token = server(token, token_handler, &gate, &names, observer, &rounds);
    let admin_handler = AdminHandler(Arc::clone(&service));
    let admin = server(
        admin,
        admin_handler,
        &admin_gate,
        &names,
        admin_observer,
        &admin_rounds,
    );
    let pulse = Pulse::new(Arc::clone(&service), Arc::clone(&rounds), manager);
    // They end with this function.
    let mut turns = JoinSet::new();
    turns.spawn(rounds.run());
    turns.spawn(admin_rounds.run());

    let upstream = &service.board.upstream;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        token = %token.listener,
        admin = %admin.listener,
        upstream = upstream.kind().as_str(),
        endpoint = %upstream.endpoint(),
        reason = %upstream.choice().reason,
        rules = service.rules.borrow().policy.rules(),
        "ready"
    );
    pulse.ready();
    tokio::select! {
        result = async {
            tokio::try_join!(
                token.run(stopped.clone()),
                endpoints.run(stopped.clone()),
                admin.run(stopped),
            )
        } => result.map(drop).map_err(DaemonError::Accept),
        // Ends only after the servers: it tells them to stop, and then waits for them.
        () = tend(&service, &reloader, &pulse, signals, &ticker, &stop) => Ok(()),
    }
}

/// What the daemon before had held for this one: its tokens, and its endpoints, which are given back.
fn take_over(service: &Service, passed: &mut Passed, manager: &Manager) -> Kept {
    let tokens = service.tokens.restore(passed.take_held(deposits::PREFIX));
    if tokens > 0 {
        tracing::info!(tokens, "tokens of the daemon before are handed out on");
    }
    let endpoints = passed.take_held(keep::PREFIX);
    for name in passed.take_unknown().into_keys() {
        tracing::warn!(
            name,
            "systemd held something that this version of arcbrokerd does not know: it is let go"
        );
        manager.let_go(&name);
    }
    endpoints
}

/// Both sockets, or neither is served.
fn listen(settings: &Settings, mut passed: Passed) -> Result<(Listener, Listener), DaemonError> {
    let token = match passed.take("token") {
        Some(socket) => Listener::adopt(socket).map_err(DaemonError::Accept)?,
        None => Listener::bind(&settings.token.resolve().map_err(DaemonError::Group)?)?,
    };
    let admin = match passed.take("admin") {
        Some(socket) => Listener::adopt(socket).map_err(DaemonError::Accept)?,
        None => Listener::bind(&settings.admin)?,
    };
    match passed.into_name() {
        Some(name) => Err(DaemonError::Passed(name)),
        None => Ok((token, admin)),
    }
}

/// Everything between a request and its answer.
pub fn assemble(
    settings: &Settings,
    world: World,
    reloader: &Arc<Reloader>,
    audit: Arc<AuditLog>,
    (gate, registry): (&Arc<Gate>, &Arc<Registry>),
    stopped: watch::Receiver<bool>,
) -> Service {
    let World {
        clock,
        chance,
        connector,
        manager,
    } = world;
    let deposits = Deposits::new(manager, settings.upstream.source());
    let upstream = Arc::new(Upstream::new(
        settings.upstream.clone(),
        connector,
        clock.clone(),
    ));
    let turns = Arc::new(Turns::new(settings.turns, clock.clone(), chance.clone()));
    let tokens = TokenCache::new(
        Arc::clone(&upstream),
        Arc::clone(&turns),
        clock.clone(),
        chance,
        deposits,
        settings.cache,
    );
    let timed_grants = Arc::new(TimedGrants::default());
    let board = StatusBoard {
        clock: clock.clone(),
        started: clock.now(),
        upstream: Arc::clone(&upstream),
        turns: Arc::clone(&turns),
        tokens: tokens.clone(),
        rules: reloader.watch(),
        policy_dir: settings.policy.dir.display().to_string(),
        timed_grants: Arc::clone(&timed_grants),
        audit: Arc::clone(&audit),
        audit_options: settings.audit.clone(),
        gate: Arc::clone(gate),
        registry: Arc::clone(registry),
    };
    Service {
        tokens,
        timed_grants,
        decisions: Decisions::default(),
        bypasses: Bypasses::new(),
        documents: Documents::new(upstream, turns, clock.clone()),
        rules: reloader.watch(),
        reloader: Arc::clone(reloader),
        audit,
        board: Arc::new(board),
        clock,
        stopped,
        identity: settings.identity.clone(),
        policy: settings.policy.clone(),
    }
}

/// How much is asked for, within what the service bears that tokens come from.
fn bearable(turns: turns::Options, choice: &Choice) -> turns::Options {
    // What is not known yet may turn out to bear less.
    let kind = if choice.is_settled() {
        choice.kind
    } else {
        Kind::Imds
    };
    let most = kind.most_per_second().unwrap_or(u32::MAX);
    if turns.per_second > most {
        tracing::warn!(
            "[upstream] fetches-per-second: {kind} takes no more than {most} requests for tokens in a second, and \
             more are not sent"
        );
    }
    turns::Options {
        conversations: choice.kind.conversations(),
        per_second: turns.per_second.min(most),
    }
}

fn server<H: Handler>(
    listener: Listener,
    handler: H,
    gate: &Arc<Gate>,
    names: &UserNames,
    observer: Observer,
    rounds: &Arc<Rounds>,
) -> Server<H> {
    Server {
        listener,
        handler: Arc::new(handler),
        gate: Arc::clone(gate),
        limits: Limits::default(),
        names: names.clone(),
        observer,
        rounds: Arc::clone(rounds),
    }
}
