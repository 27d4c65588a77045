//! Faults of who is on HIMDS's port.

use arcbroker_e2e::{Relay, User, is_root};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use crate::intruder::{BlackHole, OtherService, Process, SQUATTER};
use crate::stage::Stage;

/// Who is on the port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Port {
    /// Nobody.
    HimdsStopped,
    /// A HIMDS that gets no time to run.
    HimdsFrozen,
    /// A HIMDS that was killed, and is started again.
    HimdsKilled,
    /// Somebody to whom the kernel passes nothing on.
    BlackHole,
    /// Another service.
    OtherService,
    /// Another user, with a HIMDS of his own.
    Squatter,
    /// Another user, who passes everything on.
    Relay,
    /// HIMDS for every first connection, and another user for every second.
    Switched,
}

/// Who is there in place of the simulator.
#[derive(Debug, Default)]
pub struct Occupant {
    process: Option<Process>,
    relay: Option<Relay>,
    black_hole: Option<BlackHole>,
    other_service: Option<OtherService>,
}

impl Port {
    /// As the table names them.
    pub const NAMES: [(&str, Self); 8] = [
        ("himds-stopped", Self::HimdsStopped),
        ("himds-frozen", Self::HimdsFrozen),
        ("himds-killed", Self::HimdsKilled),
        ("port-black-hole", Self::BlackHole),
        ("port-other-service", Self::OtherService),
        ("port-squatter", Self::Squatter),
        ("port-relay", Self::Relay),
        ("port-switched", Self::Switched),
    ];

    /// A relay is there from the start, and is HIMDS's own until it is not.
    pub async fn prepare(self, stage: &mut Stage) {
        if !matches!(self, Self::Relay | Self::Switched) {
            return;
        }
        let (genuine, me) = (stage.world.himds_address(), geteuid().as_raw());
        let relay = Relay::start(genuine, me, me);
        let endpoint = stage.world.simulator().endpoint();
        stage.world.reconfigure(&endpoint, &relay.endpoint()).await;
        stage.port.relay = Some(relay);
    }

    /// Puts it in force.
    pub async fn strike(self, stage: &mut Stage) {
        let address = stage.world.himds_address();
        match self {
            Self::HimdsStopped => stage.world.stop_simulator().await,
            Self::HimdsFrozen => run_himds(stage, None).await.signal(Signal::SIGSTOP),
            Self::HimdsKilled => {
                run_himds(stage, None).await;
                kill_himds(stage).await;
            }
            Self::BlackHole => {
                stage.world.stop_simulator().await;
                stage.port.black_hole = Some(BlackHole::open(address).await);
            }
            Self::OtherService => {
                stage.world.stop_simulator().await;
                stage.port.other_service = Some(OtherService::start(address).await);
            }
            Self::Squatter => {
                run_himds(stage, Some(SQUATTER)).await;
            }
            Self::Relay => stage.port.relay().accept_as(SQUATTER.uid),
            Self::Switched => {
                stage.world.fault("close-after-challenge");
                let turns = [geteuid().as_raw(), SQUATTER.uid];
                stage.port.relay().accept_in_turn(&turns);
            }
        }
    }

    /// Takes it away.
    pub async fn lift(self, stage: &mut Stage) {
        match self {
            Self::HimdsStopped => {}
            Self::HimdsFrozen => return stage.port.process().signal(Signal::SIGCONT),
            Self::HimdsKilled => {
                stage.port.process = Some(Process::start(&stage.world, None).await);
                return;
            }
            Self::BlackHole => stage.port.black_hole = None,
            Self::OtherService => stage.port.other_service.take().unwrap().stop().await,
            Self::Squatter => {
                let journal = stage.port.process().journal().await;
                assert!(journal.is_empty(), "somebody else was asked: {journal:?}");
                kill_himds(stage).await;
            }
            Self::Relay | Self::Switched => {
                stage.port.relay().accept_as(geteuid().as_raw());
                return stage.world.simulator().clear_faults();
            }
        }
        stage.world.start_simulator().await;
    }
}

impl Occupant {
    fn process(&self) -> &Process {
        self.process.as_ref().unwrap()
    }

    fn relay(&self) -> &Relay {
        self.relay.as_ref().unwrap()
    }
}

/// himds-sim as a process of its own, in place of the simulator of this one.
async fn run_himds(stage: &mut Stage, user: Option<User>) -> &Process {
    assert!(user.is_none() || is_root());
    stage.world.stop_simulator().await;
    let process = Process::start(&stage.world, user).await;
    stage.port.process.insert(process)
}

async fn kill_himds(stage: &mut Stage) {
    stage.port.process.take().unwrap().kill().await;
}
