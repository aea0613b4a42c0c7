//! The back-off of restarts: none before the first, then 10 s, doubling to 5 min; over after a run of 10 min.

use std::time::{Duration, Instant};

/// Restart delays of one container.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    current: Option<Duration>,
    last_start: Option<Instant>,
}

/// Factor between the first and the longest delay (10 s and 5 min).
const LONGEST: u32 = 30;

impl Backoff {
    /// Delays that start with `base` (kubelet: 10 s).
    pub fn new(base: Duration) -> Self {
        Self {
            base,
            current: None,
            last_start: None,
        }
    }

    /// How long after its end at `finished` a container must wait for its next start; notes that start.
    pub fn next(&mut self, finished: Instant) -> Duration {
        let longest = self.base * LONGEST;
        // A container that ran twice as long as the longest delay is a new case.
        let calm = self
            .last_start
            .is_some_and(|start| finished.saturating_duration_since(start) > longest * 2);
        let delay = if calm { None } else { self.current };
        self.current = Some(delay.map_or(self.base, |delay| (delay * 2).min(longest)));
        let delay = delay.unwrap_or_default();
        self.last_start = Some(finished + delay);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_restart_at_once_then_ten_seconds_doubling_to_five_minutes() {
        let mut backoff = Backoff::new(Duration::from_secs(10));
        let mut now = Instant::now();
        let delays: Vec<u64> = (0..9)
            .map(|_| {
                let delay = backoff.next(now);
                now += delay + Duration::from_secs(1);
                delay.as_secs()
            })
            .collect();
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[test]
    fn a_long_run_resets() {
        let mut backoff = Backoff::new(Duration::from_secs(10));
        let start = Instant::now();
        backoff.next(start);
        backoff.next(start);
        assert_eq!(backoff.next(start + Duration::from_secs(615)).as_secs(), 0);
        assert_eq!(backoff.next(start + Duration::from_secs(616)).as_secs(), 10);
    }
}
