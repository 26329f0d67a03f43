//! The programs as docs/universal.md has them run: the operator on a directory of documents, and proxies with a token each
//! in front of applications.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::net::SocketAddr;
use std::process::Stdio;

use clap::Parser;
use jiff::{SignedDuration, Timestamp};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use weir_operator::token::{Grant, KEY_PATIENCE, Signed};
use weir_proxy::config::RunArgs;

use crate::ports::free;
use crate::scene::{Folder, SHOP_TO_WEB, STRICT, caller, dataplane, soon, until};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n";
/// What makes of this program a proxy: its arguments, one a line.
const ARGUMENTS: &str = "WEIR_TEST_PROXY_ARGUMENTS";

#[derive(Parser)]
enum Proxy {
    Run(Box<RunArgs>),
}

/// What a started proxy is; by itself it says that one with an operator needs a token.
#[test]
fn a_proxy_with_an_operator_needs_a_token() {
    let given = std::env::var(ARGUMENTS);
    let usual = "run\n--dataplane={type: Dataplane, name: a, networking: {address: 127.0.0.1, inbound: [{port: 1, servicePort: 2, tags: {kuma.io/service: a}}]}}\n--control-plane-url=http://127.0.0.1:1";
    let arguments = given.clone().unwrap_or_else(|_| usual.to_owned());
    let arguments = std::iter::once("weir-proxy").chain(arguments.lines());
    let Proxy::Run(args) = Proxy::parse_from(arguments);
    if given.is_ok() {
        return weir_proxy::app::run(*args).unwrap();
    }
    let error = weir_proxy::config::load(*args, |_| None).unwrap_err();
    assert!(error.to_string().contains("weir-operator token"), "{error}");
}

/// An application that answers with its name.
async fn application(name: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                let length = name.len();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{name}"
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    port
}

async fn ask(address: SocketAddr, request: &[u8]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// What a port answers; nothing where it does not.
async fn answer(port: u16) -> String {
    let answer = soon("an answer", ask(([127, 0, 0, 1], port).into(), GET)).await;
    answer.unwrap_or_default()
}

/// A page of a server; nothing where there is none.
pub(crate) async fn page(address: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let answer = soon("a page", ask(address, request.as_bytes())).await;
    answer.unwrap_or_default()
}

/// The operator of its own process.
struct Operator {
    http: SocketAddr,
    grpc: SocketAddr,
    _child: Child,
}

fn operator() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir-operator"));
    command.env_clear().kill_on_drop(true);
    command
}

impl Operator {
    async fn start(folder: &Folder) -> Self {
        let mut child = operator()
            .args(["run", "--documents-seconds=1", "--serving-name=localhost"])
            .args(["--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0"])
            .arg("--documents")
            .arg(folder.documents())
            .arg("--state-dir")
            .arg(folder.state())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let started = async {
            loop {
                let line = lines.next_line().await.unwrap().expect("it starts");
                let said = |key: &str| line.split_once(key)?.1.split(' ').next()?.parse().ok();
                if let (Some(http), Some(grpc)) = (said("http="), said("grpc=")) {
                    return (http, grpc);
                }
            }
        };
        let (http, grpc) = soon("the operator starts", started).await;
        // What it says later is of no interest, but has to go somewhere.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self {
            http,
            grpc,
            _child: child,
        }
    }

    async fn counts(&self, line: &str) {
        let asked = || page(self.http, "/metrics");
        until(line, asked, |page| page.lines().any(|one| one == line)).await;
    }
}

/// A token as `weir-operator token` prints it, in a file.
async fn put_token(folder: &Folder, name: &str, service: &str) {
    let made = operator()
        .args(["token", "--name", name, "--valid-for=1h", "--tag"])
        .arg(format!("kuma.io/service={service}"))
        .arg("--state-dir")
        .arg(folder.state())
        .output();
    let made = soon("a token", made).await.unwrap();
    assert!(made.status.success(), "{made:?}");
    std::fs::write(folder.place(&format!("{name}.token")), made.stdout).unwrap();
}

#[tokio::test]
async fn a_state_directory_that_is_mistyped_gives_no_token_and_is_not_made() {
    let folder = Folder::new("mistyped");
    let made = operator()
        .args(["token", "--name", "web-1", "--state-dir"])
        .arg(folder.place("stae"))
        .output();
    let made = soon("an answer", made).await.unwrap();
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(!made.status.success() && made.stdout.is_empty(), "{made:?}");
    assert!(said.contains("start the operator first"), "{said}");
    assert!(!folder.place("stae").exists());
}

/// A proxy of its own process.
struct Program {
    admin: SocketAddr,
    _child: Child,
}

