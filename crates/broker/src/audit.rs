//! One line of JSON per decision, on its way to the disk before the token is on its way out.
//!
//! Lines carry a number and a digest of the line before, so that a gap shows. Records of one turn
//! of the event loop go out in one write. Never in a record: a token, a key, a header.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use arcbroker_client::wire::RequestCounts;
use arcbroker_policy::{Caller, Identity};
use serde::{Serialize, Serializer};
use tokio::task::yield_now;

pub use crate::audit_file::AuditError;
use crate::audit_file::AuditFile;
use crate::clock::Clock;
use crate::digest::sha256;

/// The version of a record.
const SCHEMA: u32 = 1;

/// Bytes of the digest of the line before, as hex digits in `prev`.
const PREV_BYTES: usize = 16;

/// How a request for a token ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// A token was handed out.
    Issued,
    /// No rule allows it.
    Denied,
    /// It was no request that can be judged.
    Malformed,
    /// It was allowed, but there was no token.
    Unavailable,
    /// The client went away before the answer.
    Abandoned,
}

/// One decision. `docs/protocol.md` has the keys.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// How it ended.
    pub outcome: Outcome,
    /// The number that the client was told.
    pub id: RequestId,
    /// Who asked.
    pub caller: &'a Caller,
    /// Name of the user, for display.
    pub user: Option<&'a str>,
    /// Process that connected.
    pub pid: Option<i32>,
    /// Whose token.
    pub identity: Option<&'a Identity>,
    /// For what.
    pub resource: Option<&'a str>,
    /// The rule that allowed it.
    pub rule: Option<&'a str>,
    /// Hash of the policy that was asked.
    pub policy: &'a str,
    /// `cache` or `fetch`, for an issued token.
    pub cache: Option<&'a str>,
    /// How long the answer took.
    pub took: Duration,
    /// Of the issued token.
    pub token: Option<TokenFacts<'a>>,
}

/// What a record says of an issued token.
#[derive(Clone, Copy, Debug)]
pub struct TokenFacts<'a> {
    /// Unix seconds.
    pub expires_on: u64,
    /// The claim under which Entra logs the token's use.
    pub uti: Option<&'a str>,
    /// First 12 hex digits of its SHA-256.
    pub sha256: &'a str,
}

/// A number for a request: unique while the daemon runs, and very likely ever.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RequestId {
    run: u32,
    number: u64,
}

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
    error: Option<AuditError>,
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
        // Lets the other requests of this turn add theirs; whoever comes back first writes for all.
        yield_now().await;
        let result = match batch.get() {
            Some(result) => result.clone(),
            None => self.lock().map_or(Ok(()), |mut tape| tape.flush()),
        };
        if self.required { result } else { Ok(()) }
    }

    /// Writes one record at once, where nobody can wait for it.
    pub fn record_now(&self, record: &Record<'_>) {
        self.count(record.outcome);
        if let Some(mut tape) = self.lock() {
            tape.append(record, &self.clock);
            // The failure is in `status`, and will be that of the next request.
            tape.flush().unwrap_or_default();
        }
    }

    /// Opens the file anew where its path leads to another one by now, or to none.
    pub fn follow_rotation(&self) {
        if let Some(mut tape) = self.lock() {
            let reopened = tape.file.follow();
            tape.note(reopened.as_ref().err().cloned());
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

    /// Number of the last record, and why the last write failed if it did.
    pub fn state(&self) -> (u64, Option<AuditError>) {
        self.lock()
            .map_or((0, None), |tape| (tape.written.seq, tape.error.clone()))
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

impl Tape {
    fn append(&mut self, record: &Record<'_>, clock: &Clock) -> Batch {
        let start = self.pending.len();
        let line = Line::new(record, clock, &self.last);
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
    fn flush(&mut self) -> Result<(), AuditError> {
        let result = self.file.write(&self.pending);
        self.pending.clear();
        match &result {
            Ok(()) => self.written = self.last.clone(),
            Err(_) => self.last = self.written.clone(),
        }
        self.note(result.as_ref().err().cloned());
        std::mem::take(&mut self.batch)
            .get_or_init(|| result)
            .clone()
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
    sha256(line, PREV_BYTES)
}

/// A record as it is written. The order of the keys is part of the format.
#[derive(Serialize)]
struct Line<'a> {
    schema: u32,
    time: Text<humantime::Rfc3339Timestamp>,
    seq: u64,
    prev: &'a str,
    id: Text<RequestId>,
    outcome: Outcome,
    uid: u32,
    gid: u32,
    user: Option<&'a str>,
    pid: Option<i32>,
    unit: Option<&'a str>,
    invocation: Option<&'a str>,
    container: Option<bool>,
    identity: Option<Text<&'a Identity>>,
    resource: Option<&'a str>,
    rule: Option<&'a str>,
    policy: &'a str,
    cache: Option<&'a str>,
    ms: u64,
    expires_on: Option<u64>,
    uti: Option<&'a str>,
    token_sha256: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn new(record: &Record<'a>, clock: &Clock, last: &'a Link) -> Self {
        let time = SystemTime::UNIX_EPOCH
            .checked_add(clock.now().wall)
            .unwrap_or(SystemTime::UNIX_EPOCH);
        Self {
            schema: SCHEMA,
            time: Text(humantime::format_rfc3339_millis(time)),
            seq: last.seq + 1,
            prev: &last.prev,
            id: Text(record.id),
            outcome: record.outcome,
            uid: record.caller.uid,
            gid: record.caller.gid,
            user: record.user,
            pid: record.pid,
            unit: None,
            invocation: None,
            container: None,
            identity: record.identity.map(Text),
            resource: record.resource,
            rule: record.rule,
            policy: record.policy,
            cache: record.cache,
            ms: u64::try_from(record.took.as_millis()).unwrap_or(u64::MAX),
            expires_on: record.token.map(|token| token.expires_on),
            uti: record.token.and_then(|token| token.uti),
            token_sha256: record.token.map(|token| token.sha256),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}", self.run, self.number)
    }
}

/// Written as the text that it is displayed as.
struct Text<T>(T);

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[cfg(test)]
mod tests;
