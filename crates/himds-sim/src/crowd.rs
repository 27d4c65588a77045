//! How many requests are being answered at one time.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts those inside, and remembers the most there were.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    inside: AtomicUsize,
    most: AtomicUsize,
}

/// One that is inside, until it is dropped.
pub(crate) struct Inside<'c>(&'c Crowd);

impl Crowd {
    pub(crate) fn enter(&self) -> Inside<'_> {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        Inside(self)
    }

    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_is_remembered_and_not_the_sum() {
        let crowd = Crowd::default();
        let two = [crowd.enter(), crowd.enter()];
        drop(two);
        drop(crowd.enter());
        assert_eq!(crowd.most(), 2);
    }
}
