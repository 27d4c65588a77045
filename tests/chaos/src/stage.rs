//! Where one cell is played: a world of its own, with a HIMDS whose clock is set by hand.

use std::time::Duration;

use arcbroker_client::wire::{StatusAnswer, path};
use arcbroker_e2e::{Answer, PATIENCE, Setup, World, eventually};
use himds_sim::{Authorization, HandClock};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use crate::effort::Effort;
use crate::expectation::{JWT, Told};
use crate::fault::Fault;
use crate::host::Damage;
use crate::line::Line;
use crate::port::Occupant;

/// What every cell asks for.
const RESOURCE: &str = "https%3A%2F%2Fchaos.example%2F";
/// What is asked for before, so that HIMDS has been seen.
const OTHER: &str = "https%3A%2F%2Fother.example%2F";

/// How long the token lasts that is there in the phases warm and refresh: HIMDS gave it some time
/// ago, keeps it as the daemon does, and can give a better one.
const LEFT: i64 = 2 * 3600;
/// What a token of the simulator lasts in all.
const LIFETIME: i64 = 24 * 3600;

/// Worlds that are being built: it takes both cores for a moment, and others measure time.
static BUILDING: Semaphore = Semaphore::const_new(2);

/// One world with everything that a cell needs.
#[derive(Debug)]
pub struct Stage {
    /// What is to be put right at the end; it goes before the directory that it may be mounted in.
    pub host: Damage,
    /// Who is on HIMDS's port.
    pub port: Occupant,
    /// The daemon and the simulator.
    pub world: World,
    clock: HandClock,
    /// What the clock shows when it is right.
    now: u64,
    client: Line,
    admin: Line,
    /// Requests that were sent since the cell began.
    sent: u64,
    effort: Option<Effort>,
}

