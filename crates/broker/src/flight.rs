//! One fetch with its retries: each attempt has a turn of its own, and a challenge of its own.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::chance::Chance;
use crate::clock::Clock;
use crate::retry;
use crate::slot::HARD_FLOOR;
use crate::token::{AccessToken, Class, FetchError, TokenSource, Wanted};
use crate::turns::{Turns, Urgency};

/// Fetches from a source.
pub struct Fetcher<S> {
    /// Where tokens come from.
    pub source: S,
    /// When it may be asked.
    pub turns: Arc<Turns>,
    /// The time.
    pub clock: Clock,
    /// Jitter.
    pub chance: Chance,
    /// A fetch that has taken this long does not try again.
    pub limit: Duration,
}

impl<S: TokenSource> Fetcher<S> {
    /// One fetch. A panic in it is a failure like others.
    ///
    /// # Errors
    ///
    /// The failure of the last attempt.
    pub async fn fetch(
        self: &Arc<Self>,
        wanted: Wanted,
        urgency: Arc<Urgency>,
    ) -> Result<AccessToken, FetchError> {
        let fetcher = Arc::clone(self);
        let fetch = tokio::spawn(async move { fetcher.attempts(&wanted, &urgency).await });
        // What a panic says may quote what it stumbled over.
        fetch.await.unwrap_or_else(|_| {
            let detail = "the fetch ended unexpectedly; this is a defect of arcbroker";
            Err(FetchError::new(Class::Broken, detail))
        })
    }

    async fn attempts(
        &self,
        wanted: &Wanted,
        urgency: &Urgency,
    ) -> Result<AccessToken, FetchError> {
        let give_up = Instant::now() + self.limit;
        let (mut failures, mut last) = (0, None);
        loop {
            let turn = timeout(give_up - Instant::now(), self.turns.enter(urgency));
            let turn = match turn.await {
                Ok(Ok(turn)) => turn,
                Ok(Err(error)) => return Err(last.unwrap_or(error)),
                Err(_) => return Err(last.unwrap_or_else(no_turn)),
            };
            let result = self
                .source
                .fetch(wanted)
                .await
                .and_then(|token| self.check(token));
            turn.end(&result);
            let error = match result {
                Ok(token) => return Ok(token),
                Err(error) => error,
            };
            // What asked to be left alone is left alone: the slot remembers for how long.
            let pause = retry::pause(error.class, failures, self.turns.is_booting())
                .map(|pause| pause.mul_f64(self.chance.between(&retry::JITTER)))
                .filter(|&pause| error.retry_after.is_none() && Instant::now() + pause < give_up);
            let Some(pause) = pause else {
                return Err(error);
            };
            sleep(pause).await;
            failures += 1;
            last = Some(error);
        }
    }

    /// A token that may not be handed out is a failure like others, so that it is remembered.
    fn check(&self, token: AccessToken) -> Result<AccessToken, FetchError> {
        if token.remaining(self.clock.now()) >= HARD_FLOOR {
            return Ok(token);
        }
        Err(FetchError::new(
            Class::Garbage,
            "upstream gave a token that had less than a minute left: compare the clocks",
        ))
    }
}

fn no_turn() -> FetchError {
    FetchError::new(
        Class::Deadline,
        "other fetches kept upstream busy for all of the time",
    )
}

impl<S> fmt::Debug for Fetcher<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher")
            .field("turns", &self.turns)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
