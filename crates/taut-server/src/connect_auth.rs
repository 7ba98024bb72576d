//! Authorizes connections before the upgrade, for apps that ask for it. Pusher's protocol has nothing of the kind.
//!
//! What can be decided on the shard is decided there, in tens of microseconds: tokens with a known key. Anything else
//! (fetching keys, asking the application) is done by `serve` on tokio, whose answer returns to the shard as mail.

mod callback;
mod forwarded;
mod jwks;
mod limiter;
#[cfg(test)]
pub(crate) mod testing;
mod token;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::StatusCode;
use taut_proto::handshake::{Refusal, Request, origin};
use taut_shard::{HandshakeId, Network};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::address;
use crate::app::{Callback, Limits, Published, TokenAuth, TokenKeys, UpgradeAuth};
use crate::apps::{App, AppSnapshot};
use crate::http::client::Client;
use crate::identity::Identity;
use crate::place::{AppIndex, ShardIndex};
use crate::refusals::RefusalReason;
use crate::trace::Span;
use callback::Answer;
pub(crate) use forwarded::client_of;
use jwks::{Known, Sets};
use limiter::CallbackLimiter;
#[cfg(feature = "testing")]
pub use token::testing as token_testing;
use token::{Claims, Expected, Key, Token, TokenError};

/// What shards ask before they let a client in.
pub(crate) struct ConnectAuth {
    trusted: Box<[Network]>,
    sets: Sets,
    tasks: mpsc::Sender<Task>,
}

/// What [`serve`] has to do.
pub(crate) struct Tasks(mpsc::Receiver<Task>);

/// What becomes of a client.
#[derive(Debug)]
pub(crate) enum Authorization {
    /// The app asks for nothing.
    Anybody,
    Known(Identity),
    Denied(Denied),
    /// It is decided elsewhere: [`serve`] passes the outcome on.
    Later,
}

/// Who wants to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Requester {
    pub(crate) shard: ShardIndex,
    pub(crate) handshake: HandshakeId,
    /// The client's.
    pub(crate) address: IpAddr,
}

/// Who a client is, or why it is refused.
pub(crate) type Outcome = Result<Identity, Denied>;

/// A client is refused.
#[derive(Debug)]
pub(crate) struct Denied {
    /// What the client is told.
    pub(crate) refusal: Refusal,
    pub(crate) reason: RefusalReason,
    /// What the log is told: nothing of the token, and none of the application's words, which are for the client alone.
    pub(crate) why: Cow<'static, str>,
}

enum Task {
    Vet(Requester, Arc<App>, Arc<AppSnapshot>, Credentials, Span),
    Renew(Published),
}

/// What a client has shown. It holds secrets, and is never shown.
enum Credentials {
    Token(Token),
    /// What the application is to be asked.
    Callback(String),
}

#[cfg(test)]
impl Tasks {
    /// Whose question is next.
    pub(crate) fn next_requester(&mut self) -> Option<Requester> {
        match self.0.try_recv() {
            Ok(Task::Vet(asker, ..)) => Some(asker),
            _ => None,
        }
    }
}

impl ConnectAuth {
    /// `trusted` is from where `X-Forwarded-For` is believed.
    pub(crate) fn new(trusted: &[Network]) -> (Self, Tasks) {
        let (tasks, receiver) = mpsc::channel(MOST_TASKS);
        (Self { trusted: trusted.into(), sets: Sets::default(), tasks }, Tasks(receiver))
    }

    /// One that has nobody to ask.
    pub(crate) fn alone() -> Self {
        Self::new(&[]).0
    }

    /// For whom a request was made.
    pub(crate) fn client(&self, request: &Request<'_>, peer: SocketAddr) -> IpAddr {
        forwarded::client(peer, request.header_values("x-forwarded-for"), &self.trusted)
    }

