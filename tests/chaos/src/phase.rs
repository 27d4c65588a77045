//! The four phases: each plays one cell and compares.

use std::time::Duration;

use arcbroker_e2e::PATIENCE;
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep, timeout};

use crate::expectation::{Cell, Token, Told};
use crate::matrix::{Phase, Recovery, Row};
use crate::stage::Stage;

/// How long clients go on asking while a refresh fails.
const WATCH: Duration = Duration::from_secs(2);
/// How often.
const BEAT: Duration = Duration::from_millis(50);
/// From SIGTERM to the end: 15 s by the daemon's own rule.
const END: Duration = Duration::from_secs(17);
/// How late HIMDS answers in the drain, so that whoever asks does wait. Once: a second try would
/// take time from `at once`.
const HOLD_UP: &str = "first-delay=300:1";
/// How often the drain is played anew when the answer was faster than the signal.
const TRIES: usize = 5;

/// What was seen in one cell.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The answer in few words.
    pub answer: String,
    /// How long it took; in the refresh, until the newer token was there.
    pub took: Duration,
    /// How often HIMDS was asked.
    pub asked: u64,
    /// How long it took to have a token once the fault was gone.
    pub recovered: Option<Duration>,
}

/// Plays one cell.
///
/// # Errors
///
/// What was not as expected.
pub async fn play(row: &Row, phase: Phase) -> Result<Seen, String> {
    let cell = &row.cells[&phase];
    let mut stage = Stage::build(&row.fault).await;
    let seen = match phase {
        Phase::Cold => cold(&mut stage, row, cell).await,
        Phase::Warm => warm(&mut stage, row, cell).await,
        Phase::Refresh => refresh(&mut stage, row, cell).await,
        Phase::Drain => drain(&mut stage, row, cell).await,
    };
    let seen = seen.map_err(|seen| {
        format!(
            "expected {}\n    seen {seen}\n{}",
            cell.text,
            stage.world.daemon.log()
        )
    })?;
    stage.check_daemon()?;
    if phase != Phase::Drain {
        if !stage.world.daemon.is_running() {
            return Err(format!("the daemon ended:\n{}", stage.world.daemon.log()));
        }
        stage.check_effort().await?;
    }
    Ok(seen)
}

/// Two requests, one after the other: the second costs HIMDS nothing. Then the fault is gone.
async fn cold(stage: &mut Stage, row: &Row, cell: &Cell) -> Result<Seen, String> {
    let before = stage.attempts().await;
    row.fault.strike(stage).await;
    let first = stage.ask().await;
    cell.judge(&first, None)?;
    // Who was told at the deadline has left a fetch behind that goes on; the next would join it.
    if cell.wait.least.is_zero() {
        let asked = stage.attempts().await;
        let second = stage.ask().await;
        same(&first, &second)?;
        if stage.attempts().await != asked {
            return Err("the second request was not answered from memory".to_owned());
        }
    }
    let asked = stage.attempts().await - before;
    cell.judge_asked(asked)?;
    row.fault.lift(stage).await;
    let recovered = match row.recovery {
        Recovery::Within(most) if first.token().is_none() => {
            Some(stage.until(most, |told| told.token().is_some()).await?)
        }
        _ => None,
    };
    Ok(Seen {
        answer: first.summary(),
        took: first.took,
        asked,
        recovered,
    })
}

/// The second of two requests in a row is told the same at once.
fn same(first: &Told, second: &Told) -> Result<(), String> {
    let alike = first.answer.status == second.answer.status
        && first.token() == second.token()
        && (first.token().is_some() || first.answer.error() == second.answer.error());
    if alike && second.took < Duration::from_secs(2) {
        return Ok(());
    }
    Err(format!(
        "{} first, and {} after {:?}",
        first.summary(),
        second.summary(),
        second.took
    ))
}

/// Whoever has a token notices nothing.
async fn warm(stage: &mut Stage, row: &Row, cell: &Cell) -> Result<Seen, String> {
    let old = stage.hold_token().await;
    let before = stage.attempts().await;
    row.fault.strike(stage).await;
    let first = stage.ask().await;
    cell.judge(&first, Some(&old))?;
    for _ in 0..3 {
        cell.judge_answer(&stage.ask().await, Some(&old))?;
    }
    let asked = stage.attempts().await - before;
    cell.judge_asked(asked)?;
    row.fault.lift(stage).await;
    let after = stage.ask().await;
    if after.token() != Some(old) {
        return Err(format!("the token was lost: {}", after.summary()));
    }
    Ok(Seen {
        answer: first.summary(),
        took: first.took,
        asked,
        recovered: None,
    })
}