impl Stage {
    /// A world in which HIMDS has been seen, and nobody has asked for the token.
    pub async fn build(fault: &Fault) -> Self {
        let _turn = BUILDING.acquire().await.unwrap();
        #[expect(
            clippy::disallowed_methods,
            reason = "the simulator's clock starts with the real time"
        )]
        let now = std::time::SystemTime::now();
        let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let clock = HandClock::at(now);
        let setup = Setup {
            policy: World::anything(),
            clock: clock.clock(),
            // What becomes of a record is then up to the file alone.
            config: vec![("audit", "journald = false".to_owned())],
            ..Setup::default()
        };
        let world = World::with(setup).await;
        let (client, admin) = (
            Line::new(world.token_socket()),
            Line::new(world.admin_socket()),
        );
        let mut stage = Self {
            world,
            host: Damage::default(),
            port: Occupant::default(),
            clock,
            now,
            client,
            admin,
            sent: 0,
            effort: None,
        };
        fault.prepare(&mut stage).await;
        stage.meet_himds().await;
        stage.effort = Some(Effort::of(stage.world.daemon.pid()));
        stage
    }

    /// The daemon looks for HIMDS when it starts; that must not use up a fault, nor be counted.
    async fn meet_himds(&mut self) {
        eventually("the daemon has found HIMDS", || async {
            self.world.status().await.upstream.last_success_at.is_some()
        })
        .await;
        let told = self.get(&target(OTHER)).await;
        assert_eq!(told.status, 200, "{told:?}\n{}", self.world.daemon.log());
        // Opens the connection, too.
        self.status().await;
    }

    /// Has the daemon end, and a new one start where it was.
    pub async fn rebuild(&mut self) {
        self.world.start_daemon().await;
        (self.client, self.admin) = (
            Line::new(self.world.token_socket()),
            Line::new(self.world.admin_socket()),
        );
        self.meet_himds().await;
    }

    /// HIMDS's clock is off by so many seconds.
    pub fn set_clock(&self, off: i64) {
        self.clock.set(self.now.saturating_add_signed(off));
    }

    /// A token that HIMDS gave a while ago.
    pub async fn hold_token(&mut self) -> String {
        self.set_clock(LEFT - LIFETIME);
        let told = self.ask().await;
        self.set_clock(0);
        // Opens the connection, too.
        self.status().await;
        told.token()
            .unwrap_or_else(|| panic!("{told:?}\n{}", self.world.daemon.log()))
    }

    /// From now on HIMDS gives a token that it has not given before, unless it is told otherwise.
    pub fn mint_anew(&self) {
        if self.world.is_simulated() {
            self.world.fault("fresh-token");
        }
    }

    /// Asks for the token.
    pub async fn ask(&mut self) -> Told {
        self.send().await;
        self.told(Instant::now()).await
    }

    /// Asks for the token, and does not wait.
    pub async fn send(&mut self) {
        self.sent += 1;
        self.client.ask(&target(RESOURCE)).await;
    }

    /// Waits for the answer to what was asked at `since`.
    pub async fn told(&mut self, since: Instant) -> Told {
        let answer = self.client.answer().await;
        Told {
            answer,
            took: since.elapsed(),
        }
    }

    /// Asks until the answer is good, for so long at most; gives when it was.
    ///
    /// # Errors
    ///
    /// The last answer, when none was good in time.
    pub async fn until(
        &mut self,
        most: Duration,
        good: impl Fn(&Told) -> bool,
    ) -> Result<Duration, String> {
        let since = Instant::now();
        loop {
            let told = self.ask().await;
            if good(&told) {
                return Ok(since.elapsed());
            }
            if since.elapsed() > most {
                return Err(format!("not within {most:?}, but {}", told.summary()));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// The administrator has the token refreshed.
    pub async fn refresh(&mut self) {
        let answer = self
            .admin
            .post(&format!("/v1/refresh?resource={RESOURCE}"))
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// What the daemon says of itself.
    pub async fn status(&mut self) -> StatusAnswer {
        self.sent += 1;
        let answer = self.admin.get(path::STATUS).await;
        serde_json::from_value(answer.json()).unwrap()
    }

    /// How often the daemon has asked for a token so far, by its own word, and that is not less
    /// than HIMDS has heard.
    pub async fn attempts(&mut self) -> u64 {
        // First: meanwhile there may be another one.
        let heard = self.heard();
        let attempts = self.status().await.upstream.token_requests;
        assert!(
            attempts >= heard,
            "HIMDS heard {heard} requests, and the daemon says {attempts}"
        );
        attempts
    }

    /// How often HIMDS has been asked for a token, by its own word.
    pub fn heard(&self) -> u64 {
        if !self.world.is_simulated() {
            return 0;
        }
        let asked = self.world.asked();
        asked
            .iter()
            .filter(|entry| entry.authorization == Authorization::Absent)
            .count() as u64
    }

    /// Waits until a fetch of the token runs, or the request that was sent has its answer; whether
    /// it was the first.
    pub async fn is_waiting(&mut self) -> bool {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let status = self.status().await;
            let token = status
                .tokens
                .iter()
                .find(|token| token.resource.contains("chaos"));
            match token.map(|token| token.state.as_str()) {
                Some("fetching") => return true,
                Some(_) => return false,
                None => {}
            }
        }
        panic!("the request was never seen")
    }

    /// What must hold at the end of every cell.
    ///
    /// # Errors
    ///
    /// What does not.
    pub fn check_daemon(&mut self) -> Result<(), String> {
        let log = self.world.daemon.log();
        for sign in ["panicked", "defect of arcbroker", JWT] {
            if log.contains(sign) {
                return Err(format!("`{sign}` in the log:\n{log}"));
            }
        }
        Ok(())
    }

    /// What the daemon spent on the cell must be in proportion to what was asked of it.
    ///
    /// # Errors
    ///
    /// What was not.
    pub async fn check_effort(&mut self) -> Result<(), String> {
        let attempts = self.attempts().await;
        let Some(effort) = self.effort else {
            return Ok(());
        };
        let spent = effort.spent(self.world.daemon.pid());
        spent.judge(self.sent + attempts)
    }

    async fn get(&mut self, target: &str) -> Answer {
        self.client.get(target).await
    }
}

fn target(resource: &str) -> String {
    format!("{}?api-version=2019-11-01&resource={resource}", path::TOKEN)
}
