//! Bounded, level-triggered waits: a condition is asked again until it holds, and the last answer is told when it never does.

use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How often a condition is asked.
const STEP: Duration = Duration::from_millis(100);

/// A condition that did not come true in time.
#[derive(Debug, thiserror::Error)]
#[error("{what}: not within {} s; last seen: {last}", within.as_secs())]
pub struct TimedOut {
    /// What was waited for.
    pub what: String,
    /// How long.
    pub within: Duration,
    /// What the last look showed.
    pub last: String,
}

/// The answer of one look at the world.
pub enum Look<T> {
    /// The condition holds.
    Done(T),
    /// Not yet, and what was seen instead.
    NotYet(String),
}

impl<T> Look<T> {
    /// Not yet, because of this.
    pub fn not_yet(seen: impl fmt::Display) -> Self {
        Self::NotYet(seen.to_string())
    }
}

/// Looks until the condition holds. An error of a look counts as "not yet": what is not reachable now may be in a moment.
pub async fn until<T>(
    what: impl fmt::Display,
    within: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Look<T>>,
) -> Result<T, TimedOut> {
    let deadline = Instant::now() + within;
    loop {
        let last = match tokio::time::timeout_at(deadline, look()).await {
            Ok(Ok(Look::Done(value))) => return Ok(value),
            Ok(Ok(Look::NotYet(seen))) => seen,
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "the last look did not return".to_owned(),
        };
        if Instant::now() + STEP > deadline {
            return Err(TimedOut {
                what: what.to_string(),
                within,
                last,
            });
        }
        sleep(STEP).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tells_what_it_saw_last() {
        let mut looks = 0;
        let error = until::<()>("rain", Duration::from_secs(2), async || {
            looks += 1;
            Ok(Look::not_yet("sun"))
        })
        .await
        .unwrap_err();
        assert!(looks > 1);
        assert_eq!(error.to_string(), "rain: not within 2 s; last seen: sun");
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_is_not_the_end() {
        let mut looks = 0;
        let value = until("the third look", Duration::from_secs(2), async || {
            looks += 1;
            anyhow::ensure!(looks >= 3, "down");
            Ok(Look::Done(looks))
        })
        .await
        .unwrap();
        assert_eq!(value, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_is_bounded() {
        let hang = async || -> anyhow::Result<Look<()>> { std::future::pending().await };
        assert!(until("anything", Duration::from_secs(1), hang).await.is_err());
    }
}
