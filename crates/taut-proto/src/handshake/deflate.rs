//! Negotiation of permessage-deflate (RFC 7692 §5, §7.1).
//!
//! The RFC names directions by role, `server_…` and `client_…`. [`Config`] and [`NegotiatedDeflate`] name them as this
//! endpoint sees them, outgoing and incoming, so that nothing after the handshake depends on its role.

mod parameters;

use std::fmt;

pub use super::{MalformedExtensions, Offer, Offers, Params};
use parameters::MOST_BITS;
pub use parameters::{InvalidParameter, NAME, Parameters};

/// What this endpoint offers or accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whether our messages may refer to earlier ones; false. It compresses small similar messages far better and
    /// costs a compressor per connection, some 370 KiB at 15 bits; without it one compressor serves all connections.
    pub outgoing_takeover: bool,
    /// Whether the peer's messages may refer to earlier ones; false. Costs some 16 KiB and twice a window of
    /// 2^`incoming_bits` bytes per connection.
    ///
    /// Safari 15.0 to 15.3 loses its connection when a server asks it not to; a server that must serve those needs
    /// true.
    pub incoming_takeover: bool,
    /// The largest window of our messages, as a power of two: 9 to 15; 15. Other values count as the nearest.
    pub outgoing_bits: u8,
    /// The largest window of the peer's messages, as a power of two: 8 to 15; 15. Other values count as the nearest.
    /// A server can ask it only of clients that offer `client_max_window_bits`; from others it takes 15.
    pub incoming_bits: u8,
}

impl Config {
    /// No context takeover, full windows.
    pub const fn standard() -> Self {
        Self { outgoing_takeover: false, incoming_takeover: false, outgoing_bits: 15, incoming_bits: 15 }
    }

    fn outgoing_limit(self) -> u8 {
        self.outgoing_bits.clamp(LEAST_OUTGOING_BITS, MOST_BITS)
    }

    fn incoming_limit(self) -> u8 {
        self.incoming_bits.clamp(LEAST_BITS, MOST_BITS)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::standard()
    }
}

/// permessage-deflate as both sides have negotiated it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NegotiatedDeflate {
    /// Of the messages that we send.
    pub outgoing: Window,
    /// Of the messages that we receive.
    pub incoming: Window,
    /// Whether we may compress at all. False on a client whose server asked for a window of 2^8 bytes, which it can
    /// read but not produce: it sends every message uncompressed, which RFC 7692 §6 always allows.
    pub compress: bool,
    /// What the response says.
    parameters: Parameters,
}

impl NegotiatedDeflate {
    /// What a server has negotiated without [`accept`], such as in an HTTP library's own handshake.
    pub const fn new(outgoing: Window, incoming: Window) -> Self {
        let parameters = Parameters {
            server_no_context_takeover: !outgoing.takeover,
            client_no_context_takeover: !incoming.takeover,
            server_max_window_bits: if outgoing.bits < MOST_BITS { Some(outgoing.bits) } else { None },
            client_max_window_bits: if incoming.bits < MOST_BITS { Some(incoming.bits) } else { None },
        };
        Self { outgoing, incoming, compress: outgoing.bits >= LEAST_OUTGOING_BITS, parameters }
    }

    /// The parameters of the response, as it is or was sent.
    pub fn parameters(&self) -> Parameters {
        self.parameters
    }
}

/// One direction's sliding window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its size as a power of two: 8 to 15.
    pub bits: u8,
    /// Whether it is kept from message to message.
    pub takeover: bool,
}

/// Why a client cannot accept what a server answered to its offer. The server is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidResponse {
    /// Not an answer of this extension.
    OtherExtension,
    /// A parameter is invalid by itself.
    Parameter(InvalidParameter),
    /// The client offered `server_no_context_takeover` and the server did not confirm it.
    ServerTakeover,
    /// The client offered `server_max_window_bits` and the server did not confirm that or a smaller window.
    ServerWindow,
    /// The server demands a larger client window than was offered.
    ClientWindow,
}

impl From<InvalidParameter> for InvalidResponse {
    fn from(parameter: InvalidParameter) -> Self {
        Self::Parameter(parameter)
    }
}

