//! What the requests of apps' backends go through, wherever they are answered.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::StatusCode;

use super::labels;
use super::traffic::Traffic;
use crate::apps::{App, AppSnapshot};
use crate::gateway::grip::{PublisherAuth, SharedKey};
use crate::http::answer::ApiError;
use crate::limit::TokenBucket;
use crate::node::Node;
use crate::place::AppIndex;
use crate::pusher::auth;
use crate::refusals::RefusalReason;
use crate::trace::Span;

/// Who may do what, and how often. The shards and the HTTP side have one in common.
pub(crate) struct ApiAuth {
    node: Arc<Node>,
    path_prefix: String,
    is_secure: bool,
    /// What the backends of those apps that are limited have left, by the index of the app, with the limit that it was made for.
    rates: Mutex<HashMap<AppIndex, (u32, TokenBucket)>>,
    traffic: Traffic,
}

impl ApiAuth {
    /// `is_secure` where TLS is spoken.
    pub(crate) fn new(node: Arc<Node>, path_prefix: &str, is_secure: bool) -> Self {
        let path_prefix = path_prefix.to_owned();
        Self { node, path_prefix, is_secure, rates: Mutex::default(), traffic: Traffic::new(labels()) }
    }

    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    /// What stands before `/apps` in the paths of requests.
    pub(super) fn path_prefix(&self) -> &str {
        &self.path_prefix
    }

    pub(super) fn is_secure(&self) -> bool {
        self.is_secure
    }

    pub(super) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Lets a request in that the app's backend has signed, if the app is served and this is not one request too many.
    pub(super) fn admit(
        &self,
        app: &App,
        snapshot: &AppSnapshot,
        request: &auth::Request<'_>,
        now: SystemTime,
    ) -> Result<(), Rejected> {
        let key_of = |key: &str| snapshot.signing_key(key);
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let verifying = Span::within("verify");
        request.verify(key_of, &self.path_prefix, seconds).map_err(|refused| {
            verifying.failed("refused");
            Rejected::from(refused)
        })?;
        verifying.end();
        self.admit_known(app, snapshot)
    }

    /// Lets a request in that shows a key: one of the app's secrets, or one of `more`.
    pub(super) fn admit_key(
        &self,
        app: &App,
        snapshot: &AppSnapshot,
        authorization: &str,
        more: &[String],
        now: SystemTime,
    ) -> Result<(), Rejected> {
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let own = snapshot.config.keys.iter().map(|key| key.secret.reveal());
        let keys = own.chain(more.iter().map(String::as_str)).filter_map(SharedKey::parse);
        // Which of the keys is closest to being right is nobody's business.
        let checked = keys.map(|key| PublisherAuth::new(None, key).check(Some(authorization), seconds));
        if !checked.collect::<Vec<_>>().contains(&Ok(())) {
            let why =
                "The Authorization has no key of this app, and no token that is signed with one and is valid now.";
            let error = ApiError::new(StatusCode::UNAUTHORIZED, why).challenge("Bearer");
            return Err(Rejected { error, reason: RefusalReason::RequestKey, why: why.into() });
        }
        self.admit_known(app, snapshot)
    }

    /// Lets a request of the app's backend in, if the app is served and this is not one request too many.
    fn admit_known(&self, app: &App, snapshot: &AppSnapshot) -> Result<(), Rejected> {
        if !snapshot.config.enabled {
            let error = ApiError::new(StatusCode::FORBIDDEN, format!("The app {} is disabled.", app.id()));
            return Err(Rejected { error, reason: RefusalReason::RequestDisabled, why: "the app is disabled".into() });
        }
        self.take_request(app, snapshot).map_err(|delay| {
            let why = format!("Too many requests: at most {} per second.", snapshot.limits.requests);
            let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, why.clone()).retry_after(delay);
            Rejected { error, reason: RefusalReason::RequestRate, why: why.into() }
        })
    }

    /// Counts a request; says how long to wait when it is one too many.
    fn take_request(&self, app: &App, snapshot: &AppSnapshot) -> Result<(), Duration> {
        let limit = snapshot.limits.requests;
        if limit == 0 {
            return Ok(());
        }
        let now = Instant::now();
        let full = || (limit, TokenBucket::new(limit, Duration::from_secs(1) / limit, now));
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let (made_for, bucket) = rates.entry(app.index()).or_insert_with(full);
        if *made_for != limit {
            (*made_for, *bucket) = full();
        }
        bucket.take(now)
    }
}

impl fmt::Debug for ApiAuth {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Backends").field("node", &self.node).finish_non_exhaustive()
    }
}

/// A request that is not answered.
#[derive(Debug)]
pub(super) struct Rejected {
    /// What the backend is told.
    pub(super) error: ApiError,
    pub(super) reason: RefusalReason,
    /// What the log is told: nothing of the path and of the query, which hold users' ids and signatures.
    pub(super) why: Cow<'static, str>,
}

impl From<auth::SignatureError> for Rejected {
    /// A request is not known to come from an app's backend.
    fn from(refused: auth::SignatureError) -> Self {
        // The text to sign repeats the query, which a stranger may have made long.
        let error: String = refused.to_string().chars().take(LONGEST_REFUSAL).collect();
        let (reason, why) = match refused {
            auth::SignatureError::Missing(_)
            | auth::SignatureError::Repeated(_)
            | auth::SignatureError::Version
            | auth::SignatureError::TimestampForm => (RefusalReason::RequestParameter, error.clone().into()),
            auth::SignatureError::UnknownKey => (RefusalReason::RequestKey, error.clone().into()),
            auth::SignatureError::Expired { .. } => (RefusalReason::RequestTimestamp, error.clone().into()),
            auth::SignatureError::BodyDigest => (RefusalReason::RequestBody, error.clone().into()),
            auth::SignatureError::Signature { .. } => (RefusalReason::RequestSignature, WRONG_SIGNATURE.into()),
        };
        Self { error: ApiError::new(StatusCode::UNAUTHORIZED, error), reason, why }
    }
}

const WRONG_SIGNATURE: &str =
    "Invalid signature: it was made for another request or with another secret; the response says what to sign";

/// Characters.
const LONGEST_REFUSAL: usize = 4096;
