//! One run: time jumps from one event to the next, and everything that happens is observed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arcbroker_broker::chance::Chance;
use arcbroker_broker::daemon::World as Outside;
use arcbroker_broker::manager::Manager;
use arcbroker_broker::upkeep::TICK;

use tokio::runtime::{Handle, Runtime};
use tokio::task::yield_now;
use tokio::time::{sleep_until, timeout};

use crate::client::{Kind, Order, Wish};
use crate::dice::Dice;
use crate::event::{Event, SHOWN};
use crate::figures::Figures;
use crate::himds::Himds;
use crate::invariant::{Check, Invariant};
use crate::keys::{IDENTITIES, KEYS};
use crate::machine::{Files, Machine};
use crate::observer::{Broken, Observer};
use crate::panics;
use crate::plan::{BURST, Plan, Step};
use crate::records::Chain;
use crate::timeline::{Shift, Timeline};
use crate::wire::connector;

/// After a clock was moved, all ticks are run for this long.
const RESTLESS: Duration = Duration::from_mins(5);
/// Time for whatever is under way to end: the longest wait, and the last refresh.
const AFTERMATH: Duration = Duration::from_mins(3);
/// How often the runtime may wake up in an hour for each thing that happens in it, and besides: a
/// listener that does not accept is looked at up to ten times a second. A loop without a pause would
/// wake up a hundred times as often.
const WAKES_FOR_EACH: u64 = 40;
const WAKES_BESIDES: u64 = 40_000;
/// Calls that upstream may get in an hour, whatever happens.
///
/// The most are three keys without a token whose failure is remembered for 5 s, with two attempts
/// each time.
const CALLS_AN_HOUR: u64 = 4_500;
/// When it is looked whether all is fresh, after whatever was wrong is over: that which is demanded
/// 40 s after it, 60 s, and what upstream's 400 allows; each with the time that an attempt takes.
const CHECKS_AFTER: [Duration; 3] = [
    Duration::from_secs(41),
    Duration::from_secs(61),
    Duration::from_secs(65),
];
const HOUR: Duration = Duration::from_hours(1);

/// What is to be run.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// What everything is drawn from.
    pub seed: u64,
    /// How long, awake.
    pub length: Duration,
    /// Run also the ticks that do nothing.
    pub every_tick: bool,
    /// Clients that would go away stay.
    pub patient: bool,
    /// How many events to keep for a reader.
    pub shown: usize,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What was run.
    pub figures: Figures,
    /// A digest of all events.
    pub digest: u64,
    /// Of what upstream saw, and of the answers of clients that would stay anyhow.
    pub digests: (u64, u64),
    /// The first invariant that broke.
    pub broken: Option<Broken>,
}

/// Counts of everything that can change how long ticks will do nothing.
type Stirs = [u64; 6];

struct World {
    plan: Plan,
    setup: Setup,
    timeline: Timeline,
    observer: Observer,
    himds: Himds,
    machine: Arc<Machine>,
    steps: BTreeMap<(Duration, u64), Step>,
    scheduled: u64,
    orders: u64,
    /// By the boot clock: ticks up to here are done with.
    ticked: Duration,
    /// Ticks since then would have done nothing.
    was_idle: bool,
    /// How much had happened when it was last asked how long ticks will do nothing, and until when
    /// they will not by the boot clock, if so: to ask costs more than most of what happens.
    idle: Option<(Stirs, Option<Duration>)>,
    /// Requests for another token than there is, or for one that nobody wanted any more.
    wishes: u64,
    /// Awake.
    restless_until: Duration,
    chain: Chain,
    audit_gone: bool,
    /// Wake-ups of the runtime, calls and events at the last full hour.
    hour: [u64; 3],
}

impl Setup {
    /// One run of this length.
    pub fn new(seed: u64, length: Duration) -> Self {
        Self {
            seed,
            length,
            every_tick: false,
            patient: false,
            shown: SHOWN,
        }
    }

    /// Runs it. The runtime must be one of a single thread with paused time.
    pub fn run(self, runtime: &Runtime) -> Outcome {
        panics::watch(|| {
            runtime.block_on(async {
                let mut world = World::new(self);
                world.play().await;
                world.outcome()
            })
        })
    }
}

