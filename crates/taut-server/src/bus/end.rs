//! One shard's end of the bus.

use std::collections::VecDeque;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use taut_proto::Time;

use super::Busy;
use crate::apps::App;
use crate::events::Event;
use crate::hub::Hub;
use crate::hub::command::{Command, Delivery, Publication, Push, Reply, RequestId};
use crate::hub::effects::{Effect, Effects, Tell};
use crate::hub::engine::{Request, Standing};
use crate::hub::envelope::{Content, Envelope};
use crate::hub::members::MEMBERS;
use crate::place::{AppIndex, ShardIndex};

/// Does what the hubs of a shard want done: here at once, or on another shard by mail.
#[derive(Debug)]
pub(crate) struct BusEnd<C> {
    here: ShardIndex,
    /// Of a node of a cluster.
    standing: Option<Standing>,
    /// What the hub that was called last wants done: to be [settled](Self::settle) before another one is called.
    pub(crate) effects: Effects<C>,
    /// To the other shards.
    windows: Vec<Window<C>>,
}

/// Takes envelopes to other shards: those from one shard to another stay in order.
pub(crate) trait Post<C> {
    /// The shard that owns a channel, or the app's users.
    fn owner(&self, app: AppIndex, channel: Option<&str>) -> ShardIndex;

    /// Sends what may be given back when there is no room.
    fn offer(&self, to: ShardIndex, envelope: Envelope<C>, bytes: usize) -> Result<(), Envelope<C>>;

    /// Sends what must not be lost.
    fn send(&self, to: ShardIndex, envelope: Envelope<C>);

    /// Asks the engine of the cluster.
    fn ask_engine(&self, app: &Arc<App>, request: Request);
}

/// The connections of a shard, and those who want to know what happens.
pub(crate) trait Outlet<C> {
    fn deliver(&mut self, hub: &Hub<C>, delivery: &Delivery);

    /// The subscribers of a channel have missed an event.
    fn missed(&mut self, channel: Arc<str>);

    fn tell(&mut self, connection: C, tell: Tell);

    /// Something has happened, and was held back for so long.
    fn happened(&mut self, event: Event, waited: Duration);

    /// Something has happened that only a console on this node wants to know.
    fn shown(&mut self, event: Event);
}

/// Subscriptions that one shard has asked another one for: only so many at a time, since each reply may be long.
#[derive(Debug)]
struct Window<C> {
    /// The weight of those that are not answered yet.
    in_flight: u32,
    /// Those that are still to be sent, in order. There are no more of these than connections that wait.
    queue: VecDeque<(RequestId, Envelope<C>)>,
}

impl<C: Copy + Eq + Hash> BusEnd<C> {
    /// On a node of a cluster, if it has a `standing`.
    pub(crate) fn new(here: ShardIndex, standing: Option<Standing>) -> Self {
        Self { here, standing, effects: Effects::new(), windows: Vec::new() }
    }

    /// How it stands with the engine of the cluster, for hubs that are made from here on.
    pub(crate) fn standing(&self) -> Option<Standing> {
        self.standing
    }

    /// The engine decides from here on, or cannot: each hub is to be told.
    pub(crate) fn stand(&mut self, standing: Standing) {
        self.standing = Some(standing);
    }

    pub(crate) fn here(&self) -> ShardIndex {
        self.here
    }

    /// Takes an event to its channel's owner.
    pub(crate) fn publish(
        &mut self,
        hub: &mut Hub<C>,
        publication: Publication,
        post: &impl Post<C>,
        now: Time,
    ) -> Result<(), Busy> {
        let app = hub.app().index();
        let owner = post.owner(app, Some(&publication.channel));
        let bytes = publication.bytes();
        let command = Command::Publish(publication);
        if owner == self.here {
            hub.command(self.here, command, now, &mut self.effects);
            return Ok(());
        }
        post.offer(owner, Envelope { app, from: self.here, content: Content::Command(command) }, bytes)
            .map_err(|_| Busy)
    }

    /// An envelope has come.
    pub(crate) fn receive(
        &mut self,
        hub: &mut Hub<C>,
        from: ShardIndex,
        content: Content<C>,
        post: &impl Post<C>,
        now: Time,
        outlet: &mut impl Outlet<C>,
    ) {
        match content {
            Content::Command(command) => hub.command(from, command, now, &mut self.effects),
            Content::Reply(reply) => {
                if let Reply::Subscribed { request, .. } | Reply::Rejected { request, .. } = &reply {
                    self.answered(from, *request, post);
                }
                hub.members.reply(reply, &mut self.effects);
            }
            Content::Push(push) => self.take_push(hub, push, outlet),
            Content::Update(update) => hub.update(*update, now, &mut self.effects),
        }
    }

