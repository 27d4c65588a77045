//! What is known about the process at the other end, beside its numbers: the unit of the system that
//! it runs in, and whether it is in a container.
//!
//! Whatever goes wrong in here means that something is not known, and what is not known matches no
//! rule. All of it is looked at while the process is held on to: an answer about another process that
//! has the same number by now is thrown away.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arcbroker_policy::Unit;
use tokio::net::UnixStream;

use crate::ability::{Ability, Sight};
use crate::clock::Clock;
use crate::pinned::{Exhausted, Pinned, Pinning};
use crate::tree::{Listing, Tree};
use crate::unit_group::UnitGroup;

/// For how long what was seen of a process is taken to be so still. Only root can move a process to
/// another unit; whether the process lives is asked each time.
const FRESH: Duration = Duration::from_secs(1);
/// Processes that are held on to beyond the end of their connections, each by a file descriptor.
pub const REMEMBERED: u64 = 256;
/// Bytes of the longest file of `/proc` that is read; those that are read have one or two thousand.
const LONGEST: u64 = 64 * 1024;

/// What was seen of a process.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Sighting {
    /// The service or scope of the system.
    pub unit: Option<Unit>,
    /// Systemd's number for this run of the unit. For display only.
    pub invocation: Option<Arc<str>>,
    /// Whether it is in a container.
    pub container: Option<bool>,
}

/// A process that connected, and what was seen of it last. Its connections share it.
#[derive(Debug)]
pub struct Process {
    pinned: Pinned,
    pid: i32,
    /// The user who connected.
    uid: u32,
    /// Whether it is certain to be the process that connected: then it stays so, whatever user it becomes.
    is_certain: bool,
    latest: Mutex<Dated>,
}

#[derive(Debug)]
struct Dated {
    sighting: Arc<Sighting>,
    /// Since boot.
    at: Duration,
}

/// Looks at processes.
#[derive(Clone, Debug)]
pub struct Observer {
    ability: Arc<Ability>,
    clock: Clock,
    /// By their numbers.
    processes: moka::sync::Cache<i32, Arc<Process>>,
}

impl Observer {
    /// Looks with these abilities.
    pub fn new(ability: Ability, clock: Clock) -> Self {
        Self {
            ability: Arc::new(ability),
            clock,
            processes: moka::sync::Cache::new(REMEMBERED),
        }
    }

    /// One for another listener, which holds on to so many processes: connections are in order only
    /// where they are accepted from the same.
    #[must_use]
    pub fn remembering(&self, processes: u64) -> Self {
        Self {
            processes: moka::sync::Cache::new(processes),
            ..self.clone()
        }
    }

    /// What can be known here.
    pub fn ability(&self) -> &Ability {
        &self.ability
    }

    /// The process that connected as user `uid` with the number `pid`, held on to where that can be, and
    /// what is seen of it.
    ///
    /// To be called in the order in which connections are accepted from one listener. A process that is held on to and
    /// lives has had its number since it was met; connections are accepted in their order; so whoever
    /// connected after it with its number is the same.
    ///
    /// # Errors
    ///
    /// When the broker has nothing left to look with.
    pub fn meet(
        &self,
        stream: &UnixStream,
        pid: Option<i32>,
        uid: u32,
    ) -> Result<(Option<Arc<Process>>, Arc<Sighting>), Exhausted> {
        let Some(pid) = pid else {
            return Ok((None, Arc::default()));
        };
        if let Some(known) = self.processes.get(&pid)
            && let Some(sighting) = self.see(&known)
        {
            return Ok((Some(known), sighting));
        }
        let Some(pinned) = Pinned::of(stream, self.ability.pinning, pid)? else {
            return Ok((None, Arc::new(self.unpinned(pid, uid)?)));
        };
        let process = Arc::new(self.process(pinned, pid, uid)?);
        // Only this is certain to be the process that connected, whatever user the next one is.
        if process.pinned.is_certain() {
            self.processes.insert(pid, Arc::clone(&process));
        }
        let sighting = Arc::clone(&process.latest().sighting);
        Ok((Some(process), sighting))
    }

