//! Pairs of streams over loopback, one end each side of TLS.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;
use crate::identity::tests::Authority;
use crate::identity::{Key, Trust, server_name};

const DEADLINE: Duration = Duration::from_secs(20);
const NAME: &str = "web.test";

fn identity(authority: &Authority, name: &str, life: Duration) -> Identity {
    let key = Key::generate().unwrap();
    let uris = ["spiffe://default/web".to_owned()];
    let certified = authority.sign(&key.request(name).unwrap(), &uris, life);
    let trust = Arc::new(Trust::from_pem(&authority.bundle()).unwrap());
    Identity::new((&name.into(), &key), &certified, &trust).unwrap()
}

fn lasting(authority: &Authority) -> Identity {
    identity(authority, NAME, Duration::from_secs(600))
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(addr), listener.accept());
    (client.unwrap(), accepted.unwrap().0)
}

type Shaken = (
    Result<Stream, HandshakeError>,
    Result<(Stream, Peer), HandshakeError>,
);

async fn shake(client: &Identity, server: &Identity, name: &str, pool: &Rc<Pool>) -> Shaken {
    let (dialed, accepted) = sockets().await;
    let name = server_name(name).unwrap();
    let shaken = async {
        tokio::join!(
            Stream::connect(dialed, (client, name), pool),
            Stream::accept((accepted, Flow::default()), server, pool)
        )
    };
    timeout(DEADLINE, shaken).await.expect("in time")
}

/// Two ends that know each other.
async fn pair(client: &Identity, server: &Identity, pool: &Rc<Pool>) -> (Stream, Stream) {
    let (client, server) = shake(client, server, NAME, pool).await;
    (client.unwrap(), server.unwrap().0)
}

/// Whether the server has seen this session before.
fn is_resumed(stream: &Stream) -> bool {
    let Stream::Secured(secured) = stream else {
        return false;
    };
    secured.records().state().handshake_kind() == Some(rustls::HandshakeKind::Resumed)
}

#[tokio::test]
async fn bytes_of_every_size_arrive_both_ways_and_buffers_go_back() {
    let (authority, pool) = (Authority::new("mesh"), Rc::new(Pool::default()));
    let identity = lasting(&authority);
    let (mut client, mut server) = pair(&identity, &identity, &pool).await;
    let sizes = [1, 2, 100, 16_361, 16_362, 16_363, 65_448, 65_449, 1 << 20];
    for size in sizes {
        let sent: Vec<u8> = (0..size).map(|n| (n * 7 + size) as u8).collect();
        for up in [true, false] {
            let (from, to) = if up {
                (&mut client, &mut server)
            } else {
                (&mut server, &mut client)
            };
            let mut got = vec![0; size];
            let exchange = async {
                let (written, read) = tokio::join!(
                    async {
                        from.write_all(&sent).await?;
                        from.flush().await
                    },
                    to.read_exact(&mut got)
                );
                written.unwrap();
                read.unwrap();
            };
            timeout(DEADLINE, exchange).await.expect("in time");
            assert!(got == sent, "{size} bytes");
        }
    }
    for stream in [&client, &server] {
        assert!(!stream.is_unsent());
    }
}

/// The peer reads nothing any more, and then says what does not decrypt: there is no room to tell it so.
#[test]
fn a_peer_that_cannot_be_told_of_its_error_is_left() {
    let (told, result) = std::sync::mpsc::channel();
    // On a thread of its own: whoever turns in a circle is no answer either.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (authority, pool) = (Authority::new("mesh"), Rc::new(Pool::default()));
            let identity = lasting(&authority);
            let (client, mut server) = pair(&identity, &identity, &pool).await;
            while server.tcp().try_write(&[0; 4096]).is_ok() {}
            if let Stream::Secured(secured) = &mut server {
                secured.fill_outgoing();
            }
            let mut garbage = vec![0x17, 3, 3, 0, 64];
            garbage.resize(5 + 64, 0);
            client.tcp().writable().await.unwrap();
            client.tcp().try_write(&garbage).unwrap();
            let read = server.read(&mut [0; 16]).await;
            told.send(read.map_err(|error| error.kind())).unwrap();
        });
    });
    let read = result.recv_timeout(DEADLINE).expect("an answer");
    assert_eq!(read, Err(io::ErrorKind::InvalidData));
}

