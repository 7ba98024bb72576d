//! An authority of the tests' own, and certificates by it. The socket tests use this file too.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// Somebody who issues certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// Certificate and key, both PEM.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Identity {
    /// One that has issued itself and says that it is an authority's, as `openssl req -x509` makes it.
    pub(crate) fn self_signed(name: &str) -> Self {
        Self::self_signed_with(name, |_| {})
    }

    /// The same, but it expired three days ago.
    pub(crate) fn self_signed_and_expired(name: &str) -> Self {
        Self::self_signed_with(name, expire)
    }

    fn self_signed_with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Self { certificate: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
    }
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        // Each has a name of its own, by which issuers are told apart.
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("authority {}", COUNT.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its root, PEM.
    pub(crate) fn root(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a name or address.
    pub(crate) fn issue(&self, name: &str) -> Identity {
        self.issue_with(name, |_| {})
    }

    /// One that expired three days ago.
    pub(crate) fn issue_expired(&self, name: &str) -> Identity {
        self.issue_with(name, expire)
    }

    /// One that is for nobody's name.
    pub(crate) fn issue_without_a_name(&self) -> Identity {
        self.issue_with("a.example", |params| params.subject_alt_names.clear())
    }

    /// One that is for clients, not for servers.
    pub(crate) fn issue_for_clients(&self, name: &str) -> Identity {
        self.issue_with(name, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth])
    }

    fn issue_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap().pem();
        Identity { certificate, key: key.serialize_pem() }
    }
}

fn expire(params: &mut CertificateParams) {
    let day = Duration::from_secs(86_400);
    params.not_before = (SystemTime::now() - 10 * day).into();
    params.not_after = (SystemTime::now() - 3 * day).into();
}
