//! Through proxies, byte by byte: HTTP CONNECT and SOCKS5, on real sockets.

#[cfg(feature = "tls")]
#[path = "../src/native/tls/testing.rs"]
#[allow(dead_code, reason = "not every test needs everything")]
mod testing;

use taut::{Client, Error, Proxy, WebSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A WebSocket server for one client; its port.
async fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut socket = taut::accept(listener.accept().await.unwrap().0).await.unwrap();
        while let Ok(Some(message)) = socket.recv().await {
            socket.send(message).await.unwrap();
        }
    });
    port
}

async fn echoed(socket: &mut WebSocket) {
    socket.send("hello").await.unwrap();
    assert_eq!(socket.recv().await.unwrap().unwrap().as_text(), Some("hello"));
    socket.close(taut::CloseCode::NORMAL).await.unwrap();
}

/// One step of a proxy.
#[derive(Clone)]
enum Step {
    /// Reads exactly this.
    Expect(Vec<u8>),
    /// Reads a head that has these lines.
    ExpectHead(Vec<String>),
    Say(Vec<u8>),
    /// Connects to this port, and is a tunnel.
    Tunnel(u16),
    /// Reads until the client goes.
    Wait,
}

/// A proxy that does these steps for one client.
async fn proxy(steps: Vec<Step>) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        for step in steps {
            match step {
                Step::Expect(bytes) => {
                    let mut read = vec![0; bytes.len()];
                    client.read_exact(&mut read).await.unwrap();
                    assert_eq!(read, bytes);
                }
                Step::ExpectHead(lines) => {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(client.read_u8().await.unwrap());
                    }
                    let head = String::from_utf8(head).unwrap();
                    assert_eq!(head.split("\r\n").filter(|line| !line.is_empty()).collect::<Vec<_>>(), lines);
                }
                Step::Say(bytes) => client.write_all(&bytes).await.unwrap(),
                Step::Tunnel(port) => {
                    let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                }
                Step::Wait => {
                    let _ = tokio::io::copy(&mut client, &mut tokio::io::sink()).await;
                }
            }
        }
    });
    (port, task)
}

fn connect_head(authorization: Option<&str>) -> Step {
    let mut lines = vec!["CONNECT a.example:80 HTTP/1.1".to_owned(), "Host: a.example:80".to_owned()];
    lines.extend(authorization.map(|value| format!("Proxy-Authorization: {value}")));
    Step::ExpectHead(lines)
}

async fn through_http(user: &str, steps: Vec<Step>) -> Result<WebSocket, Error> {
    let (port, task) = proxy(steps).await;
    let proxy = Proxy::http(&format!("http://{user}127.0.0.1:{port}")).unwrap();
    let result = Client::new("ws://a.example/").proxy(proxy).connect().await;
    if result.is_err() {
        task.await.unwrap();
    }
    result
}

// RFC 6455 §4.1: a client that has a proxy asks it by CONNECT for a connection to the server's host and port.
#[tokio::test]
async fn an_http_proxy_is_asked_for_a_tunnel() {
    let say = |text: &str| Step::Say(text.as_bytes().to_vec());
    let ok = "HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n";
    for (user, authorization, answer) in [
        ("", None, ok),
        ("", None, "HTTP/1.0 299 \r\n\r\n"),
        ("", None, &*format!("HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n{ok}")),
        // RFC 9110 §9.3.6: a length in the answer means nothing.
        ("", None, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"),
        // RFC 7617 §2: the example.
        ("Aladdin:open%20sesame@", Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), ok),
    ] {
        let steps = vec![connect_head(authorization), say(answer), Step::Tunnel(server().await)];
        echoed(&mut through_http(user, steps).await.unwrap()).await;
    }
}

#[tokio::test]
async fn what_comes_behind_the_answer_belongs_to_the_server() {
    // All in one segment: a "server" that answers before it is asked is refused for its words, not by a time-out.
    let answer = b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 503 Busy\r\nRetry-After: 7\r\n\r\n".to_vec();
    let error = through_http("", vec![connect_head(None), Step::Say(answer), Step::Wait]).await.unwrap_err();
    assert!(error.is_handshake() && error.status() == Some(503), "{error}");
    assert_eq!(error.retry_after().unwrap().as_secs(), 7);
}

