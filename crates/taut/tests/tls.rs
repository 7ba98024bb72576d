//! `wss://` on real sockets, against a server that is rustls and nothing of ours below the WebSocket.
#![cfg(feature = "tls")]

#[path = "../src/native/tls/testing.rs"]
#[allow(dead_code, reason = "not every test needs everything")]
mod testing;

use std::process::Command;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use taut::tls::{ClientTls, TlsVersion, rustls};
use taut::{Client, Error, Transport};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use testing::{Authority, Identity};

/// A server that echoes, with this certificate; its port.
async fn server(identity: &Identity, clients: Option<&Authority>) -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(authority.root().as_bytes()).unwrap()).unwrap();
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let Ok(mut socket) = taut::accept_over(stream).await else { return };
                while let Ok(Some(message)) = socket.recv().await {
                    let _ = socket.send(message).await;
                }
            });
        }
    });
    port
}

fn trusting(authority: &Authority) -> ClientTls {
    ClientTls::only_pem(authority.root().as_bytes()).unwrap()
}

async fn echoed(client: &Client) -> Result<(), Error> {
    let mut socket = client.connect().await?;
    let large = "x".repeat(300_000);
    for text in ["hello", &large, ""] {
        socket.send(text).await?;
        assert_eq!(socket.recv().await?.unwrap().as_text(), Some(text));
    }
    // What is binary is read into the message, of which TLS gives a record at a time.
    for length in [30_000_u32, 300_000, 1 << 20] {
        let sent: Vec<u8> = (0..length).map(|number| (number % 251) as u8).collect();
        socket.send(sent.clone()).await?;
        assert!(socket.recv().await?.unwrap().as_bytes() == sent, "{length} bytes");
    }
    let info = socket.transport(Transport::tls).expect("TLS");
    assert_eq!((info.version(), info.peer_certificates().len()), (Some(TlsVersion::Tls13), 1));
    assert!(socket.transport(|transport| transport.tcp().expect("TCP below").nodelay().unwrap()));
    socket.close(taut::CloseCode::NORMAL).await
}

#[tokio::test]
async fn a_wss_url_is_encrypted_verified_and_closed_cleanly() {
    let authority = Authority::new();
    let port = server(&authority.issue("localhost"), None).await;
    let client = Client::new(&format!("wss://localhost:{port}/")).tls(trusting(&authority));
    echoed(&client).await.unwrap();
    let client = Client::new(&format!("wss://127.0.0.1:{port}/"));
    echoed(&client.tls(trusting(&authority).server_name("localhost").unwrap())).await.unwrap();
}

// CVE-2020-11050: the name in the certificate has to be the URL's.
#[tokio::test]
async fn wrong_name_expired_and_unknown_issuer_are_refused() {
    let authority = Authority::new();
    let port = server(&authority.issue("other.example"), None).await;
    let url = format!("wss://localhost:{port}/");
    let error = Client::new(&url).tls(trusting(&authority)).connect().await.unwrap_err();
    assert!(error.is_tls() && error.to_string().contains("not for localhost but for"), "{error}");

    let port = server(&authority.issue_expired("localhost"), None).await;
    let url = format!("wss://localhost:{port}/");
    let error = Client::new(&url).tls(trusting(&authority)).connect().await.unwrap_err();
    assert!(error.is_tls() && error.to_string().contains("expired"), "{error}");

    let port = server(&authority.issue("localhost"), None).await;
    let url = format!("wss://localhost:{port}/");
    let error = Client::new(&url).tls(trusting(&Authority::new())).connect().await.unwrap_err();
    assert!(error.is_tls() && error.to_string().contains("root_pem"), "{error}");
}

// RFC 8446 §4.4.2.4: a TLS 1.3 server judges the client's certificate when the client's handshake is over already.
#[tokio::test]
async fn a_server_that_wants_a_certificate_gets_it_or_says_so() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let port = server(&authority.issue("localhost"), Some(&clients)).await;
    let client = Client::new(&format!("wss://localhost:{port}/"));
    let me = clients.issue("me.example");
    let tls = trusting(&authority);
    let certified = tls.clone().client_certificate_pem(me.certificate.as_bytes(), me.key.as_bytes()).unwrap();
    echoed(&client.clone().tls(certified)).await.unwrap();
    // This server resets the connection when it refuses, so that its alert may be lost on the way.
    let error = client.tls(tls).connect().await.unwrap_err();
    assert!(error.is_io() || error.to_string().contains("client_certificate_pem"), "{error}");
}

#[tokio::test]
async fn a_plain_server_is_not_spoken_to_in_plain_text() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepted = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        taut::accept(stream).await.map(drop)
    });
    let error = Client::new(&format!("wss://localhost:{port}/")).bearer("s3cret").connect().await.unwrap_err();
    assert!(error.is_tls() && error.to_string().contains("ws://"), "{error}");
    assert!(accepted.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_tls_is_given_up_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mute = tokio::spawn(async move {
        let connection = listener.accept().await;
        std::future::pending::<()>().await;
        drop(connection);
    });
    let start = tokio::time::Instant::now();
    let client = Client::new(&format!("wss://127.0.0.1:{port}/")).tls(trusting(&Authority::new()));
    let error = client.connect().await.unwrap_err();
    assert!(error.is_timeout() && error.to_string().contains("TLS"), "{error}");
    assert_eq!(start.elapsed().as_secs(), 10);
    mute.abort();
}

/// What the process has as its default is of no use to anybody: it has no algorithms.
#[tokio::test]
async fn another_default_of_the_process_does_not_matter() {
    let useless = rustls::crypto::CryptoProvider {
        cipher_suites: Vec::new(),
        kx_groups: Vec::new(),
        ..rustls::crypto::ring::default_provider()
    };
    useless.install_default().unwrap();
    let authority = Authority::new();
    let port = server(&authority.issue("localhost"), None).await;
    echoed(&Client::new(&format!("wss://localhost:{port}/")).tls(trusting(&authority))).await.unwrap();
}

/// The system's roots are those of a file that the environment names, which only another process can be told.
#[tokio::test]
async fn the_systems_roots_are_trusted_by_default() {
    if let Ok(url) = std::env::var("TAUT_TEST_URL") {
        return echoed(&Client::new(&url)).await.unwrap();
    }
    let authority = Authority::new();
    let port = server(&authority.issue("localhost"), None).await;
    let folder = std::env::temp_dir().join(format!("taut-roots-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for (file, text, is_trusted) in [
        ("right.pem", authority.root(), true),
        ("wrong.pem", Authority::new().root(), false),
        ("empty.pem", String::new(), false),
    ] {
        std::fs::write(folder.join(file), text).unwrap();
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "the_systems_roots_are_trusted_by_default", "--nocapture"]);
        again.env("TAUT_TEST_URL", format!("wss://localhost:{port}/"));
        again.env("SSL_CERT_FILE", folder.join(file)).env_remove("SSL_CERT_DIR");
        let output = tokio::task::spawn_blocking(move || again.output()).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.success(), is_trusted, "{file}: {said}");
        if file == "empty.pem" {
            assert!(said.contains("this system has no root certificates"), "{said}");
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
