//! The one door for backends: which app it is, and whether the request is really from there.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{FromRequestParts, RawPathParams, Request};
use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderName};
use http::request::Parts;

use super::auth::Rejected;
use super::{Context, echo};
use crate::app::Limits;
use crate::apps::{App, AppSnapshot};
use crate::http::answer::ApiError;
use crate::http::body;
use crate::pusher::auth;
use crate::refusals::RefusalReason;
use crate::trace;

/// A request that an app's backend has signed.
pub(crate) struct SignedRequest {
    pub(crate) app: Arc<App>,
    /// On what terms the app was served when the request came.
    pub(crate) snapshot: Arc<AppSnapshot>,
    pub(crate) body: Vec<u8>,
    head: Parts,
    path: RawPathParams,
}

impl SignedRequest {
    /// A part of the path, decoded, by its name in the route.
    pub(crate) fn path(&self, name: &str) -> &str {
        in_path(&self.path, name).unwrap_or_default()
    }

    /// The first header of this name.
    pub(crate) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// The parameters of the query.
    pub(crate) fn query(&self) -> auth::Request<'_> {
        auth::Request::new(self.head.method.as_str(), self.head.uri.path(), query_of(&self.head), &self.body)
    }
}

/// Lets in what an app's backend has signed, with a body of at most as many bytes as `most` says, and nothing else.
///
/// # Cancel safety
/// A request that is dropped midway has changed nothing.
pub(crate) async fn authenticated(
    context: &Context,
    request: Request,
    most: fn(&Limits) -> usize,
) -> Result<SignedRequest, ApiError> {
    let signed = read(context, request, most, find).await?;
    let admitted = context.auth.admit(&signed.app, &signed.snapshot, &signed.query(), SystemTime::now());
    finish(context, signed, admitted)
}

/// The same, and what shows a key of the app or of its routes in `Authorization`, as libraries of GRIP do. Where the path
/// names no app, it is the only one there is.
///
/// # Cancel safety
/// As with [`authenticated`].
pub(crate) async fn authenticated_or_keyed(
    context: &Context,
    request: Request,
    most: fn(&Limits) -> usize,
) -> Result<SignedRequest, ApiError> {
    let signed = read(context, request, most, find_or_only).await?;
    let (now, authorization) = (SystemTime::now(), signed.header(&AUTHORIZATION));
    let admitted = match authorization {
        Some(authorization) => {
            let keys = context.gateway.publisher_keys(context.node().apps(), &signed.app);
            context.auth.admit_key(&signed.app, &signed.snapshot, authorization, &keys, now)
        }
        None => context.auth.admit(&signed.app, &signed.snapshot, &signed.query(), now),
    };
    finish(context, signed, admitted)
}

async fn read(
    context: &Context,
    request: Request,
    most: fn(&Limits) -> usize,
    find: fn(&Context, &Parts, &RawPathParams) -> Result<Arc<App>, Rejected>,
) -> Result<SignedRequest, ApiError> {
    let (mut head, body) = request.into_parts();
    let Ok(path) = RawPathParams::from_request_parts(&mut head, &()).await else {
        body::discard(body).await;
        return Err(ApiError::bad_request("The path of the request holds percent-encoded bytes that are not UTF-8."));
    };
    let app = match find(context, &head, &path) {
        Ok(app) => app,
        Err(rejected) => {
            body::discard(body).await;
            context.tell_rejected(&head, None, &rejected);
            return Err(rejected.error);
        }
    };
    let snapshot = Arc::clone(&app.snapshot());
    let body = body::read(body, most(&snapshot.limits)).await?;
    Ok(SignedRequest { app, snapshot, body, head, path })
}

fn finish(context: &Context, signed: SignedRequest, admitted: Result<(), Rejected>) -> Result<SignedRequest, ApiError> {
    if let Err(rejected) = admitted {
        context.tell_rejected(&signed.head, Some(&signed.app), &rejected);
        return Err(rejected.error);
    }
    // From here on it is the app itself that asks.
    tracing::Span::current().record("app", signed.app.id());
    trace::name_app(signed.app.id());
    Ok(signed)
}

/// For requests that say all in their path and query; some SDKs send an empty object along.
pub(crate) fn no_body(_limits: &Limits) -> usize {
    1024
}

/// The app that the path names; where it names none, the app that the key belongs to.
fn find(context: &Context, head: &Parts, path: &RawPathParams) -> Result<Arc<App>, Rejected> {
    if let Some(id) = in_path(path, "app") {
        return context.node().apps().by_id(id).ok_or_else(|| {
            let why = format!("The app {} could not be found.", echo(id));
            let error = ApiError::new(StatusCode::NOT_FOUND, why.clone());
            Rejected { error, reason: RefusalReason::UnknownApp, why: why.into() }
        });
    }
    let request = auth::Request::new("", "", query_of(head), b"");
    let key = request.auth_key().ok_or(auth::SignatureError::Missing("auth_key"))?;
    context.node().apps().by_key(key).ok_or_else(|| auth::SignatureError::UnknownKey.into())
}

/// The app that the path or the key names, or the only one.
fn find_or_only(context: &Context, head: &Parts, path: &RawPathParams) -> Result<Arc<App>, Rejected> {
    let names_app =
        in_path(path, "app").is_some() || auth::Request::new("", "", query_of(head), b"").auth_key().is_some();
    if names_app {
        return find(context, head, path);
    }
    context.node().apps().only().ok_or_else(|| {
        let why = "There is not exactly one app: ask below /apps/ID.";
        let error = ApiError::new(StatusCode::NOT_FOUND, why);
        Rejected { error, reason: RefusalReason::UnknownApp, why: why.into() }
    })
}

fn in_path<'p>(path: &'p RawPathParams, name: &str) -> Option<&'p str> {
    path.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn query_of(head: &Parts) -> &str {
    head.uri.query().unwrap_or_default()
}
