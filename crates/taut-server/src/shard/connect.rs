//! Being let in: which app a client is of, and who it is where the app wants to know before its connection is accepted.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use taut_proto::Close;
use taut_proto::handshake::{Refusal, Request, Upgrade};
use taut_shard::{Answer, ConnectionId, Connections, HandshakeId, Verdict};

use super::client_info::ClientInfo;
use super::sign_in::SignedIn;
use super::visit::{self, Visit};
use super::{Client, Extras, LONGEST_ECHO, PusherHandler, Subscriber};
use crate::app::TokenAuth;
use crate::apps::{Admission, App, AppSnapshot, Granted, NoPlace};
use crate::close::Reason;
use crate::connect_auth::{Authorization, Denied, Outcome, Requester};
use crate::identity::Identity;
use crate::origin;
use crate::place::AppIndex;
use crate::pusher::number;
use crate::pusher::socket_id::SocketId;
use crate::refusals::{self, RefusalReason, Refusals};

/// Why a client is let in only to be told that it cannot stay.
pub(crate) struct Unwelcome {
    pub(crate) reason: RefusalReason,
    pub(crate) close: Close,
    /// What the log is told beside the words of the close.
    details: String,
}

impl Unwelcome {
    pub(crate) fn new(reason: RefusalReason, close: Close) -> Self {
        Self { reason, close, details: String::new() }
    }

    /// What a client of a route is told instead.
    fn refusal(&self) -> Refusal {
        match self.reason {
            RefusalReason::Quota | RefusalReason::Unavailable => Refusal::busy(RETRY),
            _ => Refusal::forbidden(self.close.reason().to_owned()),
        }
    }
}

/// A client that may come if there is room for it.
#[derive(Debug)]
pub(super) struct Applicant {
    /// Where it waits for a place: the number of the last draw before.
    since: u64,
    asker: Requester,
    identity: Option<Identity>,
    client: ClientInfo,
    /// What it asks for if that is a route; otherwise it speaks Pusher's protocol.
    visit: Option<Box<Visit>>,
}

impl Applicant {
    pub(super) fn new(asker: Requester, client: ClientInfo, visit: Option<Box<Visit>>) -> Self {
        Self { since: 0, asker, identity: None, client, visit }
    }

    pub(super) fn handshake(&self) -> HandshakeId {
        self.asker.handshake
    }

    fn refused(self, refusal: Refusal) -> Refusal {
        visit::refused(self.visit.and_then(|visit| visit.stream), refusal)
    }
}

/// What becomes of an applicant.
enum Decision {
    Accepted(Client),
    Refused(Refusal),
    /// The backend of its route is asked.
    Asked,
}

impl Decision {
    fn verdict(self, upgrade: Upgrade<'_>) -> Verdict<'_, Client> {
        match self {
            Self::Accepted(client) => Verdict::Accept(upgrade, client),
            Self::Refused(refusal) => Verdict::Refuse(refusal),
            Self::Asked => Verdict::Pending(upgrade),
        }
    }

    fn answer(self, connections: &mut Connections<Client>, handshake: HandshakeId) {
        match self {
            Self::Accepted(client) => connections.answer(handshake, Answer::Accept(client)),
            Self::Refused(refusal) => connections.answer(handshake, Answer::Refuse(refusal)),
            Self::Asked => {}
        }
    }
}

impl PusherHandler {
    /// Whether clients of an app connect to this path.
    pub(super) fn is_of_app(&self, path: &str) -> bool {
        path.strip_prefix(&self.path).is_some_and(|key| self.apps.by_key_in_path(key).is_some())
    }