/// A refresh runs under the fault, and clients go on asking. Then the fault is gone.
async fn refresh(stage: &mut Stage, row: &Row, cell: &Cell) -> Result<Seen, String> {
    let old = stage.hold_token().await;
    let before = stage.attempts().await;
    stage.mint_anew();
    row.fault.strike(stage).await;
    stage.refresh().await;
    let (first, took) = match cell.kind.token {
        Token::New => becomes_newer(stage, cell, &old).await?,
        _ => stays(stage, cell, &old).await?,
    };
    let asked = stage.attempts().await - before;
    cell.judge_asked(asked)?;
    row.fault.lift(stage).await;
    stage.mint_anew();
    let newer = |told: &Told| told.token().is_some_and(|token| token != old);
    let recovered = match row.recovery {
        _ if cell.kind.token == Token::New => None,
        Recovery::NotWaited => None,
        Recovery::Within(most) => Some(stage.until(most, newer).await?),
        Recovery::OnDemand => {
            stage.refresh().await;
            Some(stage.until(PATIENCE, newer).await?)
        }
    };
    Ok(Seen {
        answer: first.summary(),
        took,
        asked,
        recovered,
    })
}

/// Each answer is the expected one.
async fn stays(stage: &mut Stage, cell: &Cell, old: &str) -> Result<(Told, Duration), String> {
    let end = Instant::now() + WATCH;
    let mut slowest: Option<Told> = None;
    while Instant::now() < end {
        let told = stage.ask().await;
        cell.judge(&told, Some(old))?;
        if slowest
            .as_ref()
            .is_none_or(|slowest| slowest.took < told.took)
        {
            slowest = Some(told);
        }
        sleep(BEAT).await;
    }
    let slowest = slowest.unwrap();
    let took = slowest.took;
    Ok((slowest, took))
}

/// The old token is served at once until a newer one is, and that comes in the time of the cell.
async fn becomes_newer(
    stage: &mut Stage,
    cell: &Cell,
    old: &str,
) -> Result<(Told, Duration), String> {
    let since = Instant::now();
    loop {
        let mut told = stage.ask().await;
        let token = told
            .token()
            .ok_or_else(|| format!("{} in between", told.summary()))?;
        if told.took > Duration::from_secs(2) {
            return Err(format!("somebody waited {:?} for a refresh", told.took));
        }
        if token != old {
            told.took = since.elapsed();
            cell.judge(&told, Some(old))?;
            let took = told.took;
            return Ok((told, took));
        }
        if since.elapsed() > cell.wait.most {
            return Err("the token became no newer".to_owned());
        }
        sleep(BEAT).await;
    }
}

/// SIGTERM while a client waits: the client has an answer, and the daemon ends in time.
async fn drain(stage: &mut Stage, row: &Row, cell: &Cell) -> Result<Seen, String> {
    for _ in 0..TRIES {
        if stage.world.is_simulated() {
            stage.world.simulator().clear_journal();
            stage.world.fault(HOLD_UP);
        }
        row.fault.strike(stage).await;
        stage.send().await;
        let since = Instant::now();
        let waits = stage.is_waiting().await;
        stage.world.daemon.signal(Signal::SIGTERM);
        let told = stage.told(since).await;
        let ended = timeout(END, stage.world.daemon.wait());
        let status = ended.await.map_err(|_| format!("no end within {END:?}"))?;
        if status.code() != Some(0) {
            return Err(format!("the daemon ended with {status}"));
        }
        cell.judge(&told, None)?;
        let asked = stage.heard();
        if asked > cell.asked {
            return Err(format!("HIMDS was asked {asked} times for a token"));
        }
        if waits {
            return Ok(Seen {
                answer: told.summary(),
                took: told.took,
                asked,
                recovered: None,
            });
        }
        // The answer was there before the signal: that shows nothing.
        row.fault.lift(stage).await;
        stage.rebuild().await;
    }
    Err("nobody ever waited under this fault".to_owned())
}
