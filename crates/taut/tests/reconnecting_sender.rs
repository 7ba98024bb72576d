//! Sending from other tasks on a connection that is replaced; on a clock that stands still until everybody waits, except
//! where threads are wanted.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use taut::reconnect::{Decision, Next, ReconnectingSender};
use taut::{Backoff, Client, CloseCode, Error, Incoming, Message, Reconnecting, Server, WebSocket, accept_over};
use tokio::io::duplex;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// A client whose connections the test has the other ends of. The first `failures` attempts fail.
fn client(failures: usize) -> (Reconnecting, UnboundedReceiver<WebSocket>) {
    let (opened, sockets) = unbounded_channel();
    let mut left = failures;
    let client = Reconnecting::new(Backoff::default(), |_| async { Ok(Client::new("ws://server.example/")) });
    let client = client.over(move || {
        let (ours, theirs) = duplex(4096);
        let opened = opened.clone();
        let fails = left > 0;
        left = left.saturating_sub(1);
        async move {
            if fails {
                return Err(std::io::ErrorKind::ConnectionRefused.into());
            }
            tokio::spawn(async move { opened.send(accept_over(theirs).await.unwrap()) });
            Ok(ours)
        }
    });
    (client, sockets)
}

async fn received(server: &mut WebSocket) -> String {
    let message = timeout(Duration::from_secs(60), server.recv()).await.expect("nothing comes");
    message.unwrap().expect("open").to_string()
}

