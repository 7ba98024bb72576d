use std::future::poll_fn;
use std::panic;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use gloo_timers::callback::Timeout;
use js_sys::{Function, Promise, Reflect};
use taut::{Client, Close, CloseCode, Error, Message, WebSocket};
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::{JsFuture, spawn_local};

pub(crate) fn main() {
    panic::set_hook(Box::new(|panic| report(&panic.to_string())));
    let wanted = Reflect::get(&js_sys::global(), &"wanted".into()).expect("the page says what it wants");
    let of = |name: &str| {
        let value = Reflect::get(&wanted, &name.into()).ok().and_then(|value| value.as_string());
        value.unwrap_or_else(|| panic!("the page says `wanted.{name}`"))
    };
    let (test, url) = (of("test"), of("url"));
    spawn_local(async move {
        match run(&test, &url).await {
            Ok(()) => report("passed"),
            Err(error) => report(&format!("{error}\n{error:?}")),
        }
    });
}

fn report(outcome: &str) {
    Reflect::set(&js_sys::global(), &"outcome".into(), &JsValue::from_str(outcome))
        .expect("a page's globals can be set");
}

async fn run(test: &str, url: &str) -> Result<(), Error> {
    match test {
        "messages" => messages(url).await,
        "split" => split(url).await,
        "high_water" => high_water(url).await,
        "overflow" => overflow(url).await,
        "dropped" => dropped(url).await,
        "close" => close(url).await,
        "closed_by_server" => closed_by_server(url).await,
        "bearer" => bearer(url).await,
        "not_let_in" => not_let_in(url).await,
        "refused" => refused(url).await,
        "silent" => silent(url).await,
        "broken" => broken(url).await,
        "invalid" => invalid(url).await,
        _ => panic!("there is no test {test}"),
    }
}

/// Text and bytes of several sizes come back as they were, in order.
async fn messages(url: &str) -> Result<(), Error> {
    let mut socket = taut::connect(url).await?;
    assert_eq!((socket.subprotocol(), socket.pending()), (None, 0));
    for size in [0, 1, 125, 126, 65_535, 65_536, 300_000] {
        let text: String = "aé€😀".chars().cycle().take(size).collect();
        let bytes: Vec<u8> = (0..size).map(|index| (index * 7) as u8).collect();
        socket.send(&*text).await?;
        socket.send(&*bytes).await?;
        assert_eq!(socket.recv().await?, Some(Message::from(text)));
        assert_eq!(socket.recv().await?, Some(Message::from(bytes)));
    }
    socket.close(CloseCode::NORMAL).await
}

/// One task sends through clones, another receives.
async fn split(url: &str) -> Result<(), Error> {
    let (sender, mut receiver) = taut::connect(url).await?.split();
    let other = sender.clone();
    spawn_local(async move {
        for number in 0..100 {
            let by = if number % 2 == 0 { &sender } else { &other };
            by.send(number.to_string()).await.expect("it is open");
        }
        sender.close(CloseCode::NORMAL).await.expect("the server answers");
        assert!(!sender.is_open() && !other.is_open());
    });
    // What comes before the answer to the close is still received.
    let mut count = 0;
    while let Some(message) = receiver.recv().await? {
        assert_eq!(message.as_text(), Some(&*count.to_string()));
        count += 1;
    }
    assert!(receiver.sender().try_send("late").unwrap_err().is_closed());
    assert_eq!(receiver.peer_close().map(|close| close.code()), Some(CloseCode::NORMAL));
    Ok(())
}

/// `send` waits for the high-water mark; `try_send` does not, and sends nothing.
async fn high_water(url: &str) -> Result<(), Error> {
    let mut socket = taut::connect(url).await?;
    let large = vec![7; 3 << 20];
    socket.send(&*large).await?;
    assert!(socket.pending() >= 1 << 20, "{}", socket.pending());
    let error = socket.try_send("more").unwrap_err();
    assert!(error.is_full() && error.close_code().is_none(), "{error:?}");
    socket.send("after").await?;
    assert!(socket.pending() < 1 << 20, "{}", socket.pending());
    socket.flush().await?;
    assert_eq!(socket.pending(), 0);
    assert_eq!(socket.recv().await?, Some(Message::from(large)));
    assert_eq!(socket.recv().await?, Some(Message::from("after")));
    socket.close(CloseCode::NORMAL).await
}

/// Who does not receive is closed: what waited is received, then comes the error, and it stays.
async fn overflow(url: &str) -> Result<(), Error> {
    let (sender, mut receiver) = taut::connect(url).await?.split();
    for _ in 0..2000 {
        sender.send("x").await?;
    }
    while receiver.peer_close().is_none() {
        a_while().await;
    }
    let mut count = 0;
    let error = loop {
        match receiver.recv().await {
            Ok(message) => count += usize::from(message.is_some()),
            Err(error) => break error,
        }
    };
    assert_eq!(count, 1024);
    assert!(error.is_full() && !error.is_transient(), "{error:?}");
    assert_eq!(error.close_code(), Some(CloseCode::new(4013)));
    // The server has heard it, and echoes it.
    assert_eq!(receiver.peer_close().map(|close| close.code()), error.close_code());
    assert!(sender.try_send("more").unwrap_err().is_full());
    assert!(receiver.recv().await.unwrap_err().is_full());
    Ok(())
}

