//! How `taut serve` ends, asked by signals.

#![cfg(unix)]

#[path = "process/mod.rs"]
mod process;
#[path = "../../taut-server/tests/support/mod.rs"]
mod support;

use std::os::unix::process::ExitStatusExt;

use process::Taut;
use support::{Http, eventually};

/// One that would keep a load balancer waiting for a day.
fn patient() -> Taut {
    Taut::serve(&["--shards", "1", "--drain-notice", "86400"])
}

/// The status of `/ready`, from a connection of its own.
fn ready(server: &Taut) -> u16 {
    Http::connect(server.address()).request("GET", "/ready", &[("Connection", "close")], b"").status
}

#[test]
fn a_load_balancer_is_told_in_time_and_all_are_served_meanwhile() {
    let mut server = patient();
    assert_eq!(ready(&server), 200);
    server.signal("TERM");
    // The signal is on its way; once it has come, new connections are still accepted, or this would panic.
    eventually("a signal", || ready(&server) != 200);
    assert_eq!(ready(&server), 503);
    server.signal("TERM");
    assert_eq!(server.ended().0.signal(), Some(15), "the second one ends it at once");
}

#[test]
fn where_no_load_balancer_asks_nobody_waits_for_one() {
    let mut server = patient();
    server.signal("TERM");
    assert!(server.ended().0.success());
}

#[test]
fn who_presses_ctrl_c_is_not_kept_waiting() {
    let mut server = patient();
    assert_eq!(ready(&server), 200);
    server.signal("INT");
    assert!(server.ended().0.success());
}
