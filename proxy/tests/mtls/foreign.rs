//! TLS that is not the mesh's: it passes as it is, and its server name is told.

use std::sync::Arc;

use rcgen::generate_simple_self_signed;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use weir_crds::settings::MtlsMode;

use crate::authority::Authority;
use crate::labels::{NO_AUTHZ, SRV, counts_exactly};
use crate::mesh::{LIFE, Party, SERVER, identity, settings};
use crate::proxy::{application, soon};

/// The TLS of an application and of its client, of which the mesh knows nothing.
fn of_its_own() -> (TlsAcceptor, TlsConnector) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let own = generate_simple_self_signed(["Shop.Example".to_owned()]).expect("a certificate");
    let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key.into())
        .expect("a configuration");
    let mut roots = RootCertStore::empty();
    roots.add(own.cert.der().clone()).expect("a root");
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    (
        TlsAcceptor::from(Arc::new(server)),
        TlsConnector::from(Arc::new(client)),
    )
}

#[tokio::test]
async fn an_application_may_have_tls_of_its_own() {
    let (acceptor, connector) = of_its_own();
    let app = application(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = acceptor.accept(stream).await.expect("a handshake");
            let mut asked = [0; 4];
            stream.read_exact(&mut asked).await.expect("a question");
            stream.write_all(b"pong").await.expect("written");
            stream.shutdown().await.expect("shut");
        }
    });
    let authority = Authority::new("mesh");
    let permissive = (
        settings(MtlsMode::Permissive),
        Some(identity(&authority, SERVER, LIFE)),
    );
    let server = Party::server(permissive, app.await);
    let name = ServerName::try_from("Shop.Example").expect("a name");
    let exchange = async {
        let mut client = connector
            .connect(name, server.proxy.connect().await)
            .await?;
        client.write_all(b"ping").await?;
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await?;
        client.shutdown().await?;
        Ok::<_, std::io::Error>(answer)
    };
    assert_eq!(soon(exchange).await.expect("it passes"), b"pong");
    // By no permission, which nobody asks for where plaintext is let in.
    let (port, opaque) = (
        server.proxy.addr.port(),
        r#"tls="opaque",sni="shop.example""#,
    );
    let expected = vec![
        format!(
            r#"tcp_open_total{{direction="inbound",peer="src",{opaque},{SRV},target_port="{port}"}} 1"#
        ),
        format!(
            r#"tcp_open_total{{direction="inbound",peer="dst",tls="no_identity",no_tls_reason="loopback",target_port="{port}"}} 1"#
        ),
        format!(
            r#"inbound_tcp_authz_allow_total{{direction="inbound",peer="src",{SRV},{NO_AUTHZ},{opaque}}} 1"#
        ),
    ];
    let families = [
        "tcp_open_total",
        "inbound_tcp_authz_allow_total",
        "inbound_tcp_authz_deny_total",
        "inbound_tcp_errors_total",
        "request_total",
    ];
    counts_exactly(&server.proxy, &families, expected).await;
}