fn refusal(head: &str) -> String {
    format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n")
}

#[tokio::test]
async fn what_a_proxy_refuses_with_can_be_looked_at() {
    let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"office\"\r\n\
                  Transfer-Encoding: chunked\r\n\r\n6\r\nask Ad\r\n7\r\na first\r\n0\r\n\r\n";
    let steps = vec![connect_head(None), Step::Say(answer.as_bytes().to_vec()), Step::Wait];
    let error = through_http("", steps).await.unwrap_err();
    assert!(error.is_proxy() && error.to_string().ends_with("; it says: ask Ada first"), "{error}");
    let response = error.response().expect("a response");
    assert_eq!((response.status(), response.text()), (407, Some("ask Ada first")));
    assert_eq!(response.header("proxy-authenticate"), Some("Basic realm=\"office\""));
}

#[tokio::test]
async fn a_proxy_that_refuses_or_is_none_is_told_without_its_password() {
    for (answer, status, word) in [
        (refusal("407 Proxy Authentication Required"), Some(407), "user and password"),
        (refusal("403 Forbidden"), Some(403), "forbid"),
        // Without a length, and without an end: it is not waited for as long as connecting may take.
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n".to_owned(), Some(502), "cannot reach"),
        (refusal("301 Moved\r\nLocation: ws://evil.example/"), Some(301), "301"),
        ("SSH-2.0-x\r\n\r\n".to_owned(), None, "not HTTP"),
        // CVE-2026-54465: headers without end.
        (format!("HTTP/1.1 200 OK\r\n{}", "a: b\r\n".repeat(100_000)), None, "not HTTP"),
        ("HTTP/1.1 100 Continue\r\n\r\n".repeat(100), None, "not HTTP"),
    ] {
        // What is beyond the limit is not read, so the proxy may see a reset: it says what it can.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            let _ = client.write_all(answer.as_bytes()).await;
            let _ = tokio::io::copy(&mut client, &mut tokio::io::sink()).await;
        });
        let proxy = Proxy::http(&format!("http://me:s3cret@127.0.0.1:{port}")).unwrap();
        let client = Client::new("ws://a.example/").proxy(proxy.clone());
        let error = client.connect().await.unwrap_err();
        assert!(error.is_proxy() && error.status() == status, "{error}");
        assert!(error.to_string().contains(word), "{error}");
        let shown = format!("{error} {error:?} {proxy:?} {client:?}");
        assert!(!shown.contains("s3cret") && !shown.contains("me:"), "{shown}");
    }
    let error = through_http("", vec![connect_head(None)]).await.unwrap_err();
    assert!(error.is_io() && error.to_string().contains("proxy"), "{error}");
}

