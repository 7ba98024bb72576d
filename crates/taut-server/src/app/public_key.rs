//! Public keys that tokens are checked with: a key says by which algorithm it verifies, and nothing else decides that.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;

/// A key that verifies signatures, and the one algorithm that it does so by. `Debug` shows the algorithm alone.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    pub(crate) algorithm: Algorithm,
    material: Material,
}

#[derive(Clone, PartialEq, Eq)]
enum Material {
    /// As the algorithm writes its keys: RSA in the form of PKCS #1, a point of P-256 uncompressed, Ed25519 as it is.
    Whole(Box<[u8]>),
    /// RSA, as a set of keys writes it.
    Rsa { modulus: Box<[u8]>, exponent: Box<[u8]> },
}

/// How a token may be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Hs256,
    Rs256,
    Es256,
    EdDsa,
}

impl Algorithm {
    /// The name in a token's header (RFC 7518 §3.1, RFC 8037 §3.1).
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

impl PublicKey {
    /// Reads `-----BEGIN PUBLIC KEY-----`, as `openssl pkey -pubout` writes it: RSA of 2048 bits or more for RS256, P-256 for ES256, Ed25519 for
    /// `EdDSA`.
    pub fn from_pem(pem: &str) -> Result<Self, InvalidKey> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).map_err(|_| InvalidKey::Pem)?;
        let (algorithm, key) = subject_public_key(&der).ok_or(InvalidKey::Form)?;
        let algorithm = match algorithm {
            RSA_ENCRYPTION => Algorithm::Rs256,
            P_256 => Algorithm::Es256,
            ED25519 => Algorithm::EdDsa,
            _ => return Err(InvalidKey::Kind),
        };
        if algorithm == Algorithm::Rs256 && key.len() < SMALLEST_RSA {
            return Err(InvalidKey::Small);
        }
        Ok(Self { algorithm, material: Material::Whole(key.into()) })
    }

    /// A key of a set, of RSA.
    pub(crate) fn rsa(modulus: &str, exponent: &str) -> Option<Self> {
        let (modulus, exponent) = (decode_base64url(modulus)?, decode_base64url(exponent)?);
        let is_usable = (SMALLEST_MODULUS..=LARGEST_MODULUS).contains(&modulus.len()) && exponent.len() <= 8;
        let material = Material::Rsa { modulus: modulus.into(), exponent: exponent.into() };
        is_usable.then_some(Self { algorithm: Algorithm::Rs256, material })
    }

    /// A key of a set, a point of P-256.
    pub(crate) fn p256(x: &str, y: &str) -> Option<Self> {
        let (x, y) = (decode_base64url(x)?, decode_base64url(y)?);
        let is_usable = x.len() == 32 && y.len() == 32;
        let material = Material::Whole([&[UNCOMPRESSED], x.as_slice(), y.as_slice()].concat().into());
        is_usable.then_some(Self { algorithm: Algorithm::Es256, material })
    }

    /// A key of a set, of Ed25519.
    pub(crate) fn ed25519(x: &str) -> Option<Self> {
        let x = decode_base64url(x)?;
        (x.len() == 32).then(|| Self { algorithm: Algorithm::EdDsa, material: Material::Whole(x.into()) })
    }

    /// The key itself, where it is one piece.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        match &self.material {
            Material::Whole(bytes) => Some(bytes),
            Material::Rsa { .. } => None,
        }
    }

    /// The name of the algorithm, as tokens write it.
    pub fn algorithm(&self) -> &'static str {
        self.algorithm.name()
    }

    /// Whether this key has signed the message.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let parameters: &dyn signature::VerificationAlgorithm = match (self.algorithm, &self.material) {
            (_, Material::Rsa { modulus, exponent }) => {
                let key = signature::RsaPublicKeyComponents { n: modulus, e: exponent };
                return key.verify(&signature::RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok();
            }
            (Algorithm::Rs256, _) => &signature::RSA_PKCS1_2048_8192_SHA256,
            // RFC 7518 §3.4: both numbers, 32 bytes each, and no ASN.1.
            (Algorithm::Es256, _) => &signature::ECDSA_P256_SHA256_FIXED,
            (Algorithm::EdDsa, _) => &signature::ED25519,
            (Algorithm::Hs256, _) => return false,
        };
        let Material::Whole(key) = &self.material else { return false };
        signature::UnparsedPublicKey::new(parameters, key).verify(message, signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey({})", self.algorithm())
    }
}

