//! Gives records their places in the chain and brings them to the sinks, one batch at a time.
//!
//! The file comes first and the journal after it, so that both have the same chain. A batch is
//! judged as soon as one of them has it. A file that hangs keeps the thread that writes to it:
//! another one goes on without the file, and the file gets what it missed when it comes back.

mod batch;
mod turn;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use crate::chain::Link;
use crate::clock::Clock;
use crate::lane::{AuditError, Lane};
use crate::lock::lock;
use crate::record::{Drafts, Record};
use crate::sinks::{FileSink, JournalSink, SinkState};

pub(crate) use self::batch::Ticket;
use self::batch::{Batch, Job};
use self::turn::Next;

/// How long a batch may be with the file while the journal is there to take it.
const PATIENCE: Duration = Duration::from_millis(250);

/// The same where nothing else can take it: a busy disk is slow at times, and waiting for it is
/// better than to hand out nothing.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// How often somebody looks whether a file keeps a batch for too long, while there are any.
const WATCH: Duration = Duration::from_millis(125);

/// How long the end of the daemon waits for records to be written.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// Bytes of records that wait for those before them to be written.
const MOST_DRAFTS: usize = 1024 * 1024;

const STACK: usize = 256 * 1024;

/// What is said of a file that does not answer.
const STUCK: &str = "the file system does not answer";

/// Writes records.
#[derive(Debug)]
pub(crate) struct Scribe {
    clock: Clock,
    /// Of the file, or else of the journal: where a record is missed when none has it.
    place: PathBuf,
    /// Held by whoever writes to it; who does not get it at once goes on without.
    pub(crate) file: Option<Mutex<FileSink>>,
    journal: Option<Mutex<JournalSink>>,
    /// Held for a moment only, and last.
    state: Mutex<State>,
    /// There is something to do.
    work: Condvar,
    /// The thread has ended.
    ended: Condvar,
    /// Held by who writes where there is no thread for it.
    pen: Mutex<()>,
    /// There are batches to watch.
    batches: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Of all records that have a place, those under way included.
    end: Link,
    /// Number of the last record that a sink took.
    taken: u64,
    /// Why the last record was taken by none.
    error: Option<AuditError>,
    drafts: Drafts,
    /// Of `drafts`.
    batch: Arc<Batch>,
    wanted: Wanted,
    is_watched: bool,
    /// What gets its places right now.
    placed: Option<Arc<Batch>>,
    /// What the file is asked to take right now.
    job: Option<Job>,
    /// For the file, while it is stuck.
    late: Lane,
    writer: Writer,
    /// Of the thread that writes: one that is stuck in the file was succeeded by the next.
    generation: u64,
    is_closing: bool,
    file: SinkState,
    journal: SinkState,
}

/// What is to be done.
#[derive(Debug, Default)]
struct Wanted {
    /// To write the drafts: those who made them have given way to the others of their turn of the
    /// event loop.
    write: bool,
    /// To follow a rotation, and to try sinks again that failed.
    round: bool,
}

/// Who writes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Writer {
    /// Whoever has made a record.
    #[default]
    Maker,
    /// A thread, which waits for work.
    Idle,
    /// A thread, which is at work.
    Busy,
    /// Nobody: the thread has ended, or there was none to be had.
    Gone,
}

impl Scribe {
    /// Brings records to these sinks, of which there is one at least. Whoever makes a record writes
    /// it, until there is a thread for it.
    pub(crate) fn new(
        clock: Clock,
        place: &Path,
        file: Option<FileSink>,
        journal: Option<JournalSink>,
        end: Link,
    ) -> Self {
        let state = State {
            taken: end.seq,
            end,
            file: file.as_ref().map(FileSink::state).unwrap_or_default(),
            journal: journal.as_ref().map(JournalSink::state).unwrap_or_default(),
            ..State::default()
        };
        Self {
            clock,
            place: place.to_owned(),
            file: file.map(Mutex::new),
            journal: journal.map(Mutex::new),
            state: Mutex::new(state),
            work: Condvar::new(),
            ended: Condvar::new(),
            pen: Mutex::new(()),
            batches: Notify::new(),
        }
    }

    /// Writes in a thread of its own from now on.
    pub(crate) fn start(self: &Arc<Self>) -> Result<(), AuditError> {
        self.spawn(&mut lock(&self.state), None)
    }

    /// Adds a record to those that are written next.
    pub(crate) fn add(&self, record: &Record<'_>) -> Result<Ticket, AuditError> {
        let mut state = lock(&self.state);
        if state.drafts.bytes() > MOST_DRAFTS {
            return Err(self.error("too many records wait for those before them"));
        }
        state.drafts.push(record, &self.clock);
        if state.writer != Writer::Maker && !state.is_watched {
            state.is_watched = true;
            self.batches.notify_one();
        }
        Ok(Ticket {
            batch: Arc::clone(&state.batch),
            number: state.drafts.count(),
        })
    }

    /// Has the record's batch written, unless that is done or under way.
    pub(crate) fn write(self: &Arc<Self>, ticket: &Ticket) {
        let mut state = lock(&self.state);
        if Arc::ptr_eq(&state.batch, &ticket.batch) && !state.wanted.write {
            state.wanted.write = true;
            self.wake(state);
        }
    }

    /// Follows a rotation, and tries again what did not work.
    pub(crate) fn look_after(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        state.wanted.round = true;
        self.wake(state);
    }

    /// The same, but where all is well not before the next record: an idle machine is not woken for
    /// that.
    pub(crate) fn sweep(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        state.wanted.round = true;
        if state.writer != Writer::Idle || !state.is_well() {
            self.wake(state);
        }
    }

