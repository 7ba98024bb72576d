//! The PROXY protocol, versions 1 and 2: how a proxy that passes bytes on says whose they are.
//!
//! Section numbers are those of its specification, by the makers of `HAProxy`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

/// Whether sockets begin with a header that says for whom a proxy has opened them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// None does. The default.
    #[default]
    Off,
    /// Those that come from these networks do, all of them, and the address in the header takes the place of the
    /// proxy's own. From elsewhere a header is what it is to a server that does not know of it: a bad request.
    Accept {
        /// Where the proxies are. Whoever is there may say to be anybody, so it should be nobody else.
        from: Vec<Network>,
    },
}

impl ProxyProtocol {
    /// Whether a socket of this peer begins with a header.
    pub(crate) fn is_expected_from(&self, peer: SocketAddr) -> bool {
        match self {
            Self::Off => false,
            Self::Accept { from } => from.iter().any(|network| network.contains(peer.ip())),
        }
    }
}

/// A network of IP addresses, written as `10.0.0.0/8` or `fd00::/8`; or one address.
///
/// IPv4 addresses are the same whether they are written as such or mapped into IPv6, as they come to a socket that
/// listens for both.
///
/// ```
/// use taut_shard::Network;
///
/// let network: Network = "10.0.0.0/8".parse()?;
/// assert!(network.contains("10.1.2.3".parse()?) && network.contains("::ffff:10.1.2.3".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(IpNet);

impl Network {
    /// Whether an address is of this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl From<IpAddr> for Network {
    /// The network of this one address.
    fn from(address: IpAddr) -> Self {
        Self(address.to_canonical().into())
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(address.into());
        }
        let network: IpNet = text.parse().map_err(|_| InvalidNetwork { text: text.to_owned() })?;
        let mapped = match network {
            IpNet::V6(network) => network.addr().to_ipv4_mapped().zip(network.prefix_len().checked_sub(MAPPED_PREFIX)),
            IpNet::V4(_) => None,
        };
        let unmapped = mapped.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok());
        Ok(Self(unmapped.map_or(network, IpNet::V4)))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is no [`Network`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidNetwork {
    text: String,
}

impl fmt::Display for InvalidNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no network: write an address, or a network as 10.0.0.0/8 or fd00::/8", self.text)
    }
}

impl std::error::Error for InvalidNetwork {}

/// A header at the beginning of what a socket has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Its bytes; what follows is the client's.
    pub(crate) length: usize,
    /// Who the client is. `None` if it is the proxy itself, or of a kind that has no address here.
    pub(crate) client: Option<SocketAddr>,
}

/// It is no header, or one that must not be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Header {
    /// Looks for a header, of at most `limit` bytes, in all that has come so far; `None` asks for more.
    pub(crate) fn parse(bytes: &[u8], limit: usize) -> Result<Option<Self>, Malformed> {
        if bytes.starts_with(SIGNATURE) {
            parse_binary(bytes, limit)
        } else if bytes.starts_with(WORD) {
            parse_line(bytes)
        } else if SIGNATURE.starts_with(bytes) || WORD.starts_with(bytes) {
            Ok(None)
        } else {
            Err(Malformed)
        }
    }
}

/// §2.1: one line of text.
fn parse_line(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let within = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        return if within.len() < LONGEST_LINE { Ok(None) } else { Err(Malformed) };
    };
    let line = str::from_utf8(&within[WORD.len()..end]).map_err(|_| Malformed)?;
    let line = line.strip_suffix('\r').ok_or(Malformed)?;
    let length = end + 1;
    // What stands behind UNKNOWN is to be ignored.
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Ok(Some(Header { length, client: None }));
    }
    let mut words = line.split(' ');
    let mut word = || words.next().ok_or(Malformed);
    let (family, source, destination) = (word()?, word()?, word()?);
    let (source_port, _) = (port(word()?)?, port(word()?)?);
    if words.next().is_some() {
        return Err(Malformed);
    }
    let source: IpAddr = match family {
        "TCP4" => {
            destination.parse::<Ipv4Addr>().map_err(|_| Malformed)?;
            source.parse::<Ipv4Addr>().map_err(|_| Malformed)?.into()
        }
        "TCP6" => {
            destination.parse::<Ipv6Addr>().map_err(|_| Malformed)?;
            source.parse::<Ipv6Addr>().map_err(|_| Malformed)?.into()
        }
        _ => return Err(Malformed),
    };
    Ok(Some(Header { length, client: Some(SocketAddr::new(source, source_port)) }))
}

