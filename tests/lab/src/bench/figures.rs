//! Results of a bench: medians, spreads, one line of JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

/// The metrics of one bench, each over all its runs.
#[derive(Debug, Clone)]
pub struct Figures {
    bench: &'static str,
    runs: u32,
    samples: BTreeMap<&'static str, Vec<f64>>,
}

#[derive(Serialize)]
struct Line<'a> {
    bench: &'a str,
    runs: u32,
    metrics: BTreeMap<&'a str, f64>,
}

impl Figures {
    /// No samples yet.
    #[must_use]
    pub fn new(bench: &'static str, runs: u32) -> Self {
        Self {
            bench,
            runs,
            samples: BTreeMap::new(),
        }
    }

    /// Adds one run's value of a metric.
    pub fn add(&mut self, metric: &'static str, value: f64) {
        self.samples.entry(metric).or_default().push(value);
    }

    /// One line: `{"bench": …, "runs": …, "metrics": {…}}`; each metric is the median over the runs, `<metric>_min` and
    /// `<metric>_max` its spread.
    #[must_use]
    pub fn json(&self) -> String {
        let names: Vec<(String, f64)> = self
            .samples
            .iter()
            .flat_map(|(metric, values)| {
                [
                    ((*metric).to_owned(), quantile(values, 0.5)),
                    (format!("{metric}_min"), quantile(values, 0.0)),
                    (format!("{metric}_max"), quantile(values, 1.0)),
                ]
            })
            .collect();
        let metrics = names
            .iter()
            .map(|(name, value)| (name.as_str(), rounded(*value)))
            .collect();
        serde_json::to_string(&Line {
            bench: self.bench,
            runs: self.runs,
            metrics,
        })
        .unwrap_or_default()
    }

    /// A table for a person.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!(
            "{}, {} runs\n{:<24} {:>10} {:>10} {:>10}\n",
            self.bench, self.runs, "", "median", "min", "max"
        );
        for (metric, values) in &self.samples {
            let [median, min, max] = [0.5, 0.0, 1.0].map(|q| rounded(quantile(values, q)));
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{metric:<24} {median:>10} {min:>10} {max:>10}");
        }
        text
    }
}

/// The value below which a share `q` (0 to 1) of the values lies: nearest rank. 0 for no values.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "small counts"
)]
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_by_nearest_rank() {
        let values: Vec<f64> = (1..=100).map(f64::from).rev().collect();
        let found = [0.0, 0.5, 0.99, 1.0].map(|q| quantile(&values, q).to_string());
        assert_eq!(found, ["1", "50", "99", "100"]);
        assert_eq!(quantile(&[], 0.5).to_string(), "0");
    }

    #[test]
    fn one_line_of_json() {
        let mut figures = Figures::new("idle", 5);
        for value in [3.0, 1.0, 2.0004] {
            figures.add("agent_rss_mib", value);
        }
        let line = figures.json();
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(parsed["bench"], "idle");
        assert_eq!(parsed["metrics"]["agent_rss_mib"], 2.0);
        assert_eq!(parsed["metrics"]["agent_rss_mib_max"], 3.0);
    }
}
