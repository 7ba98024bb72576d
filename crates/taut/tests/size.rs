//! What a task costs that waits for a message, and what may move between threads.

use taut::{Error, WebSocket};

async fn echo(mut socket: WebSocket) -> Result<(), Error> {
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}

fn is_send<T: Send>(_: &T) {}

#[tokio::test]
async fn a_task_that_waits_is_small_and_may_move_between_threads() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let (client, server) =
        tokio::join!(taut::connect(&url), async { taut::accept(listener.accept().await.unwrap().0).await });
    let (mut client, server) = (client.unwrap(), server.unwrap());
    is_send(&client);

    let socket = size_of::<WebSocket>();
    let recv = size_of_val(&client.recv());
    let echo = echo(server);
    is_send(&echo);
    let task = size_of_val(&echo);
    println!("socket {socket}, recv {recv}, echo task {task}");
    assert!(socket <= 16, "{socket}");
    assert!(recv <= 32, "{recv}");
    assert!(task <= 144, "{task}");
}

/// Compiles only if a type may move between threads and be shared by them.
fn is_shared<T: Send + Sync>() {}

#[test]
fn what_is_public_may_be_shared_between_threads() {
    is_shared::<taut::Acceptor>();
    is_shared::<taut::Backoff>();
    is_shared::<taut::Client>();
    is_shared::<Error>();
    is_shared::<taut::Failure>();
    is_shared::<taut::Incoming>();
    is_shared::<taut::Message<'static>>();
    is_shared::<taut::MessageReader<'static>>();
    is_shared::<taut::MessageWriter<'static>>();
    is_shared::<taut::NotText>();
    is_shared::<taut::Proxy>();
    is_shared::<taut::Receiver>();
    is_shared::<taut::Refusal>();
    is_shared::<taut::Request>();
    is_shared::<taut::Sender>();
    is_shared::<taut::Server>();
    is_shared::<taut::Settings>();
    is_shared::<taut::Transport>();
    is_shared::<WebSocket>();
    is_shared::<taut::tls::ClientTls>();
    is_shared::<taut::tls::ServerTls>();
    is_shared::<taut::tower::UpgradeLayer<fn()>>();
    is_shared::<taut::upgrade::Shutdown>();
    is_shared::<taut::upgrade::Upgrade>();
}

// A handler that is generic over what it is called with holds a client across an `await`, by reference.
#[tokio::test]
async fn a_client_that_waits_for_an_answer_may_be_looked_at_from_another_thread() {
    async fn look_up(incoming: &taut::Incoming) -> bool {
        tokio::task::yield_now().await;
        incoming.path() == "/"
    }
    let (ours, theirs) = tokio::io::duplex(4096);
    let serving = tokio::spawn(async move {
        let incoming = taut::Acceptor::new().accept_over(theirs).await?;
        if !look_up(&incoming).await {
            return incoming.reject(404, "not here").await;
        }
        incoming.accept().await?.send("hello").await
    });
    let mut client = taut::Client::new("ws://a.example/").connect_over(ours).await.unwrap();
    assert_eq!(client.recv().await.unwrap(), Some("hello".into()));
    serving.await.unwrap().unwrap();
}
