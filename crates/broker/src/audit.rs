//! One line of JSON per decision, in a file or in the journal before the token is on its way out.
//!
//! Lines carry a number and a digest of the line before, so that a gap shows. Records of one turn
//! of the event loop go out in one write. Never in a record: a token, a key, a header.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arcbroker_client::wire::RequestCounts;
use arcbroker_policy::Caller;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;

use crate::brief::{Brief, Party};
use crate::chain::Link;
use crate::clock::Clock;
pub use crate::lane::AuditError;
use crate::record::{Outcome, Record, RequestId};
use crate::scribe::{Scribe, Ticket};
pub use crate::sinks::SinkState;
use crate::sinks::{FileSink, JournalSink};

/// Records of one caller that are written at a time: those of another one need not wait for more.
const SHARE: usize = 16;

/// Where records go.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file, if there is to be one.
    pub file: Option<PathBuf>,
    /// The socket of journald, if records are to go there too.
    pub journal: Option<PathBuf>,
    /// Whether a decision whose record no sink takes is taken back.
    pub required: bool,
}

/// The record of decisions.
#[derive(Debug)]
pub struct AuditLog {
    required: bool,
    run: u32,
    requests: AtomicU64,
    counts: [AtomicU64; 5],
    /// Of each caller, by user and unit.
    shares: Mutex<Brief<Party, Arc<Semaphore>>>,
    /// `None` keeps no records.
    scribe: Option<Arc<Scribe>>,
}

impl AuditLog {
    /// Opens the sinks and takes up the chain of the file. Records are written where they are made.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened, or where there is none, is required, and there is no journal
    /// either.
    pub fn open(options: &Options, clock: Clock) -> Result<Self, AuditError> {
        let opened = options.file.clone().map(FileSink::open).transpose()?;
        let (file, last_line) = match opened {
            Some((file, last_line)) => (Some(file), last_line),
            None => (None, None),
        };
        let journal = options
            .journal
            .as_deref()
            .map(JournalSink::open)
            .transpose()?;
        if let (None, Some(journal), true) = (&file, &journal, options.required)
            && journal.state().is_absent
        {
            return Err(journal.absence());
        }
        let end = last_line.map(|line| Link::after(&line)).unwrap_or_default();
        let place = options.file.as_deref().or(options.journal.as_deref());
        let scribe =
            place.map(|place: &Path| Arc::new(Scribe::new(clock, place, file, journal, end)));
        Ok(Self {
            required: options.required,
            run: rand::random(),
            requests: AtomicU64::new(0),
            counts: Default::default(),
            shares: Mutex::default(),
            scribe,
        })
    }

    /// Writes in a thread of its own from now on: then a disk that hangs holds up nothing else, and
    /// nobody waits for it for ever. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// When no thread can be had.
    pub fn start(&self) -> Result<(), AuditError> {
        if let Some(scribe) = &self.scribe {
            scribe.start()?;
            tokio::spawn(Arc::clone(scribe).watch());
        }
        Ok(())
    }

    /// A number for the next request.
    pub fn next_id(&self) -> RequestId {
        RequestId {
            run: self.run,
            number: self.requests.fetch_add(1, Ordering::Relaxed) + 1,
        }
    }

    /// Writes one record, together with those of other requests of the same turn.
    ///
    /// # Errors
    ///
    /// When no sink has taken it and records are required; nothing may be handed out then.
    pub async fn record(&self, record: &Record<'_>) -> Result<(), AuditError> {
        let Some(scribe) = &self.scribe else {
            self.count(record.outcome);
            return Ok(());
        };
        let mut unwritten = RecordOnDrop(self, Some(record));
        let _share = self.share(record.caller).await;
        unwritten.1 = None;
        self.count(record.outcome);
        let judged = match scribe.add(record) {
            Ok(ticket) => {
                let written = WriteOnDrop {
                    scribe,
                    ticket: &ticket,
                };
                // Lets the other requests of this turn add theirs; whoever comes back first has all
                // of them written.
                yield_now().await;
                drop(written);
                scribe.judged(&ticket).await
            }
            Err(error) => Err(error),
        };
        judged.or_else(|error| if self.required { Err(error) } else { Ok(()) })
    }

    /// A place among the records of this caller that are written.
    async fn share(&self, caller: &Caller) -> Option<OwnedSemaphorePermit> {
        let share = {
            let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
            let is_used = |share: &Arc<Semaphore>| Arc::strong_count(share) > 1;
            let make = || Arc::new(Semaphore::new(SHARE));
            Arc::clone(shares.entry(Party::of(caller), is_used, make))
        };
        share.acquire_owned().await.ok()
    }

    /// Has one record written where nobody can wait for it.
    pub fn record_now(&self, record: &Record<'_>) {
        self.count(record.outcome);
        // A failure is in `status`, and will be that of the next request.
        if let Some(scribe) = &self.scribe
            && let Ok(ticket) = scribe.add(record)
        {
            scribe.write(&ticket);
        }
    }

    /// Opens the file anew where its path leads to another one by now, or to none, and tries again
    /// what did not work.
    pub fn follow_rotation(&self) {
        if let Some(scribe) = &self.scribe {
            scribe.look_after();
        }
    }

    /// Does the same from time to time, and where all is well only before the next record.
    pub fn sweep(&self) {
        if let Some(scribe) = &self.scribe {
            scribe.sweep();
        }
    }

    /// Requests by outcome since the start.
    pub fn counts(&self) -> RequestCounts {
        let [issued, denied, malformed, unavailable, abandoned] = self
            .counts
            .each_ref()
            .map(|count| count.load(Ordering::Relaxed));
        RequestCounts {
            issued,
            denied,
            malformed,
            unavailable,
            abandoned,
            // Not judged, and so not recorded.
            throttled: 0,
        }
    }

    /// Number of the last record, and why there is none of the last request if no sink took it.
    pub fn state(&self) -> (u64, Option<AuditError>) {
        self.scribe
            .as_ref()
            .map_or((0, None), |scribe| scribe.taken())
    }

    /// How the file and the journal are doing, where they are wanted.
    pub fn sinks(&self) -> (Option<SinkState>, Option<SinkState>) {
        self.scribe
            .as_ref()
            .map_or((None, None), |scribe| scribe.sinks())
    }

    fn count(&self, outcome: Outcome) {
        if let Some(count) = self.counts.get(outcome as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        if let Some(scribe) = &self.scribe {
            scribe.finish();
        }
    }
}

/// A record that waits for its share, also when its request ends while it does.
struct RecordOnDrop<'a>(&'a AuditLog, Option<&'a Record<'a>>);

impl Drop for RecordOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(record) = self.1 {
            self.0.record_now(record);
        }
    }
}

/// A record that is on its way to no sink yet: it is when its request has given way to others, and
/// also when the request ends while it does.
struct WriteOnDrop<'a> {
    scribe: &'a Arc<Scribe>,
    ticket: &'a Ticket,
}

impl Drop for WriteOnDrop<'_> {
    fn drop(&mut self) {
        self.scribe.write(self.ticket);
    }
}

#[cfg(test)]
mod tests;
