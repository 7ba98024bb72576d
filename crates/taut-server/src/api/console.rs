//! `/console`: what happens on the server, live, for those who run it.

mod access;
mod attempts;
mod feed;
mod pages;
mod views;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use http::StatusCode;
use tokio::sync::Semaphore;

use super::listener::Listener;
use super::route::Area;
use super::{Context, area, asked, chat, events};
use crate::app::Secret;
use crate::apps::{App, Apps};
use crate::config::{Config, Network};
use crate::http::answer::{self, ApiError};
use crate::http::body;
use crate::pusher::json::bytes_without_lone_surrogates;
use crate::pusher::socket_id::SocketId;
pub(crate) use access::Login;
use access::Sessions;
use attempts::Attempts;
pub(super) use feed::watch;
pub(super) use pages::ROUTES as PAGES;

/// What the console remembers.
#[derive(Debug)]
pub(crate) struct Console {
    password: Option<Secret>,
    /// Opens it in the place of a password, where none is set and the development app is served. Made anew at each start.
    token: Secret,
    sessions: Mutex<Sessions>,
    /// Those by its own listener apart, so that strangers where clients connect lock nobody out there.
    attempts: [Mutex<Attempts>; 2],
    /// From where `X-Forwarded-For` is believed.
    trusted: Box<[Network]>,
    /// Places for those who watch the events.
    viewers: Arc<Semaphore>,
}

impl Console {
    /// # Errors
    /// When the operating system gives no random bytes.
    pub(crate) fn new(config: &Config, now: Instant) -> io::Result<Self> {
        Ok(Self {
            password: config.console_password.clone(),
            token: access::new_token()?,
            sessions: Mutex::default(),
            attempts: std::array::from_fn(|_| Mutex::new(Attempts::new(now))),
            trusted: config.trusted_proxies.as_slice().into(),
            viewers: Arc::new(Semaphore::new(MOST_VIEWERS)),
        })
    }

    /// The token that opens the console where clients connect, if one does: without a password, while the development app is served.
    pub(crate) fn token(&self, apps: &Apps) -> Option<&Secret> {
        (self.login(Listener::Clients, apps) == Some(Login::Token)).then_some(&self.token)
    }

    /// Ends the sessions that the token has opened when the development app has made way for others.
    pub(crate) fn apps_changed(&self, apps: &Apps) {
        if self.password.is_none() && self.token(apps).is_none() {
            *self.sessions() = Sessions::default();
        }
    }

    /// What is asked of those who come by this listener; `None` where there is no console.
    pub(super) fn login(&self, listener: Listener, apps: &Apps) -> Option<Login> {
        match listener {
            Listener::Metrics => None,
            Listener::Console | Listener::Clients if self.password.is_some() => Some(Login::Password),
            // Without a password it is on loopback, or the server would not have started.
            Listener::Console => Some(Login::Nothing),
            Listener::Clients => apps.development_app().map(|_| Login::Token),
        }
    }

