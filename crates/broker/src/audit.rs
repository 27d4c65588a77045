//! One line of JSON per decision, on its way to the disk before the token is on its way out.
//!
//! Lines carry a number and a digest of the line before, so that a gap shows. Records of one turn
//! of the event loop go out in one write. Never in a record: a token, a key, a header.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arcbroker_client::wire::RequestCounts;
use tokio::task::yield_now;

pub use crate::audit_file::AuditError;
use crate::audit_file::AuditFile;
use crate::clock::Clock;
use crate::digest::Digest;
use crate::record::{Line, Outcome, Record, RequestId};

/// Bytes of the digest of the line before, as hex digits in `prev`.
const PREV_BYTES: usize = 16;

/// Where records go.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file; `None` keeps no records.
    pub file: Option<PathBuf>,
    /// Whether a decision whose record cannot be written is taken back.
    pub required: bool,
}

/// The record of decisions.
#[derive(Debug)]
pub struct AuditLog {
    clock: Clock,
    required: bool,
    run: u32,
    requests: AtomicU64,
    counts: [AtomicU64; 5],
    tape: Option<Mutex<Tape>>,
}

#[derive(Debug)]
struct Tape {
    file: AuditFile,
    /// Number and digest of the last line, those in `pending` included.
    last: Link,
    /// The same without those in `pending`.
    written: Link,
    pending: Vec<u8>,
    batch: Batch,
    /// Of the last write.
    error: Option<AuditError>,
    /// Of the last attempt to follow a rotation: records still go to the old file then.
    follow_error: Option<AuditError>,
}

/// What all records of one write wait for.
type Batch = Arc<OnceLock<Result<(), AuditError>>>;

/// The end of the chain so far.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Link {
    pub(crate) seq: u64,
    pub(crate) prev: String,
}

impl AuditLog {
    /// Opens the file and takes up its chain.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened.
    pub fn open(options: &Options, clock: Clock) -> Result<Self, AuditError> {
        let tape = options.file.clone().map(|path| {
            AuditFile::open(path).map(|(file, last_line)| {
                let last = last_line.map(|line| Link::after(&line)).unwrap_or_default();
                Mutex::new(Tape {
                    file,
                    written: last.clone(),
                    last,
                    pending: Vec::new(),
                    batch: Batch::default(),
                    error: None,
                    follow_error: None,
                })
            })
        });
        Ok(Self {
            clock,
            required: options.required,
            run: rand::random(),
            requests: AtomicU64::new(0),
            counts: Default::default(),
            tape: tape.transpose()?,
        })
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
    /// When it could not be written and records are required; nothing may be handed out then.
    pub async fn record(&self, record: &Record<'_>) -> Result<(), AuditError> {
        self.count(record.outcome);
        let Some(batch) = self.lock().map(|mut tape| tape.append(record, &self.clock)) else {
            return Ok(());
        };
        let written = WriteOnDrop {
            log: self,
            batch: &batch,
        };
        // Lets the other requests of this turn add theirs; whoever comes back first writes for all.
        yield_now().await;
        drop(written);
        match batch.get() {
            Some(Err(error)) if self.required => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Writes one record at once, where nobody can wait for it.
    pub fn record_now(&self, record: &Record<'_>) {
        self.count(record.outcome);
        if let Some(mut tape) = self.lock() {
            tape.append(record, &self.clock);
            // A failure is in `status`, and will be that of the next request.
            tape.flush();
        }
    }

    /// Opens the file anew where its path leads to another one by now, or to none.
    pub fn follow_rotation(&self) {
        if let Some(mut tape) = self.lock() {
            let error = tape.file.follow().err();
            if let (Some(error), None) = (&error, &tape.follow_error) {
                tracing::error!(%error, "the audit file was rotated and cannot be opened anew");
            }
            tape.follow_error = error;
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
        }
    }

    /// Number of the last record, and what is wrong with the file if anything is.
    pub fn state(&self) -> (u64, Option<AuditError>) {
        self.lock().map_or((0, None), |tape| {
            let error = tape.error.as_ref().or(tape.follow_error.as_ref());
            (tape.written.seq, error.cloned())
        })
    }

    fn count(&self, outcome: Outcome) {
        if let Some(count) = self.counts.get(outcome as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> Option<MutexGuard<'_, Tape>> {
        self.tape
            .as_ref()
            .map(|tape| tape.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A record that is in no file yet: written when its request has given way to others, and also
/// when the request ends while it does.
struct WriteOnDrop<'a> {
    log: &'a AuditLog,
    batch: &'a Batch,
}

impl Drop for WriteOnDrop<'_> {
    fn drop(&mut self) {
        if self.batch.get().is_none()
            && let Some(mut tape) = self.log.lock()
        {
            tape.flush();
        }
    }
}

impl Tape {
    fn append(&mut self, record: &Record<'_>, clock: &Clock) -> Batch {
        let start = self.pending.len();
        let line = Line::new(record, clock, self.last.seq + 1, &self.last.prev);
        let encoded = serde_json::to_writer(&mut self.pending, &line);
        debug_assert!(
            encoded.is_ok(),
            "a line has only strings and numbers, and a Vec takes them all"
        );
        self.last = Link {
            seq: self.last.seq + 1,
            prev: digest(self.pending.get(start..).unwrap_or_default()),
        };
        self.pending.push(b'\n');
        Arc::clone(&self.batch)
    }

    /// Writes all that is pending, or none of it: then the chain goes on as if it had never been.
    fn flush(&mut self) {
        let result = self.file.write(&self.pending);
        self.pending.clear();
        match &result {
            Ok(()) => self.written = self.last.clone(),
            Err(_) => self.last = self.written.clone(),
        }
        self.note(result.as_ref().err().cloned());
        std::mem::take(&mut self.batch).get_or_init(|| result);
    }

    /// Says so once when it starts to fail and once when it works again.
    fn note(&mut self, error: Option<AuditError>) {
        match (&self.error, &error) {
            (None, Some(error)) => tracing::error!(%error, "audit"),
            (Some(_), None) => tracing::info!("audit records are written again"),
            _ => {}
        }
        self.error = error;
    }
}

impl Link {
    /// The end of a chain whose last line this is.
    fn after(line: &[u8]) -> Self {
        #[derive(serde::Deserialize)]
        struct Numbered {
            seq: u64,
        }
        let seq = serde_json::from_slice::<Numbered>(line).map_or(0, |line| line.seq);
        Self {
            seq,
            prev: digest(line),
        }
    }
}

fn digest(line: &[u8]) -> String {
    Digest::of(line).hex(PREV_BYTES)
}

#[cfg(test)]
mod tests;