/// Dropped calls lose nothing, and a dropped WebSocket bothers nobody.
async fn dropped(url: &str) -> Result<(), Error> {
    let mut socket = taut::connect(url).await?;
    drop(once(socket.recv()).await);
    drop(once(socket.send("one")).await);
    drop(once(socket.recv()).await);
    socket.send("two").await?;
    assert_eq!(socket.recv().await?, Some(Message::from("one")));
    assert_eq!(socket.recv().await?, Some(Message::from("two")));
    drop(socket);
    drop(once(Client::new(url).connect()).await);
    messages(url).await
}

/// A close of ours is answered and seen as `None`; which codes a page may send.
async fn close(url: &str) -> Result<(), Error> {
    let mut socket = taut::connect(url).await?;
    for code in [CloseCode::GOING_AWAY, CloseCode::POLICY, CloseCode::ABNORMAL, CloseCode::new(5000)] {
        let error = socket.close(code).await.unwrap_err();
        assert!(error.is_invalid() && error.to_string().contains(&code.to_string()), "{error}");
    }
    socket.send("still open").await?;
    assert_eq!(socket.recv().await?, Some(Message::from("still open")));
    assert_eq!(socket.peer_close(), None);
    socket.close(Close::new(CloseCode::new(4001), "é".repeat(100))).await?;
    assert_eq!(socket.peer_close().map(|close| close.code()), Some(CloseCode::new(4001)));
    assert_eq!(socket.recv().await?, None);
    assert!(socket.send("late").await.unwrap_err().is_closed());
    socket.close(CloseCode::NORMAL).await?;

    let mut socket = taut::connect(url).await?;
    socket.close(CloseCode::NO_STATUS).await
}

/// The server closes: what came before is received, then `None`, with its code and reason.
async fn closed_by_server(url: &str) -> Result<(), Error> {
    let mut socket = taut::connect(url).await?;
    assert_eq!(socket.recv().await?, Some(Message::from("last words")));
    assert_eq!(socket.recv().await?, None);
    assert_eq!(socket.peer_close(), Some(Close::new(CloseCode::SERVICE_RESTART, "back soon")));
    assert!(socket.try_send("late").unwrap_err().is_closed());
    Ok(())
}

/// A token in a subprotocol lets one in; the answer names the other one.
async fn bearer(url: &str) -> Result<(), Error> {
    let client = Client::new(url).subprotocol("chat.v1").bearer_subprotocol("ada-token");
    let shown = format!("{client:?}");
    assert!(!shown.contains("token"), "{shown}");
    let mut socket = client.connect().await?;
    assert_eq!(socket.subprotocol(), Some("chat.v1"));
    assert_eq!(socket.recv().await?, Some(Message::from("hello, Ada")));
    socket.close(CloseCode::NORMAL).await
}

/// The server answers 401 or 403; a page only learns that it did not get in.
async fn not_let_in(url: &str) -> Result<(), Error> {
    for token in ["nobody", "bob-token"] {
        let client = Client::new(url).subprotocol("chat.v1").bearer_subprotocol(token);
        is_unreachable(&client.connect().await);
    }
    Ok(())
}

/// Nobody listens there.
async fn refused(url: &str) -> Result<(), Error> {
    is_unreachable(&taut::connect(url).await);
    Ok(())
}

fn is_unreachable(result: &Result<WebSocket, Error>) {
    let error = result.as_ref().expect_err("there is no way in");
    assert!(error.is_io() && error.is_transient() && error.close_code().is_none(), "{error:?}");
    assert!(error.to_string().contains("server running"), "{error}");
}

/// Somebody listens and says nothing.
async fn silent(url: &str) -> Result<(), Error> {
    let client = Client::new(url).connect_timeout(Duration::from_millis(200));
    let error = client.connect().await.expect_err("nobody answers");
    assert!(error.is_timeout() && error.to_string().contains("200ms"), "{error:?}");
    Ok(())
}

/// The connection ends without a close frame: what came before is received, then the error, and it stays.
async fn broken(url: &str) -> Result<(), Error> {
    let mut socket = taut::connect(url).await?;
    assert_eq!(socket.recv().await?, Some(Message::from("last words")));
    let error = socket.recv().await.expect_err("it broke");
    assert!(error.is_io() && error.is_transient(), "{error:?}");
    assert_eq!((error.close_code(), socket.peer_close()), (Some(CloseCode::ABNORMAL), None));
    assert!(socket.recv().await.unwrap_err().is_io() && socket.send("late").await.unwrap_err().is_io());
    assert!(socket.close(CloseCode::NORMAL).await.unwrap_err().is_io());
    Ok(())
}

/// What the browser does not accept is told when connecting.
async fn invalid(url: &str) -> Result<(), Error> {
    for client in [
        Client::new("ws://127.0.0.1:65536/"),
        Client::new("ftp://127.0.0.1/"),
        Client::new(url).subprotocol("a b"),
        Client::new(url).subprotocol("a").subprotocol("a"),
        Client::new(url).bearer_subprotocol("a/b="),
    ] {
        let error = client.connect().await.expect_err("it is malformed");
        assert!(error.is_invalid() && !error.is_transient(), "{error:?}");
    }
    Ok(())
}

/// Lets the page do something else. Only where nothing can be awaited: whoever awaits a message receives it.
async fn a_while() {
    let mut begin = |resolve: Function, _| {
        Timeout::new(10, move || drop(resolve.call0(&JsValue::NULL))).forget();
    };
    JsFuture::from(Promise::new(&mut begin)).await.expect("a timer does not fail");
}

/// Polls once.
async fn once<T>(future: impl Future<Output = T>) -> Poll<T> {
    let mut future = pin!(future);
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}
