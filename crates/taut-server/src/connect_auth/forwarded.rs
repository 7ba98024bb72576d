//! For whom a proxy speaks.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use taut_shard::Network;

/// The address of a client: the peer's, unless that is a trusted proxy. Then it is the last one of `X-Forwarded-For` that is none.
///
/// `lines` are the values of the header in their order. Each proxy adds the address that it was spoken to from at the end, so what precedes the last
/// address that is no proxy's may have been made up.
pub(crate) fn client<'a>(peer: SocketAddr, lines: impl IntoIterator<Item = &'a str>, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer.ip().to_canonical();
    if !is_trusted(client) {
        return client;
    }
    let lines: Vec<&str> = lines.into_iter().collect();
    for entry in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        // What is no address is not from a proxy that can be trusted with one.
        let Some(address) = address(entry.trim()) else { return client };
        client = address;
        if !is_trusted(client) {
            return client;
        }
    }
    client
}

/// The same for a request whose headers are in a map.
pub(crate) fn client_of(peer: SocketAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    // What is no text is no address either.
    let lines = headers.get_all("x-forwarded-for").iter().map(|line| line.to_str().unwrap_or_default());
    client(peer, lines, trusted)
}

/// Some proxies add the port.
fn address(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|entry| entry.strip_suffix(']')).unwrap_or(entry);
    let with_port = || entry.parse::<SocketAddr>().map(|address| address.ip());
    bare.parse::<IpAddr>().or_else(|_| with_port()).ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client_of(peer: &str, lines: &[&str]) -> String {
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().expect(network));
        client(peer.parse().expect(peer), lines.iter().copied(), &trusted).to_string()
    }

    #[test]
    fn a_peer_that_is_no_proxy_speaks_for_itself() {
        assert_eq!(client_of("192.0.2.1:5", &["198.51.100.1"]), "192.0.2.1");
        assert_eq!(client_of("[::ffff:192.0.2.1]:5", &["198.51.100.1"]), "192.0.2.1");
    }

    #[test]
    fn a_proxy_speaks_for_the_last_address_that_is_no_proxys() {
        for (lines, expected) in [
            (&["198.51.100.1"][..], "198.51.100.1"),
            // The client has made the first one up.
            (&["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
            (&["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
            (&["1.1.1.1, 198.51.100.1 ,10.2.0.1", "fd00::7"], "198.51.100.1"),
            (&["198.51.100.1:1234"], "198.51.100.1"),
            (&["[2001:db8::1]:1234"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["::ffff:198.51.100.1"], "198.51.100.1"),
        ] {
            assert_eq!(client_of("10.0.0.1:5", lines), expected, "{lines:?}");
            assert_eq!(client_of("[::ffff:10.0.0.1]:5", lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn where_a_proxy_names_nobody_the_client_is_the_last_proxy_that_is_known() {
        for (lines, expected) in [
            (&[][..], "10.0.0.1"),
            (&[""], "10.0.0.1"),
            (&["unknown"], "10.0.0.1"),
            (&["198.51.100.1, unknown"], "10.0.0.1"),
            (&["198.51.100.1, _hidden, 10.0.0.2"], "10.0.0.2"),
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ] {
            assert_eq!(client_of("10.0.0.1:5", lines), expected, "{lines:?}");
        }
    }
}
