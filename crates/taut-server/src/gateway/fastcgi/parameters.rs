//! What a script learns of a request, beside its body: CGI's meta-variables (RFC 3875 §4.1).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

/// The parameters of a request.
///
/// Parameters are powerful: `SCRIPT_FILENAME` chooses the file that runs, and `PHP_VALUE` sets options of PHP, such as
/// a file to include first. So the caller chooses each of these fields, and a client's headers only become `HTTP_*`.
#[derive(Clone, Debug)]
pub(crate) struct Parameters<'a> {
    /// php-fpm answers with an empty 200 if this is empty.
    pub(crate) method: &'a str,
    /// Of the route, never out of the client's path.
    pub(crate) script_filename: &'a str,
    pub(crate) document_root: &'a str,
    pub(crate) script_name: &'a str,
    /// Path and query. Laravel and Symfony route by it.
    pub(crate) request_uri: &'a str,
    pub(crate) query_string: &'a str,
    /// Such as `HTTP/1.1`.
    pub(crate) protocol: &'a str,
    pub(crate) content_type: Option<&'a str>,
    pub(crate) remote: SocketAddr,
    pub(crate) server: SocketAddr,
    pub(crate) server_name: &'a str,
    pub(crate) is_https: bool,
    /// Header fields. The order counts only for those of one name.
    pub(crate) headers: &'a [(&'a str, &'a [u8])],
}

/// A parameter's name and value.
pub(crate) type Pair<'a> = (Cow<'a, str>, Cow<'a, [u8]>);

impl<'a> Parameters<'a> {
    /// All parameters of the request with a body of this length.
    ///
    /// # Errors
    /// When names and values have more than 64 KiB.
    pub(crate) fn pairs(&self, content_length: usize) -> Result<Vec<Pair<'a>>, ParametersTooLarge> {
        let mut pairs = self.fixed(content_length);
        pairs.extend(fields(self.headers).into_iter().map(|(name, value)| (Cow::Owned(name), value)));
        let size: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if size > MOST_BYTES { Err(ParametersTooLarge) } else { Ok(pairs) }
    }

    fn fixed(&self, content_length: usize) -> Vec<Pair<'a>> {
        let mut pairs = Vec::with_capacity(FIXED + self.headers.len());
        let mut add = |name: &'static str, value: &'a str| pairs.push((name.into(), value.as_bytes().into()));
        add("GATEWAY_INTERFACE", "CGI/1.1");
        add("SERVER_SOFTWARE", "taut");
        // PHP that was built with `cgi.force_redirect` runs nothing without it.
        add("REDIRECT_STATUS", "200");
        add("REQUEST_METHOD", self.method);
        add("SCRIPT_FILENAME", self.script_filename);
        add("DOCUMENT_ROOT", self.document_root);
        add("SCRIPT_NAME", self.script_name);
        add("REQUEST_URI", self.request_uri);
        add("QUERY_STRING", self.query_string);
        add("SERVER_PROTOCOL", self.protocol);
        add("SERVER_NAME", self.server_name);
        if let Some(content_type) = self.content_type {
            add("CONTENT_TYPE", content_type);
        }
        // Absent without TLS: scripts test whether it is set.
        if self.is_https {
            add("HTTPS", "on");
        }
        let mut add = |name: &'static str, value: String| pairs.push((name.into(), value.into_bytes().into()));
        // With a larger number than the body has bytes, PHP waits for the rest until its timeout.
        add("CONTENT_LENGTH", content_length.to_string());
        add("REMOTE_ADDR", self.remote.ip().to_canonical().to_string());
        add("REMOTE_PORT", self.remote.port().to_string());
        add("SERVER_ADDR", self.server.ip().to_canonical().to_string());
        add("SERVER_PORT", self.server.port().to_string());
        pairs
    }
}