    /// Decides who a client of this app is, or sees to it that it is decided.
    pub(crate) fn vet(
        &self,
        app: &Arc<App>,
        snapshot: &Arc<AppSnapshot>,
        request: &Request<'_>,
        asker: Requester,
    ) -> Authorization {
        let inquiry = match &snapshot.config.upgrade {
            None => return Authorization::Anybody,
            Some(UpgradeAuth::Callback(_)) => Credentials::Callback(callback::body(app.id(), request, asker.address)),
            Some(UpgradeAuth::Token(auth)) => match self.check(auth, snapshot, request) {
                Ok(Checked::Known(identity)) => return Authorization::Known(identity),
                Ok(Checked::Later(token)) => Credentials::Token(token),
                Err(denied) => return Authorization::Denied(denied),
            },
        };
        let traced = Span::upgrading(request, app.id());
        match self.tasks.try_send(Task::Vet(asker, Arc::clone(app), Arc::clone(snapshot), inquiry, traced)) {
            Ok(()) => Authorization::Later,
            Err(refused) => {
                if let Task::Vet(.., traced) = refused.into_inner() {
                    traced.answered(StatusCode::SERVICE_UNAVAILABLE);
                }
                Authorization::Denied(unavailable("too many clients wait for an answer"))
            }
        }
    }

    /// The same for a client that has to show a token, whatever other clients of the app show.
    pub(crate) fn vet_token(
        &self,
        app: &Arc<App>,
        snapshot: &Arc<AppSnapshot>,
        request: &Request<'_>,
        asker: Requester,
    ) -> Authorization {
        match &snapshot.config.upgrade {
            Some(UpgradeAuth::Token(_)) => self.vet(app, snapshot, request, asker),
            _ => Authorization::Denied(unavailable(NO_TOKEN_AUTH)),
        }
    }

    /// Decides whose token a request has, without a shard. Keys are fetched if need be.
    ///
    /// # Cancel safety
    /// Dropped midway, the keys stay as they are.
    pub(crate) async fn identify(&self, client: &Client, snapshot: &AppSnapshot, request: &Request<'_>) -> Outcome {
        let Some(UpgradeAuth::Token(auth)) = &snapshot.config.upgrade else { return Err(unavailable(NO_TOKEN_AUTH)) };
        match self.check(auth, snapshot, request)? {
            Checked::Known(identity) => Ok(identity),
            Checked::Later(token) => self.look_up(client, &token, auth, snapshot).await,
        }
    }

    fn check(&self, auth: &TokenAuth, snapshot: &AppSnapshot, request: &Request<'_>) -> Result<Checked, Denied> {
        let (text, place) = find(auth, request).ok_or_else(|| unauthorized(TokenError::Missing))?;
        // Browsers send cookies whatever page connects.
        if place == Place::Cookie && snapshot.config.origins.is_empty() {
            origin::same_host(request).map_err(|refusal| Denied {
                why: refusal.to_string().into(),
                refusal,
                reason: RefusalReason::Origin,
            })?;
        }
        let token = Token::parse(&text).map_err(unauthorized)?;
        let known = match &auth.keys {
            TokenKeys::Secret(secret) => token.verify(Key::Secret(secret.reveal())),
            TokenKeys::Public(key) => token.verify(Key::Public(key)),
            TokenKeys::Published(published) => {
                let set = self.sets.at(&published.url);
                if set.is_due(published) && self.tasks.try_send(Task::Renew(published.clone())).is_err() {
                    set.put_off();
                }
                match set.check(&token, published) {
                    Known::Good => Ok(()),
                    Known::Bad(flaw) => Err(flaw),
                    Known::Perhaps => return Ok(Checked::Later(token)),
                    Known::Nothing => return Err(unavailable(NO_KEYS)),
                }
            }
        };
        known.and_then(|()| identify(&token, auth, snapshot)).map(Checked::Known).map_err(unauthorized)
    }
}

enum Checked {
    Known(Identity),
    Later(Token),
}

