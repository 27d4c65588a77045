//! What a run measured, and how it is printed.

use std::time::Duration;

/// What one thread saw. Latencies are those of the requests answered with 200.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) latencies: Vec<Duration>,
    pub(crate) failures: u32,
    pub(crate) first_failure: Option<String>,
}

impl Tally {
    pub(crate) fn record(&mut self, latency: Duration, result: Result<(), String>) {
        match result {
            Ok(()) => self.latencies.push(latency),
            Err(failure) => {
                self.failures += 1;
                self.first_failure.get_or_insert(failure);
            }
        }
    }

    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.latencies.extend(other.latencies);
        self.failures += other.failures;
        self.first_failure = self.first_failure.or(other.first_failure);
        self
    }
}

#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) requests: u32,
    pub(crate) failures: u32,
    pub(crate) first_failure: Option<String>,
    elapsed: Duration,
    /// Ascending.
    latencies: Vec<Duration>,
}

impl Figures {
    pub(crate) fn new(requests: u32, elapsed: Duration, tally: Tally) -> Self {
        let Tally {
            mut latencies,
            failures,
            first_failure,
        } = tally;
        latencies.sort_unstable();
        Self {
            requests,
            failures,
            first_failure,
            elapsed,
            latencies,
        }
    }

    /// One line. Without a single 200 the latencies are 0.
    pub(crate) fn to_json(&self) -> String {
        let Self {
            requests, failures, ..
        } = self;
        let seconds = self.elapsed.as_secs_f64();
        let rate = f64::from(*requests) / seconds.max(f64::MIN_POSITIVE);
        let [p50, p90, p99, max] =
            [50, 90, 99, 100].map(|percent| percentile(&self.latencies, percent));
        format!(
            "{{\"requests\":{requests},\"failures\":{failures},\"seconds\":{seconds:.3},\
             \"requests_per_second\":{rate:.1},\"p50_us\":{p50:.1},\"p90_us\":{p90:.1},\
             \"p99_us\":{p99:.1},\"max_us\":{max:.1}}}"
        )
    }
}

/// The nearest-rank percentile, in microseconds: the least value that `percent` of all do not exceed.
fn percentile(ascending: &[Duration], percent: usize) -> f64 {
    let rank = (ascending.len() * percent).div_ceil(100);
    let value = ascending
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default();
    value.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn microseconds(values: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        values.into_iter().map(Duration::from_micros).collect()
    }

    #[test]
    fn a_percentile_is_a_value_that_occurred() {
        let hundred = microseconds(1..=100);
        for (percent, expected) in [(1, 1.0), (50, 50.0), (90, 90.0), (99, 99.0), (100, 100.0)] {
            assert!(
                (percentile(&hundred, percent) - expected).abs() < 1e-6,
                "p{percent}"
            );
        }
    }

    #[test]
    fn few_values_round_up_to_the_next_rank() {
        let three = microseconds([10, 20, 30]);
        for (percent, expected) in [(33, 10.0), (34, 20.0), (50, 20.0), (67, 30.0), (99, 30.0)] {
            assert!(
                (percentile(&three, percent) - expected).abs() < 1e-6,
                "p{percent}"
            );
        }
        assert!(percentile(&[], 50).abs() < 1e-6);
    }

    #[test]
    fn the_json_holds_every_figure() {
        let mut tally = Tally::default();
        for latency in microseconds([30, 10, 20]) {
            tally.record(latency, Ok(()));
        }
        tally.record(Duration::from_secs(9), Err("status 403".to_owned()));
        let figures = Figures::new(4, Duration::from_millis(500), tally);
        assert_eq!(figures.first_failure.as_deref(), Some("status 403"));
        assert_eq!(
            figures.to_json(),
            r#"{"requests":4,"failures":1,"seconds":0.500,"requests_per_second":8.0,"p50_us":20.0,"p90_us":30.0,"p99_us":30.0,"max_us":30.0}"#
        );
    }

    #[test]
    fn merged_tallies_keep_all_figures_and_the_first_failure() {
        let mut one = Tally::default();
        one.record(Duration::from_micros(1), Ok(()));
        let mut two = Tally::default();
        two.record(Duration::from_micros(2), Err("a".to_owned()));
        two.record(Duration::from_micros(3), Err("b".to_owned()));
        let both = one.merge(two);
        assert_eq!(both.latencies, microseconds([1]));
        assert_eq!(
            (both.failures, both.first_failure.as_deref()),
            (2, Some("a"))
        );
    }
}
