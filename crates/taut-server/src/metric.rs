//! Numbers that are counted, each declared once: where it is kept, what `/metrics` calls it, and what it is.

/// What Prometheus and docs/metrics.md are told of a metric.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Description {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) help: &'static str,
    /// The names of its labels.
    pub(crate) labels: &'static [&'static str],
}

impl Description {
    /// A metric with these labels.
    pub(crate) const fn new(
        name: &'static str,
        kind: Kind,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self { name, kind, help, labels }
    }
}

/// A number that a `T` holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric<T> {
    pub(crate) about: Description,
    pub(crate) value: fn(&T) -> u64,
}

/// What the numbers of a metric mean.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How many were how large.
    Histogram,
}

impl Kind {
    /// Prometheus' word.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Declares a struct of numbers, of the whole server or `by` a label. A field is one line, with its help text as its comment: the metric, the sum over all shards and
/// the console's JSON follow from it.
macro_rules! counters {
    (
        $(#[$meta:meta])*
        pub(crate) struct $name:ident $(by $label:literal)? {
            $(#[doc = $help:literal] $(#[$attribute:meta])* $field:ident: $kind:ident $metric:literal,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub(crate) struct $name {
            $(#[doc = $help] $(#[$attribute])* pub(crate) $field: u64,)*
        }

        impl $name {
            const LABELS: &'static [&'static str] = &[$($label)?];

            /// In the order of the fields.
            pub(crate) const METRICS: &'static [$crate::metric::Metric<Self>] = &[$($crate::metric::Metric {
                about: $crate::metric::Description {
                    name: $metric,
                    kind: $crate::metric::Kind::$kind,
                    help: $help.trim_ascii_start(),
                    labels: Self::LABELS,
                },
                value: |counts| counts.$field,
            },)*];
        }

        impl std::ops::AddAssign<&Self> for $name {
            fn add_assign(&mut self, more: &Self) {
                $(self.$field += more.$field;)*
            }
        }
    };
}

pub(crate) use counters;
