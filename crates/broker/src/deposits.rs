//! Tokens that outlive the daemon: the service manager holds them, and gives them to the next one.
//!
//! Each slot of the cache is a piece of sealed memory under a name of its own, written anew after
//! each refresh. Nothing of it is on a disk. A new one is held before the old one is let go, so that
//! at no moment there is none: of two for one slot, the one with the higher number counts.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arcbroker_policy::{Identity, Resource};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::lock::lock;
use crate::manager::{Kept, Manager};
use crate::note::{Kind, Useless};
use crate::slot::{Slot, Snapshot};
use crate::token::Key;

/// What the names begin with under which tokens are held.
pub const PREFIX: &str = "token.";
const NOTE: Kind = Kind("arcbroker-token 1");
/// Bytes of a key's digest in its name.
const NAME: usize = 8;

/// The way to what is held.
pub struct Deposits {
    manager: Manager,
    /// Where tokens come from: those of elsewhere are not the machine's own.
    source: Arc<str>,
    /// What is held for each slot.
    names: Mutex<HashMap<Key, String>>,
    /// Above those of all that was ever held.
    next: AtomicU64,
}

#[derive(Debug, Deserialize, Serialize)]
struct Note {
    source: String,
    identity: String,
    resource: String,
    slot: Snapshot,
}

/// A slot that was held.
struct Found {
    key: Key,
    name: String,
    number: u64,
    slot: Snapshot,
}

/// Why what is held is of no use.
#[derive(Debug, thiserror::Error)]
enum NotKept {
    /// Too many descriptors under one name.
    #[error("it is not one note")]
    Shape,
    /// The note is not understood, or damaged.
    #[error(transparent)]
    Note(#[from] Useless),
    /// The configuration names another upstream by now.
    #[error("it came from another upstream than the one of now")]
    Source,
}

impl Deposits {
    /// Holds nothing by itself. `source` names where tokens come from.
    pub fn new(manager: Manager, source: impl Into<Arc<str>>) -> Self {
        Self {
            manager,
            source: source.into(),
            names: Mutex::default(),
            next: AtomicU64::new(0),
        }
    }

    /// Has a slot held as it is now, in place of how it was.
    pub fn put(&self, key: &Key, slot: &Slot) {
        if !self.manager.is_there() {
            return;
        }
        let Some(slot) = slot.snapshot() else {
            return self.withdraw(key);
        };
        let has_token = slot.has_token();
        let name = name(key, self.next.fetch_add(1, Ordering::Relaxed));
        if let Err(error) = self.hold(key, &name, slot) {
            tracing::warn!(resource = %key.resource, %error, "systemd could not be asked to hold a token: a restart fetches it anew");
            // What is held still has a token, and it must not come back.
            if !has_token {
                self.withdraw(key);
            }
            return;
        }
        let before = lock(&self.names).insert(key.clone(), name);
        if let Some(before) = before {
            self.manager.let_go(&before);
        }
    }

    /// Has a slot held no more.
    pub fn withdraw(&self, key: &Key) {
        let name = lock(&self.names).remove(key);
        if let Some(name) = name {
            self.manager.let_go(&name);
        }
    }

    /// The slots that were held, those first whose tokens were received first.
    pub fn take(&self, held: Kept) -> Vec<(Key, Slot)> {
        let mut read: Vec<_> = held
            .into_iter()
            .filter_map(|(name, descriptors)| self.read_or_let_go(&name, descriptors))
            .collect();
        read.sort_by_key(|found| found.number);
        let last = read.last().map_or(0, |found| found.number);
        self.next.store(last.saturating_add(1), Ordering::Relaxed);
        let mut newest: HashMap<Key, Found> = HashMap::new();
        for found in read {
            if let Some(older) = newest.insert(found.key.clone(), found) {
                self.manager.let_go(&older.name);
            }
        }
        let mut found: Vec<_> = newest.into_values().collect();
        found.sort_by_key(|found| found.slot.received());
        found
            .into_iter()
            .filter_map(|found| self.restore(found))
            .collect()
    }

    fn restore(&self, found: Found) -> Option<(Key, Slot)> {
        let Found {
            key, name, slot, ..
        } = found;
        lock(&self.names).insert(key.clone(), name);
        let slot = Slot::restore(slot, &key.resource);
        if slot.is_none() {
            tracing::warn!(resource = %key.resource, "a token that systemd held is let go: it is for something else");
            self.withdraw(&key);
        }
        Some((key, slot?))
    }

    fn hold(&self, key: &Key, name: &str, slot: Snapshot) -> io::Result<()> {
        let note = Note {
            source: self.source.to_string(),
            identity: key.identity.to_string(),
            resource: key.resource.to_string(),
            slot,
        };
        let memory = NOTE.write(&note)?;
        self.manager.hold(name, &[memory.as_fd()])
    }

    fn read_or_let_go(&self, name: &str, descriptors: Vec<OwnedFd>) -> Option<Found> {
        let found = self.read(name, descriptors);
        if let Err(why) = &found {
            tracing::warn!(name, %why, "a token that systemd held is let go");
            self.manager.let_go(name);
        }
        found.ok()
    }

    fn read(&self, name: &str, descriptors: Vec<OwnedFd>) -> Result<Found, NotKept> {
        let Ok([memory]) = <[OwnedFd; 1]>::try_from(descriptors) else {
            return Err(NotKept::Shape);
        };
        let note: Note = NOTE.read(&memory)?;
        if note.source != *self.source {
            return Err(NotKept::Source);
        }
        let number = name.rsplit('.').next().and_then(|text| text.parse().ok());
        let identity: Option<Identity> = note.identity.parse().ok();
        let resource = Resource::exact(&note.resource).ok();
        Ok(Found {
            name: name.to_owned(),
            number: number.ok_or(Useless::Damaged)?,
            key: Key {
                identity: identity.ok_or(Useless::Damaged)?,
                resource: resource.ok_or(Useless::Damaged)?,
            },
            slot: note.slot,
        })
    }
}

impl fmt::Debug for Deposits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deposits")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

fn name(key: &Key, number: u64) -> String {
    let text = format!("{}\n{}", key.identity, key.resource);
    format!("{PREFIX}{}.{number}", Digest::of(text.as_bytes()).hex(NAME))
}

#[cfg(test)]
mod tests;
