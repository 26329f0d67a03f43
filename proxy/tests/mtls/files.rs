//! The program itself on files: documents with a Mesh that has mutual TLS, and an identity that lies beside them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::authority::Authority;
use crate::proxy::{answer_heads, application, nobody};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// Every wait ends by then.
const DEADLINE: Duration = Duration::from_secs(20);
const LIFE: Duration = Duration::from_secs(600);

/// A proxy of its own process; gone at the end.
struct Program {
    child: Child,
    admin: SocketAddr,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    async fn start(folder: &Folder, name: &str, service: &str) -> Self {
        let admin = nobody();
        let file = |ending: &str| folder.0.join(format!("{service}-{ending}"));
        let child = Command::new(env!("CARGO_BIN_EXE_weir-proxy"))
            .args(["run", "--concurrency=1", "--name", name])
            .arg(format!("--admin-addr={admin}"))
            .arg("--dataplane-file")
            .arg(folder.0.join("documents.yaml"))
            .arg("--identity-cert-file")
            .arg(file("cert.pem"))
            .arg("--identity-key-file")
            .arg(file("key.pem"))
            .arg("--identity-ca-file")
            .arg(folder.0.join("ca.pem"))
            .env_clear()
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program");
        let program = Self { child, admin };
        program.says("it listens", "/ready", |_| true).await;
        program
    }

    /// Waits until what `path` answers is as wanted, and returns it.
    async fn says(&self, what: &str, path: &str, wanted: impl Fn(&str) -> bool) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let last = std::cell::RefCell::new(String::new());
        let asking = async {
            loop {
                let answer = ask(self.admin, request.as_bytes()).await;
                let answer = answer.unwrap_or_default();
                if answer.starts_with("HTTP/1.1 200") && wanted(&answer) {
                    return answer;
                }
                last.replace(answer);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(DEADLINE, asking).await {
            Ok(answer) => answer,
            Err(_) => panic!("not in time: {what}\n{}", last.borrow()),
        }
    }

    /// Waits until a family has a series with all these labels that is this high.
    async fn counts(&self, family: &str, labels: &[&str], value: u64) {
        let what = format!("{family} {labels:?} {value}");
        self.says(&what, "/metrics", |text| {
            text.lines().any(|line| {
                line.starts_with(&format!("{family}{{"))
                    && labels.iter().all(|label| line.contains(label))
                    && line.ends_with(&format!(" {value}"))
            })
        })
        .await;
    }
}

async fn ask(addr: SocketAddr, request: &[u8]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.write_all(request).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// The first bytes of what is answered to a request for web, its status among them.
async fn head(addr: SocketAddr) -> String {
    let mut stream = TcpStream::connect(addr).await.expect("it listens");
    stream.write_all(GET).await.expect("written");
    let mut status = [0; 12];
    let read = stream.read_exact(&mut status);
    let read = tokio::time::timeout(DEADLINE, read).await;
    read.expect("in time").expect("an answer");
    String::from_utf8(status.into()).expect("ASCII")
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let path = path.join(format!("mtls-files-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).expect("written");
    }

    /// A certificate as a tool that issues them would leave it here.
    fn certify(&self, authority: &Authority, service: &str) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![format!("{service}.mesh")]).expect("a name");
        let csr = params.serialize_request(&key).expect("a request");
        let uri = format!("spiffe://default/{service}");
        let certified = authority.sign(csr.der(), &[uri], LIFE);
        let cert = pem::Pem::new("CERTIFICATE", certified.chain[0].to_vec());
        self.write(&format!("{service}-cert.pem"), &pem::encode(&cert));
        self.write(&format!("{service}-key.pem"), &key.serialize_pem());
        self.write("ca.pem", &authority.bundle());
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// web, which is called, shop, which calls, and who may.
fn documents([outbound, inbound, web]: [SocketAddr; 3], allowed: &str) -> String {
    let (outbound, inbound, web) = (outbound.port(), inbound.port(), web.port());
    format!(
        "type: Mesh
name: default
mtls:
  enabledBackend: files
  backends:
  - name: files
    type: builtin
    mode: STRICT
---
type: TrafficPermission
name: to-web
mesh: default
sources:
- match: {{kuma.io/service: {allowed}}}
destinations:
- match: {{kuma.io/service: web}}
---
type: Dataplane
mesh: default
name: web-1
networking:
  address: 127.0.0.1
  inbound:
  - port: {inbound}
    servicePort: {web}
    serviceAddress: 127.0.0.1
    tags: {{kuma.io/service: web}}
---
type: Dataplane
mesh: default
name: shop-1
networking:
  address: 127.0.0.1
  inbound:
  - port: 1
    servicePort: 9
    address: 127.0.0.3
    tags: {{kuma.io/service: shop}}
  outbound:
  - port: {outbound}
    address: 127.0.0.1
    tags: {{kuma.io/service: web}}
"
    )
}

#[tokio::test]
async fn proxies_on_files_speak_mutual_tls_and_hold_their_peers_to_permissions() {
    let folder = Folder::new();
    let authority = Authority::new("mesh");
    folder.certify(&authority, "web");
    folder.certify(&authority, "shop");
    let web = application(|stream| answer_heads(stream, OK)).await;
    let (outbound, inbound) = (nobody(), nobody());
    let ports = [outbound, inbound, web];
    folder.write("documents.yaml", &documents(ports, "shop"));
    let server = Program::start(&folder, "web-1", "web").await;
    let client = Program::start(&folder, "shop-1", "shop").await;

    let answer = head(outbound).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let secured = [r#"tls="true""#, r#"server_id="web.mesh""#];
    client.counts("request_total", &secured, 1).await;
    let secured = [
        r#"tls="true""#,
        r#"client_id="shop.mesh""#,
        r#"authz_name="to-web""#,
    ];
    server.counts("request_total", &secured, 1).await;

    // In a STRICT mesh nobody else comes in.
    let plain = SocketAddr::from((Ipv4Addr::LOCALHOST, inbound.port()));
    assert!(
        ask(plain, GET)
            .await
            .map_or(true, |answer| answer.is_empty())
    );
    let refused = [r#"error="identity required""#];
    server.counts("inbound_tcp_errors_total", &refused, 1).await;

    // Another permission is in force once the documents are read again.
    folder.write("documents.yaml", &documents(ports, "somebody-else"));
    let hangup = Command::new("kill")
        .args(["-HUP", &server.child.id().to_string()])
        .status();
    assert!(hangup.expect("kill").success());
    let denied = async {
        loop {
            let answer = head(outbound).await;
            if answer.starts_with("HTTP/1.1 403") {
                return;
            }
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, denied)
        .await
        .expect("it is denied");
}
