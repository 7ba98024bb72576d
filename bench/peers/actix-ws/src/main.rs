//! An echo server over actix-ws, in the loop of its documentation: receive, send, repeat. What is sent goes through a
//! channel to the connection's task, which encodes all that waits there and writes it together: it batches by itself,
//! so there is no second form in which the program would.
//!
//! One worker, and the default limits but for the size of a frame, which by default may not exceed 64 KiB.

use std::any::Any;
use std::io;

use actix_web::rt::net::TcpStream;
use actix_web::{App, Error, HttpRequest, HttpResponse, HttpServer, web};
use actix_ws::{Message, MessageStream, Session};

fn main() -> io::Result<()> {
    actix_web::rt::System::new().block_on(async {
        let server = HttpServer::new(|| App::new().default_service(web::to(upgrade)))
            .workers(1)
            .on_connect(|stream: &dyn Any, _| {
                if let Some(stream) = stream.downcast_ref::<TcpStream>()
                    && let Err(error) = stream.set_nodelay(true)
                {
                    eprintln!("TCP_NODELAY: {error}");
                }
            })
            .bind(("127.0.0.1", 0))?;
        println!("listening on {}", server.addrs()[0]);
        server.run().await
    })
}

async fn upgrade(request: HttpRequest, body: web::Payload) -> Result<HttpResponse, Error> {
    let (response, session, messages) = actix_ws::handle(&request, body)?;
    actix_web::rt::spawn(echo(session, messages.max_frame_size(LARGEST)));
    Ok(response)
}

async fn echo(mut session: Session, mut messages: MessageStream) {
    // An error says that the client is gone or has broken the protocol: either ends the connection.
    while let Some(Ok(message)) = messages.recv().await {
        let sent = match message {
            Message::Text(text) => session.text(text).await,
            Message::Binary(bytes) => session.binary(bytes).await,
            Message::Ping(payload) => session.pong(&payload).await,
            Message::Close(reason) => {
                let _ = session.close(reason).await;
                return;
            }
            _ => Ok(()),
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Bytes of a frame: the largest message that is measured.
const LARGEST: usize = 1 << 20;
