//! Chance that can be thrown again: the same seed gives the same numbers, on every machine and with
//! every version of every crate.

use std::time::Duration;

/// `SplitMix64`: small, fast, and good enough to draw faults with.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The numbers of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Dice of their own for one purpose: what is drawn there changes nothing elsewhere.
    #[must_use]
    pub fn apart(&self, purpose: &str) -> Self {
        // FNV-1a.
        let hash = purpose.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut dice = Self(self.0 ^ hash);
        Self(dice.draw())
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 up to, and not including, 1.
    pub fn unit(&mut self) -> f64 {
        // 53 bits are what an f64 holds.
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let unit = (self.draw() >> 11) as f64 / (1_u64 << 53) as f64;
        unit
    }

    /// True so often.
    pub fn chance(&mut self, of: f64) -> bool {
        self.unit() < of
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.draw() % (end.max(1) as u64)).unwrap_or_default()
    }

    /// One of them.
    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// A time in between, in whole milliseconds.
    pub fn between(&mut self, low: Duration, high: Duration) -> Duration {
        whole_millis(low + high.saturating_sub(low).mul_f64(self.unit()))
    }

    /// A time in between, each order of magnitude as likely as another.
    pub fn spread(&mut self, low: Duration, high: Duration) -> Duration {
        let (low, high) = (low.as_secs_f64().ln(), high.as_secs_f64().ln());
        whole_millis(Duration::from_secs_f64(
            (low + (high - low) * self.unit()).exp(),
        ))
    }

    /// The time until the next event of so many that come on average in one `mean`.
    pub fn wait(&mut self, mean: Duration) -> Duration {
        whole_millis(mean.mul_f64(-(1.0 - self.unit()).ln()))
    }
}

/// tokio's timers count milliseconds.
fn whole_millis(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_for_ever() {
        let mut dice = Dice::new(7);
        assert_eq!(
            [dice.draw(), dice.draw()],
            [7_191_089_600_892_374_487, 309_689_372_594_955_804]
        );
        let draw = |mut dice: Dice| dice.draw();
        let dice = Dice::new(7);
        assert_eq!(draw(dice.apart("a")), draw(dice.apart("a")));
        assert_ne!(draw(dice.apart("a")), draw(dice.apart("b")));
    }

    #[test]
    fn what_is_drawn_lies_where_it_should() {
        let mut dice = Dice::new(1);
        let (low, high) = (Duration::from_secs(1), Duration::from_hours(24));
        for _ in 0..1000 {
            assert!((low..=high).contains(&dice.between(low, high)));
            assert!((low - Duration::from_millis(1)..=high).contains(&dice.spread(low, high)));
            assert!(dice.below(3) < 3);
        }
        let heads = (0..10_000).filter(|_| dice.chance(0.25)).count();
        assert!((2_300..2_700).contains(&heads), "{heads}");
    }
}
