//! A timer that wakes the process once for each tick, and at once after a suspend.
//!
//! tokio's timers count in a wheel of several turns, and wake up in between to move a far timer to
//! a nearer turn; and they stand still while the machine sleeps.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use arcbroker_peer_sys::watch;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::read;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Ticks by the boot clock.
#[derive(Debug)]
pub struct Ticker(AsyncFd<OwnedFd>);

impl Ticker {
    /// The first tick is one period from now. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn new(period: Duration) -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)?;
        let period = Expiration::Interval(TimeSpec::from_duration(period));
        timer.set(period, TimerSetTimeFlags::empty())?;
        let timer = watch(timer.into())?;
        Ok(Self(timer))
    }

    /// Waits for the next tick; those that were missed are one.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub async fn tick(&self) -> io::Result<()> {
        // The kernel counts the ticks since the last read; that there was one is enough.
        let mut count = [0; 8];
        let mut timer = |timer: &OwnedFd| Ok(read(timer, &mut count)?);
        self.0
            .async_io(Interest::READABLE, &mut timer)
            .await
            .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn it_ticks_again_and_again_and_missed_ticks_are_one() {
        let ticker = Ticker::new(Duration::from_millis(1)).unwrap();
        for _ in 0..3 {
            let tick = timeout(Duration::from_secs(30), ticker.tick());
            assert!(tick.await.is_ok_and(|tick| tick.is_ok()));
        }
    }
}