/// Answers what the shards cannot by themselves, for as long as the runtime lives. `answer` takes each outcome to the shard that asked; there are
/// no more of them than there are handshakes.
///
/// # Cancel safety
/// Dropping it drops all questions; their handshakes end at their deadlines.
pub(crate) async fn serve<F>(guard: Arc<ConnectAuth>, tasks: Tasks, client: Client, answer: F)
where
    F: Fn(Requester, &App, Outcome) + Send + Sync + 'static,
{
    let answer = Arc::new(answer);
    let Tasks(mut tasks) = tasks;
    let mut desks: HashMap<AppIndex, Arc<AppCallbacks>> = HashMap::new();
    let limiter = CallbackLimiter::default();
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            task = tasks.recv() => match task {
                None => break,
                Some(Task::Renew(published)) => {
                    let (client, set) = (client.clone(), guard.sets.at(&published.url));
                    running.spawn(async move { set.renew(&client, &published).await });
                }
                Some(Task::Vet(asker, app, snapshot, inquiry, traced)) => {
                    let Some(permit) = limiter.acquire(app.index(), asker.address) else {
                        let outcome = Err(unavailable("too many clients of the app, or of this network, wait for an answer"));
                        trace(traced, &outcome);
                        answer(asker, &app, outcome);
                        continue;
                    };
                    let desk = AppCallbacks::of(&mut desks, &app, &snapshot);
                    let (guard, client, answer) = (Arc::clone(&guard), client.clone(), Arc::clone(&answer));
                    running.spawn(async move {
                        let outcome = traced.follow(guard.inquire(&client, &desk, &snapshot, inquiry)).await;
                        drop(permit);
                        trace(traced, &outcome);
                        answer(asker, &app, outcome);
                    });
                }
            },
            Some(_) = running.join_next() => {}
        }
    }
}

fn trace(traced: Span, outcome: &Outcome) {
    let status =
        outcome.as_ref().map_or_else(|denied| denied.refusal.status(), |_| StatusCode::SWITCHING_PROTOCOLS.as_u16());
    traced.answered(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
}

impl ConnectAuth {
    /// # Cancel safety
    /// Dropped midway, the application may have been asked or not.
    async fn inquire(
        &self,
        client: &Client,
        desk: &AppCallbacks,
        snapshot: &AppSnapshot,
        inquiry: Credentials,
    ) -> Outcome {
        match (inquiry, &snapshot.config.upgrade) {
            (Credentials::Callback(body), Some(UpgradeAuth::Callback(callback))) => {
                let answer = callback::ask(client, snapshot, callback, &desk.turns, body).await;
                desk.note(&snapshot.config.id, callback, &answer);
                answer.outcome()
            }
            (Credentials::Token(token), Some(UpgradeAuth::Token(auth))) => {
                self.look_up(client, &token, auth, snapshot).await
            }
            // The inquiry was made from these same terms.
            _ => Err(unavailable(CHANGED)),
        }
    }

    /// Checks a token by the keys that its issuer has published.
    async fn look_up(&self, client: &Client, token: &Token, auth: &TokenAuth, snapshot: &AppSnapshot) -> Outcome {
        let TokenKeys::Published(published) = &auth.keys else { return Err(unavailable(CHANGED)) };
        match self.sets.at(&published.url).look_up(client, token, published).await {
            Known::Good => identify(token, auth, snapshot).map_err(unauthorized),
            Known::Bad(flaw) => Err(unauthorized(flaw)),
            Known::Perhaps | Known::Nothing => Err(unavailable(NO_KEYS)),
        }
    }
}

/// Where one app's questions to its application are put.
struct AppCallbacks {
    /// How many there are turns for.
    concurrency: usize,
    turns: Semaphore,
    /// The last answer was none.
    failing: AtomicBool,
}

impl AppCallbacks {
    fn of(desks: &mut HashMap<AppIndex, Arc<Self>>, app: &App, snapshot: &AppSnapshot) -> Arc<Self> {
        let concurrency = match &snapshot.config.upgrade {
            Some(UpgradeAuth::Callback(callback)) => callback.concurrency.clamp(1, Semaphore::MAX_PERMITS),
            _ => 1,
        };
        let open =
            || Arc::new(Self { concurrency, turns: Semaphore::new(concurrency), failing: AtomicBool::new(false) });
        let desk = desks.entry(app.index()).or_insert_with(open);
        if desk.concurrency != concurrency {
            *desk = open();
        }
        Arc::clone(desk)
    }

    /// Says when it begins to go wrong and when it is over: strangers may cause a question each, but no line of the log.
    fn note(&self, app: &str, callback: &Callback, answer: &Answer) {
        let url = address::shown(&callback.url);
        match answer {
            Answer::Failed(reason) if !self.failing.swap(true, Ordering::Relaxed) => {
                tracing::warn!(
                    app,
                    url,
                    reason,
                    "the application does not say whom to let in: clients get 503 meanwhile"
                );
            }
            Answer::Failed(reason) => tracing::debug!(app, url, reason, "the application does not say whom to let in"),
            Answer::Accepted(_) | Answer::Refused(_) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(app, url, "the application says again whom to let in");
                }
            }
        }
    }
}