/// The header fields that a script gets, by the name that it gets them under. Fields of one name are joined.
fn fields<'a>(headers: &[(&str, &'a [u8])]) -> BTreeMap<String, Cow<'a, [u8]>> {
    let mut fields: BTreeMap<String, Cow<'a, [u8]>> = BTreeMap::new();
    for &(name, value) in headers {
        if !is_passed(name) || value.iter().any(|byte| b"\0\r\n".contains(byte)) {
            continue;
        }
        // RFC 6265 §5.4 has one `Cookie` only, and a comma may be part of a cookie's value.
        let separator: &[u8] = if name.eq_ignore_ascii_case("cookie") { b"; " } else { b", " };
        fields
            .entry(meta_variable(name))
            .and_modify(|joined| joined.to_mut().extend_from_slice(&[separator, value].concat()))
            .or_insert(Cow::Borrowed(value));
    }
    fields
}

/// Whether a header field becomes a parameter.
///
/// Only letters, digits and hyphens pass. A hyphen becomes an underscore, so `meta_user` could pass for `Meta-User`.
/// PHP turns a dot into an underscore, too, and `[` into an array that replaces the variable: with PHP 8.2 `Meta.User`
/// sets `HTTP_META_USER`.
fn is_passed(name: &str) -> bool {
    let is_plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    // `HTTP_PROXY` is the proxy that HTTP clients use (CVE-2016-5385). The other two are parameters without `HTTP_`.
    is_plain && !["proxy", "content-type", "content-length"].iter().any(|it| name.eq_ignore_ascii_case(it))
}

/// `HTTP_` and the name in upper case with underscores (RFC 3875 §4.1.18).
fn meta_variable(name: &str) -> String {
    let upper = name.chars().map(|letter| if letter == '-' { '_' } else { letter.to_ascii_uppercase() });
    PREFIX.chars().chain(upper).collect()
}

/// The parameters take more than 64 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ParametersTooLarge;

impl fmt::Display for ParametersTooLarge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the FastCGI parameters are larger than {MOST_BYTES} bytes")
    }
}

impl std::error::Error for ParametersTooLarge {}

const PREFIX: &str = "HTTP_";

/// Parameters that are not headers.
const FIXED: usize = 18;

