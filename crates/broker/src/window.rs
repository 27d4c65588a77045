//! No more than so many in any second, by the count of who answers: who comes too early waits.
//!
//! The buckets of [`turns`](crate::turns) let twice as many through in the first second, and what
//! is sent apart may arrive together. This is for a service that counts what arrives, and refuses
//! what is too much: a request counts until a second after its answer.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// A second, and what two clocks of milliseconds may differ by.
const SECOND: Duration = Duration::from_millis(1_005);

/// What runs, and what has ended within a second.
#[derive(Debug)]
pub struct Window {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    ended: VecDeque<Instant>,
}

/// One request, which ends when this is dropped.
#[derive(Debug)]
pub struct Pass<'w>(&'w Window);

impl Window {
    /// For at most `most` in a second.
    pub fn new(most: u32) -> Self {
        Self {
            most: usize::try_from(most).unwrap_or(usize::MAX).max(1),
            state: Mutex::default(),
        }
    }

    /// Waits until one more may be sent. How many wait is bounded by who calls.
    pub async fn pass(&self) -> Pass<'_> {
        loop {
            match self.enter(Instant::now()) {
                Ok(pass) => return pass,
                Err(again_at) => sleep_until(again_at).await,
            }
        }
    }

    fn enter(&self, now: Instant) -> Result<Pass<'_>, Instant> {
        let mut state = self.lock();
        while state.ended.front().is_some_and(|end| *end + SECOND <= now) {
            state.ended.pop_front();
        }
        if state.running + state.ended.len() < self.most {
            state.running += 1;
            return Ok(Pass(self));
        }
        let first = state.ended.front().copied().unwrap_or(now);
        Err(first + SECOND)
    }

    /// A panic elsewhere can at most lose one that ended, and then others wait the longer.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.running = state.running.saturating_sub(1);
        state.ended.push_back(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::task::JoinSet;
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn u21_no_second_sees_more_than_twenty_however_long_they_are_on_their_way() {
        let window = Arc::new(Window::new(20));
        let start = Instant::now();
        let mut passing = JoinSet::new();
        for number in 0..90_u64 {
            let window = Arc::clone(&window);
            passing.spawn(async move {
                let pass = window.pass().await;
                let sent = Instant::now();
                // Each is as long on its way as it likes, and is answered at once.
                sleep(Duration::from_millis(number * 37 % 700)).await;
                let arrived = Instant::now();
                drop(pass);
                (sent, arrived)
            });
        }
        let times = passing.join_all().await;
        let at_once = times.iter().filter(|(sent, _)| *sent == start).count();
        assert_eq!(at_once, 20, "the first need not wait");
        let mut arrivals: Vec<_> = times.iter().map(|(_, arrived)| *arrived).collect();
        arrivals.sort();
        for twenty_one in arrivals.windows(21) {
            assert!(twenty_one[20] - twenty_one[0] >= Duration::from_secs(1));
        }
        assert!(start.elapsed() < Duration::from_secs(9));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_up_counts_for_a_second_as_well() {
        let window = Window::new(1);
        let start = Instant::now();
        let pass = window.pass().await;
        let impatient = tokio::time::timeout(Duration::from_millis(10), window.pass());
        assert!(impatient.await.is_err(), "one runs");
        drop(pass);
        let ended = Instant::now();
        drop(window.pass().await);
        assert!(ended.elapsed() >= SECOND && start.elapsed() < 2 * SECOND);
    }
}