    fn attempts(&self, listener: Listener) -> MutexGuard<'_, Attempts> {
        let [where_clients_connect, on_its_own] = &self.attempts;
        let attempts = if listener == Listener::Clients { where_clients_connect } else { on_its_own };
        attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pages, for whoever may know that there is a console, and what they ask for, for whoever has logged in.
pub(super) fn router(context: &Arc<Context>) -> Router<Arc<Context>> {
    area(Area::ConsoleData, "")
        .route_layer(from_fn_with_state(Arc::clone(context), access::check_session))
        .merge(area(Area::ConsoleSession, ""))
        .route_layer(from_fn(access::check_origin))
        .merge(area(Area::ConsolePages, ""))
        .route_layer(from_fn_with_state(Arc::clone(context), access::check_listener))
}

/// `/console/api/session`: whether somebody has logged in, and logging in and out.
pub(super) fn session() -> MethodRouter<Arc<Context>> {
    get(access::state).post(access::log_in).delete(access::log_out)
}

/// `GET /console/api/overview`: what has been counted.
///
/// # Cancel safety
/// Nothing is lost: it only asks.
pub(super) async fn overview(State(context): State<Arc<Context>>) -> Result<Response, ApiError> {
    let statistics = asked(context.node().statistics()).await?;
    let apps = context.node().apps().all();
    let cluster = context.node().cluster().map(|state| state.phase);
    answer::serialized(&views::Overview::new(&statistics, &apps, context.started.elapsed(), cluster))
}

/// `GET /console/api/apps/ID/channels?filter=…`: those whose names contain the filter.
///
/// # Cancel safety
/// Nothing is lost: it only asks.
pub(super) async fn channels(
    State(context): State<Arc<Context>>,
    Path(app): Path<String>,
    Query(views::Filter { filter }): Query<views::Filter>,
) -> Result<Response, ApiError> {
    let app = find_app(&context, &app)?;
    answer::serialized(&views::Channels::new(&asked(context.node().channels(&app, "")).await?, &filter))
}

/// `GET /console/api/apps/ID/channels/NAME`.
///
/// # Cancel safety
/// Nothing is lost: it only asks.
pub(super) async fn channel(
    State(context): State<Arc<Context>>,
    Path((app, name)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let app = find_app(&context, &app)?;
    let state = asked(context.node().channel(&app, &name)).await?;
    let members = asked(context.node().members(&app, &name, views::MOST_MEMBERS)).await?;
    answer::serialized(&views::Channel::new(&name, &state, &members))
}

/// `GET /console/api/apps/ID/connections?filter=…`: those whose socket id, user, channels, address or SDK contain the filter.
///
/// # Cancel safety
/// Nothing is lost: it only asks.
pub(super) async fn connections(
    State(context): State<Arc<Context>>,
    Path(app): Path<String>,
    Query(views::Filter { filter }): Query<views::Filter>,
) -> Result<Response, ApiError> {
    let app = find_app(&context, &app)?;
    let connections = asked(context.node().connections(&app, &filter, views::MOST_ROWS)).await?;
    answer::serialized(&views::Connections::new(app.connections(), &connections))
}

/// `DELETE /console/api/apps/ID/connections/SOCKET`: closes the connection, with a code after which clients do not come back by themselves.
///
/// No page of another site can send it: a browser asks first whether it may (Fetch, CORS-preflight), and nothing here says so.
///
/// # Cancel safety
/// Either it has begun, and is done all the same, or it has not.
pub(super) async fn disconnect(
    State(context): State<Arc<Context>>,
    Path((app, socket_id)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let app = find_app(&context, &app)?;
    let was_open = match SocketId::parse(&socket_id) {
        Some(socket_id) => asked(context.node().disconnect(&app, socket_id)).await?,
        None => false,
    };
    if !was_open {
        return Err(ApiError::new(StatusCode::NOT_FOUND, "This connection is no longer open."));
    }
    tracing::info!(app = app.id(), socket_id, "a connection was closed from the console");
    Ok(answer::json("{}"))
}

/// `POST /console/api/apps/ID/events`: publishes what the form says, as the app's backend could; the fields are those of the HTTP API.
///
/// # Cancel safety
/// Dropped after the event is on its way, only the answer is lost.
pub(super) async fn publish(
    State(context): State<Arc<Context>>,
    Path(app): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, sent) = request.into_parts();
    let found = find_app(&context, &app).map(|app| {
        let snapshot = Arc::clone(&app.snapshot());
        (snapshot, app)
    });
    let most = found.as_ref().map_or(0, |(snapshot, _)| events::largest_body(&snapshot.limits));
    let sent = body::read(sent, most).await;
    let ((snapshot, app), sent) = (found?, sent?);
    chat::check_content_type(&head.headers)?;
    if !snapshot.known || !snapshot.config.enabled {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "The app is not served at present."));
    }
    let sent = bytes_without_lone_surrogates(&sent);
    let event = events::Event::parse(&sent, &snapshot.limits)?;
    let publications = event.publications(Instant::now());
    context.node().publish_and_wait(&app, publications).await.map_err(super::not_published)?;
    Ok(answer::json("{}"))
}

fn find_app(context: &Context, app: &str) -> Result<Arc<App>, ApiError> {
    context.node().apps().by_id(app).ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "There is no such app."))
}

/// Viewers of the events at a time; each costs what it is behind, and a copy of each event that is shown.
const MOST_VIEWERS: usize = 32;
