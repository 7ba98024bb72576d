//! Numbers that are counted, each declared once: where it is kept, what `/metrics` calls it, and what it is.

/// A number that a `T` holds, as Prometheus is told of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric<T> {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) help: &'static str,
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

/// Declares a struct of numbers. A field is one line, with its help text as its comment: the metric, the sum over all shards and
/// the console's JSON follow from it.
macro_rules! counters {
    (
        $(#[$meta:meta])*
        pub(crate) struct $name:ident {
            $(#[doc = $help:literal] $(#[$attribute:meta])* $field:ident: $kind:ident $metric:literal,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub(crate) struct $name {
            $(#[doc = $help] $(#[$attribute])* pub(crate) $field: u64,)*
        }

        impl $name {
            /// In the order of the fields.
            pub(crate) const METRICS: &'static [$crate::metric::Metric<Self>] = &[$($crate::metric::Metric {
                name: $metric,
                kind: $crate::metric::Kind::$kind,
                help: $help.trim_ascii_start(),
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
