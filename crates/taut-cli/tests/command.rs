//! The command line: its version, its help, its documentation.

use std::path::Path;
use std::process::{Command, Output};

fn taut(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_taut")).env_clear().args(arguments).output().expect("the program")
}

fn printed(arguments: &[&str]) -> String {
    let output = taut(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Without the line ends and the columns of a help text.
fn unwrapped(help: &str) -> String {
    help.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_version_has_the_commit_where_there_is_one() {
    let printed = printed(&["--version"]);
    let version = printed.trim().strip_prefix(concat!("taut ", env!("CARGO_PKG_VERSION"))).expect("the version");
    // A source without its history has none.
    if !version.is_empty() {
        let commit = version.strip_prefix(" (").and_then(|rest| rest.strip_suffix(')')).expect("in parentheses");
        let (hash, day) = commit.split_once(' ').unwrap_or((commit, "2026-01-01"));
        assert!(hash.len() >= 7 && day.split('-').count() == 3, "{printed}");
    }
}

#[test]
fn the_help_of_serve_is_grouped_and_says_where_to_read_on() {
    let help = printed(&["serve", "--help"]);
    let headings =
        ["Configuration:", "Listening:", "Apps:", "TLS:", "Connections:", "Limits of an app:", "Webhooks:", "Log:"];
    for heading in headings {
        assert!(help.lines().any(|line| line == heading), "{heading} in\n{help}");
    }
    assert!(help.contains("`taut docs`") && !help.contains("docs/configuration.md"), "{help}");
}

#[test]
fn the_help_lists_route_and_that_of_route_test_has_an_example() {
    let help = printed(&["--help"]);
    assert!(unwrapped(&help).contains("route Try the backend of a route"), "{help}");
    let help = printed(&["route", "test", "--help"]);
    for part in
        ["-H, --header <NAME: VALUE>", "--send-binary <HEX>", "--close <CODE[:REASON]>", "\n  taut route test '/chat/"]
    {
        assert!(help.contains(part), "{part} in\n{help}");
    }
}

#[test]
fn the_help_of_the_commands_for_apps_has_examples_and_warns_of_secrets_on_the_command_line() {
    for command in ["subscribe", "publish", "channels", "sign"] {
        let help = printed(&[command, "--help"]);
        assert!(help.contains(&format!("Examples:\n  taut {command}")), "{help}");
        assert!(help.contains("--app <APP>") && help.contains("TAUT_APP_URL"), "{help}");
        assert!(unwrapped(&help).contains("others on this machine can see it here"), "{help}");
    }
}

#[test]
fn a_secret_in_a_variable_is_not_shown_by_the_help() {
    let help = Command::new(env!("CARGO_BIN_EXE_taut"))
        .env_clear()
        .env("TAUT_APP_URL", "pusher://k:hunter2@a/1")
        .env("TAUT_ENCRYPTION_KEY", "hunter2")
        .args(["subscribe", "--help"])
        .output()
        .expect("the program");
    assert!(help.status.success() && !String::from_utf8_lossy(&help.stdout).contains("hunter2"), "{help:?}");
}

#[test]
fn what_stands_behind_curl_is_curls_and_its_help_is_ours() {
    for help in ["--help", "-h"] {
        assert!(printed(&["connect", "curl", help]).contains("Examples:\n  taut connect curl"), "{help}");
    }
    let refused = taut(&["connect", "curl", "ws://127.0.0.1/", "--pretty"]);
    assert_eq!(refused.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("give taut's own options before `curl`"), "{refused:?}");
}

#[test]
fn a_length_of_four_bytes_holds_every_message_that_is_accepted() {
    let refused = taut(&["connect", "--binary", "length", "--max-size", "4G", "ws://127.0.0.1/"]);
    assert_eq!(refused.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--max-size"), "{refused:?}");
}

#[test]
fn completions_and_manual_pages_are_in_the_program() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(printed(&["completions", shell]).contains("subscribe"), "{shell}");
    }
    assert_eq!(taut(&["completions", "csh"]).status.code(), Some(64));
    assert!(printed(&["man", "route", "test"]).contains("EXIT STATUS"));
    assert_eq!(taut(&["man", "nothing"]).status.code(), Some(64));
}

#[test]
fn the_documentation_is_in_the_program() {
    let list = printed(&["docs"]);
    for page in ["configuration", "deploy", "proxies", "metrics"] {
        assert!(list.contains(page), "{list}");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../docs/{page}.md"));
        assert_eq!(printed(&["docs", page]), std::fs::read_to_string(path).expect("a page"));
    }
    assert_eq!(taut(&["docs", "nothing"]).status.code(), Some(64));
}

#[test]
fn serve_and_echo_call_the_certificate_the_same_and_take_a_port_alone() {
    for command in ["serve", "echo"] {
        let help = printed(&[command, "--help"]);
        for flag in ["--tls-certificate <FILE>", "--tls-key <FILE>"] {
            assert!(help.contains(flag), "{flag} in\n{help}");
        }
        assert!(help.contains("a port alone is on 127.0.0.1"), "{help}");
    }
    for listen in ["0", ":0", "localhost:0", "127.0.0.1:0"] {
        let checked = printed(&["serve", "--check", "--listen", listen]);
        assert!(checked.contains("listens on 127.0.0.1:0,"), "{checked}");
    }
}