/// Receives until it ends.
async fn receive(mut client: Reconnecting) -> Error {
    loop {
        if let Err(error) = client.recv().await {
            return error;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn other_tasks_send_while_one_receives_over_all_its_connections() {
    let (client, mut sockets) = client(2);
    let mut client = client.on_open(|mut socket| async move {
        socket.send("subscribe").await?;
        Ok(socket)
    });
    let sender = client.sender();
    assert!(!sender.is_open() && !sender.is_over());
    // Nobody has connected yet.
    let waiting = tokio::spawn({
        let sender = sender.clone();
        async move { sender.send("early").await }
    });
    assert!(timeout(Duration::from_secs(60), sender.send("dropped")).await.is_err());
    let receiving = tokio::spawn(receive(client));
    let mut server = sockets.recv().await.unwrap();
    // The hook is first, and what was dropped is not sent.
    assert_eq!(received(&mut server).await, "subscribe");
    assert_eq!(received(&mut server).await, "early");
    waiting.await.unwrap().unwrap();
    for number in 0..3 {
        assert!(sender.is_open());
        sender.send(format!("sent {number}")).await.unwrap();
        sender.try_send(format!("tried {number}")).unwrap();
        assert_eq!(received(&mut server).await, format!("sent {number}"));
        assert_eq!(received(&mut server).await, format!("tried {number}"));
        server.close(CloseCode::SERVICE_RESTART).await.unwrap();
        // Lost, and not yet replaced.
        let refused = sender.try_send("never").unwrap_err();
        assert!(refused.is_closed() && !sender.is_open() && !sender.is_over(), "{refused}");
        let began = Instant::now();
        sender.send(format!("waits {number}")).await.unwrap();
        assert!(began.elapsed() > Duration::ZERO);
        server = sockets.recv().await.unwrap();
        assert_eq!(received(&mut server).await, "subscribe");
        assert_eq!(received(&mut server).await, format!("waits {number}"));
    }
    receiving.abort();
}

#[tokio::test(start_paused = true)]
async fn a_sender_can_wait_for_a_connection_before_there_is_something_to_send() {
    let (mut client, mut sockets) = client(3);
    let sender = client.sender();
    let receiving = tokio::spawn(receive(client));
    sender.ready().await.unwrap();
    sender.try_send("now").unwrap();
    assert_eq!(received(&mut sockets.recv().await.unwrap()).await, "now");
    receiving.abort();
    let _ = receiving.await;
    assert!(sender.ready().await.unwrap_err().is_closed());
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_room_goes_to_the_next_connection_when_this_one_is_lost() {
    let (mut client, mut sockets) = client(0);
    let sender = client.sender();
    let receiving = tokio::spawn(receive(client));
    let server = sockets.recv().await.unwrap();
    // It does not read: what is accepted is pending, and bounded.
    let mut accepted = 0;
    sender.ready().await.unwrap();
    let refused = loop {
        match sender.try_send(vec![0; 64 << 10]) {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 100, "it has no bound");
    };
    assert!(refused.is_full(), "{refused}");
    let waiting = tokio::spawn({
        let sender = sender.clone();
        async move { sender.send("waits").await }
    });
    assert!(timeout(Duration::from_secs(5), sender.send("dropped")).await.is_err());
    assert!(!waiting.is_finished());
    drop(server);
    let mut server = sockets.recv().await.unwrap();
    assert_eq!(received(&mut server).await, "waits");
    waiting.await.unwrap().unwrap();
    receiving.abort();
}

#[tokio::test(start_paused = true)]
async fn senders_end_with_what_they_were_made_by() {
    // Dropped, in each state: before it connects, open, and with a peer that does not read. The connection is dropped
    // with it, whoever waits on it.
    for state in ["idle", "open", "full"] {
        let (mut client, mut sockets) = client(0);
        let sender = client.sender();
        let mut server = None;
        if state != "idle" {
            client.ready().await.unwrap();
            server = sockets.recv().await;
        }
        while state == "full" && sender.try_send(vec![0; 64 << 10]).is_ok() {}
        let waiting = (state != "open").then(|| {
            let sender = sender.clone();
            tokio::spawn(async move { sender.send("waits").await })
        });
        sleep(Duration::from_millis(1)).await;
        drop(client);
        if let Some(waiting) = waiting {
            let error = timeout(Duration::from_secs(1), waiting).await.expect(state).unwrap().unwrap_err();
            assert!(error.is_closed(), "{state}: {error}");
        }
        assert!(sender.send("x").await.unwrap_err().is_closed(), "{state}");
        assert!(sender.try_send("x").unwrap_err().is_closed() && sender.is_over(), "{state}");
        if let Some(mut server) = server {
            let ended = timeout(Duration::from_secs(1), async { while let Ok(Some(_)) = server.recv().await {} }).await;
            assert!(ended.is_ok(), "{state}: the connection goes on");
        }
    }

    // Closed.
    let (mut client, mut sockets) = client(0);
    let sender = client.sender();
    client.ready().await.unwrap();
    let mut server = sockets.recv().await.unwrap();
    let (closed, _) = tokio::join!(client.close(CloseCode::NORMAL), server.recv());
    closed.unwrap();
    assert!(sender.send("x").await.unwrap_err().is_closed() && sender.is_over());
    assert!(client.sender().send("x").await.unwrap_err().is_closed());

    // Given up: they say why, and so does one that is made only then.
    let (client, _sockets) = self::client(5);
    let mut client = client.max_attempts(3);
    let sender = client.sender();
    let (sent, received) = tokio::join!(sender.send("x"), client.recv());
    assert!(sent.unwrap_err().is_io() && received.unwrap_err().is_io());
    assert!(client.sender().try_send("x").unwrap_err().is_io());
}

#[tokio::test(start_paused = true)]
async fn a_sender_may_be_made_at_any_time() {
    let (mut client, mut sockets) = client(0);
    client.ready().await.unwrap();
    let mut server = sockets.recv().await.unwrap();
    // While it is open, and nobody calls it again; the first one, and one when there are none any more.
    for word in ["one", "two"] {
        let sender = client.sender();
        sender.send(word).await.unwrap();
        assert_eq!(received(&mut server).await, word);
    }
    // While it waits for the next attempt.
    drop(server);
    assert!(timeout(Duration::from_millis(1), client.recv()).await.is_err());
    let sender = client.sender();
    assert!(sender.try_send("x").unwrap_err().is_closed() && !sender.is_over());
    let (sent, ready) = tokio::join!(sender.send("three"), client.ready());
    assert!(sent.is_ok() && ready.is_ok());
    assert_eq!(received(&mut sockets.recv().await.unwrap()).await, "three");
}

#[tokio::test(start_paused = true)]
async fn what_is_said_first_on_a_new_connection_is_not_overtaken() {
    let (mut client, mut sockets) = client(0);
    let sender = client.sender();
    let eager = tokio::spawn(async move { sender.send("eager").await });
    let Next::Opened(socket) = client.next().await.unwrap() else { panic!("nothing was sent") };
    // It takes its time: the others wait.
    sleep(Duration::from_secs(3)).await;
    socket.send("since 0").await.unwrap();
    assert!(!eager.is_finished());
    assert!(client.sender().try_send("pushy").unwrap_err().is_closed());
    let mut server = sockets.recv().await.unwrap();
    assert!(timeout(Duration::from_millis(1), client.next()).await.is_err());
    assert_eq!(received(&mut server).await, "since 0");
    assert_eq!(received(&mut server).await, "eager");
}

/// An application as one writes it: the connection is a field, its loop a method, its parts know the sender.
struct App {
    feed: Reconnecting,
    sender: ReconnectingSender,
    seen: usize,
}

impl App {
    fn new(feed: Reconnecting) -> Self {
        let mut feed = feed;
        Self { sender: feed.sender(), feed, seen: 0 }
    }

    async fn run(&mut self) -> Result<(), Error> {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                message = self.feed.recv() => self.handle(&message?).await?,
                _ = ticks.tick() => drop(self.sender.try_send("tick")),
            }
        }
    }

    async fn handle(&mut self, message: &Message<'_>) -> Result<(), Error> {
        self.seen += 1;
        // By either way.
        self.feed.send(format!("feed: {message}")).await?;
        self.sender.send(format!("sender: {message}")).await
    }
}

#[tokio::test(start_paused = true)]
async fn it_fits_into_a_struct_a_task_and_a_select() {
    fn is_shared<T: Send + Sync + 'static>(_: &T) {}
    let (client, mut sockets) = client(0);
    let mut app = App::new(client);
    is_shared(&app);
    let running = tokio::spawn(async move {
        let ended = app.run().await;
        (app.seen, ended)
    });
    for _ in 0..2 {
        let mut server = sockets.recv().await.unwrap();
        server.send("hello").await.unwrap();
        let mut replies = Vec::new();
        while replies.len() < 2 {
            let reply = received(&mut server).await;
            if reply != "tick" {
                replies.push(reply);
            }
        }
        assert_eq!(replies, ["feed: hello", "sender: hello"]);
    }
    let mut server = sockets.recv().await.unwrap();
    server.close(CloseCode::POLICY).await.unwrap();
    let (seen, ended) = running.await.unwrap();
    assert_eq!((seen, ended.unwrap_err().close_code()), (2, Some(CloseCode::POLICY)));
}

// With real sockets and threads. What was on its way to a connection that ends is lost, so there are gaps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_a_task_arrive_once_and_in_order_however_often_the_connection_is_replaced() {
    const TASKS: usize = 4;
    const CONNECTIONS: usize = 6;
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", server.local_addr().unwrap());
    let (seen, mut arrived) = unbounded_channel();
    let count = AtomicUsize::new(0);
    let serving = server.serve(move |incoming: Incoming| {
        let seen = seen.clone();
        let connection = count.fetch_add(1, Ordering::SeqCst);
        async move {
            let mut socket = incoming.accept().await?;
            let mut left = 100;
            while let Some(message) = socket.recv().await? {
                let (task, number) = message.as_text().and_then(|text| text.split_once(' ')).expect("a task's");
                let _ = seen.send((connection, task.parse::<usize>().unwrap(), number.parse::<usize>().unwrap()));
                left -= 1;
                if left == 0 {
                    return socket.close(CloseCode::new(4000)).await;
                }
            }
            Ok(())
        }
    });
    let serving = tokio::spawn(serving.into_future());

    let mut backoff = Backoff::default();
    backoff.stable = Duration::ZERO;
    let client = Client::new(&url).reconnecting(backoff, |socket| async { Ok(socket) });
    let mut client = client.decide(|_| Decision::RetryNow);
    let sender = client.sender();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { panic!("given up: {}", receive(client).await) });
    for task in 0..TASKS {
        let sender = sender.clone();
        tasks.spawn(async move {
            for number in 0.. {
                sender.send(format!("{task} {number}")).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
    }
    let mut next = [0; TASKS];
    let mut last = [0; TASKS];
    while last.iter().any(|connection| *connection < CONNECTIONS) {
        let arrival = timeout(Duration::from_secs(30), arrived.recv()).await;
        let (connection, task, number) = arrival.unwrap_or_else(|_| panic!("nothing comes: {last:?}")).unwrap();
        assert!(number >= next[task], "{number} of task {task} again, or late: {next:?}");
        next[task] = number + 1;
        last[task] = connection;
    }
    tasks.shutdown().await;
    serving.abort();
}

#[test]
fn a_sender_can_be_shared_between_threads() {
    fn is_shared<T: Send + Sync + Clone + 'static>(value: T) -> T {
        value
    }
    fn is_send<T: Send>(_: T) {}
    let mut client = Client::new("ws://a.example/").reconnecting(Backoff::default(), |socket| async { Ok(socket) });
    let sender = is_shared(client.sender());
    is_send(sender.send("x"));
    is_send(sender.ready());
    assert!(format!("{sender:?}").contains("is_open: false"));
}