fn bytes(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

async fn through_socks(scheme: &str, user: &str, url: &str, steps: Vec<Step>) -> Result<WebSocket, Error> {
    let (port, task) = proxy(steps).await;
    let proxy = Proxy::socks5(&format!("{scheme}://{user}127.0.0.1:{port}")).unwrap();
    let result = Client::new(url).proxy(proxy).connect().await;
    if result.is_err() {
        task.await.unwrap();
    }
    result
}

// RFC 1928 §4: the destination is a name, an IPv4 or an IPv6 address. RFC 1928 §6: so is what the reply names.
#[tokio::test]
async fn a_socks_proxy_is_told_name_or_address() {
    let name: &[u8] = b"\x05\x01\x00\x03\x09a.example\x00\x50";
    let four: &[u8] = b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x51";
    let six: &[u8] = b"\x05\x01\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x50";
    let replies: [&[u8]; 3] = [
        b"\x05\0\0\x01\0\0\0\0\0\0",
        b"\x05\0\0\x03\x03abc\0\x01",
        b"\x05\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    ];
    for (scheme, url, request) in [
        ("socks5h", "ws://a.example/", name),
        ("socks5h", "ws://127.0.0.1:81/", four),
        ("socks5h", "ws://[::1]/", six),
        ("socks5", "ws://127.0.0.1:81/", four),
        ("socks5", "ws://localhost:81/", four),
        ("SOCKS5", "ws://[::1]/", six),
    ] {
        for reply in replies {
            let steps = vec![
                Step::Expect(b"\x05\x01\x00".to_vec()),
                Step::Say(b"\x05\x00".to_vec()),
                Step::Expect(request.to_vec()),
                Step::Say(reply.to_vec()),
                Step::Tunnel(server().await),
            ];
            echoed(&mut through_socks(scheme, "", url, steps).await.unwrap()).await;
        }
    }
}

// RFC 1929 §2: user and password.
#[tokio::test]
async fn a_socks_proxy_gets_user_and_password_if_it_asks() {
    let connect = || {
        vec![
            Step::Expect(b"\x05\x01\x00\x03\x09a.example\x00\x50".to_vec()),
            Step::Say(b"\x05\0\0\x01\0\0\0\0\0\0".to_vec()),
        ]
    };
    let hello = || Step::Expect(b"\x05\x02\x00\x02".to_vec());
    let login = || Step::Expect(bytes(&[b"\x01\x02me\x03a:b"]));
    for asks in [true, false] {
        let mut steps = vec![hello(), Step::Say(vec![5, if asks { 2 } else { 0 }])];
        if asks {
            steps.extend([login(), Step::Say(vec![1, 0])]);
        }
        steps.extend(connect());
        steps.push(Step::Tunnel(server().await));
        echoed(&mut through_socks("socks5h", "me:a%3Ab@", "ws://a.example/", steps).await.unwrap()).await;
    }
    for (user, steps, word) in [
        ("me:a%3Ab@", vec![hello(), Step::Say(vec![5, 2]), login(), Step::Say(vec![1, 1])], "does not accept"),
        ("me:a%3Ab@", vec![hello(), Step::Say(vec![5, 0xff])], "does not accept"),
        ("", vec![Step::Say(vec![5, 0xff]), Step::Wait], "wants a user"),
        ("", vec![Step::Say(vec![5, 2]), Step::Wait], "wants a user"),
        ("", vec![Step::Say(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()), Step::Wait], "not SOCKS5"),
        ("", vec![Step::Say(vec![5, 0, 5, 5, 0, 1]), Step::Wait], "refused the connection"),
        ("", vec![Step::Say(vec![5, 0, 5, 2, 0, 1]), Step::Wait], "rules forbid"),
        ("", vec![Step::Say(vec![5, 0, 5, 99, 0, 1]), Step::Wait], "99"),
        ("", vec![Step::Say(vec![5, 0, 4, 0, 0, 1]), Step::Wait], "not SOCKS5"),
        ("", vec![Step::Say(vec![5, 0, 5, 0, 0, 9]), Step::Wait], "not SOCKS5"),
    ] {
        let error = through_socks("socks5h", user, "ws://a.example/", steps).await.unwrap_err();
        assert!(error.is_proxy() && error.to_string().contains(word), "{word}: {error}");
        assert!(!format!("{error:?}").contains("a:b"), "{error:?}");
    }
}

#[test]
fn a_wrong_url_of_a_proxy_is_told_without_quoting_it() {
    let long = format!("socks5://{}:p@a.example", "x".repeat(256));
    for (error, word) in [
        (Proxy::http("socks5://me:s3cret@a.example"), "http://"),
        (Proxy::socks5("http://s3cret@a.example"), "socks5h://"),
        (Proxy::http("a.example:3128"), "URL"),
        (Proxy::http("ftp://s3cret@a.example"), "scheme"),
        (Proxy::http("http://s3cret@a.example:x"), "port"),
        (Proxy::http("http://s3cret@"), "host"),
        (Proxy::http("http://s3cret@a.example/path"), "path"),
        (Proxy::http("http://s3cret%zz:x@a.example"), "percent"),
        (Proxy::http("http://s3cret%3Ax:x@a.example"), "colon"),
        (Proxy::socks5("socks5://s3cret@a.example"), "255"),
        (Proxy::socks5(&long), "255"),
    ] {
        let error = error.expect_err(word);
        assert!(error.is_invalid() && error.to_string().contains(word), "{error}");
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
    }
    assert_eq!(format!("{:?}", Proxy::http("HTTP://me:s3cret@a.example/").unwrap()), "Proxy(http://a.example:80)");
    assert_eq!(format!("{:?}", Proxy::socks5("socks5h://[::1]:9").unwrap()), "Proxy(socks5h://::1:9)");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_never_answers_is_given_up_at_the_deadline() {
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = mute.local_addr().unwrap();
    for proxy in [Proxy::http(&format!("http://{address}")), Proxy::socks5(&format!("socks5h://{address}"))] {
        let start = tokio::time::Instant::now();
        let error = Client::new("ws://a.example/").proxy(proxy.unwrap()).connect().await.unwrap_err();
        assert!(error.is_timeout() && error.to_string().contains("proxy"), "{error}");
        assert_eq!(start.elapsed().as_secs(), 10);
    }
}

#[cfg(feature = "tls")]
mod secure {
    use std::sync::Arc;

    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    use taut::tls::{ClientTls, rustls};
    use tokio_rustls::TlsAcceptor;

    use super::testing::{Authority, Identity};
    use super::*;

    fn acceptor(identity: &Identity) -> TlsAcceptor {
        let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        TlsAcceptor::from(Arc::new(builder.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap()))
    }

    /// A secure server for one client; its port.
    async fn secure_server(identity: &Identity) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, acceptor) = (listener.local_addr().unwrap().port(), acceptor(identity));
        tokio::spawn(async move {
            let stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
            let mut socket = taut::accept_over(stream).await.unwrap();
            while let Ok(Some(message)) = socket.recv().await {
                socket.send(message).await.unwrap();
            }
        });
        port
    }

    /// A secure proxy for one client.
    async fn secure_proxy(identity: &Identity, to: u16) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, acceptor) = (listener.local_addr().unwrap().port(), acceptor(identity));
        tokio::spawn(async move {
            let mut client = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            assert!(head.starts_with(b"CONNECT a.example:443 HTTP/1.1\r\n"));
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            client.flush().await.unwrap();
            let mut server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
            let _ = copy_bidirectional(&mut client, &mut server).await;
        });
        port
    }

    #[tokio::test]
    async fn wss_goes_through_every_kind_of_proxy_and_is_verified_by_the_servers_name() {
        let (authority, of_the_proxy) = (Authority::new(), Authority::new());
        let trust = |authority: &Authority| ClientTls::only_pem(authority.root().as_bytes()).unwrap();
        let client = Client::new("wss://a.example/").tls(trust(&authority));
        let identity = authority.issue("a.example");

        let target = Step::ExpectHead(vec!["CONNECT a.example:443 HTTP/1.1".into(), "Host: a.example:443".into()]);
        let ok = Step::Say(b"HTTP/1.1 200 OK\r\n\r\n".to_vec());
        let (port, _) = proxy(vec![target, ok, Step::Tunnel(secure_server(&identity).await)]).await;
        let plain = Proxy::http(&format!("http://127.0.0.1:{port}")).unwrap();
        echoed(&mut client.clone().proxy(plain).connect().await.unwrap()).await;

        let steps = vec![
            Step::Expect(b"\x05\x01\x00".to_vec()),
            Step::Say(b"\x05\x00".to_vec()),
            Step::Expect(b"\x05\x01\x00\x03\x09a.example\x01\xbb".to_vec()),
            Step::Say(b"\x05\0\0\x01\0\0\0\0\0\0".to_vec()),
            Step::Tunnel(secure_server(&identity).await),
        ];
        let (port, _) = proxy(steps).await;
        let socks = Proxy::socks5(&format!("socks5h://127.0.0.1:{port}")).unwrap();
        echoed(&mut client.clone().proxy(socks).connect().await.unwrap()).await;

        let port = secure_proxy(&of_the_proxy.issue("127.0.0.1"), secure_server(&identity).await).await;
        let url = format!("https://127.0.0.1:{port}");
        let secure = Proxy::http(&url).unwrap().tls(trust(&of_the_proxy));
        let mut socket = client.clone().proxy(secure).connect().await.unwrap();
        assert_eq!(socket.transport(|transport| transport.peer_addr().unwrap().port()), port);
        echoed(&mut socket).await;

        // The proxy is verified as well, by its own roots.
        let port = secure_proxy(&authority.issue("127.0.0.1"), 9).await;
        let secure = Proxy::http(&format!("https://127.0.0.1:{port}")).unwrap().tls(trust(&of_the_proxy));
        let error = client.proxy(secure).connect().await.unwrap_err();
        assert!(error.is_tls(), "{error}");
    }
}