    pub(super) fn connect<'r>(
        &mut self,
        request: &'r Request<'r>,
        mut upgrade: Upgrade<'r>,
        peer: SocketAddr,
        handshake: HandshakeId,
    ) -> Verdict<'r, Client> {
        let address = self.connect_auth.client(request, peer);
        let app = match self.find(request) {
            Ok(app) => app,
            Err(unwelcome) => {
                tell_unwelcome(&unwelcome, self.apps.refusals(), None, Some(address));
                return Verdict::Accept(upgrade, Client::Refused(Box::new(unwelcome.close)));
            }
        };
        let snapshot = Arc::clone(&app.snapshot());
        if let Err(unwelcome) = check_request(request, &snapshot) {
            return Verdict::Accept(upgrade, refuse(&app, unwelcome, address));
        }
        if snapshot.config.upgrade.is_some() {
            upgrade = upgrade.select_subprotocol(&[TokenAuth::SUBPROTOCOL]);
        }
        let client = ClientInfo::new(address, self.sdks.of(request));
        let asker = Requester { shard: self.end.here(), handshake, address };
        let authorization = self.connect_auth.vet(&app, &snapshot, request, asker);
        self.proceed(upgrade, &app, Applicant::new(asker, client, None), authorization)
    }

    /// Does what follows from who a client is, or is not.
    pub(super) fn proceed<'r>(
        &mut self,
        upgrade: Upgrade<'r>,
        app: &Arc<App>,
        applicant: Applicant,
        authorization: Authorization,
    ) -> Verdict<'r, Client> {
        match authorization {
            Authorization::Anybody => self.let_in(upgrade, app, applicant),
            Authorization::Known(identity) => {
                self.let_in(upgrade, app, Applicant { identity: Some(identity), ..applicant })
            }
            Authorization::Denied(denied) => {
                let refusal = turn_away(app, denied, applicant.asker.address);
                Verdict::Refuse(applicant.refused(refusal))
            }
            Authorization::Later => {
                self.deciding.insert(applicant.handshake(), applicant);
                Verdict::Pending(upgrade)
            }
        }
    }

    /// It has been decided elsewhere who a client is. It may be gone by now, and then the answer is for nobody.
    pub(super) fn authorized(
        &mut self,
        connections: &mut Connections<Client>,
        asker: Requester,
        app: AppIndex,
        outcome: Outcome,
    ) {
        let Requester { handshake, address, .. } = asker;
        let unknown = || Applicant::new(asker, ClientInfo::new(address, None), None);
        let applicant = self.deciding.remove(&handshake).unwrap_or_else(unknown);
        let Some(app) = self.apps.by_index(app) else { return };
        match outcome {
            Ok(identity) => {
                let applicant = Applicant { identity: Some(identity), ..applicant };
                match self.admit(&app, applicant, Granted::All) {
                    Ok(decision) => decision.answer(connections, handshake),
                    Err(applicant) => self.wait(&app, vec![applicant]),
                }
            }
            Err(denied) => {
                let refusal = applicant.refused(turn_away(&app, denied, address));
                connections.answer(handshake, Answer::Refuse(refusal));
            }
        }
    }

    /// Lets a client in whose verdict is due, or lets it wait for a place.
    fn let_in<'r>(&mut self, upgrade: Upgrade<'r>, app: &Arc<App>, applicant: Applicant) -> Verdict<'r, Client> {
        match self.admit(app, applicant, Granted::All) {
            Ok(decision) => decision.verdict(upgrade),
            Err(applicant) => {
                self.wait(app, vec![applicant]);
                Verdict::Pending(upgrade)
            }
        }
    }

    /// Clients wait until the engine of the cluster has granted more places to this node. Those that go meanwhile are noticed then.
    fn wait(&mut self, app: &Arc<App>, mut applicants: Vec<Applicant>) {
        let since = app.wait(applicants.len());
        for applicant in &mut applicants {
            applicant.since = since;
        }
        self.waiting.entry(app.index()).or_default().extend(applicants);
        if let Some(broker) = self.bus.broker() {
            broker.draw(app);
        }
    }

    /// Places may have been granted to this node.
    pub(super) fn granted(&mut self, connections: &mut Connections<Client>, app: AppIndex, granted: Granted) {
        let Some(waiting) = self.waiting.remove(&app) else { return };
        let Some(app) = self.apps.by_index(app) else { return };
        let waited = waiting.len();
        let mut left = Vec::new();
        for applicant in waiting {
            let handshake = applicant.handshake();
            match self.admit(&app, applicant, granted) {
                Ok(decision) => decision.answer(connections, handshake),
                Err(applicant) => left.push(applicant),
            }
        }
        if !left.is_empty() {
            self.wait(&app, left);
        }
        // Until they have taken what was granted for them, it is not given back.
        app.stop_waiting(waited);
    }

    /// Finds the app that a client is of, by its path.
    fn find(&self, request: &Request<'_>) -> Result<Arc<App>, Unwelcome> {
        let Some(key) = request.path().strip_prefix(&self.path).filter(|key| !key.is_empty() && !key.contains('/'))
        else {
            let close = Reason::PATH_NOT_FOUND.because(format_args!("clients connect to {}KEY", self.path));
            return Err(Unwelcome::new(RefusalReason::WrongPath, close));
        };
        self.apps.by_key_in_path(key).ok_or_else(|| no_such_app(key))
    }

    /// Lets a client in if there is room for it, or says why not. Gives it back if more may be granted.
    fn admit(&mut self, app: &Arc<App>, applicant: Applicant, granted: Granted) -> Result<Decision, Applicant> {
        let address = applicant.asker.address;
        let snapshot = Arc::clone(&app.snapshot());
        let refuse = |applicant: Applicant, unwelcome: Unwelcome| {
            let refusal = applicant.visit.is_some().then(|| unwelcome.refusal());
            let client = refuse(app, unwelcome, address);
            Ok(match refusal {
                Some(refusal) => Decision::Refused(applicant.refused(refusal)),
                None => Decision::Accepted(client),
            })
        };
        // It may have been taken away while it was decided who the client is.
        if let Err(unwelcome) = check_standing(&snapshot) {
            return refuse(applicant, unwelcome);
        }
        let admission = match app.admit() {
            Ok(admission) => admission,
            Err(NoPlace::NotGranted) if !granted.refuses(applicant.since) => return Err(applicant),
            Err(_) => return refuse(applicant, Unwelcome::new(RefusalReason::Quota, Reason::OVER_QUOTA.close())),
        };
        let mut random = [0; 16];
        // The operating system gives random bytes or something is badly wrong with it; a client can try again.
        if getrandom::fill(&mut random).is_err() {
            return refuse(applicant, Unwelcome::new(RefusalReason::Unavailable, Reason::OVER_CAPACITY.close()));
        }
        let socket_id = SocketId::from_random(random);
        self.open(admission.index());
        let Applicant { asker, identity, client, visit, .. } = applicant;
        if let Some(visit) = visit {
            let kept = match visit.kept(identity) {
                Ok(kept) => kept,
                Err(denied) => {
                    let refusal = visit::refused(visit.stream, turn_away(app, denied, address));
                    return Ok(Decision::Refused(refusal));
                }
            };
            self.ask_to_open(asker.handshake, *visit, kept, admission, socket_id, client);
            return Ok(Decision::Asked);
        }
        tracing::debug!(app = app.id(), %socket_id, %address, "a client is let in");
        Ok(Decision::Accepted(Client::Subscriber(subscriber(admission, socket_id, &snapshot, identity, client))))
    }
    /// A connection is open whose user was known before.
    pub(super) fn come_as_user(&mut self, connections: &mut Connections<Client>, id: ConnectionId) {
        let Some(subscriber) = super::subscriber(connections, id) else { return };
        let app = subscriber.admission.index();
        if let Some((user_id, is_shown)) = subscriber.user().map(|user| (Arc::clone(&user.id), user.is_shown)) {
            self.act_as(connections, id, app, &user_id, is_shown);
            self.enter_user_channel(connections, id, app, &user_id, None);
        }
    }
}

