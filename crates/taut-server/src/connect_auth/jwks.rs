//! The public keys that an issuer publishes (RFC 7517): fetched, kept, and fetched again when they are old or when a token names one that is not
//! among them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::StatusCode;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::token::{Key, Token, TokenError};
use crate::address;
use crate::app::{PublicKey, Published};
use crate::http::client::{self, Client};

/// All sets, by their addresses. Shards look without waiting; only tasks fetch.
#[derive(Debug, Default)]
pub(super) struct Sets(ArcSwap<HashMap<Box<str>, Arc<Set>>>);

impl Sets {
    /// The set at an address. There are as many as were ever configured.
    pub(super) fn at(&self, url: &str) -> Arc<Set> {
        if let Some(set) = self.0.load().get(url) {
            return Arc::clone(set);
        }
        let set = Arc::new(Set::default());
        self.0.rcu(|sets| {
            let mut sets = HashMap::clone(sets);
            sets.entry(url.into()).or_insert_with(|| Arc::clone(&set));
            sets
        });
        self.0.load().get(url).map_or(set, Arc::clone)
    }
}

/// A set of keys at one address.
#[derive(Debug, Default)]
pub(super) struct Set {
    keys: ArcSwap<Keys>,
    /// Held by the task that fetches.
    fetching: Mutex<()>,
    /// A task has been asked to see whether the keys have to be fetched again.
    renewing: AtomicBool,
}

#[derive(Clone, Debug, Default)]
struct Keys {
    members: Arc<[Named]>,
    fetched: Option<Instant>,
    /// When the last attempt was over, successful or not.
    tried: Option<Instant>,
}

#[derive(Debug)]
struct Named {
    id: Option<Box<str>>,
    key: PublicKey,
}

/// What is known of a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    Good,
    Bad(TokenError),
    /// Its key is none of these, but may be among those that are published by now.
    Perhaps,
    /// There are no keys to check it by.
    Nothing,
}

impl Set {
    /// Checks a token by the keys that are here.
    pub(super) fn check(&self, token: &Token, published: &Published) -> Known {
        let keys = self.keys.load();
        match keys.verify(token) {
            Ok(()) => Known::Good,
            Err(TokenError::Key) if keys.may_fetch(published) => Known::Perhaps,
            Err(TokenError::Key) if keys.fetched.is_none() => Known::Nothing,
            Err(flaw) => Known::Bad(flaw),
        }
    }

    /// Whether a task should [`renew`](Self::renew) the set; says so once.
    pub(super) fn is_due(&self, published: &Published) -> bool {
        self.keys.load().is_due(published) && !self.renewing.swap(true, Ordering::Relaxed)
    }

    /// Nobody could be asked to.
    pub(super) fn put_off(&self) {
        self.renewing.store(false, Ordering::Relaxed);
    }

    /// Fetches the set again if it is old.
    ///
    /// # Cancel safety
    /// Dropped midway, the keys stay as they are.
    pub(super) async fn renew(&self, client: &Client, published: &Published) {
        let _fetching = self.fetching.lock().await;
        if self.keys.load().is_due(published) {
            self.fetch(client, published).await;
        }
        self.put_off();
    }

    /// Checks a token by the keys that are published, fetching them if need be and if it is not too soon.
    ///
    /// # Cancel safety
    /// Dropped midway, the keys stay as they are.
    pub(super) async fn look_up(&self, client: &Client, token: &Token, published: &Published) -> Known {
        let _fetching = self.fetching.lock().await;
        // Another one may have fetched them meanwhile.
        match self.check(token, published) {
            Known::Perhaps => self.fetch(client, published).await,
            known => return known,
        }
        match self.check(token, published) {
            // Just now it was fetched, however short the time until it may be again.
            Known::Perhaps if self.keys.load().fetched.is_none() => Known::Nothing,
            Known::Perhaps => Known::Bad(TokenError::Key),
            known => known,
        }
    }

    async fn fetch(&self, client: &Client, published: &Published) {
        let url = address::shown(&published.url);
        let fetched = fetch(client, &published.url).await;
        let now = Instant::now();
        let keys = match fetched {
            Ok(keys) => {
                tracing::info!(url, keys = keys.len(), "the keys for tokens have been fetched");
                Keys { members: keys.into(), fetched: Some(now), tried: Some(now) }
            }
            Err(reason) => {
                tracing::warn!(url, reason, "cannot fetch the keys for tokens; previously fetched keys stay in use");
                Keys { tried: Some(now), ..Keys::clone(&self.keys.load()) }
            }
        };
        self.keys.store(Arc::new(keys));
    }
}

impl Keys {
    fn verify(&self, token: &Token) -> Result<(), TokenError> {
        let Some(id) = token.key_id() else {
            let mut keys = self.members.iter().filter(|named| token.is_for(&named.key));
            return match (keys.next(), keys.next()) {
                // It may have been replaced, which without a name nobody can tell.
                (Some(named), None) => token.verify(Key::Public(&named.key)).map_err(|_| TokenError::Key),
                (Some(_), Some(_)) => Err(TokenError::NoKeyId),
                (None, _) => Err(TokenError::Key),
            };
        };
        let named = self.members.iter().find(|named| named.id.as_deref() == Some(id)).ok_or(TokenError::Key)?;
        token.verify(Key::Public(&named.key))
    }

    fn may_fetch(&self, published: &Published) -> bool {
        let pause = if self.fetched.is_some() { published.refetch } else { published.refetch.min(EMPTY_HANDED) };
        self.tried.is_none_or(|tried| tried.elapsed() >= pause)
    }