    /// Waits until it is known whether a sink has taken the record. That [`Self::watch`] runs is
    /// what bounds this wait.
    pub(crate) async fn judged(&self, ticket: &Ticket) -> Result<(), AuditError> {
        ticket.verdict().await
    }

    /// Sees to it that every batch is judged in time. One timer for all, and none while there is
    /// nothing to watch: to set one for each request costs more than the record.
    pub(crate) async fn watch(self: Arc<Self>) {
        loop {
            self.batches.notified().await;
            loop {
                sleep(WATCH).await;
                let mut state = lock(&self.state);
                if state.job.is_none() && state.drafts.count() == 0 {
                    state.is_watched = false;
                    break;
                }
                self.wake(state);
            }
        }
    }

    /// Whether its thread waits for work.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        lock(&self.state).writer == Writer::Idle
    }

    /// Number of the last record that a sink took, and why a later one was taken by none.
    pub(crate) fn taken(&self) -> (u64, Option<AuditError>) {
        let state = lock(&self.state);
        (state.taken, state.error.clone())
    }

    /// How the file and the journal are doing, where they are wanted.
    pub(crate) fn sinks(&self) -> (Option<SinkState>, Option<SinkState>) {
        let state = lock(&self.state);
        let file = self.file.as_ref().map(|_| state.file_with_late());
        (file, self.journal.as_ref().map(|_| state.journal.clone()))
    }

    /// Writes what there is, and ends the thread; waits for that, but not for ever.
    pub(crate) fn finish(&self) {
        let mut state = lock(&self.state);
        (state.is_closing, state.wanted.round) = (true, true);
        self.work.notify_one();
        let writes = |state: &mut State| matches!(state.writer, Writer::Idle | Writer::Busy);
        let waited = self.ended.wait_timeout_while(state, LAST_WAIT, writes);
        let file = waited
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .file_with_late();
        let records = file.waiting + file.missed;
        if records > 0 {
            tracing::error!(
                records,
                "the audit file lacks records that only the journal has"
            );
        }
    }

    /// Has somebody write what is ready.
    fn wake(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        match state.writer {
            Writer::Maker => {
                drop(state);
                let _pen = lock(&self.pen);
                self.turn(0);
            }
            Writer::Idle if state.wanted.any() => {
                state.writer = Writer::Busy;
                drop(state);
                self.work.notify_one();
            }
            Writer::Idle => {}
            Writer::Busy => self.hurry(&mut state),
            Writer::Gone => {
                if let Err(error) = self.spawn(&mut state, None) {
                    state.drafts = Drafts::default();
                    state.wanted.write = false;
                    state.error = Some(error.clone());
                    std::mem::take(&mut state.batch).judge(0, Some(error));
                }
            }
        }
    }

    /// If the file has been at it for too long, another thread goes on without it.
    fn hurry(self: &Arc<Self>, state: &mut State) {
        let has_journal = self.journal.is_some() && !state.journal.is_absent;
        let patience = if has_journal { PATIENCE } else { LAST_PATIENCE };
        let now = self.clock.now().boot;
        let late = |job: &mut Job| now.saturating_sub(job.since) >= patience;
        let Some(job) = state.job.take_if(late) else {
            return;
        };
        state.generation += 1;
        if self.file.is_some() {
            let error = self.error(STUCK);
            tracing::error!(%error, "audit");
            state.file.is_stuck = true;
            state.file.error = Some(error);
        }
        if let Err(error) = self.spawn(state, Some(job.clone())) {
            state.writer = Writer::Gone;
            state.error = Some(error.clone());
            if let Some(batch) = &job.batch {
                batch.judge(0, Some(error));
            }
        }
    }

    fn spawn(self: &Arc<Self>, state: &mut State, rescue: Option<Job>) -> Result<(), AuditError> {
        let (scribe, generation) = (Arc::clone(self), state.generation);
        let run = move || {
            let _end = ThreadEnd(&scribe, generation);
            if let Some(job) = rescue {
                scribe.rescue(&job);
            }
            scribe.run(generation);
        };
        let builder = thread::Builder::new().name("audit".to_owned());
        let spawned = builder.stack_size(STACK).spawn(run);
        spawned.map_err(|error| self.error(&format!("no thread can be had: {error}")))?;
        state.writer = Writer::Busy;
        Ok(())
    }

    /// The life of a thread.
    fn run(&self, generation: u64) {
        loop {
            let mut state = lock(&self.state);
            while state.generation == generation && !state.wanted.any() {
                if state.is_closing {
                    return;
                }
                state.writer = Writer::Idle;
                state = self
                    .work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if state.generation != generation {
                return;
            }
            state.writer = Writer::Busy;
            drop(state);
            if let Next::End = self.turn(generation) {
                return;
            }
        }
    }

    fn error(&self, reason: &str) -> AuditError {
        AuditError::new(&self.place, &reason)
    }
}

/// However a thread ends, nobody waits for what it was about to write.
struct ThreadEnd<'a>(&'a Scribe, u64);

impl Drop for ThreadEnd<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        if state.generation != self.1 {
            return;
        }
        state.writer = Writer::Gone;
        let job = state.job.take().and_then(|job| job.batch);
        for batch in job.into_iter().chain(state.placed.take()) {
            batch.judge(0, Some(self.0.error("the thread that writes it ended")));
        }
        self.0.ended.notify_all();
    }
}

impl Wanted {
    fn any(&self) -> bool {
        self.write || self.round
    }
}

impl State {
    fn file_with_late(&self) -> SinkState {
        let (waiting, missed) = self.late.counts();
        SinkState {
            waiting: self.file.waiting + waiting,
            missed: self.file.missed + missed,
            ..self.file.clone()
        }
    }
}