/// Bytes of all names and values.
const MOST_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn parameters<'a>(headers: &'a [(&'a str, &'a [u8])]) -> Parameters<'a> {
        Parameters {
            method: "POST",
            script_filename: "/srv/app/public/index.php",
            document_root: "/srv/app/public",
            script_name: "/index.php",
            request_uri: "/chat?token=1",
            query_string: "token=1",
            protocol: "HTTP/1.1",
            content_type: Some("application/json"),
            remote: "[::ffff:192.0.2.7]:51000".parse().expect("an address"),
            server: "127.0.0.1:8080".parse().expect("an address"),
            server_name: "example.com",
            is_https: true,
            headers,
        }
    }

    fn passed(headers: &[(&str, &[u8])]) -> Vec<(String, String)> {
        let pairs = parameters(headers).pairs(0).expect("they fit").into_iter();
        let pairs = pairs.map(|(name, value)| (name.into_owned(), String::from_utf8_lossy(&value).into_owned()));
        pairs.filter(|(name, _)| name.starts_with("HTTP_")).collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn a_script_learns_all_of_a_request() {
        let pairs = parameters(&[("Host", b"example.com")]).pairs(17).expect("they fit");
        let pairs: BTreeMap<_, _> = pairs.iter().map(|(name, value)| (&**name, &**value)).collect();
        let expected: [(&str, &[u8]); 19] = [
            ("CONTENT_LENGTH", b"17"),
            ("CONTENT_TYPE", b"application/json"),
            ("DOCUMENT_ROOT", b"/srv/app/public"),
            ("GATEWAY_INTERFACE", b"CGI/1.1"),
            ("HTTPS", b"on"),
            ("HTTP_HOST", b"example.com"),
            ("QUERY_STRING", b"token=1"),
            ("REDIRECT_STATUS", b"200"),
            ("REMOTE_ADDR", b"192.0.2.7"),
            ("REMOTE_PORT", b"51000"),
            ("REQUEST_METHOD", b"POST"),
            ("REQUEST_URI", b"/chat?token=1"),
            ("SCRIPT_FILENAME", b"/srv/app/public/index.php"),
            ("SCRIPT_NAME", b"/index.php"),
            ("SERVER_ADDR", b"127.0.0.1"),
            ("SERVER_NAME", b"example.com"),
            ("SERVER_PORT", b"8080"),
            ("SERVER_PROTOCOL", b"HTTP/1.1"),
            ("SERVER_SOFTWARE", b"taut"),
        ];
        assert_eq!(pairs, BTreeMap::from(expected));
        assert_eq!(pairs.len() - 1, FIXED);
    }

    #[test]
    fn https_and_a_content_type_are_absent_without_them() {
        let plain = Parameters { is_https: false, content_type: None, ..parameters(&[]) };
        let pairs = plain.pairs(0).expect("they fit");
        assert!(!pairs.iter().any(|(name, _)| name == "HTTPS" || name == "CONTENT_TYPE"), "{pairs:?}");
    }

    #[test]
    fn headers_become_names_in_upper_case() {
        let found = passed(&[("X-Request-Id2", b"a"), ("accept", b"\xff, b")]);
        assert_eq!(found, [pair("HTTP_ACCEPT", "\u{fffd}, b"), pair("HTTP_X_REQUEST_ID2", "a")]);
    }

    #[test]
    fn dangerous_headers_are_dropped() {
        for name in [
            "Proxy",
            "pROXY",
            "Content-Type",
            "content-length",
            "meta_user",
            "PHP_VALUE",
            "Meta.User",
            "Meta[User",
            "Meta User",
            "a+b",
            "",
            "n\u{e4}me",
            "a=b",
            "a\0b",
            "a:b",
        ] {
            assert_eq!(passed(&[(name, b"evil")]), [], "{name}");
        }
        for value in [&b"a\r\nStatus: 200"[..], b"a\nb", b"a\0b"] {
            assert_eq!(passed(&[("x", value)]), [], "{value:?}");
        }
        // They have another name than the parameter of that name.
        assert_eq!(
            passed(&[("Proxy-Status", b"x"), ("Https", b"x")]),
            [pair("HTTP_HTTPS", "x"), pair("HTTP_PROXY_STATUS", "x")]
        );
    }

    #[test]
    fn fields_of_one_name_are_joined() {
        let found = passed(&[
            ("cookie", b"a=1"),
            ("X-A", b"1"),
            ("Cookie", b"b=2"),
            ("x-a", b""),
            ("x-A", b"3"),
            ("cookie", b"c"),
        ]);
        assert_eq!(found, [pair("HTTP_COOKIE", "a=1; b=2; c"), pair("HTTP_X_A", "1, , 3")]);
    }

    #[test]
    fn names_and_values_have_at_most_64_kib() {
        let others: usize =
            parameters(&[]).pairs(0).expect("they fit").iter().map(|(name, value)| name.len() + value.len()).sum();
        let room = MOST_BYTES - others - "HTTP_X".len();
        let value = vec![b'x'; room + 1];
        assert!(parameters(&[("x", &value[1..])]).pairs(0).is_ok());
        assert_eq!(parameters(&[("x", &value)]).pairs(0), Err(ParametersTooLarge));
        assert!(ParametersTooLarge.to_string().contains("65536 bytes"));
    }

    proptest! {
        #[test]
        fn no_header_changes_another_parameter(
            headers in prop::collection::vec(("[ -~]{0,12}|(php|http)[-_. ]?[a-z]{0,9}", any::<Vec<u8>>()), 0..20),
        ) {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
            let with = parameters(&headers).pairs(0).expect("they fit");
            let without = parameters(&[]).pairs(0).expect("they fit");
            let (http, fixed): (Vec<_>, Vec<_>) = with.into_iter().partition(|(name, _)| name.starts_with("HTTP_"));
            prop_assert_eq!(fixed, without);
            let names: BTreeSet<_> = http.iter().map(|(name, _)| name).collect();
            prop_assert_eq!(names.len(), http.len());
            let is_plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
            prop_assert!(names.iter().all(|name| name.bytes().all(is_plain)));
        }
    }
}
