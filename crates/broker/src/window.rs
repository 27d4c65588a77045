//! No more than so many in any second: who comes too early waits.
//!
//! The bucket of the cache says how many new resources callers may cost; refreshes and retries go
//! past it. This is for a service that counts every request and refuses what is too much.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// A second, and what requests may come closer together on their way.
const SECOND: Duration = Duration::from_millis(1_100);

/// When the last ones passed, and when those who wait will.
#[derive(Debug)]
pub struct Window {
    most: usize,
    turns: Mutex<VecDeque<Instant>>,
}

impl Window {
    /// For at most `most` in a second.
    pub fn new(most: u32) -> Self {
        Self {
            most: usize::try_from(most).unwrap_or(usize::MAX),
            turns: Mutex::default(),
        }
    }

    /// Waits for a turn, in the order of the calls. How many wait is bounded by who calls.
    pub async fn pass(&self) {
        sleep_until(self.turn(Instant::now())).await;
    }

    /// The turn of a call at this moment; it is used up, whether the call waits for it or not.
    fn turn(&self, now: Instant) -> Instant {
        // A panic elsewhere leaves every turn that was given.
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let mut turn = now;
        if turns.len() >= self.most
            && let Some(first) = turns.pop_front()
        {
            turn = turn.max(first + SECOND);
        }
        turns.push_back(turn);
        turn
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn u21_no_second_sees_more_than_twenty() {
        let window = Arc::new(Window::new(20));
        let start = Instant::now();
        let mut passing = tokio::task::JoinSet::new();
        for _ in 0..90 {
            let window = Arc::clone(&window);
            passing.spawn(async move {
                window.pass().await;
                Instant::now()
            });
        }
        let mut times = passing.join_all().await;
        times.sort();
        assert_eq!(times[19] - start, Duration::ZERO, "the first need not wait");
        for twenty_one in times.windows(21) {
            assert!(twenty_one[20] - twenty_one[0] >= Duration::from_secs(1));
        }
        assert!(times[89] - start < Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_while_waiting_lets_nobody_pass_too_early() {
        let window = Window::new(1);
        let start = Instant::now();
        window.pass().await;
        let impatient = tokio::time::timeout(Duration::from_millis(10), window.pass());
        assert!(impatient.await.is_err());
        window.pass().await;
        assert!(start.elapsed() >= SECOND);
    }
}
