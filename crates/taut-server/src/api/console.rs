//! `/console`: what happens on the server, live, for those who run it.

mod access;
mod attempts;
mod feed;
mod pages;
mod views;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use http::StatusCode;
use tokio::sync::Semaphore;

use super::answer::{self, Problem};
use super::{Context, asked, body, chat, events};
use crate::app::Secret;
use crate::config::Network;
use crate::pusher::json::bytes_without_lone_surrogates;
use crate::tenants::Tenant;
use access::Sessions;
use attempts::Attempts;

/// What the console remembers.
#[derive(Debug)]
pub(super) struct Console {
    password: Option<Secret>,
    sessions: Mutex<Sessions>,
    attempts: Mutex<Attempts>,
    /// From where `X-Forwarded-For` is believed.
    trusted: Box<[Network]>,
    /// Places for those who watch the events.
    viewers: Arc<Semaphore>,
}

impl Console {
    pub(super) fn new(password: Option<Secret>, trusted: &[Network], now: Instant) -> Self {
        Self {
            password,
            sessions: Mutex::default(),
            attempts: Mutex::new(Attempts::new(now)),
            trusted: trusted.into(),
            viewers: Arc::new(Semaphore::new(MOST_VIEWERS)),
        }
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pages, for whoever may know that there is a console, and what they ask for, for whoever has logged in.
pub(super) fn router(context: &Arc<Context>) -> Router<Arc<Context>> {
    let answers = Router::new()
        .route("/console/api/overview", get(overview))
        .route("/console/api/apps/{app}/channels", get(channels))
        .route("/console/api/apps/{app}/channels/{channel}", get(channel))
        .route("/console/api/apps/{app}/connections", get(connections))
        .route("/console/api/apps/{app}/events", post(publish))
        .route("/console/api/events", get(feed::watch))
        .route_layer(from_fn_with_state(Arc::clone(context), access::check_session))
        .route("/console/api/session", get(access::state).post(access::log_in).delete(access::log_out))
        .route_layer(from_fn(access::check_origin));
    let mut router = answers;
    for page in pages::PAGES {
        router = router.route(page.path, get(async move || pages::Shown(page)));
    }
    router.route_layer(from_fn_with_state(Arc::clone(context), access::check_place))
}

/// `GET /console/api/overview`: what has been counted.
///
/// # Cancel safety
/// Nothing is lost: it only asks.
async fn overview(State(context): State<Arc<Context>>) -> Result<Response, Problem> {
    let statistics = asked(context.node().statistics()).await?;
    views::json(&views::Overview::new(&statistics, &context.node().apps().all()))
}

/// `GET /console/api/apps/ID/channels?filter=…`: those whose names contain the filter.
///
/// # Cancel safety
/// Nothing is lost: it only asks.
async fn channels(
    State(context): State<Arc<Context>>,
    Path(app): Path<String>,
    Query(views::Filter { filter }): Query<views::Filter>,
) -> Result<Response, Problem> {
    let tenant = tenant(&context, &app)?;
    views::json(&views::Channels::new(&asked(context.node().channels(&tenant, "")).await?, &filter))
}

/// `GET /console/api/apps/ID/channels/NAME`.
///
/// # Cancel safety
/// Nothing is lost: it only asks.
async fn channel(
    State(context): State<Arc<Context>>,
    Path((app, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let tenant = tenant(&context, &app)?;
    let state = asked(context.node().channel(&tenant, &name)).await?;
    let users = asked(context.node().users(&tenant, &name)).await?;
    views::json(&views::Channel::new(&name, &state, &users))
}

/// `GET /console/api/apps/ID/connections`.
///
/// # Cancel safety
/// Nothing is lost: it only asks.
async fn connections(State(context): State<Arc<Context>>, Path(app): Path<String>) -> Result<Response, Problem> {
    let tenant = tenant(&context, &app)?;
    let connections = asked(context.node().connections(&tenant, views::MOST_ROWS)).await?;
    views::json(&views::Connections::new(tenant.connections(), &connections))
}

/// `POST /console/api/apps/ID/events`: publishes what the form says, as the app's backend could; the fields are those of the HTTP API.
///
/// # Cancel safety
/// Dropped after the event is on its way, only the answer is lost.
async fn publish(
    State(context): State<Arc<Context>>,
    Path(app): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, sent) = request.into_parts();
    let found = tenant(&context, &app).map(|tenant| {
        let terms = Arc::clone(&tenant.terms());
        (terms, tenant)
    });
    let most = found.as_ref().map_or(0, |(terms, _)| events::largest_body(&terms.limits));
    let sent = body::read(sent, most).await;
    let ((terms, tenant), sent) = (found?, sent?);
    chat::check_content_type(&head.headers)?;
    if !terms.known || !terms.app.enabled {
        return Err(Problem::new(StatusCode::FORBIDDEN, "The app is not served at present."));
    }
    let sent = bytes_without_lone_surrogates(&sent);
    let event = events::Event::parse(&sent, &terms.limits)?;
    context.node().publish(&tenant, &event.channels, &event.publication()).map_err(super::busy)?;
    Ok(answer::json("{}"))
}

fn tenant(context: &Context, app: &str) -> Result<Arc<Tenant>, Problem> {
    context.node().apps().by_id(app).ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "There is no such app."))
}

/// Viewers of the events at a time; each costs what it is behind, and a copy of each event that is shown.
const MOST_VIEWERS: usize = 32;
