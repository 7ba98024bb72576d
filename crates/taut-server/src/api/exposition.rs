//! Prometheus' text format, version 0.0.4: what `/metrics` is written in.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use crate::metric::{Description, Metric};
use crate::query::{BUCKETS, Histogram};

/// A page of metrics on its way.
///
/// ```text
/// # HELP taut_connections Open connections of clients.
/// # TYPE taut_connections gauge
/// taut_connections{app="shop"} 42
/// ```
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    text: String,
    name: &'static str,
    labels: &'static [&'static str],
}

/// A label's name and value.
pub(crate) type Label<'a> = (&'static str, &'a str);

impl Exposition {
    /// Begins a metric. Its samples follow.
    pub(crate) fn begin(&mut self, about: &Description) {
        let Description { name, kind, help, labels } = *about;
        let kind = kind.name();
        (self.name, self.labels) = (name, labels);
        // Writing to a `String` cannot fail; here and below.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A sample of the metric that was begun.
    pub(crate) fn sample(&mut self, labels: &[Label<'_>], value: impl Display) {
        self.line("", labels, None, value);
    }

    /// A metric with one sample.
    pub(crate) fn single(&mut self, about: &Description, value: impl Display) {
        self.begin(about);
        self.sample(&[], value);
    }

    /// Metrics with one sample each.
    pub(crate) fn singles<T>(&mut self, metrics: &[Metric<T>], counts: &T) {
        for metric in metrics {
            self.single(&metric.about, (metric.value)(counts));
        }
    }

    /// A histogram of the metric that was begun: `counts` has one more than `bounds`, for what lies beyond the last.
    pub(crate) fn histogram(&mut self, labels: &[Label<'_>], bounds: &[f64], counts: &[u64], sum: f64) {
        debug_assert_eq!(bounds.len() + 1, counts.len());
        let mut so_far = 0;
        for (number, count) in counts.iter().enumerate() {
            so_far += count;
            let bound = bounds.get(number).map_or_else(|| "+Inf".to_owned(), f64::to_string);
            self.line("_bucket", labels, Some(("le", &bound)), so_far);
        }
        self.line("_sum", labels, None, sum);
        self.line("_count", labels, None, so_far);
    }

    /// The durations of the metric that was begun, in seconds.
    pub(crate) fn durations(&mut self, labels: &[Label<'_>], durations: &Histogram) {
        let bounds: [f64; BUCKETS - 1] = std::array::from_fn(|bucket| Duration::from_micros(2 << bucket).as_secs_f64());
        self.histogram(labels, &bounds, &durations.counts, Duration::from_micros(durations.sum).as_secs_f64());
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }

    fn line(&mut self, suffix: &str, labels: &[Label<'_>], last: Option<Label<'_>>, value: impl Display) {
        self.text.extend([self.name, suffix]);
        debug_assert!(labels.iter().map(|(name, _)| name).eq(self.labels), "the labels of {}", self.name);
        let mut separator = '{';
        for (name, value) in labels.iter().copied().chain(last) {
            self.text.push(separator);
            separator = ',';
            self.text.extend([name, "=\""]);
            for character in value.chars() {
                match character {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
        }
        if separator == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Kind;

    fn about(name: &'static str, kind: Kind, labels: &'static [&'static str], help: &'static str) -> Description {
        Description::new(name, kind, labels, help)
    }

    #[test]
    fn metrics_are_written_as_prometheus_reads_them() {
        let mut page = Exposition::default();
        page.begin(&about("taut_connections", Kind::Gauge, &["app", "kind"], "Open connections."));
        page.sample(&[("app", "a\"\\\nb"), ("kind", "x")], 7);
        page.single(&about("taut_up", Kind::Counter, &[], "Up."), 0.25);
        assert_eq!(
            page.into_text(),
            "# HELP taut_connections Open connections.\n# TYPE taut_connections gauge\n\
             taut_connections{app=\"a\\\"\\\\\\nb\",kind=\"x\"} 7\n\
             # HELP taut_up Up.\n# TYPE taut_up counter\ntaut_up 0.25\n"
        );
    }

    #[test]
    fn the_buckets_of_a_histogram_add_up() {
        let mut page = Exposition::default();
        page.begin(&about("taut_seconds", Kind::Histogram, &["route"], "Time."));
        page.histogram(&[("route", "/up")], &[0.001, 1.0], &[3, 0, 2], 12.5);
        assert_eq!(
            page.into_text(),
            "# HELP taut_seconds Time.\n# TYPE taut_seconds histogram\n\
             taut_seconds_bucket{route=\"/up\",le=\"0.001\"} 3\n\
             taut_seconds_bucket{route=\"/up\",le=\"1\"} 3\n\
             taut_seconds_bucket{route=\"/up\",le=\"+Inf\"} 5\n\
             taut_seconds_sum{route=\"/up\"} 12.5\n\
             taut_seconds_count{route=\"/up\"} 5\n"
        );
    }
}
