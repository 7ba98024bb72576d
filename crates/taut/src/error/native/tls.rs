//! Why TLS could not be: who is at fault, and what to do.

use std::fmt;
use std::io;

use rustls::AlertDescription as Alert;
use rustls::CertificateError as Bad;

use super::{Cause, Doing, Error};

/// What is wrong with TLS.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The handshake failed.
    Handshake { peer: Peer, error: rustls::Error },
    /// The system has no root certificates; what was wrong where.
    NoRoots(String),
    /// What the caller gave cannot be used.
    Settings(String),
}

/// Whom the handshake was with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Client,
    Server,
    /// One or the other: the failure came to light behind the handshake.
    Either,
}

impl Failure {
    /// What rustls said, if it is its error that a stream has passed on.
    pub(crate) fn of(peer: Peer, error: &io::Error) -> Option<Self> {
        let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
        Some(Self::Handshake { peer, error: error.clone() })
    }

    pub(crate) fn is_setting(&self) -> bool {
        matches!(self, Self::Settings(_))
    }

    pub(crate) fn inner(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Handshake { error, .. } => Some(error),
            Self::NoRoots(_) | Self::Settings(_) => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handshake { peer, error } => explain(*peer, error, f),
            Self::NoRoots(reason) => write!(
                f,
                "this system has no root certificates to check the server's with: {reason}; install them (on Debian \
                 the package ca-certificates), name a file of them in SSL_CERT_FILE, give roots by \
                 ClientTls::only_pem, or build the program with taut's feature tls-webpki-roots, which brings Mozilla's"
            ),
            Self::Settings(wrong) => f.write_str(wrong),
        }
    }
}

/// Why the handshake failed: rustls' word for those who know it, or the breaking of the stream.
pub(crate) fn failed(peer: Peer, error: io::Error) -> Error {
    match Failure::of(peer, &error) {
        Some(failure) => Cause::Tls(failure).into(),
        None => Error::io(Doing::Securing, error),
    }
}

pub(crate) fn settings(wrong: String) -> Error {
    Cause::Tls(Failure::Settings(wrong)).into()
}

fn explain(peer: Peer, error: &rustls::Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let they = match peer {
        Peer::Client => "the client",
        Peer::Server => "the server",
        Peer::Either => "the peer",
    };
    match error {
        rustls::Error::InvalidCertificate(bad) => explain_certificate(peer, they, bad, f),
        rustls::Error::AlertReceived(alert) => explain_alert(peer, they, *alert, f),
        rustls::Error::NoCertificatesPresented => {
            write!(f, "{they} sent no certificate, and one is required; it has to be given one that we trust")
        }
        rustls::Error::InvalidMessage(_) => {
            let scheme = if peer == Peer::Server { "; does the URL need ws:// instead of wss://?" } else { "" };
            write!(f, "{they} does not speak TLS at this port{scheme} ({error})")
        }
        rustls::Error::PeerIncompatible(reason) => {
            write!(f, "{they} and we share no version or algorithm of TLS ({reason:?}); TLS 1.2 or 1.3 is needed")
        }
        rustls::Error::NoApplicationProtocol => {
            write!(f, "{they} does not offer http/1.1 (ALPN), which WebSockets begin with")
        }
        rustls::Error::FailedToGetCurrentTime => {
            f.write_str("this system's clock cannot be read, so no certificate can be checked")
        }
        error => write!(f, "the TLS handshake with {they} failed: {error}"),
    }
}