    fn is_due(&self, published: &Published) -> bool {
        self.fetched.is_some_and(|fetched| fetched.elapsed() >= published.refresh) && self.may_fetch(published)
    }
}

async fn fetch(client: &Client, url: &str) -> Result<Vec<Named>, String> {
    let uri = address::parse(url).map_err(|error| error.to_string())?;
    let answer = client.send(client::get(uri), TIMEOUT, LARGEST_SET).await?;
    if answer.status != StatusCode::OK {
        return Err(answer.refused("a set of keys comes with 200"));
    }
    parse(&answer.body?)
}

/// The keys of a set that signatures of tokens can be checked by. Others are passed over, as RFC 7517 §5 says.
fn parse(json: &[u8]) -> Result<Vec<Named>, String> {
    #[derive(Deserialize)]
    struct Document {
        keys: Vec<serde_json::Value>,
    }
    let document: Document = serde_json::from_slice(json).map_err(|error| {
        format!("the answer is not a set of keys (line {}, column {})", error.line(), error.column())
    })?;
    let keys: Vec<Named> = document.keys.iter().filter_map(named).take(MOST_KEYS).collect();
    if keys.is_empty() {
        return Err("the set has no key for RS256, ES256 or EdDSA".to_owned());
    }
    Ok(keys)
}

fn named(key: &serde_json::Value) -> Option<Named> {
    let text = |name: &str| key.get(name).and_then(serde_json::Value::as_str);
    if text("use").is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    // A secret ("oct") has no business in what is published.
    let public = match (text("kty")?, text("crv")) {
        ("RSA", _) => PublicKey::rsa(text("n")?, text("e")?)?,
        ("EC", Some("P-256")) => PublicKey::p256(text("x")?, text("y")?)?,
        ("OKP", Some("Ed25519")) => PublicKey::ed25519(text("x")?)?,
        _ => return None,
    };
    let is_its = text("alg").is_none_or(|algorithm| algorithm == public.algorithm());
    is_its.then(|| Named { id: text("kid").map(Box::from), key: public })
}

/// For all of a request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How soon it is tried again while there is no key at all, and so nobody can come in.
const EMPTY_HANDED: Duration = Duration::from_secs(5);

/// Bytes of a set.
const LARGEST_SET: usize = 256 * 1024;

/// Keys of a set.
const MOST_KEYS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect_auth::testing::Issuer;
    use serde_json::{Value, json};

    fn keys(set: &Value) -> Keys {
        let keys = parse(set.to_string().as_bytes()).expect("keys");
        Keys { members: keys.into(), fetched: Some(Instant::now()), tried: Some(Instant::now()) }
    }

    fn token(issuer: &Issuer, id: Option<&str>) -> Token {
        let header = json!({ "alg": issuer.algorithm, "kid": id });
        Token::parse(&issuer.sign(&header, &json!({}))).expect("a token")
    }

    #[test]
    fn a_token_is_checked_by_the_key_that_it_names() {
        let issuers = Issuer::all();
        let set = issuers.iter().map(|issuer| issuer.published(issuer.algorithm)).collect::<Vec<_>>();
        let keys = keys(&json!({ "keys": set }));
        for issuer in &issuers {
            assert_eq!(keys.verify(&token(issuer, Some(issuer.algorithm))), Ok(()), "{}", issuer.algorithm);
            assert_eq!(keys.verify(&token(issuer, Some("else"))), Err(TokenError::Key));
            assert_eq!(keys.verify(&token(issuer, None)), Ok(()), "the only one for {}", issuer.algorithm);
        }
        let expected = "ES256";
        assert_eq!(keys.verify(&token(&issuers[0], Some("ES256"))), Err(TokenError::Algorithm { expected }));
        let other = Issuer::new("RS256");
        assert_eq!(keys.verify(&token(&other, Some("RS256"))), Err(TokenError::Signature));
        assert_eq!(keys.verify(&token(&other, None)), Err(TokenError::Key), "it may have taken the other one's place");
    }

    #[test]
    fn a_token_names_its_key_where_there_are_several() {
        let [first, second] = [(); 2].map(|()| Issuer::new("ES256"));
        let keys = keys(&json!({ "keys": [first.published("1"), second.published("2")] }));
        assert_eq!(keys.verify(&token(&second, Some("2"))), Ok(()));
        assert_eq!(keys.verify(&token(&second, None)), Err(TokenError::NoKeyId));
    }

    #[test]
    fn keys_for_something_else_are_passed_over() {
        let issuer = Issuer::new("ES256");
        let with = |name: &str, value: &str| {
            let mut key = issuer.published(name);
            key[name] = value.into();
            key
        };
        let found = |keys: &[Value]| parse(json!({ "keys": keys }).to_string().as_bytes()).map(|keys| keys.len());
        assert_eq!(found(&[with("use", "sig"), with("alg", "ES256")]), Ok(2));
        let secret = json!({ "kty": "oct", "kid": "1", "alg": "HS256", "k": "AAAA" });
        for other in [with("use", "enc"), with("alg", "ES384"), with("crv", "P-384"), with("x", "AAAA"), secret] {
            assert!(found(std::slice::from_ref(&other)).is_err(), "{other}");
            assert_eq!(found(&[other, issuer.published("1")]), Ok(1));
        }
        for wrong in ["", "[]", "{}", r#"{"keys":1}"#, r#"{"keys":[1,null,"x"]}"#] {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