    /// The process that started this one, if it is of the same user and not the one that adopts those that are
    /// left behind.
    ///
    /// # Errors
    ///
    /// When the broker has nothing left to look with.
    pub fn parent(&self, child: &Process) -> Result<Option<Arc<Process>>, Exhausted> {
        let number = || -> Result<Option<i32>, Exhausted> {
            let status = self.read(&format!("{}/status", child.pid))?;
            Ok(status.as_deref().and_then(parent).filter(|&pid| pid > 1))
        };
        let Some(pid) = number()? else {
            return Ok(None);
        };
        let Some(pinned) = Pinned::by_number(pid)? else {
            return Ok(None);
        };
        // A child whose parent has ended gets another one: so this is the one.
        let is_it = number()? == Some(pid) && child.pinned.is_alive();
        if !is_it || !self.is_of(pid, child.uid)? {
            return Ok(None);
        }
        let process = self.process(pinned, pid, child.uid)?;
        Ok(Some(Arc::new(process)))
    }

    /// A process that was held on to by a broker before this one.
    ///
    /// # Errors
    ///
    /// When the broker has nothing left to look with.
    pub fn again(&self, pinned: Pinned, pid: i32, uid: u32) -> Result<Arc<Process>, Exhausted> {
        let mut process = self.process(pinned, pid, uid)?;
        // It was found out by the one before.
        process.is_certain = true;
        let seen = self.observe_process(&process)?.unwrap_or_default();
        process.latest().update(seen, self.clock.now().boot);
        Ok(Arc::new(process))
    }

    /// The control group of the unit that a process is in, where there is one tree for all.
    pub fn unit_group(&self, process: &Process, unit: &Unit) -> Option<UnitGroup> {
        if self.ability.tree != Some(Tree::Unified) {
            return None;
        }
        let listing = self.read(&format!("{}/cgroup", process.pid)).ok()??;
        let place = Listing::new(&listing).unified()?;
        let group = UnitGroup::of(&self.ability.options.cgroup, place, unit.as_str())?;
        process.pinned.is_alive().then_some(group)
    }

    /// What is seen of the process now, or was within the last second. None once it has ended.
    pub fn see(&self, process: &Process) -> Option<Arc<Sighting>> {
        if !process.pinned.is_alive() {
            return None;
        }
        let mut latest = process.latest();
        let now = self.clock.now().boot;
        if now.saturating_sub(latest.at) >= FRESH {
            match self.observe_process(process) {
                // It lives, and that we cannot look is no news of it.
                Err(Exhausted) => tracing::warn!(error = %Exhausted, "what was seen last holds"),
                Ok(None) if !process.pinned.is_alive() => return None,
                Ok(seen) => latest.update(seen.unwrap_or_default(), now),
            }
        }
        Some(Arc::clone(&latest.sighting))
    }

    fn process(&self, pinned: Pinned, pid: i32, uid: u32) -> Result<Process, Exhausted> {
        let at = self.clock.now().boot;
        let is_certain = pinned.is_certain() || self.is_of(pid, uid)?;
        let process = Process {
            pinned,
            pid,
            uid,
            is_certain,
            latest: Mutex::new(Dated {
                sighting: Arc::default(),
                at,
            }),
        };
        let seen = self.observe_process(&process)?.unwrap_or_default();
        process.latest().update(seen, at);
        Ok(process)
    }

    fn observe_process(&self, process: &Process) -> Result<Option<Sighting>, Exhausted> {
        if process.is_certain {
            self.observe(Some(&process.pinned), process.pid)
        } else {
            Ok(None)
        }
    }

    /// What is seen of a process that cannot be held on to. On old kernels it is as good as the numbers;
    /// on others it has ended.
    fn unpinned(&self, pid: i32, uid: u32) -> Result<Sighting, Exhausted> {
        if self.ability.pinning != Pinning::None {
            return Ok(Sighting::default());
        }
        if !self.is_of(pid, uid)? {
            return Ok(Sighting::default());
        }
        Ok(self.observe(None, pid)?.unwrap_or_default())
    }

    /// None where nothing can be known for certain.
    fn observe(&self, process: Option<&Pinned>, pid: i32) -> Result<Option<Sighting>, Exhausted> {
        if self.ability.sight == Sight::Foreign {
            return Ok(None);
        }
        let listing = self.read(&format!("{pid}/cgroup"))?;
        let listing = listing.as_deref().map(Listing::new);
        let scoped = match listing {
            Some(listing) => listing.is_container(),
            // The other sign is left: the number inside a pid namespace.
            None if self.ability.sight == Sight::Hidden => Some(false),
            None => None,
        };
        let container = either(self.is_nested(process, pid)?, scoped);
        let unit = listing.and_then(|listing| self.unit(process?, listing));
        if process.is_some_and(|process| !process.is_alive()) {
            return Ok(None);
        }
        let invocation = unit.as_ref().and_then(|unit| self.invocation(unit));
        Ok(Some(Sighting {
            unit,
            invocation,
            container,
        }))
    }

