//! What is written about a cluster, read: the engine's URL, names, times.

use std::time::Duration;
use std::{env, fs};

use super::text;
use crate::app::PublishAway;
use crate::cluster::check_url;

/// Whether a URL names an engine that is understood. The error repeats nothing of it, since a password may stand in it.
pub(crate) fn url(text: &str) -> Result<(), String> {
    check_url(text.trim())
}

/// The beginning of all names in the engine. Braces mean something to Redis Cluster, spaces and stars to those who look for keys.
pub(crate) fn prefix(text: &str) -> Result<String, String> {
    let prefix = text.trim();
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    if prefix.is_empty() || prefix.len() > LONGEST_NAME || !prefix.bytes().all(is_allowed) {
        return Err(format!(
            "{text:?} cannot precede names in the engine: it holds 1 to {LONGEST_NAME} letters and digits of ASCII, - . _ and :"
        ));
    }
    Ok(prefix.to_owned())
}

/// How long a node may be silent.
pub(crate) fn lease(text: &str) -> Result<Duration, String> {
    text::seconds_between(text, SHORTEST_LEASE, LONGEST_LEASE)
}

/// What a node is called; nothing where the host's name is to be taken.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let name = text.trim();
    if name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
        return Err(format!("{text:?} is no name of a node: it has at most {LONGEST_NAME} bytes, on one line"));
    }
    Ok(name.to_owned())
}

/// The name of this machine; `taut` where the system does not tell.
pub(crate) fn host_name() -> String {
    // Linux has it in a file; elsewhere shells and services know it.
    let from_kernel = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let known =
        from_kernel.into_iter().chain(["HOSTNAME", "COMPUTERNAME"].iter().filter_map(|name| env::var(name).ok()));
    known.filter_map(|text| name(&text).ok()).find(|name| !name.is_empty()).unwrap_or_else(|| "taut".to_owned())
}

pub(crate) fn publish_away(text: &str) -> Result<PublishAway, String> {
    match text {
        "refuse" => Ok(PublishAway::Refuse),
        "local" => Ok(PublishAway::Local),
        _ => Err(format!(
            "{text:?} is neither refuse (503, and the backend tries again) nor local (delivered on this node, and never on others)"
        )),
    }
}

/// Seconds. The node has to renew it several times within.
const SHORTEST_LEASE: u32 = 2;

const LONGEST_LEASE: u32 = 60;

/// Bytes.
const LONGEST_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_named_by_its_hosts_and_whatever_else_it_needs() {
        for good in [
            "redis://localhost",
            "redis://localhost/",
            "redis://127.0.0.1:6380/3",
            "rediss://me:p%40ss@redis.example:6379",
            "redis://:hunter2@[::1]:6379/0",
            "redis://[::1]",
            " redis://localhost ",
            "redis+sentinel://me:hunter2@a:26379,b:26379/mymaster",
            "unix:///run/redis.sock",
            "nats://me:hunter2@localhost:4222",
            "tls://a,b?credentials=/etc/taut.creds",
            "redis://a:7000,b:7001,[::1]:7002",
            "rediss://me:hunter2@a,b,c",
        ] {
            assert_eq!(url(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_with_what_is_and_without_the_password() {
        for (wrong, reason) in [
            ("", "Understood are redis://HOST"),
            ("localhost:6379", "Understood are redis://HOST"),
            ("http://localhost", "Understood are redis://HOST"),
            ("redis-sentinel://me:hunter2@a:26379,b:26379/mymaster", "redis+sentinel://USER:PASSWORD@HOST:PORT"),
            ("redis+sentinel://me:hunter2@a:26379,b:26379", "the name of the master is missing"),
            ("nats://me:hunter2@localhost:0", "the port is a number"),
            ("redis://", "it names no host"),
            ("redis://me:hunter2@", "it names no host"),
            ("redis://me:hunter2@:6379", "it names no host"),
            ("redis://a,b,c/1", "which has no numbered databases"),
            ("redis://a,,c", "it names no host"),
            ("redis://me:hunter2@a:7000,b:0", "the port is a number"),
            ("redis://me:hunter2@a:0", "the port is a number"),
            ("redis://a:65536", "the port is a number"),
            ("redis://a:", "the port is a number"),
            ("redis://a:+1", "the port is a number"),
            ("redis://me:hunter2@a/main", "the number of a database"),
            ("redis://a/1/2", "the number of a database"),
            ("redis://me:hunter2@a/0?protocol=resp3", "nothing may follow the database"),
            ("redis://me:hunter2@a#insecure", "nothing may follow the database"),
            ("redis://me:hun@ter2@a", "write it as %XX"),
            ("redis://me:hun/ter2@a", "the port is a number"),
        ] {
            let refused = url(wrong).expect_err(wrong);
            assert!(refused.contains(reason), "{wrong}: {refused}");
            assert!(refused.contains("://") && !refused.contains("ter2"), "{refused}");
        }
    }

    #[test]
    fn names_and_times_of_a_cluster_are_bounded() {
        assert_eq!(prefix("shop:live-2").as_deref(), Ok("shop:live-2"));
        for wrong in ["", " ", "a b", "a*", "{a}", "é", &"x".repeat(65)] {
            assert!(prefix(wrong).expect_err(wrong).contains("cannot precede names"), "{wrong}");
        }
        assert_eq!(name(" web 1 ").as_deref(), Ok("web 1"));
        assert!(name("a\nb").is_err() && name(&"x".repeat(65)).is_err());
        for (text, seconds) in [("2", 2), ("10", 10), ("3s", 3), (" 60 ", 60)] {
            assert_eq!(lease(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in ["1", "61", "", "s", "3m", "3ss", "-3"] {
            assert!(lease(wrong).expect_err(wrong).contains("whole seconds between 2 and 60"), "{wrong}");
        }
        assert!(!host_name().is_empty());
        assert!(publish_away("yes").expect_err("neither").contains("refuse (503"));
    }
}
