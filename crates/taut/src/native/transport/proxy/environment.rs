//! The variables by which programs are told of a proxy.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Server, invalid};
use crate::Error;
#[cfg(feature = "tls")]
use crate::native::tls::ClientTls;
use crate::native::url::split_authority;

/// What the variables say. It is looked into when there is a server to connect to: a mistake in one that does not
/// matter hurts nobody.
#[derive(Clone)]
pub(super) struct Environment {
    https: Option<Variable>,
    http: Option<Variable>,
    all: Option<Variable>,
    exceptions: String,
    #[cfg(feature = "tls")]
    pub(super) tls: ClientTls,
}

#[derive(Clone)]
struct Variable {
    name: &'static str,
    value: String,
}

impl Environment {
    pub(super) fn new(read: impl Fn(&str) -> Option<String>) -> Self {
        let variable = |names: &[&'static str]| {
            let set = names.iter().map(|&name| Some(Variable { name, value: read(name)?.trim().to_owned() }));
            // An empty one counts as not set.
            set.flatten().find(|variable| !variable.value.is_empty())
        };
        // CVE-2016-5385: within CGI, a request's header `Proxy` is HTTP_PROXY.
        let is_cgi = read("REQUEST_METHOD").is_some();
        Self {
            https: variable(&["https_proxy", "HTTPS_PROXY"]),
            http: variable(if is_cgi { &["http_proxy"] } else { &["http_proxy", "HTTP_PROXY"] }),
            all: variable(&["all_proxy", "ALL_PROXY"]),
            exceptions: variable(&["no_proxy", "NO_PROXY"]).map(|variable| variable.value).unwrap_or_default(),
            #[cfg(feature = "tls")]
            tls: ClientTls::system(),
        }
    }

    pub(super) fn server(&self, is_secure: bool, host: &str, port: u16) -> Result<Option<Arc<Server>>, Error> {
        let first = if is_secure { &self.https } else { &self.http };
        let Some(Variable { name, value }) = first.as_ref().or(self.all.as_ref()) else { return Ok(None) };
        if is_local(host) || is_exception(&self.exceptions, host, port) {
            return Ok(None);
        }
        let url = if value.contains("://") { value.clone() } else { format!("http://{value}") };
        #[cfg_attr(not(feature = "tls"), expect(unused_mut))]
        let mut server =
            Server::parse(&url).map_err(|wrong| invalid(format!("the variable {name} cannot be used: {wrong}")))?;
        #[cfg(feature = "tls")]
        {
            server.tls = self.tls.clone();
        }
        Ok(Some(Arc::new(server)))
    }
}

/// Whether only this machine can reach it.
fn is_local(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    match name.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        // RFC 6761 §6.3: names below localhost lead to loopback as well.
        Err(_) => is_below(name, "localhost"),
    }
}

fn is_exception(list: &str, host: &str, port: u16) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
    list.split([',', ' ', '\t']).filter(|entry| !entry.is_empty()).any(|entry| {
        if entry == "*" {
            return true;
        }
        if let Some((network, bits)) = entry.split_once('/') {
            return address.is_some_and(|address| is_within(address, network, bits));
        }
        // Without its brackets an IPv6 address has no room for a port.
        let (named, wanted) = if entry.parse::<IpAddr>().is_ok() {
            (entry, None)
        } else {
            // A wrong entry is no exception.
            let Ok(parts) = split_authority(entry) else { return false };
            parts
        };
        if wanted.is_some_and(|wanted| wanted != port) {
            return false;
        }
        match (address, named.parse::<IpAddr>()) {
            (Some(address), Ok(named)) => address == named.to_canonical(),
            (None, Err(_)) => is_below(host, named.trim_start_matches('*').trim_matches('.')),
            _ => false,
        }
    })
}

/// Whether a name is this domain or below it.
fn is_below(name: &str, domain: &str) -> bool {
    if domain.is_empty() || name.len() < domain.len() || !name.is_char_boundary(name.len() - domain.len()) {
        return false;
    }
    let (below, end) = name.split_at(name.len() - domain.len());
    end.eq_ignore_ascii_case(domain) && (below.is_empty() || below.ends_with('.'))
}

