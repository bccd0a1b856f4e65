//! What a service counts, as Prometheus reads it.

use super::Kind;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper ends of the classes of latencies, in seconds.
const SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Counters of a worker. They only grow.
#[derive(Debug, Default)]
pub struct Metrics {
    ok: AtomicU64,
    failed: [AtomicU64; Kind::ALL.len()],
    /// Latencies by class; the last has no upper end.
    latencies: [AtomicU64; SECONDS.len() + 1],
    microseconds: AtomicU64,
    batches: AtomicU64,
    batched: AtomicU64,
    refused: AtomicU64,
}

fn one_more(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Metrics {
    /// A request was answered, so long after it was read.
    pub fn answered(&self, failure: Option<Kind>, after: Duration) {
        match failure {
            None => one_more(&self.ok),
            Some(kind) => self.failed.get(kind as usize).into_iter().for_each(one_more),
        }
        let class = SECONDS.iter().position(|end| after.as_secs_f64() <= *end).unwrap_or(SECONDS.len());
        self.latencies.get(class).into_iter().for_each(one_more);
        self.microseconds.fetch_add(after.as_micros() as u64, Ordering::Relaxed);
    }

    /// So many inputs were taken together.
    pub fn batch(&self, inputs: usize) {
        one_more(&self.batches);
        self.batched.fetch_add(inputs as u64, Ordering::Relaxed);
    }

    /// A request was turned away before it was read.
    pub fn refused(&self) {
        one_more(&self.refused);
    }

    /// In the text format of Prometheus; with requests that wait and those in the house.
    pub fn text(&self, waiting: usize, inside: usize) -> String {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut out = String::new();
        let head = |out: &mut String, name: &str, kind: &str, about: &str| {
            let _ = writeln!(out, "# HELP {name} {about}\n# TYPE {name} {kind}");
            // writing to a String cannot fail
        };
        head(&mut out, "vitx_requests_total", "counter", "Requests that were answered, by outcome.");
        let _ = writeln!(out, "vitx_requests_total{{outcome=\"ok\"}} {}", load(&self.ok));
        for (kind, counter) in Kind::ALL.iter().zip(&self.failed) {
            let _ = writeln!(out, "vitx_requests_total{{outcome=\"{}\"}} {}", kind.name(), load(counter));
        }
        head(&mut out, "vitx_refused_total", "counter", "HTTP requests that were turned away unread.");
        let _ = writeln!(out, "vitx_refused_total {}", load(&self.refused));
        head(&mut out, "vitx_request_seconds", "histogram", "From a request's arrival to its answer.");
        let mut count = 0;
        let ends = SECONDS.iter().map(f64::to_string).chain(std::iter::once("+Inf".into()));
        for (end, counter) in ends.zip(&self.latencies) {
            count += load(counter);
            let _ = writeln!(out, "vitx_request_seconds_bucket{{le=\"{end}\"}} {count}");
        }
        let _ = writeln!(out, "vitx_request_seconds_sum {}", load(&self.microseconds) as f64 / 1e6);
        let _ = writeln!(out, "vitx_request_seconds_count {count}");
        for (name, kind, about, value) in [
            ("vitx_batches_total", "counter", "Groups of requests that were taken together.", load(&self.batches)),
            ("vitx_batched_requests_total", "counter", "Requests in those groups.", load(&self.batched)),
            ("vitx_waiting", "gauge", "Requests that wait for the model.", waiting as u64),
            ("vitx_inside", "gauge", "Requests that were read and not yet answered.", inside as u64),
        ] {
            head(&mut out, name, kind, about);
            let _ = writeln!(out, "{name} {value}");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_comment_or_a_sample_and_classes_add_up() {
        let metrics = Metrics::default();
        metrics.answered(None, Duration::from_millis(30));
        metrics.answered(None, Duration::from_secs(100));
        metrics.answered(Some(Kind::Input), Duration::from_millis(1));
        metrics.batch(3);
        let text = metrics.text(2, 5);
        for line in [
            "vitx_requests_total{outcome=\"ok\"} 2",
            "vitx_requests_total{outcome=\"input\"} 1",
            "vitx_request_seconds_bucket{le=\"0.005\"} 1",
            "vitx_request_seconds_bucket{le=\"0.05\"} 2",
            "vitx_request_seconds_bucket{le=\"60\"} 2",
            "vitx_request_seconds_bucket{le=\"+Inf\"} 3",
            "vitx_request_seconds_count 3",
            "vitx_request_seconds_sum 100.031",
            "vitx_batched_requests_total 3",
            "vitx_waiting 2",
            "vitx_inside 5",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        let sample = |l: &str| l.split_once(' ').is_some_and(|(_, value)| value.parse::<f64>().is_ok());
        assert!(text.lines().all(|l| l.starts_with("# ") || sample(l)), "{text}");
    }
}