    /// Does all that is to be done, and what comes of that.
    pub(crate) fn settle(&mut self, hub: &mut Hub<C>, post: &impl Post<C>, now: Time, outlet: &mut impl Outlet<C>) {
        let app = hub.app().index();
        while let Some(effect) = self.effects.pop() {
            match effect {
                Effect::Command(command) => {
                    let owner = post.owner(app, command.channel().map(|channel| &**channel));
                    if owner == self.here {
                        hub.command(self.here, command, now, &mut self.effects);
                    } else {
                        self.send(hub, owner, command, post);
                    }
                }
                Effect::Reply(shard, reply) if shard == self.here => hub.members.reply(reply, &mut self.effects),
                Effect::Reply(shard, reply) => self.answer(hub, shard, reply, post, now),
                Effect::Push(shard, push) if shard == self.here => self.take_push(hub, push, outlet),
                Effect::Push(shard, push) => self.pass_on(app, shard, push, post),
                Effect::Tell(connection, tell) => outlet.tell(connection, tell),
                Effect::Happened(event, waited) => outlet.happened(event, waited),
                Effect::Shown(event) => outlet.shown(event),
                Effect::Engine(request) => post.ask_engine(hub.app(), request),
                Effect::Done(token) => drop(token),
            }
        }
    }

    fn send(&mut self, hub: &mut Hub<C>, owner: ShardIndex, command: Command<C>, post: &impl Post<C>) {
        let envelope =
            |command| Envelope { app: hub.app().index(), from: self.here, content: Content::Command(command) };
        match command {
            Command::Subscribe { request, .. } => {
                let envelope = envelope(command);
                self.window(owner).queue.push_back((request, envelope));
                self.advance(owner, post);
            }
            Command::Count { ref channel, .. } => {
                let channel = Arc::clone(channel);
                if post.offer(owner, envelope(command), channel.len()).is_err() {
                    hub.members.count_later(channel);
                }
            }
            command => post.send(owner, envelope(command)),
        }
    }

    fn answer(&mut self, hub: &mut Hub<C>, shard: ShardIndex, reply: Reply<C>, post: &impl Post<C>, now: Time) {
        let envelope = |reply| Envelope { app: hub.app().index(), from: self.here, content: Content::Reply(reply) };
        let bytes = match &reply {
            Reply::Subscribed { channel, subscribed, .. } if subscribed.is_long() => channel.len() + subscribed.bytes(),
            // A word, and there are no more of them than the other shard may ask for at a time.
            _ => return post.send(shard, envelope(reply)),
        };
        if let Err(Envelope { content: Content::Reply(reply), .. }) = post.offer(shard, envelope(reply), bytes) {
            let reply = hub.refused(shard, reply, now, &mut self.effects);
            post.send(shard, Envelope { app: hub.app().index(), from: self.here, content: Content::Reply(reply) });
        }
    }

    fn pass_on(&self, app: AppIndex, shard: ShardIndex, push: Push, post: &impl Post<C>) {
        let envelope = |push| Envelope { app, from: self.here, content: Content::Push(push) };
        match push {
            Push::Deliver(delivery) => {
                let (channel, bytes) = (Arc::clone(&delivery.channel), delivery.bytes());
                if post.offer(shard, envelope(Push::Deliver(delivery)), bytes).is_err() {
                    post.send(shard, envelope(Push::Missed { channel }));
                }
            }
            push => post.send(shard, envelope(push)),
        }
    }

    fn take_push(&mut self, hub: &mut Hub<C>, push: Push, outlet: &mut impl Outlet<C>) {
        match push {
            Push::Deliver(delivery) => outlet.deliver(hub, &delivery),
            Push::Missed { channel } => outlet.missed(channel),
            Push::Status { user_id, is_online } => hub.members.status(&user_id, is_online, &mut self.effects),
        }
    }

    /// There is room for other subscriptions.
    fn answered(&mut self, owner: ShardIndex, request: RequestId, post: &impl Post<C>) {
        let window = self.window(owner);
        window.in_flight = window.in_flight.saturating_sub(request.weight);
        self.advance(owner, post);
    }

    fn advance(&mut self, owner: ShardIndex, post: &impl Post<C>) {
        let window = self.window(owner);
        while let Some((request, _)) = window.queue.front() {
            if window.in_flight > 0 && window.in_flight + request.weight > WINDOW {
                return;
            }
            window.in_flight += request.weight;
            if let Some((_, envelope)) = window.queue.pop_front() {
                post.send(owner, envelope);
            }
        }
        window.queue.shrink_to(SMALL);
    }

