//! `arcbroker demo`: a simulator of HIMDS and a broker, as they ship, in a temporary directory.

mod services;
mod stage;
mod story;

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

use arcbroker_client::Client;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::{Exit, Failure};

use services::{Programs, Service};
use stage::Stage;

/// Runs the demo until Ctrl-C, or once.
pub(crate) async fn run(once: bool) -> Result<Exit, Failure> {
    // First of all, so that no signal finds services that nobody stops.
    let mut stop = Stop::listen().map_err(Error::Signals)?;
    let mut demo = Demo::new()?;
    let outcome = tokio::select! {
        outcome = demo.play(once) => outcome,
        () = stop.received() => Ok(()),
    };
    let ended = demo.end().await;
    outcome?;
    ended?;
    Ok(Exit::OK)
}

/// Why the demo cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{name} ended by itself: {status}")]
    Ended {
        name: &'static str,
        status: ExitStatus,
        log: String,
    },
    #[error("there is no {} beside this program", .0.display())]
    Missing(PathBuf),
    #[error("{name} was not ready within {} s", READY_WITHIN.as_secs())]
    NotReady { name: &'static str, log: String },
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] io::Error),
    #[error("cannot use {}: {source}", .path.display())]
    Stage { path: PathBuf, source: io::Error },
    #[error("cannot start {name}: {source}")]
    Start {
        name: &'static str,
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn advice(&self) -> Option<String> {
        match self {
            Self::Missing(_) => Some("build all programs with: cargo build --workspace".to_owned()),
            Self::Ended { log, .. } | Self::NotReady { log, .. } if !log.is_empty() => {
                Some(format!("it said:\n{log}"))
            }
            _ => None,
        }
    }
}

/// Everything that runs or lies about.
struct Demo {
    programs: Programs,
    simulator: Option<Service>,
    broker: Option<Service>,
    stage: Stage,
}

impl Demo {
    fn new() -> Result<Self, Error> {
        Ok(Self {
            programs: Programs::beside_this_one()?,
            simulator: None,
            broker: None,
            stage: Stage::new()?,
        })
    }

    async fn play(&mut self, once: bool) -> Result<(), Failure> {
        let (simulator, mut lines) = self.programs.simulator(&self.stage)?;
        let simulator = self.simulator.insert(simulator);
        let himds = simulator.ready(services::address(&mut lines)).await?;
        story::simulator(&self.stage, &himds)?;

        self.stage.write_config(&himds)?;
        let broker = self.broker.insert(self.programs.broker(&self.stage)?);
        let tokens = Client::new(self.stage.token_socket()).with_deadline(ANSWER_WITHIN);
        broker.ready(answering(&tokens)).await?;
        story::broker(&self.stage)?;

        story::tokens(&tokens).await?;
        let admin = Client::new(self.stage.admin_socket()).with_deadline(ANSWER_WITHIN);
        story::status(&admin).await?;
        story::audit(&self.stage)?;
        if once {
            return Ok(());
        }
        story::things_to_try(&self.stage, &self.programs)?;
        let ended = tokio::select! {
            ended = simulator.ended() => ended,
            ended = broker.ended() => ended,
        };
        Err(ended.into())
    }

    /// Stops the broker before what it talks to, and removes the directory.
    async fn end(self) -> Result<(), Error> {
        for service in [self.broker, self.simulator].into_iter().flatten() {
            service.stop().await;
        }
        self.stage.remove()
    }
}

/// The signals that end the demo.
struct Stop {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.hangup.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

async fn answering(client: &Client) {
    while client.health().await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The simulator makes an RSA key first, which takes seconds in an unoptimised build.
const READY_WITHIN: Duration = Duration::from_mins(1);

const ANSWER_WITHIN: Duration = Duration::from_secs(25);
