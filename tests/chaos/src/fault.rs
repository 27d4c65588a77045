//! Faults: read from the table, put in force, taken away.

use std::str::FromStr;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::sleep;

use crate::host::Host;
use crate::port::Port;
use crate::stage::Stage;

/// One fault of the table.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Faults of the simulator, all at once.
    Simulator(Vec<himds_sim::Fault>),
    /// HIMDS's clock is off by these seconds.
    Clock(i64),
    /// The daemon gets no time to run for this long.
    DaemonFrozen(Duration),
    /// Another than the simulator is on HIMDS's port, or nobody.
    Port(Port),
    /// The machine refuses something.
    Host(Host),
}

/// `clock=SECONDS`, `daemon-frozen=SECONDS`, a name of [`Port`] or [`Host`], or faults of the
/// simulator with ` + ` between them.
impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(port) = named(&Port::NAMES, text) {
            return Ok(Self::Port(port));
        }
        if let Some(host) = named(&Host::NAMES, text) {
            return Ok(Self::Host(host));
        }
        let number = |digits: &str| {
            digits
                .parse::<i64>()
                .map_err(|_| format!("`{digits}` is not a number"))
        };
        if let Some(seconds) = text.strip_prefix("clock=") {
            return number(seconds).map(Self::Clock);
        }
        if let Some(seconds) = text.strip_prefix("daemon-frozen=") {
            let time = number(seconds)?.unsigned_abs();
            return Ok(Self::DaemonFrozen(Duration::from_secs(time)));
        }
        let faults: Result<_, himds_sim::FaultError> = text.split(" + ").map(str::parse).collect();
        faults
            .map(Self::Simulator)
            .map_err(|error| error.to_string())
    }
}

fn named<T: Copy>(names: &[(&str, T)], text: &str) -> Option<T> {
    let found = names.iter().find(|(name, _)| *name == text);
    found.map(|(_, value)| *value)
}

impl Fault {
    /// What must be there before anything else happens.
    pub async fn prepare(&self, stage: &mut Stage) {
        if let Self::Port(port) = self {
            port.prepare(stage).await;
        }
    }

    /// Puts it in force.
    pub async fn strike(&self, stage: &mut Stage) {
        match self {
            Self::Simulator(faults) => {
                for fault in faults {
                    stage.world.simulator().set_fault(fault.clone());
                }
            }
            Self::Clock(seconds) => stage.set_clock(*seconds),
            Self::DaemonFrozen(time) => {
                let (pid, time) = (Pid::from_raw(stage.world.daemon.pid()), *time);
                kill(pid, Signal::SIGSTOP).unwrap();
                tokio::spawn(async move {
                    sleep(time).await;
                    kill(pid, Signal::SIGCONT).unwrap();
                });
            }
            Self::Port(port) => port.strike(stage).await,
            Self::Host(host) => host.strike(stage).await,
        }
    }

    /// Takes it away.
    pub async fn lift(&self, stage: &mut Stage) {
        match self {
            Self::Simulator(_) => stage.world.simulator().clear_faults(),
            Self::Clock(_) => stage.set_clock(0),
            // It goes away by itself, and nothing is answered before.
            Self::DaemonFrozen(_) => {}
            Self::Port(port) => port.lift(stage).await,
            Self::Host(host) => host.lift(stage),
        }
    }
}
