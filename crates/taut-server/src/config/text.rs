//! What is written in a configuration, read: addresses, sizes, times, switches.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use taut_shard::SlowReader;

/// Reads where to listen: a port (`6001` or `:6001`), an IP address and a port, or a host name and a port.
///
/// A port alone is on 127.0.0.1, so that nothing is opened to others by leaving something out: `0.0.0.0:6001` and
/// `[::]:6001` are on all addresses. A name is looked up at once, which may wait for DNS; of its addresses the first of IPv4
/// is taken, or the first if there is none.
///
/// # Errors
/// What is wrong with the text, or that the name cannot be found.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    listen_address_by(text, |host, port| Ok((host, port).to_socket_addrs()?.collect()))
}

fn listen_address_by(
    text: &str,
    look_up: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>>,
) -> Result<SocketAddr, String> {
    let trimmed = text.trim();
    if let Ok(address) = trimmed.parse() {
        return Ok(address);
    }
    let (host, port) = trimmed.rsplit_once(':').unwrap_or(("", trimmed));
    let port = port.parse::<u16>().ok().filter(|_| port.bytes().all(|byte| byte.is_ascii_digit()));
    let is_name = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    let Some(port) = port.filter(|_| is_name) else {
        return Err(format!(
            "{text:?} is not an address to listen on: write a port, which is then on 127.0.0.1, or an IP address or host name and a port, for instance 0.0.0.0:6001 or [::]:6001"
        ));
    };
    if host.is_empty() || host == "localhost" {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    let found =
        look_up(host, port).map_err(|error| format!("the host name of {text:?} cannot be looked up: {error}"))?;
    let first = found.iter().find(|address| address.is_ipv4()).or_else(|| found.first());
    first.copied().ok_or_else(|| format!("the host name of {text:?} has no address"))
}

pub(crate) fn prefix(text: &str) -> Result<String, String> {
    let prefix = text.trim_end_matches('/');
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    if !prefix.is_empty() && (!prefix.starts_with('/') || prefix.contains("//") || !prefix.bytes().all(allowed)) {
        return Err(format!(
            "{text:?} cannot precede a path: it must begin with / and may hold letters and digits of ASCII, - . _ ~ and single slashes"
        ));
    }
    Ok(prefix.to_owned())
}

pub(crate) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{text:?} is neither on nor off")),
    }
}

/// A switch as other servers write it.
pub(crate) fn truth(value: &str) -> Result<bool, String> {
    match value.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "t" | "on" | "yes" => Ok(true),
        "0" | "false" | "f" | "off" | "no" | "" => Ok(false),
        _ => Err(format!("{value:?} is neither true nor false")),
    }
}

/// Where −1 stands for no limit.
pub(crate) fn none_below_zero(value: &str, none: &str) -> String {
    if value.trim().starts_with('-') { none.to_owned() } else { value.to_owned() }
}

pub(crate) fn number(text: &str, least: u32, most: u32) -> Result<u32, String> {
    text.trim()
        .parse()
        .ok()
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("{text:?} is not a whole number between {least} and {most}"))
}

pub(crate) fn count(text: &str, least: u32, most: u32) -> Result<usize, String> {
    number(text, least, most).map(|number| number as usize)
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    seconds_from(text, 1)
}

/// Like [`seconds`], with 0 for what is to be switched off.
pub(crate) fn seconds_or_none(text: &str) -> Result<Duration, String> {
    seconds_from(text, 0)
}

fn seconds_from(text: &str, least: u32) -> Result<Duration, String> {
    seconds_between(text, least, 86_400)
}

/// Whole seconds, with or without an `s` behind them.
pub(crate) fn seconds_between(text: &str, least: u32, most: u32) -> Result<Duration, String> {
    let wrong = |_| format!("{text:?} is not a time in whole seconds between {least} and {most}");
    let trimmed = text.trim();
    let digits = trimmed.strip_suffix('s').unwrap_or(trimmed);
    number(digits, least, most).map(|seconds| Duration::from_secs(seconds.into())).map_err(wrong)
}

pub(crate) fn bytes(text: &str) -> Result<usize, String> {
    let trimmed = text.trim();
    let (digits, unit) = match trimmed {
        _ if trimmed.ends_with("KiB") => (&trimmed[..trimmed.len() - 3], 1024),
        _ if trimmed.ends_with("MiB") => (&trimmed[..trimmed.len() - 3], 1024 * 1024),
        _ => (trimmed, 1),
    };
    number(digits, 1, LARGEST_SIZE / unit).map(|number| (number * unit) as usize).map_err(|_| {
        format!("{text:?} is not a size between 1 and 1024MiB: write bytes, or a number with KiB or MiB behind it")
    })
}

pub(crate) fn slow_reader(text: &str) -> Result<SlowReader, String> {
    match text {
        "close" => Ok(SlowReader::Close),
        "drop" => Ok(SlowReader::Drop),
        _ => Err(format!(
            "{text:?} is neither close (its connection, which it notices) nor drop (the message, which it does not)"
        )),
    }
}

