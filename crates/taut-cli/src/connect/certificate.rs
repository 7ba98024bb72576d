//! What a TLS handshake has led to, and what the server's certificate says.

use taut::tls::{TlsInfo, TlsVersion};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::output::printable;

/// Version, cipher, ALPN and the server's certificate, a line each.
pub(super) fn describe(tls: &TlsInfo) -> Vec<String> {
    let version = match tls.version() {
        Some(TlsVersion::Tls12) => "TLS 1.2",
        Some(TlsVersion::Tls13) => "TLS 1.3",
        _ => "TLS of an unknown version",
    };
    let alpn =
        tls.alpn().map_or_else(|| "no ALPN".to_owned(), |name| format!("ALPN {}", String::from_utf8_lossy(name)));
    let mut lines = vec![format!("{version}, {}, {alpn}", tls.cipher_suite().unwrap_or("unknown cipher"))];
    if let Some(certificate) = tls.peer_certificates().first() {
        lines.extend(certificate_lines(certificate));
    }
    lines.iter().map(|line| printable(line)).collect()
}

fn certificate_lines(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return vec!["certificate: it cannot be read".to_owned()];
    };
    let names = names(&certificate);
    let mut lines = vec![format!("certificate: {}", certificate.subject())];
    if !names.is_empty() {
        lines.push(format!("  for {}", names.join(", ")));
    }
    lines.push(format!("  issued by {}", certificate.issuer()));
    let validity = certificate.validity();
    lines.push(format!("  valid from {} to {}", validity.not_before, validity.not_after));
    lines
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(alternative)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = alternative.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress([a, b, c, d]) => Some(format!("{a}.{b}.{c}.{d}")),
        GeneralName::IPAddress(bytes) => {
            <[u8; 16]>::try_from(*bytes).ok().map(|octets| std::net::Ipv6Addr::from(octets).to_string())
        }
        _ => None,
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_told_in_lines() {
        let names = ["a.example".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(names).unwrap();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "A test");
        parameters.not_after = rcgen::date_time_ymd(2030, 1, 2);
        let certificate = parameters.self_signed(&key).unwrap();
        let lines = certificate_lines(certificate.der());
        assert!(lines[0].contains("CN=A test"), "{lines:?}");
        assert_eq!(lines[1], "  for a.example, 127.0.0.1, ::1");
        assert!(lines[2].starts_with("  issued by CN=") && lines[3].contains("2030"), "{lines:?}");
        assert_eq!(certificate_lines(b"no"), ["certificate: it cannot be read"]);
    }
}