/// Why a text is no public key that tokens can be checked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidKey {
    /// There is no `-----BEGIN PUBLIC KEY-----` with base64 below it.
    Pem,
    /// What is there is no public key.
    Form,
    /// It is of a kind for which there is no algorithm here.
    Kind,
    /// It is of RSA, and shorter than 2048 bits.
    Small,
}

impl fmt::Display for InvalidKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Pem => {
                "there is no -----BEGIN PUBLIC KEY----- in it; `openssl pkey -in private.pem -pubout` makes one of a private key"
            }
            Self::Form => "it is damaged: what is below -----BEGIN PUBLIC KEY----- is no public key",
            Self::Kind => "it is of a kind that tokens cannot be checked with here: use RSA, P-256 or Ed25519",
            Self::Small => "it is too short: RS256 needs an RSA key of 2048 bits or more",
        })
    }
}

impl std::error::Error for InvalidKey {}

/// The algorithm and the key of a `SubjectPublicKeyInfo` (RFC 5280 §4.1).
fn subject_public_key(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (info, b"") = element(SEQUENCE, der)? else { return None };
    let (algorithm, rest) = element(SEQUENCE, info)?;
    let (bits, b"") = element(BIT_STRING, rest)? else { return None };
    // How many bits of the last byte do not count: none.
    let key = bits.strip_prefix(&[0])?;
    Some((algorithm, key))
}

/// The content of a DER element with this tag, and what follows it.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[found, length], rest) = der.split_first_chunk()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81 => rest.split_first().map(|(&length, rest)| (usize::from(length), rest))?,
        0x82 => rest.split_first_chunk().map(|(&length, rest)| (usize::from(u16::from_be_bytes(length)), rest))?,
        _ => return None,
    };
    (found == tag).then(|| rest.split_at_checked(length)).flatten()
}

/// The bytes in one part of a token or of a key (RFC 7515 §2): base64url without padding.
pub(crate) fn decode_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
const UNCOMPRESSED: u8 = 0x04;

/// `rsaEncryption` and NULL (RFC 3279 §2.3.1).
const RSA_ENCRYPTION: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";

/// `id-ecPublicKey` and `secp256r1` (RFC 5480 §2.1.1).
const P_256: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";

/// `id-Ed25519` (RFC 8410 §3).
const ED25519: &[u8] = b"\x06\x03\x2b\x65\x70";

/// Bytes of a modulus of 2048 bits, which RFC 7518 §3.3 asks for, and of what is still checked in no time.
const SMALLEST_MODULUS: usize = 256;
const LARGEST_MODULUS: usize = 1024;

/// Bytes of an `RSAPublicKey` with a modulus of 2048 bits.
const SMALLEST_RSA: usize = 256 + 4 + 4 + 3;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::connect_auth::testing::openssl;

    #[test]
    fn keys_that_cannot_be_used_are_refused() {
        let public = |arguments: &[&str]| {
            let key = openssl(&[&["genpkey", "-quiet"], arguments].concat(), b"");
            let pem = openssl(&["pkey", "-pubout"], &key);
            PublicKey::from_pem(&String::from_utf8(pem).expect("text"))
        };
        assert_eq!(public(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"]), Err(InvalidKey::Small));
        assert_eq!(public(&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]), Err(InvalidKey::Kind));
        assert_eq!(public(&["-algorithm", "X25519"]), Err(InvalidKey::Kind));
        assert_eq!(PublicKey::from_pem("hunter2"), Err(InvalidKey::Pem));
        let damaged = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
        assert_eq!(PublicKey::from_pem(damaged), Err(InvalidKey::Form));
    }

    proptest! {
        #[test]
        fn any_der_is_read_without_a_panic(der: Vec<u8>, cut in 0usize..100) {
            let _ = subject_public_key(&der);
            let nested = [&[SEQUENCE, 20, SEQUENCE, 5][..], ED25519, &[BIT_STRING, 11, 0], &[1; 10]].concat();
            let _ = subject_public_key(&nested[..nested.len().min(cut)]);
        }
    }
}
