//! What is done with one batch.

use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use super::batch::Job;
use super::{STUCK, Scribe, State, lock};
use crate::lane::{AuditError, count};
use crate::sinks::{ABSENT, FileSink, SinkState};

/// What happens after a batch.
pub(super) enum Next {
    Batch,
    /// The thread ends: the file kept it for so long that another one has taken its place.
    End,
}

impl Scribe {
    /// Brings everything that waits to the sinks.
    pub(super) fn turn(&self, generation: u64) -> Next {
        let (job, wants_round) = self.begin();
        let lines = job.lines.as_slice();
        let mut file = self.file.as_ref().and_then(try_lock);
        let by_file = file.as_mut().map_or(0, |file| {
            file.owe_all(&std::mem::take(&mut lock(&self.state).late));
            if wants_round {
                file.follow();
            }
            file.offer(lines)
        });
        if !self.is_in_time(generation, &job, by_file) {
            self.bring_back(file, &job, by_file);
            return Next::End;
        }
        let mut journal = self.journal.as_ref().map(lock);
        let by_journal = journal.as_mut().map_or(0, |journal| {
            if wants_round {
                journal.look();
            }
            journal.offer(lines, by_file < lines.len())
        });
        // What no sink has taken has no place: the chain goes on as if it had never been.
        let kept = lines.get(..by_file.max(by_journal)).unwrap_or(lines);
        let mut state = lock(&self.state);
        if let Some(journal) = &mut journal {
            journal.owe(rest(kept, by_journal));
            state.journal = journal.state();
        }
        match &mut file {
            Some(file) => {
                file.owe(rest(kept, by_file));
                state.file = file.state();
            }
            None if self.file.is_some() => state.late.owe(kept),
            None => {}
        }
        if by_file < lines.len() {
            state.end = job.start.after_last(kept);
            self.judge(&mut state, &job, kept);
        }
        Next::Batch
    }

    /// Gives all drafts their places.
    fn begin(&self) -> (Job, bool) {
        let mut state = lock(&self.state);
        let wants_round = std::mem::take(&mut state.wanted).round;
        let drafts = std::mem::take(&mut state.drafts);
        let batch = (drafts.count() > 0).then(|| std::mem::take(&mut state.batch));
        let start = state.end.clone();
        state.placed.clone_from(&batch);
        drop(state);
        let mut end = start.clone();
        let job = Job {
            batch,
            lines: Arc::new(end.extend(&drafts)),
            start,
            since: self.clock.now().boot,
        };
        let mut state = lock(&self.state);
        (state.end, state.placed) = (end, None);
        state.job = Some(job.clone());
        (job, wants_round)
    }

    /// Whether the file has answered in time. If it took everything, nobody need wait any longer.
    fn is_in_time(&self, generation: u64, job: &Job, by_file: usize) -> bool {
        let mut state = lock(&self.state);
        if state.generation != generation {
            return false;
        }
        state.job = None;
        if by_file == job.lines.len() {
            self.judge(&mut state, job, &job.lines);
        }
        true
    }

    /// The file answers again, after another thread has gone on without it.
    fn bring_back(&self, file: Option<MutexGuard<'_, FileSink>>, job: &Job, by_file: usize) {
        let (written, left) = job.lines.split_at(by_file);
        let Some(mut file) = file else {
            // It is another one that is stuck in it.
            lock(&self.state).late.owe(left);
            return;
        };
        file.owe(left);
        let told = file.state();
        drop(file);
        let mut state = lock(&self.state);
        (state.file, state.error, state.wanted.round) = (told, None, true);
        state.note_taken(job, written);
        tracing::info!(path = %self.place.display(), "the file system of the audit file answers again");
        self.work.notify_one();
    }

    /// Judges what a file is stuck with. It may still come to be in the file: so it keeps its place
    /// also where the journal does not take it.
    pub(super) fn rescue(&self, job: &Job) {
        let mut journal = self.journal.as_ref().map(lock);
        let by_journal = journal
            .as_mut()
            .map_or(0, |journal| journal.offer(&job.lines, true));
        let mut state = lock(&self.state);
        if let Some(journal) = &mut journal {
            journal.owe(rest(&job.lines, by_journal));
            state.journal = journal.state();
        }
        let kept = job.lines.get(..by_journal).unwrap_or_default();
        self.judge(&mut state, job, kept);
    }

    fn judge(&self, state: &mut State, job: &Job, kept: &[u8]) {
        if job.lines.is_empty() {
            return;
        }
        state.note_taken(job, kept);
        state.error = (kept.len() < job.lines.len()).then(|| self.why(state));
        if let Some(batch) = &job.batch {
            batch.judge(count(kept), state.error.clone());
        }
    }

    /// Why no sink takes records.
    fn why(&self, state: &State) -> AuditError {
        let told = state.file.error.as_ref().or(state.journal.error.as_ref());
        told.cloned()
            .unwrap_or_else(|| self.error(if self.file.is_some() { STUCK } else { ABSENT }))
    }
}

impl State {
    /// No sink is behind, and none has failed.
    pub(super) fn is_well(&self) -> bool {
        let is_well = |sink: &SinkState| sink.error.is_none() && sink.waiting == 0;
        self.error.is_none() && is_well(&self.file_with_late()) && is_well(&self.journal)
    }

    fn note_taken(&mut self, job: &Job, lines: &[u8]) {
        if !lines.is_empty() {
            self.taken = self.taken.max(job.start.seq + count(lines));
        }
    }
}

/// What is left after so many bytes.
fn rest(lines: &[u8], taken: usize) -> &[u8] {
    lines.get(taken..).unwrap_or_default()
}

/// `None` while another thread has it.
fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
