//! What happens in a run, drawn from its seed.

use std::time::Duration;

use crate::client::{Kind, MALFORMED, Wish};
use crate::dice::Dice;
use crate::fault::Fault;
use crate::himds::Temper;
use crate::keys::{FORBIDDEN, KEYS};
use crate::timeline::Shift;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const YEAR: Duration = Duration::from_hours(24 * 365);

/// Requests of one key: four an hour.
const BETWEEN_REQUESTS: Duration = Duration::from_mins(15);

/// Clients that ask at once in a burst.
pub const BURST: usize = 50;

/// What a run is like as a whole.
#[derive(Clone, Debug)]
pub struct Plan {
    dice: Dice,
    /// Mean time between faults.
    between_faults: Duration,
    /// How long the machine has been up.
    pub booted: Duration,
    /// When HIMDS is up, awake.
    pub himds_up: Duration,
    /// The wall clock at the start.
    pub wall: Shift,
    /// What HIMDS is like.
    pub temper: Temper,
}

/// Something that is to happen.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// HIMDS is up.
    Up,
    /// The next request for a key.
    Ask(usize),
    /// Many at once.
    Burst,
    /// A request that is no usual one.
    Odd,
    /// A fault begins; the next one is drawn.
    FaultBegins,
    /// A fault ends.
    FaultEnds(Fault),
    /// The wall clock is set.
    WallSet,
    /// It is set right.
    WallRight,
    /// The machine sleeps.
    Sleep,
    /// An identity becomes another principal.
    NewPrincipal,
    /// A rule is taken away.
    Revoke,
    /// It is back.
    Restore,
    /// The audit directory is gone.
    AuditGone,
    /// It is back.
    AuditBack,
    /// The audit file is rotated.
    Rotate,
    /// The administrator flushes or refreshes.
    Command,
    /// Everything that can be fresh must be.
    CheckFresh,
    /// An hour is over.
    Hour,
}

/// Mean times between events that come by themselves.
const RECURRENT: [(Step, Duration); 10] = [
    (Step::Burst, Duration::from_hours(24 * 5)),
    (Step::Odd, Duration::from_hours(2)),
    (Step::WallSet, Duration::from_hours(24 * 40)),
    (Step::Sleep, Duration::from_hours(24 * 40)),
    (Step::NewPrincipal, Duration::from_hours(24 * 120)),
    (Step::Revoke, Duration::from_hours(24 * 60)),
    (Step::AuditGone, Duration::from_hours(24 * 90)),
    (Step::Rotate, Duration::from_hours(24 * 30)),
    (Step::Command, Duration::from_hours(24 * 30)),
    // How often is drawn with the plan.
    (Step::FaultBegins, Duration::MAX),
];

impl Plan {
    /// The plan of this seed.
    pub fn draw(seed: u64) -> Self {
        let mut dice = Dice::new(seed).apart("plan");
        let just_booted = dice.chance(0.6);
        let booted = if just_booted {
            dice.between(5 * SECOND, MINUTE)
        } else {
            dice.spread(HOUR, 100 * DAY)
        };
        let himds_up = if just_booted && dice.chance(0.5) {
            dice.spread(SECOND, 20 * MINUTE)
        } else {
            Duration::ZERO
        };
        let between_faults = dice.pick(&[30 * DAY, 15 * DAY, 8 * DAY, 4 * DAY]);
        let wall = match dice.below(12) {
            0 => Shift::Behind(50 * YEAR),
            1 => Shift::Behind(dice.spread(SECOND, DAY)),
            2 => Shift::Ahead(dice.spread(SECOND, DAY)),
            _ => Shift::RIGHT,
        };
        let temper = Temper {
            lifetime: dice.pick(&[24, 24, 24, 24, 8, 8, 1].map(|hours| hours * HOUR)),
            renews_below: dice.pick(&[
                5 * MINUTE,
                5 * MINUTE,
                5 * MINUTE,
                10 * MINUTE,
                30 * MINUTE,
            ]),
            can_be_bypassed: dice.chance(0.5),
            closes: dice.chance(0.2),
            accepts_late: dice.chance(0.2),
            checks_certificates: dice.chance(0.5),
        };
        Self {
            dice,
            between_faults,
            booted,
            himds_up,
            wall,
            temper,
        }
    }

