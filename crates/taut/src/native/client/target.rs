//! What a client asks for, and where: also after redirects.

use taut_proto::Role;
use taut_proto::handshake::{ClientRequest, InvalidRequest};

use crate::error::Cause;
use crate::native::request::BEARER;
use crate::native::url::Url;
use crate::{Deflate, Error};

/// A server's URL, and the request for it.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) url: Url,
    pub(super) parts: Vec<RequestPart>,
    /// Made of both.
    pub(super) request: ClientRequest,
    /// Whether every redirect so far has stayed within the application's origin, so that secrets may be sent.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "nothing else is secret"))]
    pub(super) is_trusted: bool,
}

impl Target {
    pub(super) fn new(url: Url, parts: Vec<RequestPart>) -> Result<Self, Error> {
        let request = request(&url, &parts)?;
        Ok(Self { url, parts, request, is_trusted: true })
    }

    /// The target of a redirect, or why it is not followed.
    pub(super) fn moved(&self, location: &str) -> Result<Self, &'static str> {
        let url = self.url.join(location)?;
        if self.url.is_secure && !url.is_secure {
            return Err("it leads from wss:// to ws://, which is not encrypted");
        }
        let mut parts = self.parts.clone();
        let is_same_origin = self.url.is_same_origin(&url);
        if !is_same_origin {
            parts.retain(RequestPart::may_cross_origins);
        }
        let request = request(&url, &parts).map_err(|_| "its Location is not a URL")?;
        Ok(Self { url, parts, request, is_trusted: self.is_trusted && is_same_origin })
    }
}

/// One part of the request that the application has set.
#[derive(Clone)]
pub(super) enum RequestPart {
    Cookie(String),
    Deflate(Deflate),
    Header(String, String),
    Host(String),
    Origin(String),
    Subprotocol(String),
}

impl RequestPart {
    /// Whether another origin may see it. Any header may be a secret, but for those that are known not to be.
    fn may_cross_origins(&self) -> bool {
        match self {
            // The other origin is another host.
            Self::Cookie(_) | Self::Host(_) => false,
            Self::Deflate(_) | Self::Origin(_) => true,
            Self::Header(name, _) => {
                ["accept", "accept-language", "user-agent"].iter().any(|known| name.eq_ignore_ascii_case(known))
            }
            Self::Subprotocol(name) => !name.starts_with(BEARER),
        }
    }
}

fn request(url: &Url, parts: &[RequestPart]) -> Result<ClientRequest, Error> {
    let mut request = ClientRequest::new(&url.authority, &url.target).map_err(invalid)?;
    let mut cookies: Vec<&str> = Vec::new();
    for part in parts {
        request = match part {
            RequestPart::Cookie(cookie) => {
                cookies.push(cookie);
                request
            }
            RequestPart::Deflate(config) => request.deflate(Some(*config)),
            RequestPart::Header(name, value) => with_header(request, name, value)?,
            RequestPart::Host(host) => request.host(host).map_err(invalid)?,
            RequestPart::Origin(origin) => request.origin(origin).map_err(invalid)?,
            RequestPart::Subprotocol(name) => request.subprotocol(name).map_err(invalid)?,
        };
    }
    // RFC 6265 §5.4: one header for all.
    if cookies.is_empty() { Ok(request) } else { with_header(request, "Cookie", &cookies.join("; ")) }
}

fn with_header(request: ClientRequest, name: &str, value: &str) -> Result<ClientRequest, Error> {
    request.header(name, value).map_err(|fault| match fault {
        InvalidRequest::Header(invalid) => Cause::Header { name: name.to_owned(), invalid, role: Role::Client }.into(),
        other => invalid(other),
    })
}