impl fmt::Display for InvalidResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherExtension => "another extension where permessage-deflate was expected",
            Self::Parameter(parameter) => return parameter.fmt(f),
            Self::ServerTakeover => "no server_no_context_takeover although it was offered",
            Self::ServerWindow => "a server window larger than the one offered",
            Self::ClientWindow => "a client window larger than the one offered",
        })
    }
}

impl std::error::Error for InvalidResponse {}

/// A server's choice: the first of the client's offers that it can live with, or none (RFC 7692 §5).
///
/// An offer with an unknown, repeated or invalid parameter is declined and the next one considered, as is one that
/// asks the server for a window of 2^8 bytes, which zlib cannot produce.
pub fn accept<'a>(offers: impl IntoIterator<Item = Offer<'a>>, config: &Config) -> Option<NegotiatedDeflate> {
    let is_deflate = |offer: &Offer<'_>| offer.name() == NAME;
    offers.into_iter().filter(is_deflate).find_map(|offer| accept_one(Parameters::from_offer(&offer).ok()?, *config))
}

/// Appends the value of `Sec-WebSocket-Extensions` with which a server answers.
pub fn write_response(negotiated: &NegotiatedDeflate, out: &mut Vec<u8>) {
    negotiated.parameters.write(false, out);
}

/// Appends the value of `Sec-WebSocket-Extensions` with which a client offers.
pub fn write_offer(config: &Config, out: &mut Vec<u8>) {
    offered(*config).write(true, out);
}

/// A client's check of the server's answer to [`write_offer`] with the same `config` (RFC 7692 §5, §7.1).
pub fn validate_response(response: &Offer<'_>, config: &Config) -> Result<NegotiatedDeflate, InvalidResponse> {
    if response.name() != NAME {
        return Err(InvalidResponse::OtherExtension);
    }
    let parameters = Parameters::from_response(response)?;
    let offered = offered(*config);
    // RFC 7692 §7.1.1.1: a server that accepts the parameter answers it.
    if offered.server_no_context_takeover && !parameters.server_no_context_takeover {
        return Err(InvalidResponse::ServerTakeover);
    }
    // RFC 7692 §7.1.2.1: likewise, with the same or a smaller value.
    if offered
        .server_max_window_bits
        .is_some_and(|most| parameters.server_max_window_bits.is_none_or(|bits| bits > most))
    {
        return Err(InvalidResponse::ServerWindow);
    }
    // RFC 7692 §7.1.2.2: answered only if offered, and with a value no larger than the offered one.
    if parameters
        .client_max_window_bits
        .is_some_and(|bits| offered.client_max_window_bits.is_none_or(|most| bits > most))
    {
        return Err(InvalidResponse::ClientWindow);
    }
    let outgoing_bits = parameters.client_max_window_bits.unwrap_or(MOST_BITS).min(config.outgoing_limit());
    Ok(NegotiatedDeflate {
        outgoing: Window {
            bits: outgoing_bits,
            // RFC 7692 §7.1.1.2: if the server asks, the client obeys; if not, it is still the client's choice.
            takeover: config.outgoing_takeover && !parameters.client_no_context_takeover,
        },
        incoming: Window {
            bits: parameters.server_max_window_bits.unwrap_or(MOST_BITS),
            takeover: !parameters.server_no_context_takeover,
        },
        compress: outgoing_bits >= LEAST_OUTGOING_BITS,
        parameters,
    })
}

const LEAST_BITS: u8 = 8;

/// zlib has no raw stream with a window of 2^8 bytes: it silently takes 2^9, and the peer's inflater then meets
/// distances that it cannot follow.
const LEAST_OUTGOING_BITS: u8 = 9;