    /// What happens first, and when, awake.
    pub fn opening(&mut self) -> Vec<(Duration, Step)> {
        let mut steps = vec![(self.himds_up, Step::Up), (HOUR, Step::Hour)];
        if self.wall != Shift::RIGHT {
            steps.push((self.dice.spread(10 * SECOND, 2 * HOUR), Step::WallRight));
        }
        for key in 0..KEYS.len() {
            steps.push((self.dice.spread(SECOND, HOUR), Step::Ask(key)));
        }
        for (step, mean) in RECURRENT {
            steps.push((self.wait(step, mean), step));
        }
        steps
    }

    /// When the same happens again, if it does by itself.
    pub fn again(&mut self, step: Step) -> Option<Duration> {
        if let Step::Ask(_) = step {
            // Now and then nobody asks for days.
            let pause = self.dice.chance(0.0005);
            return Some(if pause {
                self.dice.spread(6 * HOUR, 4 * DAY)
            } else {
                self.dice.wait(BETWEEN_REQUESTS)
            });
        }
        let same = |other: &Step| std::mem::discriminant(other) == std::mem::discriminant(&step);
        let (_, mean) = RECURRENT.iter().find(|(other, _)| same(other))?;
        Some(self.wait(step, *mean))
    }

    fn wait(&mut self, step: Step, mean: Duration) -> Duration {
        match step {
            Step::FaultBegins => self.dice.wait(self.between_faults),
            _ => self.dice.wait(mean),
        }
    }

    /// A fault: which, for what share of conversations, and for how long.
    pub fn fault(&mut self) -> (Fault, f64, Duration) {
        let dice = &mut self.dice;
        let fault = Fault::draw(dice);
        let share = if dice.chance(0.7) {
            1.0
        } else {
            0.2 + 0.6 * dice.unit()
        };
        let time = if dice.chance(0.03) {
            dice.spread(4 * HOUR, 36 * HOUR)
        } else {
            dice.spread(2 * SECOND, 4 * HOUR)
        };
        (fault, share, time)
    }

    /// How wrong the wall clock is from now on, and for how long.
    pub fn wall(&mut self) -> (Shift, Duration) {
        let dice = &mut self.dice;
        let by = dice.pick(&[SECOND, HOUR, 10 * YEAR]);
        let shift = if dice.chance(0.5) {
            Shift::Ahead(by)
        } else {
            Shift::Behind(by)
        };
        (shift, dice.spread(MINUTE, 3 * DAY))
    }

    /// How long the machine sleeps.
    pub fn sleep(&mut self) -> Duration {
        self.dice.spread(SECOND, 30 * DAY)
    }

    /// How long something is gone.
    pub fn absence(&mut self) -> Duration {
        self.dice.spread(SECOND, 6 * HOUR)
    }

    /// One of so many.
    pub fn below(&mut self, end: usize) -> usize {
        self.dice.below(end)
    }

    /// How often, as in [`Dice::chance`].
    pub fn chance(&mut self, of: f64) -> bool {
        self.dice.chance(of)
    }

    /// What a client of this key wants besides a token.
    pub fn wish(&mut self) -> Wish {
        match self.dice.below(300) {
            0 => Wish::Another,
            1 => Wish::Bypass,
            _ => Wish::Nothing,
        }
    }

    /// After what time a client goes away, if it does before its answer.
    pub fn patience(&mut self, share: f64) -> Option<Duration> {
        let dice = &mut self.dice;
        let leaves = dice.chance(share);
        let time = if dice.chance(0.2) {
            Duration::ZERO
        } else {
            dice.spread(Duration::from_millis(1), 15 * SECOND)
        };
        leaves.then_some(time)
    }

    /// A request that is no usual one.
    pub fn odd(&mut self) -> Kind {
        let dice = &mut self.dice;
        match dice.below(6) {
            0 | 1 => Kind::Forbidden(dice.below(FORBIDDEN.len())),
            2 | 3 => Kind::Malformed(dice.below(MALFORMED.len())),
            4 => Kind::Document(dice.chance(0.5)),
            _ => dice.pick(&[Kind::Whoami, Kind::Health]),
        }
    }
}