/// §2.1: a decimal number without leading zeros.
fn port(text: &str) -> Result<u16, Malformed> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if is_plain { text.parse().map_err(|_| Malformed) } else { Err(Malformed) }
}

/// §2.2: a signature, version and command, family and transport, a length, then addresses and whatever else there is,
/// in as many bytes as the length says.
fn parse_binary(bytes: &[u8], limit: usize) -> Result<Option<Header>, Malformed> {
    let Some((&[version_command, family_transport, high, low], rest)) = bytes[SIGNATURE.len()..].split_first_chunk()
    else {
        return Ok(None);
    };
    let (version, command) = (version_command >> 4, version_command & 15);
    if version != 2 || command > PROXY {
        return Err(Malformed);
    }
    let announced = usize::from(u16::from_be_bytes([high, low]));
    let length = FIXED + announced;
    let (family, transport) = (family_transport >> 4, family_transport & 15);
    // A proxy that speaks for itself, as in a health check, may say any family.
    let client = command == PROXY;
    let addresses = match (family, transport) {
        _ if !client => 0,
        (UNSPECIFIED..=UNIX, UNSPECIFIED) | (UNSPECIFIED, STREAM) => 0,
        (INET, STREAM) => 12,
        (INET6, STREAM) => 36,
        (UNIX, STREAM) => 216,
        // Datagrams are not what has come; the rest does not exist.
        _ => return Err(Malformed),
    };
    if announced < addresses || length > limit {
        return Err(Malformed);
    }
    let Some(rest) = rest.get(..announced) else { return Ok(None) };
    // What follows the addresses is not asked for.
    let client = match (client, family, transport) {
        (true, INET, STREAM) => source::<4>(rest, 8),
        (true, INET6, STREAM) => source::<16>(rest, 32),
        _ => None,
    };
    Ok(Some(Header { length, client }))
}

/// The source's address is the first, and its port the first behind both addresses.
fn source<const ADDRESS: usize>(rest: &[u8], ports: usize) -> Option<SocketAddr>
where
    IpAddr: From<[u8; ADDRESS]>,
{
    let address: [u8; ADDRESS] = *rest.first_chunk()?;
    let port = *rest.get(ports..)?.first_chunk()?;
    Some(SocketAddr::new(address.into(), u16::from_be_bytes(port)))
}

/// What a line begins with.
const WORD: &[u8] = b"PROXY ";

/// §2.1: bytes, with the end of the line.
const LONGEST_LINE: usize = 107;

/// What the binary form begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes of the binary form before the addresses.
const FIXED: usize = 16;

/// The command that is not LOCAL.
const PROXY: u8 = 1;

const UNSPECIFIED: u8 = 0;
const INET: u8 = 1;
const INET6: u8 = 2;
const UNIX: u8 = 3;
const STREAM: u8 = 1;