fn accept_one(offer: Parameters, config: Config) -> Option<NegotiatedDeflate> {
    let outgoing_bits = offer.server_max_window_bits.unwrap_or(MOST_BITS).min(config.outgoing_limit());
    if outgoing_bits < LEAST_OUTGOING_BITS {
        return None;
    }
    // A client that does not offer the parameter does not understand it either (RFC 7692 §7.1.2.2).
    let incoming_bits = offer.client_max_window_bits.map_or(MOST_BITS, |bits| bits.min(config.incoming_limit()));
    let outgoing = Window {
        bits: outgoing_bits,
        // RFC 7692 §7.1.1.1: if the client asks, the server obeys; if not, it may still choose so.
        takeover: config.outgoing_takeover && !offer.server_no_context_takeover,
    };
    let incoming = Window {
        bits: incoming_bits,
        // RFC 7692 §7.1.1.2: in an offer it is a promise that the server may hold the client to.
        takeover: config.incoming_takeover && !offer.client_no_context_takeover,
    };
    let mut negotiated = NegotiatedDeflate::new(outgoing, incoming);
    // RFC 7692 §7.1.2.1: an offered limit is accepted by answering it, 15 too.
    if offer.server_max_window_bits.is_some() {
        negotiated.parameters.server_max_window_bits = Some(outgoing_bits);
    }
    Some(negotiated)
}