fn invalid(invalid: InvalidRequest) -> Error {
    Cause::Request(invalid).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Client;

    fn written(target: &Target) -> String {
        let mut bytes = Vec::new();
        target.request.write([0; 16], &mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    fn secretive() -> Client {
        Client::new("ws://a.example/x")
            .bearer("s3cret")
            .cookie("id", "s3cret")
            .header("X-Api-Key", "s3cret")
            .header("Cookie", "more=s3cret")
            .header("User-Agent", "me")
            .origin("http://a.example")
            .subprotocol("v1")
            .bearer_subprotocol("s3cret")
            .query("token", "s3cret")
            .deflate(Deflate::default())
    }

    #[test]
    fn conveniences_end_up_in_the_request() {
        let request = written(secretive().target.as_ref().unwrap());
        for line in [
            "GET /x?token=s3cret HTTP/1.1",
            "Authorization: Bearer s3cret",
            // RFC 6265 §5.4: a client sends one Cookie header.
            "Cookie: id=s3cret; more=s3cret",
            "Sec-WebSocket-Protocol: v1, bearer.s3cret",
        ] {
            assert!(request.lines().any(|found| found == line), "{line}: {request}");
        }
        // RFC 7617 §2: the example.
        let client = Client::new("ws://a.example").basic("Aladdin", "open sesame");
        assert!(written(client.target.as_ref().unwrap()).contains("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
    }

    // RFC 9110 §15.4: a redirected request is made anew, without what was meant for the first origin.
    #[test]
    fn what_is_secret_does_not_follow_to_another_origin_and_does_not_come_back() {
        let target = secretive().target.unwrap();
        let near = target.moved("/y").unwrap();
        assert!(near.is_trusted && written(&near).contains("Authorization: Bearer s3cret"));
        for away in ["ws://b.example/y", "ws://a.example:81/y", "//b.example/y"] {
            let away = target.moved(away).unwrap();
            let request = written(&away);
            assert!(!request.contains("s3cret") && !away.is_trusted, "{request}");
            for kept in ["GET /y ", "User-Agent: me", "Origin: http://a.example", "Protocol: v1\r\n", "permessage"] {
                assert!(request.contains(kept), "{kept}: {request}");
            }
            assert!(!away.moved("/z").unwrap().is_trusted);
            let back = away.moved("ws://a.example/z").unwrap();
            assert!(!written(&back).contains("s3cret") && !back.is_trusted);
        }
        for wrong in ["ftp://a.example", "ws://a b/", "/a b", "ws://u:p@a.example/"] {
            assert!(target.moved(wrong).is_err(), "{wrong}");
        }
    }

    // RFC 9110 §7.2: `Host` names the origin of the target, and another origin is another host.
    #[test]
    fn another_host_than_that_of_the_url_is_for_the_first_origin_alone() {
        for client in [
            Client::new("ws://127.0.0.1:9000/x").host("virtual.example"),
            Client::new("ws://127.0.0.1:9000/x").host("first.example").header("HOST", "virtual.example"),
        ] {
            let target = client.target.unwrap();
            let request = written(&target);
            assert_eq!(request.matches("Host: ").count(), 1);
            assert!(request.contains("\r\nHost: virtual.example\r\n"), "{request}");
            assert_eq!(target.url.host, "127.0.0.1");
            assert!(written(&target.moved("/y").unwrap()).contains("\r\nHost: virtual.example\r\n"));
            assert!(written(&target.moved("ws://b.example/").unwrap()).contains("\r\nHost: b.example\r\n"));
        }
    }

    #[cfg(feature = "tls")]
    #[test]
    fn no_redirect_leads_from_tls_to_plain_text() {
        let target = Client::new("wss://a.example/").bearer("s3cret").target.unwrap();
        for plain in ["ws://a.example/", "http://a.example/", "ws://b.example/"] {
            assert!(target.moved(plain).err().unwrap().contains("not encrypted"), "{plain}");
        }
        assert!(target.moved("https://a.example/y").unwrap().is_trusted);
        // Another scheme is another origin.
        let plain = secretive().target.unwrap();
        assert!(!written(&plain.moved("wss://a.example/").unwrap()).contains("s3cret"));
    }
}
