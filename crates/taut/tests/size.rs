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
