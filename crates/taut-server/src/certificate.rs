//! Reads the names and lifetime from a certificate.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

/// What a server's own certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    pub(crate) lifetime: Lifetime,
    /// The DNS names that it is for, in lower case.
    pub(crate) names: Vec<String>,
}

impl Certificate {
    /// Reads a certificate; `None` if it is not one of X.509.
    pub(crate) fn read(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let validity = parsed.validity();
        let lifetime = Lifetime { start: time(validity.not_before), end: time(validity.not_after) };
        let alternatives = parsed.subject_alternative_name().ok().flatten();
        let names = alternatives.iter().flat_map(|extension| &extension.value.general_names);
        let names = names.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        });
        Some(Self { lifetime, names: names.collect() })
    }

    /// Whether it is for each of these names.
    pub(crate) fn covers(&self, names: &[String]) -> bool {
        names.iter().all(|name| self.names.contains(name))
    }
}

/// From when until when a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetime {
    pub(crate) start: SystemTime,
    pub(crate) end: SystemTime,
}

impl Lifetime {
    /// How long that is.
    pub(crate) fn duration(&self) -> Duration {
        self.end.duration_since(self.start).unwrap_or_default()
    }
}

/// RFC 5280 §4.1.2.5 begins in 1950; what ends before 1970 has ended.
fn time(time: ASN1Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn the_names_and_the_time_are_read() {
        let mut params = CertificateParams::new(["A.example".to_owned(), "b.example".to_owned()]).expect("names");
        params.subject_alt_names.push(rcgen::SanType::IpAddress([127, 0, 0, 1].into()));
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2026, 4, 1));
        let certificate = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
        let read = Certificate::read(certificate.der()).expect("a certificate");
        assert_eq!(read.names, ["a.example", "b.example"]);
        assert_eq!(read.lifetime.start, UNIX_EPOCH + Duration::from_secs(1_767_225_600));
        assert_eq!(read.lifetime.duration(), Duration::from_secs(90 * 86_400));
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(read.covers(&names(&["b.example"])) && read.covers(&names(&["b.example", "a.example"])));
        assert!(!read.covers(&names(&["b.example", "c.example"])));
        assert_eq!(Certificate::read(&CertificateDer::from(b"none".as_slice())), None);
    }
}
