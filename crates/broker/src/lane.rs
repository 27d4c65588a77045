//! What one sink of records was given and has not taken yet: in order, within a bound, offered again.

use std::path::{Path, PathBuf};

/// Bytes that are kept for a sink that takes nothing; some two thousand records.
const MOST_OWED: usize = 1024 * 1024;

/// Why a record was not written.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: the audit record was not written: {reason}", path.display())]
pub struct AuditError {
    /// The file, or the socket of the journal.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

impl AuditError {
    pub(crate) fn new(path: &Path, reason: &impl ToString) -> Self {
        Self {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }
}

/// The way to one sink. Lines end with a newline, and are taken whole.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    /// Lines that another sink has taken, and this one has not.
    owed: Vec<u8>,
    /// How many they are.
    waiting: u64,
    /// `owed` had no more room: what comes is given up until it is empty, so that nothing is before its
    /// gap.
    overflows: bool,
    /// Lines that were given up for this sink.
    missed: u64,
    error: Option<AuditError>,
}

/// How many bytes a sink took, and why not all of them.
pub(crate) type Taken = (usize, Result<(), AuditError>);

impl Lane {
    /// Offers what is owed, and then these lines; gives how many bytes of these were taken.
    pub(crate) fn offer(&mut self, lines: &[u8], mut take: impl FnMut(&[u8]) -> Taken) -> usize {
        if !self.owed.is_empty() {
            let (taken, result) = take(&self.owed);
            self.waiting -= count(self.owed.drain(..taken).as_slice());
            self.note(result);
        }
        if !self.owed.is_empty() {
            return 0;
        }
        self.owed.shrink_to(0);
        self.overflows = false;
        if lines.is_empty() {
            return 0;
        }
        let (taken, result) = take(lines);
        self.note(result);
        taken
    }

    /// Keeps lines for later that this sink must have too.
    pub(crate) fn owe(&mut self, lines: &[u8]) {
        self.overflows |= self.owed.len() + lines.len() > MOST_OWED;
        if self.overflows {
            self.missed += count(lines);
        } else {
            self.owed.extend_from_slice(lines);
            self.waiting += count(lines);
        }
    }

    /// Keeps for later what another lane had to keep for the same sink.
    pub(crate) fn owe_all(&mut self, other: &Self) {
        self.owe(&other.owed);
        self.missed += other.missed;
        self.overflows |= other.overflows;
    }

    /// Says so once when the sink begins to fail and once when it works again.
    pub(crate) fn note(&mut self, result: Result<(), AuditError>) {
        match (&self.error, &result) {
            (None, Err(error)) => tracing::error!(%error, "audit"),
            (Some(error), Ok(())) => {
                tracing::info!(path = %error.path.display(), "audit records are written again");
            }
            _ => {}
        }
        self.error = result.err();
    }

    /// Why the last line was not taken.
    pub(crate) fn error(&self) -> Option<&AuditError> {
        self.error.as_ref()
    }

    /// How many lines wait, and how many were given up.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.waiting, self.missed)
    }
}

/// How many lines these are.
pub(crate) fn count(lines: &[u8]) -> u64 {
    lines.split_inclusive(|&byte| byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(_: &[u8]) -> Taken {
        (0, Err(AuditError::new(Path::new("/sink"), &"full")))
    }

    fn keep(into: &mut Vec<u8>) -> impl FnMut(&[u8]) -> Taken {
        |lines| {
            into.extend_from_slice(lines);
            (lines.len(), Ok(()))
        }
    }

    #[test]
    fn what_is_owed_comes_before_what_is_new() {
        let (mut way, mut got) = (Lane::default(), Vec::new());
        assert_eq!(way.offer(b"1\n", refuse), 0);
        assert!(way.error().is_some());
        way.owe(b"1\n");
        assert_eq!(way.offer(b"2\n", refuse), 0);
        way.owe(b"2\n");
        assert_eq!(way.counts(), (2, 0));
        assert_eq!(way.offer(b"3\n", keep(&mut got)), 2);
        assert_eq!((got.as_slice(), way.counts()), (&b"1\n2\n3\n"[..], (0, 0)));
        assert!(way.error().is_none());
    }

    #[test]
    fn what_is_taken_in_part_is_offered_from_there_on() {
        let (mut way, mut got) = (Lane::default(), Vec::new());
        way.owe(b"1\n2\n3\n");
        let two = |lines: &[u8]| (4, refuse(lines).1);
        assert_eq!(way.offer(b"4\n", two), 0);
        assert_eq!(way.counts(), (1, 0));
        way.offer(b"", keep(&mut got));
        assert_eq!(got, b"3\n");
    }

    #[test]
    fn a_sink_that_takes_nothing_costs_no_more_than_the_bound_and_has_one_gap() {
        let (mut way, mut got) = (Lane::default(), Vec::new());
        let line = [vec![b'x'; MOST_OWED / 4], vec![b'\n']].concat();
        for _ in 0..5 {
            way.owe(&line);
        }
        way.owe(b"small\n");
        assert_eq!(way.counts(), (3, 3));
        assert_eq!(way.offer(b"new\n", keep(&mut got)), 4);
        assert_eq!(got, [line.repeat(3), b"new\n".to_vec()].concat());
        way.owe(b"next\n");
        assert_eq!(way.counts(), (1, 3));
    }

    #[test]
    fn what_came_while_the_sink_was_away_is_owed_too() {
        let (mut way, mut late) = (Lane::default(), Lane::default());
        way.owe(b"1\n");
        late.owe(b"2\n");
        late.owe(&vec![b'\n'; MOST_OWED]);
        way.owe_all(&late);
        way.owe(b"4\n");
        assert_eq!(way.counts(), (2, MOST_OWED as u64 + 1));
    }
}
