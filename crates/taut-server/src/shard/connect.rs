//! Being let in: which app a client is of, and who it is where the app wants to know before its connection is accepted.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use taut_proto::Close;
use taut_proto::handshake::{Refusal, Request, Upgrade};
use taut_shard::{Answer, ConnectionId, Connections, HandshakeId, Verdict};

use super::sign_in::SignedIn;
use super::{Client, Extras, LONGEST_ECHO, PusherHandler, Subscriber};
use crate::apps::{App, AppSnapshot};
use crate::connect_auth::{self, Authorization, Outcome, Requester};
use crate::origin;
use crate::place::AppIndex;
use crate::pusher::close::Reason;
use crate::pusher::member::Identity;
use crate::pusher::number;
use crate::pusher::socket_id::SocketId;

impl PusherHandler {
    pub(super) fn connect<'r>(
        &mut self,
        request: &'r Request<'r>,
        mut upgrade: Upgrade<'r>,
        peer: SocketAddr,
        handshake: HandshakeId,
    ) -> Verdict<'r, Client> {
        let (app, snapshot) = match self.find(request) {
            Ok(found) => found,
            Err(close) => return Verdict::Accept(upgrade, Client::Refused(Box::new(close))),
        };
        let address = self.connect_auth.client(request, peer);
        if snapshot.config.upgrade.is_some() {
            upgrade = upgrade.select_subprotocol(&[connect_auth::SUBPROTOCOL]);
        }
        let asker = Requester { shard: self.end.here(), handshake };
        match self.connect_auth.vet(&app, &snapshot, request, address, asker) {
            Authorization::Anybody => Verdict::Accept(upgrade, self.admit(&app, &snapshot, None, address)),
            Authorization::Known(identity) => {
                Verdict::Accept(upgrade, self.admit(&app, &snapshot, Some(identity), address))
            }
            Authorization::Refused(refusal) => Verdict::Refuse(self.turn_away(&app, refusal, Some(address))),
            Authorization::Later => Verdict::Pending(upgrade),
        }
    }

    /// It has been decided elsewhere who a client is. It may be gone by now, and then the answer is for nobody.
    pub(super) fn authorized(
        &mut self,
        connections: &mut Connections<Client>,
        handshake: HandshakeId,
        app: AppIndex,
        outcome: Outcome,
    ) {
        let Some(app) = self.apps.by_index(app) else { return };
        let snapshot = Arc::clone(&app.snapshot());
        let answer = match outcome {
            Ok(identity) => Answer::Accept(self.admit(&app, &snapshot, Some(identity), None)),
            Err(refusal) => Answer::Refuse(self.turn_away(&app, refusal, None)),
        };
        connections.answer(handshake, answer);
    }

    /// Decides which app a client is of, by path, query and origin.
    fn find(&self, request: &Request<'_>) -> Result<(Arc<App>, Arc<AppSnapshot>), Close> {
        let Some(key) = request.path().strip_prefix(&self.path).filter(|key| !key.is_empty() && !key.contains('/'))
        else {
            return Err(Reason::PATH_NOT_FOUND.because(format_args!("clients connect to {}KEY", self.path)));
        };
        let Some(app) = self.apps.by_key_in_path(key) else { return Err(no_such_app(key)) };
        let snapshot = Arc::clone(&app.snapshot());
        check_standing(&snapshot)?;
        check_version(request)?;
        if !origin::is_allowed(&snapshot.config.origins, request.header("origin")) {
            return Err(Reason::ORIGIN_NOT_ALLOWED.because("it is not listed in the app's configuration"));
        }
        Ok((app, snapshot))
    }

    /// Makes a member of a client, if there is room for it.
    fn admit(
        &mut self,
        app: &Arc<App>,
        snapshot: &AppSnapshot,
        identity: Option<Identity>,
        address: impl Into<Option<IpAddr>>,
    ) -> Client {
        match self.try_admit(app, snapshot, identity) {
            Ok(subscriber) => {
                let address = address.into().map(tracing::field::display);
                tracing::debug!(app = app.id(), socket_id = %subscriber.socket_id, address, "a client is let in");
                Client::Subscriber(subscriber)
            }
            Err(close) => Client::Refused(Box::new(close)),
        }
    }

    fn try_admit(
        &mut self,
        app: &Arc<App>,
        snapshot: &AppSnapshot,
        identity: Option<Identity>,
    ) -> Result<Subscriber, Close> {
        // It may have been taken away while it was decided who the client is.
        check_standing(snapshot)?;
        let admission = app.admit().ok_or_else(|| Reason::OVER_QUOTA.close())?;
        let mut random = [0; 16];
        // The operating system gives random bytes or something is badly wrong with it; a client can try again.
        getrandom::fill(&mut random).map_err(|_| Reason::OVER_CAPACITY.close())?;
        self.open(app.index());
        let socket_id = SocketId::from_random(random);
        let authorized = identity.is_some();
        let extras = identity.map(|Identity { user_id, user_info }| {
            let is_shown = snapshot.config.features.watchlist;
            let user = SignedIn { id: user_id, info: user_info, is_shown, has_watchlist: false, is_pending: false };
            Box::new(Extras { user: Some(user), ..Extras::default() })
        });
        Ok(Subscriber { admission, socket_id, extras, malformed: 0, authorized })
    }

    fn turn_away(&mut self, app: &App, refusal: Refusal, address: Option<IpAddr>) -> Refusal {
        self.open(app.index());
        if let Some(local_app) = self.local_app(app.index()) {
            local_app.count(|traffic| traffic.refused += 1);
        }
        let address = address.map(tracing::field::display);
        // Its words may be the application's, which are for the client alone.
        tracing::debug!(app = app.id(), status = refusal.status(), address, "a client is turned away");
        refusal
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
pub(crate) fn no_such_app(key: &str) -> Close {
    let key: String = key.chars().take(LONGEST_ECHO).collect();
    Reason::NO_SUCH_APP.because(format_args!("there is no app with the key {key}"))
}

pub(super) fn check_standing(snapshot: &AppSnapshot) -> Result<(), Close> {
    if !snapshot.known {
        return Err(Reason::NO_SUCH_APP.because("it was removed"));
    }
    if !snapshot.config.enabled {
        return Err(Reason::APP_DISABLED.close());
    }
    Ok(())
}

fn check_version(request: &Request<'_>) -> Result<(), Close> {
    let Some(version) = request.query_value("protocol") else { return Ok(()) };
    match number::digits::<u32>(&version) {
        Some(5..=7) => Ok(()),
        Some(_) => Err(Reason::UNSUPPORTED_VERSION.because("this server speaks 5 to 7")),
        None => Err(Reason::INVALID_VERSION.because("the protocol is a number")),
    }
}
