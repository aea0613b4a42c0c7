//! Probes: when they run, and what their results mean.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;

/// Which probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Until it succeeds, the others wait.
    Startup,
    /// A failure restarts the container.
    Liveness,
    /// Says whether the container may be talked to.
    Readiness,
}

/// The numbers of a probe, with kubelet's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Before the first.
    pub initial_delay: Duration,
    /// Between two.
    pub period: Duration,
    /// For one.
    pub timeout: Duration,
    success: u32,
    failure: u32,
}

impl Timing {
    /// The numbers of `probe`.
    pub fn of(probe: &Probe) -> Self {
        let number = |value: Option<i32>, default: u32| {
            value
                .and_then(|value| u32::try_from(value).ok())
                .filter(|value| *value > 0)
                .unwrap_or(default)
        };
        let seconds = |value, default| Duration::from_secs(number(value, default).into());
        Self {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            success: number(probe.success_threshold, 1),
            failure: number(probe.failure_threshold, 3),
        }
    }
}

/// Results in a row, and the verdict they made.
#[derive(Clone, Debug)]
pub struct Tally {
    timing: Timing,
    last: Option<bool>,
    run: u32,
    verdict: bool,
}

impl Tally {
    /// Before the first result: a container is alive, but neither started nor ready.
    pub fn new(kind: Kind, timing: Timing) -> Self {
        Self {
            timing,
            last: None,
            run: 0,
            verdict: kind == Kind::Liveness,
        }
    }

    /// Takes a result in; gives the new verdict when it has changed.
    pub fn take(&mut self, success: bool) -> Option<bool> {
        if self.last == Some(success) {
            self.run = self.run.saturating_add(1);
        } else {
            (self.last, self.run) = (Some(success), 1);
        }
        let needed = if success {
            self.timing.success
        } else {
            self.timing.failure
        };
        if self.run < needed || self.verdict == success && !self.first_failure(success) {
            return None;
        }
        self.verdict = success;
        Some(success)
    }

    /// A startup probe that fails for good was never true before.
    fn first_failure(&self, success: bool) -> bool {
        !success && self.run == self.timing.failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(kind: Kind, success: u32, failure: u32) -> Tally {
        let timing = Timing {
            success,
            failure,
            ..Timing::of(&Probe::default())
        };
        Tally::new(kind, timing)
    }

    fn verdicts(mut tally: Tally, results: &[bool]) -> Vec<Option<bool>> {
        results.iter().map(|result| tally.take(*result)).collect()
    }

    #[test]
    fn defaults() {
        let timing = Timing::of(&Probe::default());
        let seconds = [timing.initial_delay, timing.period, timing.timeout].map(|d| d.as_secs());
        assert_eq!((seconds, timing.success, timing.failure), ([0, 10, 1], 1, 3));
        let zero = Probe {
            period_seconds: Some(0),
            ..Probe::default()
        };
        assert_eq!(Timing::of(&zero).period.as_secs(), 10);
    }

    #[test]
    fn liveness_fails_after_three_in_a_row() {
        let got = verdicts(
            tally(Kind::Liveness, 1, 3),
            &[true, false, false, true, false, false, false],
        );
        assert_eq!(got, [None, None, None, None, None, None, Some(false)]);
    }

    #[test]
    fn readiness_needs_its_successes_and_comes_back() {
        let got = verdicts(
            tally(Kind::Readiness, 2, 1),
            &[true, true, true, false, true, true],
        );
        assert_eq!(got, [None, Some(true), None, Some(false), None, Some(true)]);
    }

    #[test]
    fn startup_fails_though_it_never_was_true() {
        let got = verdicts(tally(Kind::Startup, 1, 2), &[false, false]);
        assert_eq!(got, [None, Some(false)]);
        assert_eq!(
            verdicts(tally(Kind::Startup, 1, 3), &[false, false, true]),
            [None, None, Some(true)]
        );
    }
}