/// Bits of an IPv6 prefix behind which an IPv4 address is mapped.
const MAPPED_PREFIX: u8 = 96;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 16 << 10;

    fn binary(version_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[version_command, family], &length, rest].concat()
    }

    fn client(bytes: &[u8]) -> Result<Option<SocketAddr>, Malformed> {
        let header = Header::parse(bytes, LIMIT)?.expect("it is whole");
        assert_eq!(header.length, bytes.len());
        Ok(header.client)
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn inet(rest: &[u8]) -> Vec<u8> {
        [&[192, 0, 2, 1, 198, 51, 100, 2, 0x1f, 0x90, 1, 0xbb], rest].concat()
    }

    // §2.1
    #[test]
    fn a_line_says_who_the_client_is() {
        let longest = format!("PROXY TCP6 {0} {0} 65535 65535\r\n", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        assert_eq!(longest.len(), 104);
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.2 8080 443\r\n", Some(address("192.0.2.1:8080"))),
            ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", Some(address("255.255.255.255:65535"))),
            ("PROXY TCP6 2001:db8::1 ::1 0 1\r\n", Some(address("[2001:db8::1]:0"))),
            (&longest, Some(address("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"))),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN whatever 1 2 3  4\r\n", None),
        ] {
            assert_eq!(client(line.as_bytes()), Ok(expected), "{line}");
        }
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
        assert_eq!((longest.len(), client(longest.as_bytes())), (107, Ok(None)));
    }

    // §2.1: single spaces, addresses of the family, ports without leading zeros, CR LF, 107 bytes.
    #[test]
    fn a_line_that_is_not_to_the_letter_is_refused() {
        for line in [
            "PROXY TCP4 192.0.2.1 198.51.100.2 8080 443\n",
            "PROXY TCP4  192.0.2.1 198.51.100.2 8080 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 8080 443 \r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 8080\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 8080 443 1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 08080 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 +80 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 80 \r\n",
            "PROXY TCP4 192.0.02.1 198.51.100.2 8080 443\r\n",
            "PROXY TCP4 192.0.2 198.51.100.2 8080 443\r\n",
            "PROXY TCP4 192.0.2.1 ::1 8080 443\r\n",
            "PROXY TCP6 192.0.2.1 ::1 8080 443\r\n",
            "PROXY TCP6 fe80::1%eth0 ::1 8080 443\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.2 8080 443\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY \r\n",
            "proxy TCP4 192.0.2.1 198.51.100.2 8080 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 8080 443\r443\r\n",
            "GET / HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(Header::parse(line.as_bytes(), LIMIT), Err(Malformed), "{line}");
        }
        let endless = format!("PROXY UNKNOWN {}", "x".repeat(93));
        assert_eq!(Header::parse(&endless.as_bytes()[..106], LIMIT), Ok(None));
        assert_eq!(Header::parse(endless.as_bytes(), LIMIT), Err(Malformed));
        assert_eq!(Header::parse(b"PROXY TCP4 \xff\r\n", LIMIT), Err(Malformed));
    }

    // §2.2
    #[test]
    fn the_binary_form_says_who_the_client_is() {
        assert_eq!(client(&binary(0x21, 0x11, &inet(b""))), Ok(Some(address("192.0.2.1:8080"))));
        assert_eq!(
            client(&binary(0x21, 0x11, &inet(&[4; 3000]))),
            Ok(Some(address("192.0.2.1:8080"))),
            "with more behind"
        );
        let mut inet6 = [0; 36];
        inet6[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        inet6[15] = 1;
        inet6[33] = 80;
        assert_eq!(client(&binary(0x21, 0x21, &inet6)), Ok(Some(address("[2001:db8::1]:80"))));
    }

    // §2.2: LOCAL is of any family; what is not of the internet has no address here.
    #[test]
    fn what_has_no_address_keeps_the_proxys() {
        for family in [0x00, 0x11, 0x12, 0x21, 0x31, 0xff] {
            for rest in [&[][..], &[1; 12], &[1; 300]] {
                assert_eq!(client(&binary(0x20, family, rest)), Ok(None), "LOCAL, {family:x}");
            }
        }
        for (family, rest) in [(0x00, 0), (0x00, 100), (0x01, 0), (0x10, 12), (0x20, 36), (0x31, 216), (0x31, 220)] {
            assert_eq!(client(&binary(0x21, family, &vec![7; rest])), Ok(None), "PROXY, {family:x}");
        }
    }

    #[test]
    fn a_binary_form_that_does_not_exist_is_refused() {
        for (version_command, family) in [
            (0x11, 0x11),
            (0x01, 0x11),
            (0x31, 0x11),
            (0x22, 0x11),
            (0x2f, 0x11),
            // Datagrams.
            (0x21, 0x02),
            (0x21, 0x12),
            (0x21, 0x22),
            (0x21, 0x32),
            // Families and transports that nobody knows.
            (0x21, 0x13),
            (0x21, 0x41),
            (0x21, 0xf1),
        ] {
            let bytes = binary(version_command, family, &[1; 300]);
            assert_eq!(Header::parse(&bytes, LIMIT), Err(Malformed), "{version_command:x} {family:x}");
        }
        // Too short for its addresses, which is known before they have come.
        for (family, length) in [(0x11, 11), (0x21, 35), (0x31, 215)] {
            let bytes = binary(0x21, family, &vec![1; length]);
            assert_eq!(Header::parse(&bytes[..16], LIMIT), Err(Malformed), "{family:x}");
        }
        let mut signature = binary(0x21, 0x11, &inet(b""));
        signature[11] = b'\r';
        assert_eq!(Header::parse(&signature, LIMIT), Err(Malformed));
    }

    #[test]
    fn a_header_beyond_the_limit_is_refused_before_it_has_come() {
        let bytes = binary(0x21, 0x11, &inet(&vec![4; LIMIT - 12 - 16]));
        assert_eq!(bytes.len(), LIMIT);
        assert_eq!(client(&bytes), Ok(Some(address("192.0.2.1:8080"))));
        assert_eq!(Header::parse(&bytes[..16], LIMIT - 1), Err(Malformed));
        assert_eq!(Header::parse(&binary(0x20, 0, &vec![0; 65_535])[..16], LIMIT), Err(Malformed));
    }

    #[test]
    fn networks_hold_their_addresses_however_they_are_written() {
        let network = |text: &str| text.parse::<Network>().unwrap();
        for (text, within, without) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.1.2.3/8", "10.255.0.1", "11.0.0.0"),
            ("10.0.0.0/8", "::ffff:10.0.0.1", "::ffff:11.0.0.1"),
            ("::ffff:10.0.0.0/104", "10.0.0.1", "11.0.0.1"),
            ("::ffff:10.0.0.0/104", "::ffff:10.0.0.1", "::10.0.0.1"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("::1", "::1", "::2"),
            ("::ffff:127.0.0.1", "127.0.0.1", "::1"),
            ("fd00::/8", "fd12::1", "fe80::1"),
            ("0.0.0.0/0", "1.2.3.4", "::1"),
            ("::/0", "2001:db8::1", "1.2.3.4"),
        ] {
            assert!(network(text).contains(within.parse().unwrap()), "{text} holds {within}");
            assert!(!network(text).contains(without.parse().unwrap()), "{text} holds no {without}");
            assert_eq!(network(&network(text).to_string()), network(text));
        }
        for text in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "localhost", "10.0.0.0/-1", "10.0.0.0 /8"] {
            let error = text.parse::<Network>().unwrap_err();
            assert!(error.to_string().starts_with(&format!("`{text}` is no network: ")), "{error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_found_does_not_depend_on_how_much_has_come(
            begin in prop::sample::select(vec![&b""[..], WORD, SIGNATURE, b"PROXY TCP4 1.2.3.4 ", b"PROXY UNKNOWN"]),
            middle in prop::sample::select(vec![
                &b""[..],
                b"\x21\x11\0\x0c",
                b"\x21\x21\0\x24",
                b"\x20\0\0\x05",
                b"1.2.3.4 1 2\r\n",
                b"\r\n",
            ]),
            end in prop::collection::vec(any::<u8>(), 0..150),
        ) {
            let bytes = [begin, middle, &end].concat();
            let mut settled = None;
            for count in 0..=bytes.len() {
                let found = Header::parse(&bytes[..count], LIMIT);
                match (&settled, found) {
                    (None, Ok(None)) => {}
                    (None, found) => {
                        if let Ok(Some(header)) = found {
                            prop_assert_eq!(header.length, count, "it is found with its last byte");
                        }
                        settled = Some(found);
                    }
                    (Some(settled), found) => prop_assert_eq!(settled, &found),
                }
            }
        }
    }
}