/// A level, or several for parts of the program: `info,taut_server=debug`.
pub(crate) fn log_level(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for directive in text.split(',') {
        let level = directive.rsplit_once('=').map_or(directive, |(_part, level)| level);
        if !LEVELS.contains(&level.trim().to_ascii_lowercase().as_str()) {
            return Err(format!(
                "{directive:?} is no level: write off, error, warn, info, debug or trace, and for a part of the program taut_server=debug"
            ));
        }
    }
    Ok(text.to_owned())
}

/// The name that was probably meant, if there is one near enough.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = name.replace('_', "-").to_ascii_lowercase();
    let shorter = wanted.strip_prefix("max-").unwrap_or(&wanted);
    known
        .into_iter()
        .map(|known| {
            let distance = distance(&wanted, known).min(distance(shorter, known.strip_prefix("max-").unwrap_or(known)));
            (distance, known)
        })
        .filter(|&(distance, known)| distance <= known.len().max(3) / 3)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, known)| known)
}

/// How many letters have to be put in, taken out, replaced or swapped with the next to make one word of the other.
pub(crate) fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut before = vec![];
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, &letter) in (1..).zip(&from) {
        let mut next = vec![line];
        for (column, &other) in (1..).zip(&to) {
            let replaced = row[column - 1] + usize::from(letter != other);
            let mut least = replaced.min(row[column] + 1).min(next[column - 1] + 1);
            if line > 1 && column > 1 && letter == to[column - 2] && from[line - 2] == other {
                let swapped: &Vec<usize> = &before;
                least = least.min(swapped[column - 2] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[to.len()]
}

/// 1 GiB.
const LARGEST_SIZE: u32 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_slip_is_recognised_and_one_without_likeness_is_not() {
        let known = ["listen", "shards", "max-event-data", "event-data", "deflate"];
        for (slip, meant) in [
            ("lisen", Some("listen")),
            ("lsiten", Some("listen")),
            ("shard", Some("shards")),
            ("max_event_data", Some("max-event-data")),
            ("max-event-date", Some("max-event-data")),
            ("Deflate", Some("deflate")),
            ("colour", None),
            ("x", None),
        ] {
            assert_eq!(nearest(slip, known), meant, "{slip}");
        }
        assert_eq!(nearest("max-event-data", ["event-data"]), Some("event-data"));
    }

    #[test]
    fn a_port_alone_is_on_loopback_and_a_host_name_is_looked_up() {
        let look_up = |host: &str, port| match host {
            "both.example" => {
                Ok(vec![SocketAddr::new([0; 8].into(), port), SocketAddr::new([10, 0, 0, 5].into(), port)])
            }
            "six.example" => Ok(vec![SocketAddr::new([0; 8].into(), port)]),
            "nothing.example" => Ok(Vec::new()),
            _ => Err(io::Error::other("no such host")),
        };
        for (text, address) in [
            ("9601", "127.0.0.1:9601"),
            (":9601", "127.0.0.1:9601"),
            (" 0 ", "127.0.0.1:0"),
            ("localhost:9601", "127.0.0.1:9601"),
            ("0.0.0.0:9601", "0.0.0.0:9601"),
            ("[::1]:9601", "[::1]:9601"),
            ("[::]:9601", "[::]:9601"),
            ("both.example:9601", "10.0.0.5:9601"),
            ("six.example:9601", "[::]:9601"),
        ] {
            assert_eq!(
                listen_address_by(text, look_up).map(|address| address.to_string()).as_deref(),
                Ok(address),
                "{text}"
            );
        }
        for wrong in ["", ":", "on", "65536", "0.0.0.0", "::1", "a b:9601", "http://a:9601", "-1", "+1", "a:+1"] {
            let refused = listen_address_by(wrong, look_up).expect_err(wrong);
            assert!(refused.contains("which is then on 127.0.0.1"), "{refused}");
        }
        for (unknown, reason) in [("nothing.example:1", "has no address"), ("a.example:1", "no such host")] {
            let refused = listen_address_by(unknown, look_up).expect_err(unknown);
            assert!(refused.contains(reason), "{refused}");
        }
    }

    #[test]
    fn a_distance_counts_slips() {
        for (from, to, slips) in
            [("", "abc", 3), ("abc", "abc", 0), ("abc", "acb", 1), ("abc", "ab", 1), ("abc", "xbc", 1)]
        {
            assert_eq!((distance(from, to), distance(to, from)), (slips, slips), "{from} {to}");
        }
    }

    #[test]
    fn levels_may_differ_by_part() {
        assert_eq!(log_level("info,taut_server=debug").as_deref(), Ok("info,taut_server=debug"));
        for wrong in ["", "loud", "taut_server=loud", "info,,warn"] {
            assert!(log_level(wrong).expect_err(wrong).contains("is no level"), "{wrong}");
        }
    }
}