impl World {
    fn new(setup: Setup) -> Self {
        let mut plan = Plan::draw(setup.seed);
        let timeline = Timeline::new(plan.booted);
        timeline.set_wall(plan.wall);
        let observer = Observer::new(timeline.clone(), setup.shown);
        let files = Files::make();
        let dice = Dice::new(setup.seed);
        let himds = Himds::new(
            plan.temper,
            timeline.clone(),
            observer.clone(),
            &files,
            dice.apart("himds"),
        );
        let chance = Mutex::new(dice.apart("jitter"));
        let outside = Outside {
            clock: timeline.clock(),
            chance: Chance::from_fn(move || chance.lock().map_or(0.5, |mut dice| dice.unit())),
            connector: connector(&himds),
            manager: Manager::none(),
        };
        let machine = Machine::new(files, outside);
        let mut world = Self {
            ticked: plan.booted,
            was_idle: false,
            idle: None,
            wishes: 0,
            steps: BTreeMap::new(),
            scheduled: 0,
            orders: 0,
            restless_until: RESTLESS,
            chain: Chain::default(),
            audit_gone: false,
            hour: [0; 3],
            machine: Arc::new(machine),
            setup,
            timeline,
            observer,
            himds,
            plan: plan.clone(),
        };
        if plan.wall != Shift::RIGHT {
            let sane = world.himds.is_sane(plan.wall);
            world.observer.lock().wall_set(plan.wall, sane);
        }
        for (at, step) in plan.opening() {
            world.schedule(at, step);
        }
        world.plan = plan;
        world
    }

    async fn play(&mut self) {
        self.tick();
        while self.is_whole() {
            let next = self.steps.first_key_value();
            let at = next.map_or(Duration::MAX, |((at, _), _)| *at);
            let tick = self.tick_at();
            if at.min(tick) >= self.setup.length {
                break;
            }
            sleep_until(self.timeline.instant(at.min(tick))).await;
            if tick <= at {
                self.tick();
            } else if let Some((_, step)) = self.steps.pop_first() {
                self.take(step).await;
                if let Some(wait) = self.plan.again(step) {
                    self.later(wait, step);
                }
            }
            self.settle().await;
        }
        if self.is_whole() {
            self.wind_up().await;
        }
    }

    /// Lets every task that can run do so, before it is asked what is idle.
    async fn settle(&self) {
        for _ in 0..4 {
            yield_now().await;
        }
    }

    fn is_whole(&self) -> bool {
        if let Some(place) = panics::taken() {
            let check = Invariant::I18.demand(false, || format!("a panic at {place}"));
            self.observer.lock().check(check);
        }
        self.observer.broken().is_none()
    }

    fn schedule(&mut self, at: Duration, step: Step) {
        self.scheduled += 1;
        self.steps.insert((at, self.scheduled), step);
    }

    fn later(&mut self, after: Duration, step: Step) {
        let at = self.timeline.moment().awake + after;
        self.schedule(at, step);
    }

    /// When the next tick is that may do something, awake.
    fn tick_at(&mut self) -> Duration {
        let moment = self.timeline.moment();
        let boot = moment.now.boot;
        if self.was_idle {
            self.ticked = self
                .ticked
                .max(boot.saturating_sub(Duration::from_millis(1)));
        }
        let restless =
            self.setup.every_tick || self.audit_gone || moment.awake < self.restless_until;
        let idle = if restless {
            self.idle = None;
            None
        } else {
            self.idle_for(boot)
        };
        self.was_idle = idle.is_some();
        let after = match idle {
            Some(idle) => self
                .ticked
                .max(boot.saturating_add(idle - Duration::from_nanos(1))),
            None => self.ticked,
        };
        let passed = after.saturating_sub(self.plan.booted).as_millis() / TICK.as_millis();
        let next = self.plan.booted + TICK * u32::try_from(passed + 1).unwrap_or(u32::MAX);
        moment.awake + next.saturating_sub(boot)
    }