/// Whether it becomes so before a deadline.
async fn turns(stream: &Stream, is_quiet: bool) -> bool {
    let turned = async {
        while stream.is_quiet() != is_quiet {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, turned).await.is_ok()
}

#[tokio::test]
async fn a_stream_is_quiet_while_nothing_is_there_but_what_was_read() {
    let (authority, pool) = (Authority::new("mesh"), Rc::new(Pool::default()));
    let identity = lasting(&authority);
    let plain = sockets().await;
    let secured = pair(&identity, &identity, &pool).await;
    for (mut here, mut there) in [(plain.0.into(), plain.1.into()), secured] {
        there.write_all(b"ab").await.unwrap();
        there.flush().await.unwrap();
        let mut got = [0];
        here.read_exact(&mut got).await.unwrap();
        assert!(!here.is_quiet(), "one byte is left");
        here.read_exact(&mut got).await.unwrap();
        assert!(turns(&here, true).await, "all was read");
        there.write_all(b"c").await.unwrap();
        there.shutdown().await.unwrap();
        assert!(turns(&here, false).await);
        // The end may come with the last byte.
        here.read_exact(&mut got).await.unwrap();
        assert!(turns(&here, false).await);
    }
}

#[tokio::test]
async fn an_end_is_half_and_breaking_off_is_no_end() {
    let (authority, pool) = (Authority::new("mesh"), Rc::new(Pool::default()));
    let identity = lasting(&authority);
    let (mut client, mut server) = pair(&identity, &identity, &pool).await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut got = Vec::new();
    timeout(DEADLINE, server.read_to_end(&mut got))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(got, b"question");
    server.write_all(b"answer").await.unwrap();
    server.shutdown().await.unwrap();
    got.clear();
    timeout(DEADLINE, client.read_to_end(&mut got))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(got, b"answer");
    assert!(client.write_all(b"more").await.is_err());

    // The socket ends, and TLS has not said so.
    let (mut client, mut server) = pair(&identity, &identity, &pool).await;
    // Bytes that it has not read would make a reset of it.
    server.write_all(b"x").await.unwrap();
    client.read_exact(&mut [0]).await.unwrap();
    client.write_all(b"half of it").await.unwrap();
    client.flush().await.unwrap();
    drop(client);
    got.clear();
    let error = timeout(DEADLINE, server.read_to_end(&mut got))
        .await
        .unwrap();
    assert_eq!(error.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(got, b"half of it");
}

#[tokio::test]
async fn the_server_learns_who_the_client_is_and_each_refuses_a_stranger() {
    let (authority, pool) = (Authority::new("mesh"), Rc::new(Pool::default()));
    let server = lasting(&authority);
    let client = identity(&authority, "api.test", Duration::from_secs(600));
    let (_, accepted) = shake(&client, &server, NAME, &pool).await;
    let (_, peer) = accepted.unwrap();
    assert_eq!(&*peer.name, "api.test");
    assert!(peer.identity.tags["kuma.io/service"].contains("web"));
    // A name that the server does not have.
    let (dialed, accepted) = shake(&client, &server, "other.test", &pool).await;
    assert_eq!(dialed.unwrap_err().class(), "identity required");
    assert_eq!(accepted.unwrap_err().class(), "identity required");
    // An authority that only one of them has.
    let stranger = lasting(&Authority::new("mesh"));
    let (dialed, _) = shake(&stranger, &server, NAME, &pool).await;
    assert_eq!(dialed.unwrap_err().class(), "identity required");
    // Somebody who speaks no TLS.
    let (mut plain, accepted) = sockets().await;
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let refused = Stream::accept((accepted, Flow::default()), &server, &pool);
    let refused = timeout(DEADLINE, refused).await.unwrap();
    assert_eq!(refused.unwrap_err().class(), "identity required");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let (authority, pool) = (Authority::new("mesh"), Rc::new(Pool::default()));
    let server = lasting(&authority);
    let (dialed, accepted) = sockets().await;
    let mut roots = rustls::RootCertStore::empty();
    use rustls::pki_types::pem::PemObject;
    let root = rustls::pki_types::CertificateDer::from_pem_slice(authority.bundle().as_bytes());
    roots.add(root.unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let client = async {
        let mut client = connector
            .connect(server_name(NAME).unwrap(), dialed)
            .await?;
        client.read(&mut [0]).await
    };
    let (client, refused) = tokio::join!(
        timeout(DEADLINE, client),
        timeout(
            DEADLINE,
            Stream::accept((accepted, Flow::default()), &server, &pool)
        )
    );
    let error = refused.unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            HandshakeError::Refused(rustls::Error::NoCertificatesPresented)
        ),
        "{error}"
    );
    let told = client.unwrap().unwrap_err().to_string();
    assert!(told.contains("CertificateRequired"), "{told}");
}

#[tokio::test]
async fn sessions_are_resumed_and_a_new_certificate_begins_new_ones() {
    let (authority, pool) = (Authority::new("mesh"), Rc::new(Pool::default()));
    let (first, second) = (lasting(&authority), lasting(&authority));
    let resumed = async |client: &Identity, server: &Identity| {
        let (mut client, mut server) = pair(client, server, &pool).await;
        // Its ticket comes with the first bytes.
        server.write_all(b"x").await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();
        is_resumed(&server)
    };
    assert!(!resumed(&first, &first).await);
    for _ in 0..3 {
        assert!(resumed(&first, &first).await);
    }
    assert!(
        !resumed(&first, &second).await,
        "the server's certificate is another"
    );
    assert!(
        !resumed(&second, &first).await,
        "the client's certificate is another"
    );
}

#[tokio::test]
async fn a_resumed_session_is_refused_once_its_chain_has_ended() {
    let (authority, pool) = (Authority::new("mesh"), Rc::new(Pool::default()));
    let lasts = lasting(&authority);
    let ends = identity(&authority, NAME, Duration::from_secs(3));
    let first = async |client: &Identity, server: &Identity| {
        let (mut client, mut server) = pair(client, server, &pool).await;
        server.write_all(b"x").await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();
    };
    // As a client's, and as a server's.
    first(&ends, &lasts).await;
    first(&lasts, &ends).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (_, accepted) = shake(&ends, &lasts, NAME, &pool).await;
    let error = accepted.unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
    let (dialed, _) = shake(&lasts, &ends, NAME, &pool).await;
    let error = dialed.unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
    assert_eq!(error.class(), "identity required");
}

/// The same certificate, under each of these bundles.
fn under<const N: usize>(authority: &Authority, bundles: [&str; N]) -> [Identity; N] {
    let key = Key::generate().unwrap();
    let uris = ["spiffe://default/web".to_owned()];
    let life = Duration::from_secs(600);
    let certified = authority.sign(&key.request(NAME).unwrap(), &uris, life);
    bundles.map(|bundle| {
        let trust = Arc::new(Trust::from_pem(bundle).unwrap());
        Identity::new((&NAME.into(), &key), &certified, &trust).unwrap()
    })
}

#[tokio::test]
async fn no_session_outlives_the_authorities_that_it_was_begun_under() {
    let pool = Rc::new(Pool::default());
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let both = format!("{}{}", old.bundle(), new.bundle());
    let [client_before, client] = under(&old, [&old.bundle(), &both]);
    let [server_before, server] = under(&old, [&old.bundle(), &both]);
    let resumed = async |client: &Identity, server: &Identity| {
        let (mut client, mut server) = pair(client, server, &pool).await;
        // Its ticket comes with the first bytes.
        server.write_all(b"x").await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();
        is_resumed(&server)
    };
    for is_resumed in [false, true] {
        assert_eq!(resumed(&client_before, &server_before).await, is_resumed);
    }
    // Each side takes the new authority besides: whoever it is, is judged by it from the start.
    assert!(!resumed(&client_before, &server).await);
    assert!(!resumed(&client, &server_before).await);
    assert!(!resumed(&client, &server).await);
    assert!(resumed(&client, &server).await);
    // Each side trusts the new one alone, and the other comes with its ticket: it has to show its certificate, and that
    // is refused.
    let [server_after] = under(&new, [&new.bundle()]);
    let (_, accepted) = shake(&client, &server_after, NAME, &pool).await;
    let [client_after] = under(&new, [&new.bundle()]);
    let (dialed, _) = shake(&client_after, &server, NAME, &pool).await;
    for error in [accepted.unwrap_err(), dialed.unwrap_err()] {
        let unknown = rustls::CertificateError::UnknownIssuer;
        let HandshakeError::Refused(rustls::Error::InvalidCertificate(why)) = &error else {
            panic!("not in a full handshake: {error}");
        };
        assert_eq!(*why, unknown);
        assert_eq!(error.class(), "identity required");
    }
}
