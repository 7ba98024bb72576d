//! Which web pages may connect to an app, by their origin.

use taut_proto::handshake::origin::Pattern;

/// Whether a client with this `Origin` header is let in by a list of [patterns](Pattern); an empty list lets everybody in.
///
/// A client without the header is not a page in a browser, and such a list does not concern it. An entry that is not a pattern lets nobody in.
pub(crate) fn is_allowed(list: &[String], origin: Option<&str>) -> bool {
    let Some(origin) = origin.filter(|_| !list.is_empty()) else {
        return true;
    };
    list.iter().filter_map(|entry| Pattern::parse(entry)).any(|pattern| pattern.matches(origin))
}

/// Whether an entry can let anybody in.
pub(crate) fn is_pattern(entry: &str) -> bool {
    Pattern::parse(entry).is_some()
}

/// What a configuration may list: a pattern with a scheme, or `null`. All pages are let in by a list that is left out, so `*` is a slip there.
pub(crate) fn check(entry: &str) -> bool {
    is_pattern(entry) && (entry == "null" || entry.contains("://"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_list_and_no_origin_mean_no_restriction() {
        assert!(is_allowed(&[], Some("https://a.example")));
        assert!(is_allowed(&["b.example".to_owned()], None));
    }

    // RFC 6454 §4: the default port is a part of an origin, written or not.
    #[test]
    fn an_entry_of_the_list_is_enough_and_ports_are_compared_by_number() {
        let list = ["https://shop.example:443", "null", "file://", "broken entry"].map(str::to_owned);
        for origin in ["https://shop.example", "https://SHOP.example", "null", "file://"] {
            assert!(is_allowed(&list, Some(origin)), "{origin}");
        }
        for origin in ["http://shop.example", "https://shop.example:8443", "broken entry", ""] {
            assert!(!is_allowed(&list, Some(origin)), "{origin}");
        }
    }

    #[test]
    fn a_configuration_lists_origins_and_null_but_no_bare_hosts() {
        for entry in
            ["https://example.com", "https://*.example.com:8443", "http://[::1]:80", "null", "file://", "app://-"]
        {
            assert!(check(entry), "{entry}");
        }
        for entry in ["", "*", "example.com", "https://example.com/path", "https://", "https://a b"] {
            assert!(!check(entry), "{entry}");
        }
    }
}
