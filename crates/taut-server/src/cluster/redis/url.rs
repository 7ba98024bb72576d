//! What is written about a Redis, read more strictly than the client does: it takes a database for a part of a name, and says nothing.

use super::topology::Topology;

/// Whether a text is the address of a Redis. The error repeats nothing of it, since a password may stand in it.
pub(in crate::cluster) fn check_url(url: &str) -> Result<(), String> {
    if let Some(rest) = url.strip_prefix("redis://").or_else(|| url.strip_prefix("rediss://")) {
        redis(rest)?;
    }
    Topology::parse(url).map(drop).map_err(|invalid| invalid.to_string())
}

/// `USER:PASSWORD@HOST:PORT/DATABASE`, of which only the host has to be there, or several of `HOST:PORT` with commas between.
fn redis(rest: &str) -> Result<(), String> {
    if rest.contains(['?', '#']) {
        return Err(format!(
            "nothing may follow the database: write ? and # in a password as %3F and %23. Understood are {FORMS}"
        ));
    }
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (credentials, address) = authority.rsplit_once('@').unwrap_or(("", authority));
    if !credentials.chars().all(|character| is_plain(character) || "%:".contains(character)) {
        return Err(format!(
            "the user or the password holds a character that has a meaning in URLs: write it as %XX, / as %2F and @ as %40. Understood are {FORMS}"
        ));
    }
    for address in address.split(',') {
        server(address)?;
    }
    if address.contains(',') && !database.is_empty() {
        return Err(format!(
            "several servers are those of a Redis Cluster, which has no numbered databases. Understood are {FORMS}"
        ));
    }
    if !database.is_empty() && (is_other_than_digits(database) || database.parse::<u16>().is_err()) {
        return Err(format!(
            "what follows the host is the number of a database, as in redis://localhost/2. Understood are {FORMS}"
        ));
    }
    Ok(())
}

/// `HOST` or `HOST:PORT`.
fn server(address: &str) -> Result<(), String> {
    let (host, port) = host_and_port(address);
    if host.is_empty() || host.chars().any(|character| character.is_whitespace() || character.is_control()) {
        return Err(format!("it names no host. Understood are {FORMS}"));
    }
    let is_port = |port: &str| !is_other_than_digits(port) && port.parse::<u16>().is_ok_and(|port| port > 0);
    if port.is_some_and(|port| !is_port(port)) {
        return Err(format!("the port is a number between 1 and 65535. Understood are {FORMS}"));
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

/// What an address looks like.
pub(in crate::cluster) const FORMS: &str = "redis://HOST and rediss://HOST (TLS), also with USER:PASSWORD@ before the host and :PORT/DATABASE behind it, \
     redis://HOST:PORT,HOST:PORT for a Redis Cluster, unix:///PATH, and for a master that sentinels know redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/MASTER";