/// How a client is closed whose key nobody has.
pub(crate) fn no_such_app(key: &str) -> Unwelcome {
    let key: String = key.chars().take(LONGEST_ECHO).collect();
    let close = Reason::NO_SUCH_APP.because(format_args!("there is no app with the key {key}"));
    Unwelcome::new(RefusalReason::UnknownKey, close)
}

/// Counts a client that cannot stay, and tells the log.
pub(crate) fn tell_unwelcome(unwelcome: &Unwelcome, refusals: &Refusals, app: Option<&App>, address: Option<IpAddr>) {
    refusals.count(unwelcome.reason);
    let client = refusals::Client { app: app.map(App::id), address, ..refusals::Client::default() };
    let Unwelcome { reason, close, details } = unwelcome;
    refusals::tell(*reason, client, format_args!("{}{details}", close.reason()));
}

fn refuse(app: &App, unwelcome: Unwelcome, address: IpAddr) -> Client {
    tell_unwelcome(&unwelcome, app.refusals(), Some(app), Some(address));
    Client::Refused(Box::new(unwelcome.close))
}

fn turn_away(app: &App, denied: Denied, address: IpAddr) -> Refusal {
    let Denied { refusal, reason, why } = denied;
    app.refusals().count(reason);
    let client = refusals::Client { app: Some(app.id()), address: Some(address), ..refusals::Client::default() };
    refusals::tell(reason, client, why);
    refusal
}