    fn idle_for(&mut self, boot: Duration) -> Option<Duration> {
        let figures = self.observer.lock().figures;
        let stirs = [
            figures.connects,
            figures.calls,
            figures.failed_calls,
            figures.tokens,
            figures.commands,
            self.wishes,
        ];
        match self.idle {
            Some((then, Some(until))) if then == stirs && until > boot => {
                return Some(until.saturating_sub(boot));
            }
            _ => {}
        }
        let idle = self.machine.idle_for();
        self.idle = Some((stirs, idle.map(|idle| boot.saturating_add(idle))));
        idle
    }

    fn tick(&mut self) {
        self.machine.tick();
        self.was_idle = false;
        // Ticks that were missed are one.
        self.ticked = self.timeline.moment().now.boot;
        self.observer.lock().figures.ticks += 1;
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Up => self.himds.start(),
            Step::Ask(key) => {
                let kind = Kind::Token(key, self.plan.wish());
                let patience = self.plan.patience(0.02);
                self.ask(kind, patience);
            }
            Step::Burst => {
                let key = self.plan.below(KEYS.len());
                for _ in 0..BURST {
                    let patience = self.plan.patience(0.3);
                    self.ask(Kind::Token(key, Wish::Nothing), patience);
                }
            }
            Step::Odd => {
                let (kind, patience) = (self.plan.odd(), self.plan.patience(0.02));
                self.ask(kind, patience);
            }
            Step::FaultBegins => {
                let (fault, share, time) = self.plan.fault();
                self.himds.begin(fault, share);
                self.later(time, Step::FaultEnds(fault));
            }
            Step::FaultEnds(fault) => {
                self.himds.end(fault);
                self.check_later();
            }
            Step::WallSet => {
                let (shift, time) = self.plan.wall();
                self.set_wall(shift);
                self.later(time, Step::WallRight);
            }
            Step::WallRight => self.set_wall(Shift::RIGHT),
            Step::Sleep => self.sleep(),
            Step::CheckFresh => self.observer.lock().check_fresh(),
            Step::Hour => self.hour(),
            other => self.manage(other).await,
        }
    }

    /// What administrators do, and what happens to the machine at large.
    async fn manage(&mut self, step: Step) {
        match step {
            Step::NewPrincipal => {
                let identity = self.plan.below(IDENTITIES);
                self.himds.change_principal(identity);
            }
            Step::Revoke | Step::Restore => {
                let whole = matches!(step, Step::Restore);
                self.machine.set_policy(whole).await;
                self.observer.lock().new_policy(whole);
                if !whole {
                    let time = self.plan.absence();
                    self.later(time, Step::Restore);
                }
            }
            Step::AuditGone if !self.audit_gone => {
                self.read_records();
                self.machine.set_audit(true);
                self.audit_gone = true;
                self.observer.lock().audit(true);
                let time = self.plan.absence();
                self.later(time, Step::AuditBack);
            }
            Step::AuditBack => {
                self.machine.set_audit(false);
                self.audit_gone = false;
                self.observer.lock().audit(false);
            }
            Step::Command => {
                let flush = self.plan.chance(0.5);
                self.command(flush).await;
            }
            Step::Rotate if !self.audit_gone => {
                let rotated = self.machine.rotate();
                let check = self.chain.follow(&rotated);
                let mut seen = self.observer.lock();
                seen.note(Event::Rotated);
                seen.check(check);
            }
            _ => {}
        }
    }

    /// A request in a task of its own. What is drawn for it is drawn here, so that nothing depends
    /// on the order in which tasks run.
    fn ask(&mut self, kind: Kind, patience: Option<Duration>) {
        self.orders += 1;
        if let Kind::Token(key, wish) = kind
            && (wish != Wish::Nothing || !self.observer.lock().is_wanted(key))
        {
            self.wishes += 1;
        }
        let has = match kind {
            Kind::Token(key, Wish::Another) => self.observer.lock().held_digest(key),
            _ => None,
        };
        let order = Order {
            number: self.orders,
            kind,
            patience,
            has,
        };
        let (machine, observer) = (Arc::clone(&self.machine), self.observer.clone());
        let patience = order.patience.filter(|_| !self.setup.patient);
        tokio::spawn(async move {
            observer.lock().asked(&order);
            let answer = order.ask(&machine.service);
            let answer = match patience {
                Some(patience) => timeout(patience, answer).await.ok(),
                None => Some(answer.await),
            };
            let written = machine.written();
            let mut seen = observer.lock();
            match answer {
                Some(reply) => seen.answered(&order, &reply, written),
                None => seen.hung_up(&order, written),
            }
        });
    }

    async fn command(&self, flush: bool) {
        let flying = self.machine.flying();
        if flush {
            self.observer.lock().flushed(flying);
        } else {
            self.observer.lock().refresh_wanted();
        }
        let status = self.machine.command(flush).await;
        let check =
            Invariant::I22.demand(status == 200, || format!("a command is answered {status}"));
        self.observer.lock().check(check);
    }

    fn set_wall(&mut self, shift: Shift) {
        self.observer.lock().wall_changes();
        self.timeline.set_wall(shift);
        let sane = self.himds.is_sane(shift);
        self.observer.lock().wall_set(shift, sane);
        self.clock_moved();
    }

    fn sleep(&mut self) {
        let time = self.plan.sleep();
        // The tick that was missed meanwhile comes at once.
        let boot = self.timeline.moment().now.boot;
        if std::mem::take(&mut self.was_idle) {
            self.ticked = self.ticked.max(boot);
        }
        self.timeline.suspend(time);
        self.observer.lock().slept(time);
        self.clock_moved();
    }

    fn clock_moved(&mut self) {
        self.restless_until = self.timeline.moment().awake + RESTLESS;
        self.check_later();
    }

    fn check_later(&mut self) {
        for after in CHECKS_AFTER {
            self.later(after, Step::CheckFresh);
        }
    }

    /// No busy loop, and no more entries than keys. I18, I20, I21.
    fn hour(&mut self) {
        self.later(HOUR, Step::Hour);
        let wakes = Handle::current().metrics().worker_park_count(0);
        let entries = self.machine.entries();
        let mut seen = self.observer.lock();
        seen.check_fresh();
        let figures = seen.figures;
        let now = [
            wakes,
            seen.calls.counted(),
            seen.trace.count() + figures.ticks,
        ];
        let [wakes, calls, events] = [0, 1, 2].map(|n| now[n] - self.hour[n]);
        self.hour = now;
        seen.figures.most_wakes = seen.figures.most_wakes.max(wakes);
        seen.figures.most_calls = seen.figures.most_calls.max(calls);
        let checks: [Check; 3] = [
            Invariant::I18.demand(wakes <= WAKES_BESIDES + events * WAKES_FOR_EACH, || {
                format!("{wakes} wake-ups for {events} events in an hour")
            }),
            Invariant::I18.demand(calls <= CALLS_AN_HOUR, || {
                format!("{calls} calls to upstream in an hour")
            }),
            Invariant::I20.demand(entries <= KEYS.len(), || {
                format!("{entries} entries for {} keys", KEYS.len())
            }),
        ];
        for check in checks {
            seen.check(check);
        }
    }

    fn read_records(&mut self) {
        let check = self.chain.follow(&self.machine.audit_file());
        self.observer.lock().check(check);
    }

    /// Everything becomes well, all is fresh again, every request has its answer, and all records
    /// are there.
    async fn wind_up(&mut self) {
        let steps = std::mem::take(&mut self.steps);
        for step in steps.into_values() {
            if matches!(
                step,
                Step::FaultEnds(_) | Step::WallRight | Step::Restore | Step::AuditBack
            ) {
                self.take(step).await;
            }
        }
        self.steps.clear();
        let end = self.timeline.moment().awake + AFTERMATH;
        while self.timeline.moment().awake < end && self.is_whole() {
            let tick = self.tick_at().min(end);
            sleep_until(self.timeline.instant(tick)).await;
            self.tick();
            self.settle().await;
        }
        self.observer.lock().check_fresh();
        self.read_records();
        self.observer.lock().check_end(&self.chain);
    }

    fn outcome(self) -> Outcome {
        let broken = if self.is_whole() {
            None
        } else {
            self.observer.broken()
        };
        let seen = self.observer.lock();
        let mut figures = seen.figures;
        figures.records = self.chain.count();
        figures.events = seen.trace.count();
        figures.seconds = self.timeline.moment().awake.as_secs();
        Outcome {
            seed: self.setup.seed,
            figures,
            digest: seen.trace.digest(),
            digests: seen.digests(),
            broken,
        }
    }
}