/// Whether a client is within what an app's users may have.
fn check_limits(identity: &Identity, limits: &Limits) -> Result<(), TokenError> {
    if identity.user_id.chars().count() > limits.user_id {
        return Err(TokenError::LongSubject { most: limits.user_id });
    }
    if identity.user_info.as_ref().is_some_and(|info| info.len() > limits.presence_member) {
        return Err(TokenError::LargeInfo { most: limits.presence_member });
    }
    Ok(())
}

/// Whose a token is that is signed as it should be.
fn identify(token: &Token, auth: &TokenAuth, snapshot: &AppSnapshot) -> Result<Identity, TokenError> {
    let expected = Expected { issuer: auth.issuer.as_deref(), audience: auth.audience.as_deref() };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let Claims { user_id, user_info } = token.claims(expected, now)?;
    let identity = Identity { user_id: user_id.into(), user_info };
    check_limits(&identity, &snapshot.limits).map(|()| identity)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Header,
    Subprotocol,
    Query,
    Cookie,
}

/// The first token of a request.
fn find<'r>(auth: &TokenAuth, request: &Request<'r>) -> Option<(Cow<'r, str>, Place)> {
    let header = || request.bearer().map(|token| (token.into(), Place::Header));
    let subprotocol = || {
        let mut tokens = request.subprotocols().filter_map(|name| name.strip_prefix(BEARER));
        tokens.next().filter(|_| auth.subprotocol).map(|token| (token.into(), Place::Subprotocol))
    };
    let query = || request.query_value(auth.query.as_deref()?).map(|token| (token, Place::Query));
    let cookie = || request.cookie(auth.cookie.as_deref()?).map(|token| (token.into(), Place::Cookie));
    let is_there = |(token, _): &(Cow<'_, str>, Place)| !token.is_empty();
    header().or_else(subprotocol).or_else(|| query().filter(is_there)).or_else(|| cookie().filter(is_there))
}

fn unauthorized(flaw: TokenError) -> Denied {
    let refusal = Refusal::unauthorized(format!("Unauthorized: {flaw}."));
    Denied { refusal, reason: RefusalReason::Token, why: flaw.to_string().into() }
}

/// A token is good, and its route's backend cannot be told whose it is.
pub(crate) fn unspeakable() -> Denied {
    unauthorized(TokenError::Subject)
}

/// Nobody can say now whether the client may come in.
fn unavailable(why: &'static str) -> Denied {
    let text = "Who connects cannot be checked at the moment; try again later.";
    let refusal = Refusal::with_status(503, text).retry_after(RETRY_AFTER);
    Denied { refusal, reason: RefusalReason::Unavailable, why: why.into() }
}

impl fmt::Debug for ConnectAuth {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Guard").field("trusted", &self.trusted).finish_non_exhaustive()
    }
}

/// Why the log is told that nobody can say.
const NO_KEYS: &str = "the keys for tokens could not be fetched";
const CHANGED: &str = "the app's configuration changed meanwhile";
const NO_TOKEN_AUTH: &str = "a route wants tokens, and its app names no keys for them";

/// What stands before a token that is sent as a subprotocol.
const BEARER: &str = "bearer.";

/// What a client is told whom nobody can vouch for or against.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Questions on their way from the shards.
const MOST_TASKS: usize = 1024;
