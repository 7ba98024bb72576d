//! What a client's request said of it, kept for the console in 24 bytes of each connection.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use taut_proto::handshake::Request;

use crate::query::Sdk;

/// Where a client connects from, and with what.
#[derive(Clone, Debug)]
pub(super) struct ClientInfo {
    /// An IPv4 address is mapped into it: one byte less than `IpAddr`, and no alignment.
    address: Ipv6Addr,
    sdk: Option<Arc<Sdk>>,
}

impl ClientInfo {
    pub(super) fn new(address: IpAddr, sdk: Option<Arc<Sdk>>) -> Self {
        let address = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        Self { address, sdk }
    }

    pub(super) fn address(&self) -> IpAddr {
        IpAddr::V6(self.address).to_canonical()
    }

    pub(super) fn sdk(&self) -> Option<&Arc<Sdk>> {
        self.sdk.as_ref()
    }
}

/// The SDKs of the last clients, the newest last. Clients that use the same one share it.
#[derive(Debug, Default)]
pub(super) struct Sdks(VecDeque<Arc<Sdk>>);

impl Sdks {
    /// What the client says it is, if it does: all SDKs of Pusher send `client` and `version`.
    pub(super) fn of(&mut self, request: &Request<'_>) -> Option<Arc<Sdk>> {
        let value = |name| request.query_value(name).unwrap_or_default();
        let (name, version): (Cow<'_, str>, Cow<'_, str>) = (value("client"), value("version"));
        let (name, version) = (beginning(&name), beginning(&version));
        if name.is_empty() && version.is_empty() {
            return None;
        }
        if let Some(known) = self.0.iter().rev().find(|sdk| *sdk.name == *name && *sdk.version == *version) {
            return Some(Arc::clone(known));
        }
        if self.0.len() >= MOST_SHARED {
            self.0.pop_front();
        }
        let sdk = Arc::new(Sdk { name: name.into(), version: version.into() });
        self.0.push_back(Arc::clone(&sdk));
        Some(sdk)
    }
}

/// As much of a stranger's text as is kept.
fn beginning(text: &str) -> &str {
    text.char_indices().nth(LONGEST).map_or(text, |(end, _)| &text[..end])
}

/// Characters of a client's name, and of its version.
const LONGEST: usize = 40;

/// SDKs that are looked through when a client connects. Those who make names up cost their own connections some bytes.
const MOST_SHARED: usize = 16;

#[cfg(test)]
mod tests {
    use taut_proto::handshake::HeadLimits;

    use super::*;

    fn sdk(sdks: &mut Sdks, query: &str) -> Option<Arc<Sdk>> {
        let text = format!("GET /app/key?{query} HTTP/1.1\r\nHost: x\r\n\r\n");
        sdks.of(&Request::parse(text.as_bytes(), &HeadLimits::default()).expect("a request"))
    }

    #[test]
    fn clients_with_one_sdk_share_its_name_and_strangers_cannot_make_it_grow() {
        let mut sdks = Sdks::default();
        let first = sdk(&mut sdks, "protocol=7&client=js&version=8.6.0&flash=false").expect("an SDK");
        assert_eq!((&*first.name, &*first.version), ("js", "8.6.0"));
        let second = sdk(&mut sdks, "client=js&version=8.6.0").expect("an SDK");
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(sdk(&mut sdks, "protocol=7"), None);
        assert_eq!(sdk(&mut sdks, "client=x").map(|sdk| (sdk.name.len(), sdk.version.len())), Some((1, 0)));
        let long = sdk(&mut sdks, &format!("client={}", "%C3%A9".repeat(500))).expect("an SDK");
        assert_eq!(*long.name, *"é".repeat(LONGEST));
        for number in 0..1000 {
            sdk(&mut sdks, &format!("client=made-up&version={number}"));
        }
        assert_eq!(sdks.0.len(), MOST_SHARED);
    }

    #[test]
    fn an_address_is_shown_as_it_is_written() {
        for text in ["192.0.2.7", "2001:db8::7"] {
            let info = ClientInfo::new(text.parse().expect(text), None);
            assert_eq!(info.address().to_string(), text);
        }
        let mapped = ClientInfo::new("::ffff:192.0.2.7".parse().expect("an address"), None);
        assert_eq!(mapped.address().to_string(), "192.0.2.7");
    }
}