    fn window(&mut self, owner: ShardIndex) -> &mut Window<C> {
        let index = owner.get();
        if self.windows.len() <= index {
            self.windows.resize_with(index + 1, || Window { in_flight: 0, queue: VecDeque::new() });
        }
        &mut self.windows[index]
    }
}

/// The weight that may be under way to one shard: sixteen lists of members, or a thousand replies that are a word. Tests reach it at once.
pub(crate) const WINDOW: u32 = if cfg!(test) { 2 * MEMBERS } else { 1024 };

/// Envelopes for which a window keeps its room.
const SMALL: usize = 64;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::hub::command::Subscribe;

    /// The weights of the subscriptions that have been sent.
    #[derive(Default)]
    struct Sent(RefCell<Vec<u32>>);

    impl Sent {
        fn take(&self) -> Vec<u32> {
            self.0.take()
        }
    }

    impl Post<u32> for Sent {
        fn owner(&self, _: AppIndex, _: Option<&str>) -> ShardIndex {
            OWNER
        }

        fn offer(&self, _: ShardIndex, envelope: Envelope<u32>, _: usize) -> Result<(), Envelope<u32>> {
            Err(envelope)
        }

        fn send(&self, to: ShardIndex, envelope: Envelope<u32>) {
            let Content::Command(Command::Subscribe { request, .. }) = envelope.content else { panic!("{envelope:?}") };
            assert_eq!(to, OWNER);
            self.0.borrow_mut().push(request.weight);
        }

        fn ask_engine(&self, _: &Arc<App>, request: Request) {
            panic!("there is no engine: {request:?}");
        }
    }

    fn request(weight: u32) -> RequestId {
        let mut request = RequestId::default();
        request.weight = weight;
        request
    }

    /// Asks the owner for subscriptions of these weights.
    fn ask(end: &mut BusEnd<u32>, post: &Sent, weights: impl IntoIterator<Item = u32>) {
        for weight in weights {
            let (channel, subscribe) = (Arc::from("chat"), Subscribe::LastEvent);
            let content = Content::Command(Command::Subscribe { channel, request: request(weight), subscribe });
            let envelope = Envelope { app: AppIndex::FIRST, from: end.here(), content };
            end.window(OWNER).queue.push_back((request(weight), envelope));
            end.advance(OWNER, post);
        }
    }

    const OWNER: ShardIndex = ShardIndex::FIRST;

    #[test]
    fn subscriptions_are_sent_in_order_up_to_the_weight_of_the_window() {
        let (mut end, post) = (BusEnd::new(ShardIndex::new(1), None), Sent::default());
        let half = WINDOW / 2;
        ask(&mut end, &post, [half, half, 1, 2, half]);
        assert_eq!(post.take(), [half, half], "the window may be filled to the brim");
        end.answered(OWNER, request(half), &post);
        assert_eq!(post.take(), [1, 2], "the last one does not fit beside the three that are in flight");
        end.answered(OWNER, request(1), &post);
        assert!(post.take().is_empty());
        end.answered(OWNER, request(2), &post);
        assert_eq!(post.take(), [half]);
        ask(&mut end, &post, [1]);
        assert!(post.take().is_empty(), "all of them are counted again");
    }

    #[test]
    fn a_subscription_larger_than_the_window_is_sent_when_nothing_else_is_in_flight() {
        let (mut end, post) = (BusEnd::new(ShardIndex::new(1), None), Sent::default());
        ask(&mut end, &post, [WINDOW + 1, 1]);
        assert_eq!(post.take(), [WINDOW + 1]);
        end.answered(OWNER, request(WINDOW + 1), &post);
        assert_eq!(post.take(), [1]);
    }

    #[test]
    fn each_owner_has_a_window() {
        let (mut end, post) = (BusEnd::<u32>::new(ShardIndex::new(1), None), Sent::default());
        ask(&mut end, &post, [WINDOW]);
        assert_eq!(end.windows[OWNER.get()].in_flight, WINDOW);
        assert_eq!(end.window(ShardIndex::new(2)).in_flight, 0);
    }

    #[test]
    fn a_window_returns_the_memory_of_a_crowd_and_keeps_that_of_a_few() {
        let (mut end, post) = (BusEnd::new(ShardIndex::new(1), None), Sent::default());
        ask(&mut end, &post, std::iter::repeat_n(WINDOW, 10_000));
        assert!(end.window(OWNER).queue.capacity() >= 9_999);
        for _ in 0..10_000 {
            end.answered(OWNER, request(WINDOW), &post);
        }
        assert_eq!(post.take().len(), 10_000);
        let Window { in_flight, queue } = end.window(OWNER);
        assert_eq!(*in_flight, 0);
        assert!((1..=SMALL).contains(&queue.capacity()), "{}", queue.capacity());
    }
}
