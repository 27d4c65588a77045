//! Chance as a value, like the clock: a test that passes its own can repeat a run.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Where jitter comes from.
#[derive(Clone)]
pub struct Chance(Arc<dyn Fn() -> f64 + Send + Sync>);

impl Chance {
    /// The random numbers of this machine.
    pub fn system() -> Self {
        Self::from_fn(rand::random::<f64>)
    }

    /// Whatever the function says: numbers from 0 to 1.
    pub fn from_fn(draw: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(draw))
    }

    /// A number from the range, each as likely as another.
    pub fn between(&self, range: &RangeInclusive<f64>) -> f64 {
        let (low, high) = (range.start(), range.end());
        low + (high - low) * (self.0)().clamp(0.0, 1.0)
    }
}

impl fmt::Debug for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chance")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_stays_in_its_range() {
        let range = 0.9..=1.1;
        for drawn in [0.0, 0.5, 1.0, 7.0, -1.0] {
            let chance = Chance::from_fn(move || drawn);
            assert!(range.contains(&chance.between(&range)), "{drawn}");
        }
        let system = Chance::system();
        assert!((0..1000).all(|_| range.contains(&system.between(&range))));
    }
}
