//! Records that are written together, and the verdict that they wait for.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;

use crate::chain::Link;
use crate::lane::AuditError;

/// What all records of one write wait for.
#[derive(Debug, Default)]
pub(super) struct Batch {
    verdict: OnceLock<Verdict>,
    told: Notify,
}

/// How many records of a batch a sink took, from the first one on, and why not the others.
#[derive(Debug)]
struct Verdict {
    taken: u64,
    error: Option<AuditError>,
}

/// A record in its batch.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(super) batch: Arc<Batch>,
    /// From 1 on.
    pub(super) number: usize,
}

/// Records that get their places together.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// `None` where there are no records, but something to look after.
    pub(super) batch: Option<Arc<Batch>>,
    pub(super) lines: Arc<Vec<u8>>,
    /// The end of the chain before them.
    pub(super) start: Link,
    /// Since boot.
    pub(super) since: Duration,
}

impl Batch {
    /// Tells all who wait; a second verdict changes nothing.
    pub(super) fn judge(&self, taken: u64, error: Option<AuditError>) {
        self.verdict.get_or_init(|| Verdict { taken, error });
        self.told.notify_one();
    }

    async fn verdict(&self) -> &Verdict {
        loop {
            // Before the look, so that nothing comes between them.
            let told = self.told.notified();
            if let Some(verdict) = self.verdict.get() {
                return verdict;
            }
            told.await;
            // The thread woke one of all who wait; to wake the others from here costs nothing.
            self.told.notify_waiters();
        }
    }
}

impl Ticket {
    /// Waits for the verdict: an error if no sink took this record.
    pub(super) async fn verdict(&self) -> Result<(), AuditError> {
        let Verdict { taken, error } = self.batch.verdict().await;
        match error {
            Some(error) if self.number as u64 > *taken => Err(error.clone()),
            _ => Ok(()),
        }
    }
}
