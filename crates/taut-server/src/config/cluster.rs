//! What is written about a cluster, read: the engine's URL, names, times.

use std::time::Duration;
use std::{env, fs};

use super::text;
use crate::app::PublishAway;
use crate::cluster::redis::check_url;

/// Whether a URL names an engine that is understood. The error repeats nothing of it but its scheme, since a password may stand in it.
pub(crate) fn url(text: &str) -> Result<(), String> {
    let text = text.trim();
    let (scheme, rest) = text.split_once("://").ok_or_else(|| UNDERSTOOD.to_owned())?;
    let check = || check_url(text).map_err(|invalid| invalid.to_string());
    match scheme {
        "redis" | "rediss" => redis(rest).and_then(|()| check()),
        "redis+sentinel" | "rediss+sentinel" | "unix" => check(),
        "nats" | "tls" => Err(format!("NATS is not understood yet. {UNDERSTOOD}")),
        _ => Err(UNDERSTOOD.to_owned()),
    }
}

/// `USER:PASSWORD@HOST:PORT/DATABASE`, of which only the host has to be there, or several of `HOST:PORT` with commas between.
fn redis(rest: &str) -> Result<(), String> {
    if rest.contains(['?', '#']) {
        return Err(format!(
            "nothing may follow the database: write ? and # in a password as %3F and %23. {UNDERSTOOD}"
        ));
    }
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (credentials, address) = authority.rsplit_once('@').unwrap_or(("", authority));
    if !credentials.chars().all(|character| is_plain(character) || "%:".contains(character)) {
        return Err(format!(
            "the user or the password holds a character that has a meaning in URLs: write it as %XX, / as %2F and @ as %40. {UNDERSTOOD}"
        ));
    }
    for address in address.split(',') {
        server(address)?;
    }
    if address.contains(',') && !database.is_empty() {
        return Err(format!(
            "several servers are those of a Redis Cluster, which has no numbered databases. {UNDERSTOOD}"
        ));
    }
    if !database.is_empty() && (is_other_than_digits(database) || database.parse::<u16>().is_err()) {
        return Err(format!(
            "what follows the host is the number of a database, as in redis://localhost/2. {UNDERSTOOD}"
        ));
    }
    Ok(())
}

/// `HOST` or `HOST:PORT`.
fn server(address: &str) -> Result<(), String> {
    let (host, port) = host_and_port(address);
    if host.is_empty() || host.chars().any(|character| character.is_whitespace() || character.is_control()) {
        return Err(format!("it names no host. {UNDERSTOOD}"));
    }
    let is_port = |port: &str| !is_other_than_digits(port) && port.parse::<u16>().is_ok_and(|port| port > 0);
    if port.is_some_and(|port| !is_port(port)) {
        return Err(format!("the port is a number between 1 and 65535. {UNDERSTOOD}"));
    }
    Ok(())
}

/// An address of IPv6 stands in brackets.
fn host_and_port(address: &str) -> (&str, Option<&str>) {
    let end = address.rfind(']').map_or(0, |bracket| bracket + 1);
    match address[end..].find(':') {
        Some(colon) => (&address[..end + colon], Some(&address[end + colon + 1..])),
        None => (address, None),
    }
}

fn is_other_than_digits(text: &str) -> bool {
    text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit())
}

/// What may stand in a name or password of a URL as it is (RFC 3986 §3.2.1).
fn is_plain(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-._~!$&'()*+,;=".contains(character)
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

const UNDERSTOOD: &str = "Understood are redis://HOST and rediss://HOST (TLS), also with USER:PASSWORD@ before the host and :PORT/DATABASE behind it, \
     redis://HOST:PORT,HOST:PORT for a Redis Cluster, \
     unix:///PATH, and for a master that sentinels know redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/MASTER";

/// Seconds. The node has to renew it several times within.
const SHORTEST_LEASE: u32 = 2;

const LONGEST_LEASE: u32 = 60;

/// Bytes.
const LONGEST_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_of_redis_is_named_by_its_host_and_whatever_else_it_needs() {
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
            ("nats://me:hunter2@localhost:4222", "NATS is not understood yet"),
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
            assert!(refused.contains("redis://") && !refused.contains("ter2"), "{refused}");
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