impl Program {
    /// The proxy of the Dataplane in `<name>.yaml`, with the token in `<name>.token`.
    async fn start(folder: &Folder, name: &str, operator: &Operator) -> Self {
        let admin = free();
        let file = |flag: &str, path: std::path::PathBuf| format!("{flag}={}", path.display());
        let arguments = [
            "run".to_owned(),
            "--concurrency=1".to_owned(),
            format!("--admin-addr={admin}"),
            file(
                "--dataplane-file",
                folder.documents().join(format!("{name}.yaml")),
            ),
            file(
                "--dataplane-token-file",
                folder.place(&format!("{name}.token")),
            ),
            format!(
                "--control-plane-url=https://localhost:{}",
                operator.grpc.port()
            ),
            file("--control-plane-ca-file", folder.authority()),
        ];
        let child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "programs::a_proxy_with_an_operator_needs_a_token",
            ])
            .arg("--nocapture")
            .env_clear()
            .env(ARGUMENTS, arguments.join("\n"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let program = Self {
            admin,
            _child: child,
        };
        program
            .page("it listens", "/live", |page| {
                page.starts_with("HTTP/1.1 200")
            })
            .await;
        program
    }

    async fn page(&self, what: &str, path: &str, wanted: impl Fn(&str) -> bool) -> String {
        until(
            what,
            || page(self.admin, path),
            |page: &String| wanted(page),
        )
        .await
    }

    /// Waits until a family has a series with all these labels that was written to.
    async fn counts(&self, family: &str, labels: &[&str]) {
        let what = format!("{family} {labels:?}");
        let is_it = |line: &str| {
            line.starts_with(&format!("{family}{{"))
                && labels.iter().all(|label| line.contains(label))
                && !line.ends_with(" 0")
        };
        self.page(&what, "/metrics", |page| page.lines().any(is_it))
            .await;
    }
}

/// That both sides of a request say whom they spoke to by mutual TLS.
async fn assert_secured(client: &Program, server: &Program) {
    let labels = [
        r#"direction="outbound""#,
        r#"tls="true""#,
        r#"server_id="web.mesh""#,
        r#"dst_service="web""#,
        r#"dst_zone="east""#,
    ];
    client.counts("request_total", &labels).await;
    let labels = [
        r#"direction="inbound""#,
        r#"tls="true""#,
        r#"client_id="shop.mesh""#,
        r#"authz_name="shop-to-web""#,
    ];
    server.counts("request_total", &labels).await;
}

/// That a token that has expired gives nothing, and that its proxy lets nobody in: it is not told that its Mesh is STRICT.
async fn assert_expired(folder: &Folder, operator: &Operator, application: u16) {
    let cart = free().port();
    let document = dataplane("cart-1", "cart", (cart, application));
    folder.write("cart-1.yaml", &document);
    let signed = Signed::existing(&folder.state(), KEY_PATIENCE).unwrap();
    let hour = SignedDuration::from_hours(1);
    let grant = Grant {
        mesh: "default".to_owned(),
        name: "cart-1".to_owned(),
        ..Grant::default()
    };
    let expired = signed.sign(&grant, Timestamp::now() - hour * 2, hour);
    std::fs::write(folder.place("cart-1.token"), expired.unwrap()).unwrap();
    let _refused = Program::start(folder, "cart-1", operator).await;
    let code = r#"weir_operator_grpc_calls_total{method="settings_watch",code="unauthenticated"}"#;
    let asked = || page(operator.http, "/metrics");
    until("it is refused", asked, |page| page.contains(code)).await;
    assert_eq!(answer(cart).await, "");
}

#[tokio::test]
async fn proxies_with_tokens_are_a_mesh_with_an_operator_on_documents() {
    let folder = Folder::new("programs");
    let (first, second) = (application("first").await, application("second").await);
    let [web_1, web_2, shop, outbound] =
        [free().port(), free().port(), free().port(), free().port()];
    folder.write("mesh.yaml", STRICT);
    folder.write("permission.yaml", SHOP_TO_WEB);
    folder.write("web-1.yaml", &dataplane("web-1", "web", (web_1, first)));
    folder.write(
        "shop-1.yaml",
        &caller("shop-1", "shop", (shop, 9), outbound),
    );
    let operator = Operator::start(&folder).await;
    put_token(&folder, "web-1", "web").await;
    put_token(&folder, "shop-1", "shop").await;
    let server = Program::start(&folder, "web-1", &operator).await;
    let client = Program::start(&folder, "shop-1", &operator).await;

    let ask = || answer(outbound);
    let passes = |said: &String| said.starts_with("HTTP/1.1 200");
    let said = until("a request passes", ask, passes).await;
    assert!(said.ends_with("first"), "{said}");
    assert_secured(&client, &server).await;
    // In a STRICT Mesh nobody else comes in.
    assert_eq!(answer(web_1).await, "");

    // Another Dataplane is an endpoint as soon as it has a document.
    folder.write("web-2.yaml", &dataplane("web-2", "web", (web_2, second)));
    put_token(&folder, "web-2", "web").await;
    let _other = Program::start(&folder, "web-2", &operator).await;
    until("both answer", ask, |said| said.ends_with("second")).await;

    assert_expired(&folder, &operator, second).await;

    // A document that is wrong changes nothing; without the permission nobody may.
    folder.write("mesh.yaml", &STRICT.replace("STRICT", "LOOSE"));
    let wrong = r#"weir_operator_documents{state="wrong"} 1"#;
    operator.counts(wrong).await;
    folder.remove("permission.yaml");
    until("it is denied", ask, |said| said.starts_with("HTTP/1.1 403")).await;
}
