//! What is logged goes to stderr.

use std::io::{IsTerminal, stderr};

use taut_server::config::LogFormat;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// A log that has been started; its level can change.
pub(crate) struct Log(reload::Handle<EnvFilter, Registry>);

/// Starts to log from this level on, which may differ by part: `info,taut_server=debug`.
pub(crate) fn start(level: &str, format: LogFormat) -> Log {
    let (filter, handle) = reload::Layer::new(filter(level));
    // The layer would tell of a failed write on stderr, by a print that panics when that fails too.
    let layer = fmt::layer().with_writer(stderr).log_internal_errors(false);
    let layer = match format {
        LogFormat::Text => layer.with_ansi(stderr().is_terminal()).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_ansi(false).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(layer).init();
    Log(handle)
}

impl Log {
    /// Logs from another level on.
    pub(crate) fn change_level(&self, level: &str) {
        // It fails when nobody logs any more, and then nobody misses it.
        let _ = self.0.reload(filter(level));
    }
}

fn filter(level: &str) -> EnvFilter {
    EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).parse_lossy(level)
}
