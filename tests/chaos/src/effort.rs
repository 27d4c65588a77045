//! What the daemon spends while a cell is played: whatever HIMDS does, it never spins.

use std::fs;
use std::time::Duration;

use tokio::time::Instant;

/// Wake-ups and processor time, since a moment.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    since: Instant,
    wake_ups: u64,
    cpu: Duration,
}

/// What was spent from one moment to another.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    time: Duration,
    wake_ups: u64,
    cpu: Duration,
}

/// Wake-ups that a request or an attempt may cost: it comes, the record is written, it goes.
const EACH: u64 = 20;
/// Wake-ups in a second while something is waited for.
const WAITING: u64 = 50;
/// Wake-ups and processor time of what is done once, such as to read an answer byte by byte.
const ONCE: (u64, Duration) = (1000, Duration::from_secs(1));

impl Effort {
    /// As it is now.
    pub fn of(pid: i32) -> Self {
        Self {
            since: Instant::now(),
            wake_ups: wake_ups(pid),
            cpu: cpu(pid),
        }
    }

    /// Since then.
    pub fn spent(&self, pid: i32) -> Spent {
        Spent {
            time: self.since.elapsed(),
            wake_ups: wake_ups(pid).saturating_sub(self.wake_ups),
            cpu: cpu(pid).saturating_sub(self.cpu),
        }
    }
}

impl Spent {
    /// Compares with what so many requests and attempts may cost.
    ///
    /// # Errors
    ///
    /// What was too much.
    pub fn judge(&self, exchanges: u64) -> Result<(), String> {
        let most = ONCE.0 + EACH * exchanges + WAITING * (self.time.as_secs() + 1);
        if self.wake_ups > most {
            return Err(format!(
                "{} wake-ups in {:?} for {exchanges} exchanges; {most} would do",
                self.wake_ups, self.time
            ));
        }
        if self.cpu > ONCE.1 + self.time / 4 {
            return Err(format!(
                "{:?} of processor time in {:?}",
                self.cpu, self.time
            ));
        }
        Ok(())
    }
}

/// Voluntary context switches of all threads.
fn wake_ups(pid: i32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_one = |status: String| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    tasks
        // A thread may end meanwhile.
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok())
        .map(of_one)
        .sum()
}

/// User and system time of the process, from `/proc/PID/stat`; the kernel counts in hundredths.
fn cpu(pid: i32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11..13]
        .iter()
        .map(|field| field.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(10 * ticks)
}