/// Whether an address is of a network such as `10.0.0.0` with `8` bits.
fn is_within(address: IpAddr, network: &str, bits: &str) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    let (address, network, width) = match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            (u128::from(address.to_bits()), u128::from(network.to_bits()), u32::BITS)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => (address.to_bits(), network.to_bits(), u128::BITS),
        _ => return false,
    };
    let Some(free) = width.checked_sub(bits) else { return false };
    let bits = |address: u128| address.checked_shr(free).unwrap_or(0);
    bits(address) == bits(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&'static str, &'static str)]) -> Environment {
        let variables = variables.to_vec();
        Environment::new(move |name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn chosen(variables: &[(&'static str, &'static str)], is_secure: bool) -> String {
        match environment(variables).server(is_secure, "a.example", 443) {
            Ok(Some(server)) => format!("{server:?}"),
            Ok(None) => "direct".to_owned(),
            Err(error) => format!("{error}"),
        }
    }

    #[test]
    fn each_scheme_has_its_variable_and_all_proxy_is_for_both() {
        let both = [("HTTPS_PROXY", "http://s.example:1"), ("HTTP_PROXY", "http://p.example:2")];
        assert_eq!(chosen(&both, true), "http://s.example:1");
        assert_eq!(chosen(&both, false), "http://p.example:2");
        assert_eq!(chosen(&[], true), "direct");
        assert_eq!(chosen(&both[1..], true), "direct");
        let all = [("ALL_PROXY", "socks5h://a.example"), ("https_proxy", ""), ("http_proxy", "x.example:3")];
        assert_eq!(chosen(&all, true), "socks5h://a.example:1080");
        assert_eq!(chosen(&all, false), "http://x.example:3");
        let cases = [("https_proxy", "http://small.example"), ("HTTPS_PROXY", "http://large.example")];
        assert_eq!(chosen(&cases, true), "http://small.example:80");
    }

    // CVE-2016-5385 (httpoxy): in CGI a request sets HTTP_PROXY by its header `Proxy`.
    #[test]
    fn the_upper_case_variable_is_not_believed_within_cgi() {
        let cgi = [("REQUEST_METHOD", "GET"), ("HTTP_PROXY", "http://evil.example"), ("ALL_PROXY", "http://a.example")];
        assert_eq!(chosen(&cgi, false), "http://a.example:80");
        assert_eq!(chosen(&[("REQUEST_METHOD", "GET"), ("http_proxy", "b.example")], false), "http://b.example:80");
    }

    #[test]
    fn a_wrong_value_is_told_by_the_name_of_its_variable_and_not_quoted() {
        for value in ["ftp://user:s3cret@a.example", "http://user:s3cret@a.example:x", "http://u:s3cret@a.example/path"]
        {
            let error = environment(&[("ALL_PROXY", value)]).server(true, "a.example", 443).unwrap_err();
            assert!(error.is_invalid());
            assert!(
                error.to_string().contains("ALL_PROXY") && !format!("{error}{error:?}").contains("s3cret"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_no_proxy_lists_is_connected_to_directly() {
        for (list, host, port, expected) in [
            ("", "a.example", 80, false),
            ("*", "a.example", 80, true),
            ("example.org", "example.org", 80, true),
            ("example.org", "A.B.EXAMPLE.ORG.", 80, true),
            (".example.org", "example.org", 80, true),
            ("*.example.org", "a.example.org", 80, true),
            ("example.org", "notexample.org", 80, false),
            ("example.org", "example.org.evil.example", 80, false),
            ("a.example:8080", "a.example", 8080, true),
            ("a.example:8080", "a.example", 80, false),
            ("x, b.example\ta.example", "a.example", 80, true),
            ("192.0.2.7", "192.0.2.7", 80, true),
            ("192.0.2.7", "192.0.2.77", 80, false),
            ("2.7", "192.0.2.7", 80, false),
            ("192.0.2.7:81", "192.0.2.7", 81, true),
            ("192.0.2.7:81", "192.0.2.7", 80, false),
            ("10.0.0.0/8", "10.255.0.1", 80, true),
            ("10.0.0.0/8", "11.0.0.1", 80, false),
            ("10.0.0.0/8", "10.example", 80, false),
            ("0.0.0.0/0", "203.0.113.1", 80, true),
            ("10.0.0.1/32", "10.0.0.2", 80, false),
            ("10.0.0.1/33", "10.0.0.1", 80, false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", 80, true),
            ("2001:db8::/32", "2001:db8:1::1", 80, true),
            ("2001:db8::/32", "2001:db9::1", 80, false),
            ("::/0", "2001:db9::1", 80, true),
            ("2001:db8::1", "2001:db8::1", 80, true),
            ("[2001:db8::1]:81", "2001:db8::1", 81, true),
            ("[2001:db8::1]:81", "2001:db8::1", 80, false),
            (".", "a.example", 80, false),
            (":80", "a.example", 80, false),
            ("é", "ab", 80, false),
        ] {
            assert_eq!(is_exception(list, host, port), expected, "{list:?} {host} {port}");
        }
        let variables = [("ALL_PROXY", "http://p.example"), ("NO_PROXY", "a.example")];
        assert_eq!(chosen(&variables, true), "direct");
        let variables = [("ALL_PROXY", "http://p.example"), ("NO_PROXY", "a.example"), ("no_proxy", "b.example")];
        assert_eq!(chosen(&variables, true), "http://p.example:80");
    }

    #[test]
    fn what_only_this_machine_reaches_needs_no_proxy() {
        let environment = environment(&[("ALL_PROXY", "http://p.example")]);
        for host in ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(environment.server(false, host, 80).unwrap().is_none(), "{host}");
        }
        for host in ["notlocalhost", "localhost.example", "128.0.0.1", "a.example"] {
            assert!(environment.server(false, host, 80).unwrap().is_some(), "{host}");
        }
    }
}
