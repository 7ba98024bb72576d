//! What is logged goes to stderr.
//!
//! In JSON every line is JSON, to the last one: what the command tells a person otherwise, what ends it, and panics are
//! lines of the log then.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::ffi::OsStr;
use std::io::{IsTerminal, stderr};
use std::panic::{self, PanicHookInfo};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{env, thread};

use taut_server::config::LogFormat;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// A log that has been started; its level can change.
pub(crate) struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    format: LogFormat,
}

/// Starts to log from this level on, which may differ by part: `info,taut_server=debug`.
pub(crate) fn start(level: &str, format: LogFormat) -> Log {
    let (filter, handle) = reload::Layer::new(filter(level, format));
    // The layer would tell of a failed write on stderr, by a print that panics when that fails too.
    let layer = fmt::layer().with_writer(stderr).log_internal_errors(false);
    let is_colored = is_colored(stderr().is_terminal(), |name| env::var_os(name));
    let layer = match format {
        LogFormat::Text => layer.with_ansi(is_colored).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_ansi(false).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(layer).init();
    if format == LogFormat::Json {
        IS_JSON.store(true, Ordering::Relaxed);
        panic::set_hook(Box::new(log_panic));
    }
    Log { filter: handle, format }
}

impl Log {
    /// Logs from another level on.
    pub(crate) fn change_level(&self, level: &str) {
        // It fails when nobody logs any more, and then nobody misses it.
        let _ = self.filter.reload(filter(level, self.format));
    }
}

/// Whether whatever goes to stderr has to be JSON.
pub(crate) fn is_json() -> bool {
    IS_JSON.load(Ordering::Relaxed)
}

/// The format that a command line or the environment asks for, where neither could be read as a whole.
pub(crate) fn format_asked_for(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> LogFormat {
    let arguments: Vec<_> = arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
    let flag = arguments.iter().any(|argument| argument == "--log-format=json")
        || arguments.windows(2).any(|pair| pair[0] == "--log-format" && pair[1] == "json");
    let is_json = flag || env::var_os("TAUT_LOG_FORMAT").is_some_and(|format| format == "json");
    if is_json { LogFormat::Json } else { LogFormat::Text }
}

/// What the command itself says is told at any level, as it is where the log is text.
fn filter(level: &str, format: LogFormat) -> EnvFilter {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).parse_lossy(level);
    match format {
        LogFormat::Text => filter,
        LogFormat::Json => filter.add_directive(COMMAND_IS_HEARD.parse().expect("a directive")),
    }
}

/// <https://no-color.org>; and a terminal that says that it has none.
pub(crate) fn is_colored(is_terminal: bool, variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> bool {
    is_terminal
        && variable("NO_COLOR").is_none_or(|value| value.is_empty())
        && variable("TERM").is_none_or(|terminal| terminal != "dumb")
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let message =
        payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let location = panic.location().map(ToString::to_string);
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    let thread = thread::current();
    tracing::error!(
        target: COMMAND,
        thread = thread.name(),
        location,
        backtrace,
        "a thread has panicked: {}",
        message.unwrap_or("without a message")
    );
}

/// What the lines of the command itself have as their target.
pub(crate) const COMMAND: &str = "command";

const COMMAND_IS_HEARD: &str = "command=info";

static IS_JSON: AtomicBool = AtomicBool::new(false);

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn colors_are_for_terminals_that_want_them() {
        let colored = |is_terminal, variables: &[(&str, &str)]| {
            is_colored(is_terminal, |name| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into())
            })
        };
        assert!(colored(true, &[]) && colored(true, &[("NO_COLOR", ""), ("TERM", "xterm")]));
        assert!(!colored(true, &[("NO_COLOR", "1")]) && !colored(true, &[("TERM", "dumb")]) && !colored(false, &[]));
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_is_a_line_of_json_at_any_level() {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = fmt::layer().with_writer(move || writer.clone()).json().flatten_event(true);
        let registry = tracing_subscriber::registry().with(filter("off", LogFormat::Json)).with(layer);
        tracing::subscriber::with_default(registry, || {
            let usual = panic::take_hook();
            panic::set_hook(Box::new(log_panic));
            let number = 7;
            let panicked = panic::catch_unwind(|| panic!("the \"worst\" of {number}"));
            panic::set_hook(usual);
            assert!(panicked.is_err());
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let line: serde_json::Value = serde_json::from_str(&text).expect("one line of JSON");
        assert_eq!(line["message"], "a thread has panicked: the \"worst\" of 7");
        assert!(line["level"] == "ERROR" && line["location"].as_str().unwrap().contains("log.rs"), "{line}");
    }
}