pub(super) fn check_standing(snapshot: &AppSnapshot) -> Result<(), Unwelcome> {
    if !snapshot.known {
        let close = Reason::NO_SUCH_APP.because("it was removed");
        return Err(Unwelcome::new(RefusalReason::UnknownKey, close));
    }
    if !snapshot.config.enabled {
        return Err(Unwelcome::new(RefusalReason::AppDisabled, Reason::APP_DISABLED.close()));
    }
    Ok(())
}

/// Whether the app takes such a client at all, by the query and the origin.
fn check_request(request: &Request<'_>, snapshot: &AppSnapshot) -> Result<(), Unwelcome> {
    check_standing(snapshot)?;
    check_version(request).map_err(|close| Unwelcome::new(RefusalReason::ProtocolVersion, close))?;
    let origin = request.header("origin");
    if origin::is_allowed(&snapshot.config.origins, origin) {
        return Ok(());
    }
    let close = Reason::ORIGIN_NOT_ALLOWED.because("it is not listed in the app's configuration");
    let details = origin.map_or_else(|| ", there is none".to_owned(), |origin| format!(", {origin:?}"));
    Err(Unwelcome { details, ..Unwelcome::new(RefusalReason::Origin, close) })
}

fn subscriber(
    admission: Admission,
    socket_id: SocketId,
    snapshot: &AppSnapshot,
    identity: Option<Identity>,
    client: ClientInfo,
) -> Subscriber {
    let authorized = identity.is_some();
    let extras = identity.map(|Identity { user_id, user_info }| {
        let is_shown = snapshot.config.features.watchlist;
        let user = SignedIn { id: user_id, info: user_info, is_shown, has_watchlist: false, is_pending: false };
        Box::new(Extras { user: Some(user), ..Extras::default() })
    });
    Subscriber { admission, socket_id, client, opened: 0, extras, malformed: 0, authorized }
}

fn check_version(request: &Request<'_>) -> Result<(), Close> {
    let Some(version) = request.query_value("protocol") else { return Ok(()) };
    match number::digits::<u32>(&version) {
        Some(5..=7) => Ok(()),
        Some(_) => Err(Reason::UNSUPPORTED_VERSION.because("this server speaks 5 to 7")),
        None => Err(Reason::INVALID_VERSION.because("the protocol is a number")),
    }
}

/// When a client of a route that finds no place may come back.
const RETRY: Duration = Duration::from_secs(1);
