//! Which pages may connect to an app.

/// Whether a client with this `Origin` header is let in by a list of origins; an empty list lets everybody in.
///
/// An entry is an origin such as `https://example.com`, or a host alone, for every scheme and port; `*.` at the beginning of the host stands for every
/// name below it, and `*` alone for all. A client without the header is no page in a browser, and such a list does not concern it.
pub(crate) fn is_allowed(list: &[String], origin: Option<&str>) -> bool {
    let Some(origin) = origin.filter(|_| !list.is_empty()) else {
        return true;
    };
    list.iter().any(|entry| matches(entry, origin))
}

fn matches(entry: &str, origin: &str) -> bool {
    if entry == "*" {
        return true;
    }
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false; // "null", which a page in a sandbox sends
    };
    let (wanted, authority) = match entry.split_once("://") {
        Some((wanted_scheme, wanted)) if wanted_scheme.eq_ignore_ascii_case(scheme) => (wanted, authority),
        Some(_) => return false,
        None if has_port(entry) => (entry, authority),
        None => (entry, without_port(authority)),
    };
    match wanted.strip_prefix("*.") {
        Some(domain) => {
            let (length, suffix) = (authority.len(), domain.len());
            length > suffix + 1
                && authority.as_bytes()[length - suffix - 1] == b'.'
                && authority.is_char_boundary(length - suffix)
                && authority[length - suffix..].eq_ignore_ascii_case(domain)
        }
        None => authority.eq_ignore_ascii_case(wanted),
    }
}

fn has_port(authority: &str) -> bool {
    without_port(authority).len() < authority.len()
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(entry: &str, origin: &str) -> bool {
        is_allowed(&[entry.to_owned()], Some(origin))
    }

    #[test]
    fn an_entry_names_an_origin_a_host_or_all_below_a_host() {
        for (entry, origin) in [
            ("*", "https://a.example"),
            ("*", "null"),
            ("https://example.com", "https://EXAMPLE.com"),
            ("https://example.com:8443", "https://example.com:8443"),
            ("example.com", "https://example.com"),
            ("example.com", "http://example.com:8080"),
            ("example.com:8080", "http://example.com:8080"),
            ("*.example.com", "https://a.b.example.com:1"),
            ("https://*.example.com", "https://a.example.com"),
            ("localhost", "http://localhost:5173"),
            ("[::1]", "http://[::1]:80"),
        ] {
            assert!(allows(entry, origin), "{entry} {origin}");
        }
        for (entry, origin) in [
            ("https://example.com", "http://example.com"),
            ("https://example.com", "https://example.com:8443"),
            ("https://example.com", "https://example.com.evil.example"),
            ("example.com", "https://evilexample.com"),
            ("example.com:8080", "http://example.com"),
            ("*.example.com", "https://example.com"),
            ("*.example.com", "https://evilexample.com"),
            ("*.example.com", "https://é.com"),
            ("https://*.example.com", "https://a.example.com.evil"),
            ("example.com", "null"),
        ] {
            assert!(!allows(entry, origin), "{entry} {origin}");
        }
    }

    #[test]
    fn no_list_and_no_origin_mean_no_restriction() {
        assert!(is_allowed(&[], Some("https://a.example")));
        assert!(is_allowed(&["b.example".to_owned()], None));
    }
}