fn explain_certificate(peer: Peer, they: &str, bad: &Bad, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{they}'s certificate is refused: ")?;
    match bad {
        Bad::ExpiredContext { time, not_after } => {
            let since = Age(time.as_secs().saturating_sub(not_after.as_secs()));
            write!(f, "it expired {since} ago; {they} has to renew it, or this system's clock is wrong")
        }
        Bad::Expired => write!(f, "it has expired; {they} has to renew it, or this system's clock is wrong"),
        Bad::NotValidYetContext { time, not_before } => {
            let until = Age(not_before.as_secs().saturating_sub(time.as_secs()));
            write!(f, "it will only be valid in {until}; is this system's clock right?")
        }
        Bad::NotValidYet => f.write_str("it is not valid yet; is this system's clock right?"),
        Bad::UnknownIssuer if peer == Peer::Client => {
            f.write_str("its issuer is not among the roots of ServerTls::client_roots_pem")
        }
        Bad::UnknownIssuer => f.write_str(
            "its issuer is unknown; if it is your own, add the root by ClientTls::root_pem, otherwise the server may \
             have left out an intermediate certificate",
        ),
        Bad::NotValidForNameContext { expected, presented } if presented.is_empty() => write!(
            f,
            "it is not for {expected} but for no name at all; it has to be made with one, such as by openssl's -addext \
             subjectAltName=DNS:{expected} (a common name alone counts for nothing)",
            expected = expected.to_str(),
        ),
        Bad::NotValidForNameContext { expected, presented } => write!(
            f,
            "it is not for {} but for {}; connect by that name, or say by ClientTls::server_name which one to expect",
            expected.to_str(),
            presented.join(", ")
        ),
        Bad::NotValidForName => f.write_str("it is for another name; connect by the name that it is for"),
        Bad::BadSignature => f.write_str(
            "the trusted root of its issuer's name has not signed it; the issuer may have a new root, which has to be \
             trusted as well",
        ),
        Bad::Revoked => f.write_str("its issuer has revoked it"),
        Bad::BadEncoding => f.write_str("it is malformed"),
        Bad::UnhandledCriticalExtension => f.write_str("it has a critical extension that is not known here"),
        Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. } if peer == Peer::Client => {
            f.write_str("it is not for clients; its extended key usage has to name clientAuth, or be left out")
        }
        Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. } => {
            f.write_str("it is not for servers; its extended key usage has to name serverAuth, or be left out")
        }
        bad if is_authority(bad) && peer == Peer::Client => f.write_str(
            "it is an authority's own (CA:TRUE), which a client must not show; it has to show one that the authority \
             has issued",
        ),
        bad if is_authority(bad) => f.write_str(
            "it is an authority's own (CA:TRUE), as openssl req -x509 makes it; if you trust it, give this very \
             certificate by ClientTls::root_pem or only_pem, or have the server show one that the authority has issued",
        ),
        Bad::Other(other) => fmt::Display::fmt(&other.0, f),
        // The kinds of signature that rustls knows are told as it tells them.
        bad => fmt::Display::fmt(bad, f),
    }
}

/// Whether a certificate is refused because it is an authority's and not a server's or client's.
pub(crate) fn is_authority(bad: &Bad) -> bool {
    let Bad::Other(other) = bad else { return false };
    matches!(other.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

fn explain_alert(peer: Peer, they: &str, alert: Alert, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match alert {
        Alert::CertificateRequired => f.write_str(
            "the server requires a certificate of the client's; give one by ClientTls::client_certificate_pem",
        ),
        Alert::UnknownCA
        | Alert::BadCertificate
        | Alert::CertificateUnknown
        | Alert::CertificateExpired
        | Alert::CertificateRevoked
        | Alert::UnsupportedCertificate => {
            let advice = match peer {
                Peer::Client => "it has to trust the issuer of the certificate that ServerTls was given",
                Peer::Server | Peer::Either => "is it the right one, still valid, and of an issuer that it knows?",
            };
            write!(f, "{they} refused our certificate ({alert:?}): {advice}")
        }
        Alert::ProtocolVersion | Alert::HandshakeFailure | Alert::InsufficientSecurity => {
            write!(f, "{they} shares no version or algorithm of TLS with us ({alert:?}); TLS 1.2 or 1.3 is needed")
        }
        Alert::UnrecognisedName => write!(f, "{they} serves no site of this name (UnrecognisedName)"),
        Alert::NoApplicationProtocol => {
            write!(f, "{they} does not speak http/1.1 (ALPN), which WebSockets begin with")
        }
        alert => write!(f, "{they} broke off the TLS handshake with the alert {alert:?}"),
    }
}

/// Seconds as people say them.
struct Age(u64);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds @ ..120 => write!(f, "{seconds} seconds"),
            seconds @ ..7_200 => write!(f, "{} minutes", seconds / 60),
            seconds @ ..172_800 => write!(f, "{} hours", seconds / 3_600),
            seconds => write!(f, "{} days", seconds / 86_400),
        }
    }
}
