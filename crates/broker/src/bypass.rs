//! How often a user may have upstream asked past its own cache, where a rule gives leave at all.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::sync::Cache;

use crate::pace::Pace;

/// For one user: one for each of these times on average, and so many at once.
const GAP: Duration = Duration::from_mins(1);
const BURST: u32 = 5;
/// Users that are remembered; the one that was away longest is forgotten first.
const USERS: u64 = 1024;

/// What each user has had lately.
#[derive(Debug)]
pub struct Bypasses(Cache<u32, Arc<Mutex<Pace>>>);

impl Bypasses {
    /// Everybody begins with the full measure.
    pub fn new() -> Self {
        Self(Cache::new(USERS))
    }

    /// Whether the user may have one more at `now` since boot.
    pub fn take(&self, uid: u32, now: Duration) -> bool {
        let fresh = || Arc::new(Mutex::new(Pace::every(GAP, BURST)));
        let pace = self.0.get_with(uid, fresh);
        let mut pace = pace.lock().unwrap_or_else(PoisonError::into_inner);
        pace.take(now).is_ok()
    }
}

impl Default for Bypasses {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b22_a_user_has_five_at_once_and_one_a_minute_and_takes_none_from_another() {
        let bypasses = Bypasses::new();
        let taken = |uid, seconds| bypasses.take(uid, Duration::from_secs(seconds));
        assert_eq!((0..10).filter(|_| taken(1, 0)).count(), 5);
        assert!(!taken(1, 59));
        assert!(taken(1, 60));
        assert!(!taken(1, 61));
        assert!(taken(2, 61));
    }
}
