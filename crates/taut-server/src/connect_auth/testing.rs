//! Issuers of tokens, for the tests.

use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use ring::{hmac, rsa, signature::KeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::app::PublicKey;

/// One that signs with a key of its own, made for the test by OpenSSL.
pub(crate) struct Issuer {
    pub(crate) algorithm: &'static str,
    pub(crate) pem: String,
    signer: Signer,
}

enum Signer {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Issuer {
    pub(crate) fn all() -> [Self; 3] {
        ["RS256", "ES256", "EdDSA"].map(Self::new)
    }

    pub(crate) fn new(algorithm: &'static str) -> Self {
        let (kind, option) = match algorithm {
            "RS256" => ("RSA", "rsa_keygen_bits:2048"),
            "ES256" => ("EC", "ec_paramgen_curve:P-256"),
            _ => ("ED25519", ""),
        };
        let mut arguments = vec!["genpkey", "-quiet", "-algorithm", kind];
        if !option.is_empty() {
            arguments.extend(["-pkeyopt", option]);
        }
        let key = openssl(&arguments, b"");
        let pem = openssl(&["pkey", "-pubout"], &key);
        let key = PrivatePkcs8KeyDer::from_pem_slice(&key).expect("a key in PEM");
        let key = key.secret_pkcs8_der();
        let signer = match algorithm {
            "RS256" => Signer::Rsa(RsaKeyPair::from_pkcs8(key).expect("a key")),
            "ES256" => Signer::P256(
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key, &SystemRandom::new()).expect("a key"),
            ),
            _ => Signer::Ed25519(Ed25519KeyPair::from_pkcs8_maybe_unchecked(key).expect("a key")),
        };
        Self { algorithm, pem: String::from_utf8(pem).expect("text"), signer }
    }

    pub(crate) fn key(&self) -> PublicKey {
        PublicKey::from_pem(&self.pem).expect("a key")
    }

    /// Its key as a member of a set.
    pub(crate) fn published(&self, id: &str) -> Value {
        match &self.signer {
            Signer::Rsa(pair) => {
                let parts = rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({ "kty": "RSA", "kid": id, "n": encode(&parts.n), "e": encode(&parts.e) })
            }
            Signer::P256(pair) => {
                let point = pair.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "kid": id, "x": encode(&point[1..33]), "y": encode(&point[33..]) })
            }
            Signer::Ed25519(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": encode(pair.public_key().as_ref()) })
            }
        }
    }

    pub(crate) fn token(&self, claims: &Value) -> String {
        self.sign(&json!({ "alg": self.algorithm, "typ": "JWT" }), claims)
    }

    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let text = unsigned(header, claims);
        let random = SystemRandom::new();
        let signature = match &self.signer {
            Signer::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature).expect("signed");
                signature
            }
            Signer::P256(pair) => pair.sign(&random, text.as_bytes()).expect("signed").as_ref().to_vec(),
            Signer::Ed25519(pair) => pair.sign(text.as_bytes()).as_ref().to_vec(),
        };
        format!("{text}.{}", encode(&signature))
    }
}

pub(crate) fn with_secret(secret: &[u8], header: &Value, claims: &Value) -> String {
    let text = unsigned(header, claims);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes());
    format!("{text}.{}", encode(tag.as_ref()))
}

pub(crate) fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()))
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    let mut child = command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("these tests need `openssl`");
    child.stdin.take().expect("a pipe").write_all(input).expect("written");
    let output = child.wait_with_output().expect("an end");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
