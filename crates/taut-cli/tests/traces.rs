//! What a program says that was built without traces and is asked for them. `interop/otel` has those that were built with them.
#![cfg(not(feature = "otel"))]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// What the log of a server holds from its start until it serves.
fn log(variables: &[(&str, &str)]) -> Vec<String> {
    let mut server = Command::new(env!("CARGO_BIN_EXE_taut"))
        .args(["serve", "--listen", "127.0.0.1:0", "--shards", "1", "--log-format", "json"])
        .envs(variables.iter().copied())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let lines = BufReader::new(server.stderr.take().expect("piped")).lines();
    let mut log = Vec::new();
    for line in lines {
        let line = line.expect("text");
        let is_last = line.contains("\"serving\"");
        log.push(line);
        if is_last {
            break;
        }
    }
    server.kill().expect("ended");
    server.wait().expect("gone");
    assert!(log.last().is_some_and(|line| line.contains("\"serving\"")), "{log:?}");
    log
}

#[test]
fn a_program_without_traces_says_once_that_it_has_none_and_only_when_asked() {
    let about = |log: Vec<String>| log.into_iter().filter(|line| line.contains("traces")).collect::<Vec<_>>();
    let asked = about(log(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://name:hunter2@127.0.0.1:4318")]));
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].contains("WARN") && asked[0].contains("OTEL_EXPORTER_OTLP_ENDPOINT is set"), "{asked:?}");
    assert!(!asked[0].contains("hunter2"), "{asked:?}");
    assert_eq!(about(log(&[])), Vec::<String>::new());
}