/// What a client of this configuration offers. It always lets the server limit the client's window: that costs
/// nothing, and some servers decline without it.
fn offered(config: Config) -> Parameters {
    Parameters {
        server_no_context_takeover: !config.incoming_takeover,
        client_no_context_takeover: !config.outgoing_takeover,
        server_max_window_bits: (config.incoming_limit() < MOST_BITS).then_some(config.incoming_limit()),
        client_max_window_bits: Some(config.outgoing_limit()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TAKEOVER: Config = Config { outgoing_takeover: true, incoming_takeover: true, ..Config::standard() };

    fn offers(value: &str) -> Vec<Offer<'_>> {
        Offer::list(value).collect::<Result<_, _>>().expect("a well-formed header")
    }

    fn accepted(value: &str, config: Config) -> Option<NegotiatedDeflate> {
        accept(offers(value), &config)
    }

    fn response(value: &str, config: Config) -> Option<String> {
        let mut out = Vec::new();
        write_response(&accepted(value, config)?, &mut out);
        Some(String::from_utf8(out).expect("ASCII"))
    }

    fn offer(config: Config) -> String {
        let mut out = Vec::new();
        write_offer(&config, &mut out);
        String::from_utf8(out).expect("ASCII")
    }

    fn validated(value: &str, config: Config) -> Result<NegotiatedDeflate, InvalidResponse> {
        validate_response(&offers(value)[0], &config)
    }

    // RFC 7692 §5: a client may make several offers; the server takes one it supports, the first by our rule.
    // RFC 7692 §7.1: an offer that cannot be accepted is declined and does not spoil the next.
    #[test]
    fn the_first_acceptable_offer_is_taken() {
        let value = "x-other; a=1, permessage-deflate; unknown, permessage-deflate; server_max_window_bits=8, \
                     permessage-deflate; server_max_window_bits=10, permessage-deflate";
        assert_eq!(response(value, TAKEOVER).as_deref(), Some("permessage-deflate; server_max_window_bits=10"));
        assert_eq!(
            response("permessage-deflate, permessage-deflate; server_max_window_bits=10", TAKEOVER).as_deref(),
            Some(NAME)
        );
        assert_eq!(response("x-other", TAKEOVER), None);
        assert_eq!(response("Permessage-Deflate", TAKEOVER), None);
    }

    // RFC 7692 §7.1: a server declines an offer with a parameter that is not defined for one.
    // RFC 7692 §7.1: a server declines an offer with a parameter whose value is invalid.
    // RFC 7692 §7.1: a server declines an offer with the same parameter twice.
    // RFC 7692 §7.1: a server declines an offer whose configuration it does not support.
    // RFC 7692 §7.1.2.1: in an offer server_max_window_bits has a value, 8 to 15 without leading zeros.
    // RFC 7692 §7.1.2.2: so has client_max_window_bits, if it has a value.
    // RFC 7692 §7.1.1.1: server_no_context_takeover has no value.
    // RFC 7692 §7.1.1.2: client_no_context_takeover has no value.
    // CVE-2026-2229: window bits of 0, 7, 16, 99, "" and 015 are refused.
    #[test]
    fn an_offer_with_a_bad_parameter_is_declined() {
        for params in [
            "unknown",
            "server_max_window_bits",
            "server_max_window_bits=8",
            "server_no_context_takeover; server_no_context_takeover",
            "client_no_context_takeover; client_no_context_takeover",
            "server_max_window_bits=10; server_max_window_bits=10",
            "client_max_window_bits; client_max_window_bits",
            "client_max_window_bits=10; client_max_window_bits",
            "server_no_context_takeover=1",
            "server_no_context_takeover=true",
            "client_no_context_takeover=8",
            "Server_No_Context_Takeover",
        ] {
            assert_eq!(accepted(&format!("{NAME}; {params}"), TAKEOVER), None, "{params}");
        }
        for bits in ["0", "1", "7", "16", "99", "015", "08", "15x", "-9", "+9", "0xf", "4294967305", "1\\6"] {
            for name in ["server_max_window_bits", "client_max_window_bits"] {
                assert_eq!(accepted(&format!("{NAME}; {name}=\"{bits}\""), TAKEOVER), None, "{name}={bits}");
            }
        }
        // The empty value does not even follow the grammar of RFC 6455 §9.1.
        for value in ["permessage-deflate; server_max_window_bits=", "permessage-deflate; server_max_window_bits=\"\""]
        {
            assert!(Offer::list(value).any(|offer| offer.is_err()), "{value}");
        }
    }

    // RFC 7692 §7.1.2.1: an accepted limit is answered with the same or a smaller value, and kept.
    // RFC 6455 §9.1: a quoted value means the same as the bare one.
    #[test]
    fn every_window_of_the_server_from_9_bits_is_answered_and_kept() {
        for bits in 9..=15 {
            for value in [format!("{bits}"), format!("\"{bits}\"")] {
                let negotiated =
                    accepted(&format!("{NAME}; server_max_window_bits={value}"), TAKEOVER).expect("accepted");
                assert_eq!(negotiated.outgoing, Window { bits, takeover: true });
                assert_eq!(negotiated.parameters().server_max_window_bits, Some(bits));
            }
        }
        let narrow = Config { outgoing_bits: 11, ..TAKEOVER };
        for (value, expected) in [("=15", 11), ("=11", 11), ("=9", 9)] {
            let answer = response(&format!("{NAME}; server_max_window_bits{value}"), narrow);
            assert_eq!(answer, Some(format!("{NAME}; server_max_window_bits={expected}")));
        }
        // Without an offer the server may still say that its own window is smaller.
        assert_eq!(response(NAME, narrow), Some(format!("{NAME}; server_max_window_bits=11")));
    }

    // RFC 7692 §7.1.2.2: client_max_window_bits is answered only if it was offered, with a value no larger.
    #[test]
    fn the_window_of_the_client_is_limited_only_if_it_offers_that() {
        let narrow = Config { incoming_bits: 10, ..TAKEOVER };
        for (params, bits) in [
            ("", None),
            ("; client_max_window_bits", Some(10)),
            ("; client_max_window_bits=15", Some(10)),
            ("; client_max_window_bits=10", Some(10)),
            ("; client_max_window_bits=8", Some(8)),
        ] {
            let negotiated = accepted(&format!("{NAME}{params}"), narrow).expect("accepted");
            assert_eq!(negotiated.parameters().client_max_window_bits, bits, "{params}");
            assert_eq!(negotiated.incoming.bits, bits.unwrap_or(15), "{params}");
        }
        assert_eq!(response(&format!("{NAME}; client_max_window_bits"), TAKEOVER).as_deref(), Some(NAME));
    }

    // RFC 7692 §7.1.1.1: server_no_context_takeover is accepted by answering it; the server then resets its window.
    // RFC 7692 §7.1.1.2: client_no_context_takeover in a response makes the client reset its window.
    #[test]
    fn context_takeover_happens_where_both_sides_want_it() {
        let no_server = "; server_no_context_takeover";
        let no_client = "; client_no_context_takeover";
        for (config, params, outgoing, incoming) in [
            (TAKEOVER, "", true, true),
            (TAKEOVER, no_server, false, true),
            (TAKEOVER, no_client, true, false),
            (Config::default(), "", false, false),
            (Config { outgoing_takeover: true, ..Config::default() }, "", true, false),
            (Config { incoming_takeover: true, ..Config::default() }, no_server, false, true),
        ] {
            let value = format!("{NAME}{params}");
            let negotiated = accepted(&value, config).expect("accepted");
            assert_eq!((negotiated.outgoing.takeover, negotiated.incoming.takeover), (outgoing, incoming), "{params}");
            let expected =
                [NAME, if outgoing { "" } else { no_server }, if incoming { "" } else { no_client }].concat();
            assert_eq!(response(&value, config), Some(expected));
        }
    }

    // RFC 7692 §7.1: a client fails the connection if a parameter of the response is unknown, invalid or repeated.
    // RFC 7692 §7.1.2.2: in a response client_max_window_bits has a value.
    // CVE-2026-2229: window bits out of range in a response are refused by the client.
    #[test]
    fn a_response_with_a_bad_parameter_is_refused() {
        for (params, expected) in [
            ("unknown", InvalidParameter::Unknown),
            ("server_max_window_bits", InvalidParameter::MissingValue),
            ("client_max_window_bits", InvalidParameter::MissingValue),
            ("server_max_window_bits=0", InvalidParameter::WindowBits),
            ("server_max_window_bits=7", InvalidParameter::WindowBits),
            ("server_max_window_bits=16", InvalidParameter::WindowBits),
            ("server_max_window_bits=99", InvalidParameter::WindowBits),
            ("server_max_window_bits=015", InvalidParameter::WindowBits),
            ("client_max_window_bits=7", InvalidParameter::WindowBits),
            ("client_max_window_bits=1000", InvalidParameter::WindowBits),
            ("server_no_context_takeover=1", InvalidParameter::UnexpectedValue),
            ("client_no_context_takeover=1", InvalidParameter::UnexpectedValue),
            ("server_max_window_bits=9; server_max_window_bits=9", InvalidParameter::Repeated),
            ("client_no_context_takeover; client_no_context_takeover", InvalidParameter::Repeated),
        ] {
            let result = validated(&format!("{NAME}; {params}"), TAKEOVER);
            assert_eq!(result, Err(InvalidResponse::Parameter(expected)), "{params}");
        }
        assert_eq!(validated("x-other", TAKEOVER), Err(InvalidResponse::OtherExtension));
    }

    // RFC 7692 §5: a client fails the connection if the response does not fit its offer.
    // RFC 7692 §7.1.1.1: a client that offered server_no_context_takeover needs it in the response.
    // RFC 7692 §7.1.2.1: a client that offered server_max_window_bits needs it, no larger, in the response.
    // RFC 7692 §7.1.2.2: the response to a limit on the client's window is no larger.
    #[test]
    fn a_response_that_does_not_fit_the_offer_is_refused() {
        let narrow = Config { incoming_bits: 10, outgoing_bits: 10, ..TAKEOVER };
        for (config, params, expected) in [
            (Config::default(), "", InvalidResponse::ServerTakeover),
            (Config::default(), "; client_no_context_takeover", InvalidResponse::ServerTakeover),
            (narrow, "", InvalidResponse::ServerWindow),
            (narrow, "; server_max_window_bits=11", InvalidResponse::ServerWindow),
            (narrow, "; server_max_window_bits=10; client_max_window_bits=11", InvalidResponse::ClientWindow),
        ] {
            assert_eq!(validated(&format!("{NAME}{params}"), config), Err(expected), "{params}");
        }
    }

    // RFC 7692 §7.1.1.2: the client resets its window if the response says so.
    // RFC 7692 §7.1.2.1: a window that the server limits without being asked is fine too.
    #[test]
    fn a_fitting_response_gives_the_windows_of_both_directions() {
        let negotiated = validated(NAME, TAKEOVER).expect("fits");
        let full = Window { bits: 15, takeover: true };
        assert_eq!((negotiated.outgoing, negotiated.incoming, negotiated.compress), (full, full, true));

        let value = format!("{NAME}; client_max_window_bits=9; server_max_window_bits=8; client_no_context_takeover");
        let negotiated = validated(&value, TAKEOVER).expect("fits");
        assert_eq!(negotiated.outgoing, Window { bits: 9, takeover: false });
        assert_eq!(negotiated.incoming, Window { bits: 8, takeover: true });

        let negotiated = validated(&format!("{NAME}; server_no_context_takeover"), Config::default()).expect("fits");
        assert_eq!((negotiated.outgoing.takeover, negotiated.incoming.takeover), (false, false));
        let narrow = Config { outgoing_bits: 12, ..TAKEOVER };
        assert_eq!(validated(NAME, narrow).expect("fits").outgoing.bits, 12);
    }

    // RFC 7692 §7.1.2.2: a client of which a window of 2^8 bytes is asked uses no larger one, here by not compressing.
    #[test]
    fn a_client_that_is_asked_for_8_bits_does_not_compress() {
        let negotiated = validated(&format!("{NAME}; client_max_window_bits=8"), TAKEOVER).expect("fits");
        assert_eq!((negotiated.outgoing.bits, negotiated.compress), (8, false));
    }

    // RFC 7692 §7.1: what a client of ours offers.
    #[test]
    fn a_client_offers_what_it_is_configured_to() {
        assert_eq!(offer(TAKEOVER), "permessage-deflate; client_max_window_bits");
        assert_eq!(
            offer(Config::default()),
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits"
        );
        let narrow = Config { incoming_bits: 9, outgoing_bits: 10, ..TAKEOVER };
        assert_eq!(offer(narrow), "permessage-deflate; server_max_window_bits=9; client_max_window_bits=10");
        let absurd = Config { incoming_bits: 0, outgoing_bits: 200, ..TAKEOVER };
        assert_eq!(offer(absurd), "permessage-deflate; server_max_window_bits=8; client_max_window_bits");
    }

    proptest! {
        // RFC 7692 §5: what one side writes the other accepts, and both know the same windows.
        #[test]
        fn our_client_and_our_server_agree(
            client in any::<(bool, bool, u8, u8)>(),
            server in any::<(bool, bool, u8, u8)>(),
        ) {
            let config = |(outgoing_takeover, incoming_takeover, outgoing_bits, incoming_bits): (bool, bool, u8, u8)| {
                Config { outgoing_takeover, incoming_takeover, outgoing_bits: outgoing_bits % 18, incoming_bits: incoming_bits % 18 }
            };
            let (client, server) = (config(client), config(server));
            let Some(of_server) = accepted(&offer(client), server) else {
                // Only a client that reads no more than 8 bits cannot be served.
                prop_assert!(client.incoming_bits <= 8);
                return Ok(());
            };
            let mut answer = Vec::new();
            write_response(&of_server, &mut answer);
            let of_client = validated(std::str::from_utf8(&answer).expect("ASCII"), client);
            prop_assert!(of_client.is_ok(), "{of_client:?}");
            let of_client = of_client.expect("just checked");
            prop_assert_eq!(of_client.incoming, of_server.outgoing);
            prop_assert!(of_client.outgoing.bits <= of_server.incoming.bits);
            prop_assert!(!of_client.outgoing.takeover || of_server.incoming.takeover);
            prop_assert_eq!(of_client.parameters(), of_server.parameters());
        }

        #[test]
        fn any_parameters_are_read_without_a_panic(value in "permessage-deflate(; ?(server|client)_(max_window_bits|no_context_takeover)(=\"?[0-9]{0,3}\"?)?){0,5}") {
            for offer in Offer::list(&value).map_while(Result::ok) {
                if let Some(negotiated) = accept([offer], &TAKEOVER) {
                    prop_assert!(negotiated.compress && (9..=15).contains(&negotiated.outgoing.bits));
                    prop_assert!((8..=15).contains(&negotiated.incoming.bits));
                }
                if let Ok(negotiated) = validate_response(&offer, &TAKEOVER) {
                    prop_assert_eq!(negotiated.compress, negotiated.outgoing.bits >= 9);
                }
            }
        }
    }
}
