//! The two places where records go, each with what it still has to get.

use std::path::{Path, PathBuf};

use crate::audit_file::AuditFile;
use crate::journal::Journal;
use crate::lane::{AuditError, Lane};

/// What is said of a journal that is not there.
pub(crate) const ABSENT: &str = "there is no journal";

/// How a sink is doing.
#[derive(Clone, Debug, Default)]
pub struct SinkState {
    /// Why it did not take the last record, or did not follow a rotation.
    pub error: Option<AuditError>,
    /// It has not answered for too long; records go past it meanwhile.
    pub is_stuck: bool,
    /// There is no such thing on this system.
    pub is_absent: bool,
    /// Records that another sink took and that wait for this one.
    pub waiting: u64,
    /// Records that were given up for this one since the start.
    pub missed: u64,
}

/// The audit file.
#[derive(Debug)]
pub(crate) struct FileSink {
    pub(crate) file: AuditFile,
    lane: Lane,
    /// Of the last attempt to follow a rotation: records still go to the old file then.
    follow_error: Option<AuditError>,
}

impl FileSink {
    /// Opens the file, and gives the last line in it.
    pub(crate) fn open(path: PathBuf) -> Result<(Self, Option<Vec<u8>>), AuditError> {
        let (file, last_line) = AuditFile::open(path)?;
        let sink = Self {
            file,
            lane: Lane::default(),
            follow_error: None,
        };
        Ok((sink, last_line))
    }

    /// Offers lines, and before them what it still has to get; gives how many bytes of the lines it
    /// took.
    pub(crate) fn offer(&mut self, lines: &[u8]) -> usize {
        self.lane.offer(lines, |lines| self.file.take(lines))
    }

    /// Opens the file anew where its path leads to another one by now, or to none.
    pub(crate) fn follow(&mut self) {
        let error = self.file.follow().err();
        if let (Some(error), None) = (&error, &self.follow_error) {
            tracing::error!(%error, "the audit file was rotated and cannot be opened anew");
        }
        self.follow_error = error;
    }

    /// Keeps lines for later.
    pub(crate) fn owe(&mut self, lines: &[u8]) {
        self.lane.owe(lines);
    }

    /// Keeps for later what could not be kept here.
    pub(crate) fn owe_all(&mut self, late: &Lane) {
        self.lane.owe_all(late);
    }

    /// How it is doing.
    pub(crate) fn state(&self) -> SinkState {
        SinkState::new(&self.lane, self.follow_error.as_ref())
    }
}

/// The journal, where there is one.
#[derive(Debug)]
pub(crate) struct JournalSink {
    journal: Journal,
    lane: Lane,
    is_there: bool,
}

impl JournalSink {
    /// Looks whether there is one.
    pub(crate) fn open(path: &Path) -> Result<Self, AuditError> {
        let journal = Journal::open(path)?;
        Ok(Self {
            is_there: journal.is_there(),
            journal,
            lane: Lane::default(),
        })
    }

    /// Looks again: it may have come.
    pub(crate) fn look(&mut self) {
        self.is_there |= self.journal.is_there();
    }

    /// Offers lines as for the file; waits for a journal that is behind if `wait`.
    pub(crate) fn offer(&mut self, lines: &[u8], wait: bool) -> usize {
        if !self.is_there {
            return 0;
        }
        self.lane
            .offer(lines, |lines| self.journal.take(lines, wait))
    }

    /// Keeps lines for later. A journal that never was is owed nothing.
    pub(crate) fn owe(&mut self, lines: &[u8]) {
        if self.is_there {
            self.lane.owe(lines);
        }
    }

    /// How it is doing.
    pub(crate) fn state(&self) -> SinkState {
        SinkState {
            is_absent: !self.is_there,
            ..SinkState::new(&self.lane, None)
        }
    }

    /// That there is none.
    pub(crate) fn absence(&self) -> AuditError {
        AuditError::new(&self.journal.path, &ABSENT)
    }
}

impl SinkState {
    fn new(lane: &Lane, other: Option<&AuditError>) -> Self {
        let (waiting, missed) = lane.counts();
        Self {
            error: lane.error().or(other).cloned(),
            waiting,
            missed,
            ..Self::default()
        }
    }
}