    fn unit(&self, process: &Pinned, listing: Listing<'_>) -> Option<Unit> {
        let tree = self.ability.tree?;
        let unit = tree.unit(listing)?;
        let id = process.control_group();
        let confirmed =
            id.is_none_or(|id| tree.confirms(&self.ability.options.cgroup, listing, id));
        confirmed.then_some(unit)
    }

    /// Whether the process has a number in a pid namespace below ours.
    ///
    /// The descriptor's own entry tells without a detour over the number, and where `/proc` is hidden;
    /// before Linux 5.14 it may not be read by a process that is not dumpable, as we are.
    fn is_nested(&self, process: Option<&Pinned>, pid: i32) -> Result<Option<bool>, Exhausted> {
        let mut count = None;
        if let Some(process) = process {
            let entry = self.read(&format!("self/fdinfo/{}", process.as_fd().as_raw_fd()))?;
            count = entry.as_deref().and_then(numbers);
        }
        if count.is_none() {
            let status = self.read(&format!("{pid}/status"))?;
            // Without the line the kernel has no pid namespaces.
            count = status.map(|status| numbers(&status).unwrap_or(1));
        }
        Ok(count.filter(|&count| count > 0).map(|count| count > 1))
    }

    /// Whether the process with this number is of this user.
    fn is_of(&self, pid: i32, uid: u32) -> Result<bool, Exhausted> {
        let status = self.read(&format!("{pid}/status"))?;
        Ok(status.is_some_and(|status| effective_user(&status) == Some(uid)))
    }

    fn invocation(&self, unit: &Unit) -> Option<Arc<str>> {
        const DIGITS: usize = 32;
        let link = self
            .ability
            .options
            .units
            .join(format!("invocation:{unit}"));
        let id = fs::read_link(link)
            .ok()?
            .into_os_string()
            .into_string()
            .ok()?;
        let is_id = id.len() == DIGITS && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then(|| id.into())
    }

    /// None where it cannot be read.
    fn read(&self, name: &str) -> Result<Option<String>, Exhausted> {
        let path = self.ability.options.proc.join(name);
        let read = || {
            let mut text = String::new();
            File::open(path)?.take(LONGEST).read_to_string(&mut text)?;
            io::Result::Ok(text)
        };
        match read() {
            Ok(text) => Ok(Some(text)),
            Err(error) if Exhausted::is_why(&error) => Err(Exhausted),
            Err(_) => Ok(None),
        }
    }
}

impl Dated {
    /// Whoever has seen the last one notices a change by the pointer.
    fn update(&mut self, seen: Sighting, at: Duration) {
        self.at = at;
        if *self.sighting != seen {
            self.sighting = Arc::new(seen);
        }
    }
}

impl Process {
    /// Its number, while it lives.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// How it is held on to.
    pub fn pinned(&self) -> &Pinned {
        &self.pinned
    }

    /// What was seen of it last.
    pub fn sighting(&self) -> Arc<Sighting> {
        Arc::clone(&self.latest().sighting)
    }

    fn latest(&self) -> MutexGuard<'_, Dated> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether any of two signs is there: not known as long as one that is not known could be it.
fn either(one: Option<bool>, other: Option<bool>) -> Option<bool> {
    match (one, other) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    }
}

/// How many numbers a process has, from its own pid namespace up to ours; 0 where it has ended or is
/// in none below ours.
fn numbers(text: &str) -> Option<usize> {
    let numbers = text.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    let positive = |word: &str| word.parse::<u32>().is_ok_and(|number| number > 0);
    let mut count = 0;
    for word in numbers.split_whitespace() {
        if !positive(word) {
            return Some(0);
        }
        count += 1;
    }
    Some(count)
}

/// The number of the process that started this one.
fn parent(status: &str) -> Option<i32> {
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

/// `Uid:` has the real, effective, saved and file system ids.
fn effective_user(status: &str) -> Option<u32> {
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    ids.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
pub(crate) mod tests;
