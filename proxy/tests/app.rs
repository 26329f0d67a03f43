//! A whole proxy in process: bound on free ports, scraped over HTTP, ended in order.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use weir_crds::settings::Settings;
use weir_proxy::accept::Aim;
use weir_proxy::app::{self, Bound, Config};
use weir_proxy::telemetry::Server;

#[path = "../../e2e/src/ports.rs"]
mod ports;
#[path = "app/program.rs"]
mod program;

use ports::free;

const DEADLINE: Duration = Duration::from_secs(20);
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

struct Running {
    bound: Bound,
    terminate: mpsc::Sender<()>,
    served: tokio::task::JoinHandle<Result<(), app::StartError>>,
}

fn start(application: SocketAddr, workers: usize) -> Running {
    let server = Server::new("kuma.io", "dataplane", "web", application.port());
    let mut config = Config {
        workers,
        listeners: vec![(
            LOOPBACK,
            Aim::Application {
                addr: application,
                server,
            },
        )],
        ..Config::default()
    };
    config.admin.addr = LOOPBACK;
    config.admin.metrics_ip = LOOPBACK.ip();
    let settings = Settings::parse(r#"{"version":1,"mesh":"default"}"#).expect("settings");
    let (_keep, settings) = watch::channel(Arc::new(settings));
    let app = app::bind(config, settings).expect("free ports");
    let (terminate, terminated) = mpsc::channel(2);
    let bound = app.bound().clone();
    Running {
        bound,
        terminate,
        served: tokio::spawn(app.serve(terminated)),
    }
}

async fn ask(addr: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(DEADLINE, read)
        .await
        .expect("in time")
        .expect("an answer");
    answer
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
}

/// Answers `/slow` once it is told to, and all else at once.
async fn application() -> (SocketAddr, Arc<Notify>) {
    let go = Arc::new(Notify::new());
    let told = Arc::clone(&go);
    let listener = TcpListener::bind(LOOPBACK).await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let told = Arc::clone(&told);
            tokio::spawn(async move {
                let mut head = [0; 1024];
                let _read = stream.read(&mut head).await;
                let slow = head.starts_with(b"GET /slow");
                if slow {
                    told.notified().await;
                }
                let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
                let _written = stream.write_all(answer).await;
            });
        }
    });
    (addr, go)
}

#[tokio::test]
async fn traffic_shows_on_the_admin_port_summed_over_all_workers() {
    let proxy = start(application().await.0, 2);
    let traffic = proxy.bound.listeners[0];
    for _ in 0..20 {
        assert!(ask(traffic, &get("/")).await.starts_with("HTTP/1.1 200"));
    }
    assert!(
        ask(proxy.bound.admin, &get("/live"))
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(
        ask(proxy.bound.admin, &get("/ready"))
            .await
            .starts_with("HTTP/1.1 200")
    );
    let metrics = ask(proxy.bound.admin, &get("/metrics")).await;
    assert!(
        metrics.contains("content-type: text/plain; version=0.0.4; charset=utf-8"),
        "{metrics}"
    );
    let requests: f64 = metrics
        .lines()
        .filter(|line| line.starts_with("request_total{"))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum();
    assert_eq!(requests, 20.0);
    assert!(metrics.contains("proxy_build_info{version=\""));
    assert!(metrics.contains("process_resident_memory_bytes "));
    proxy.terminate.send(()).await.expect("it serves");
    tokio::time::timeout(DEADLINE, proxy.served)
        .await
        .expect("it ends")
        .expect("no panic")
        .expect("it served");
}

/// In a pod the settings tell what the application listens on, and other settings tell otherwise.
#[tokio::test]
async fn servers_of_the_settings_are_on_the_admin_port_before_their_first_connection() {
    let settings = |port: u16| {
        let text = format!(
            r#"{{"version":1,"mesh":"default","inbounds":[{{"port":{port},"service":"web"}}]}}"#
        );
        Arc::new(Settings::parse(&text).expect("settings"))
    };
    let mut config = Config {
        workers: 2,
        listeners: vec![(LOOPBACK, Aim::Inbound)],
        ..Config::default()
    };
    config.admin.addr = LOOPBACK;
    config.admin.metrics_ip = LOOPBACK.ip();
    let (now, followed) = watch::channel(settings(8080));
    let app = app::bind(config, followed).expect("free ports");
    let (_terminate, terminated) = mpsc::channel(2);
    let admin = app.bound().admin;
    let served = tokio::spawn(app.serve(terminated));
    for port in [8080, 8081] {
        now.send_replace(settings(port));
        let of = format!("srv_name=\"web\",srv_port=\"{port}\"");
        let shown = async {
            loop {
                let metrics = ask(admin, &get("/metrics")).await;
                let zeroes = metrics.lines().filter(|line| line.ends_with(" 0"));
                let zeroes: Vec<_> = zeroes.filter(|line| line.contains(&of)).collect();
                let has = |name: &str| zeroes.iter().any(|line| line.starts_with(name));
                if has("tcp_open_total{") && has("inbound_http_errors_total{") {
                    break;
                }
            }
        };
        let shown = tokio::time::timeout(DEADLINE, shown).await;
        shown.expect("they are printed");
    }
    served.abort();
}

#[tokio::test]
async fn a_request_under_way_is_finished_and_new_ones_are_served_meanwhile() {
    let (application, go) = application().await;
    let proxy = start(application, 1);
    let traffic = proxy.bound.listeners[0];
    let slow = tokio::spawn(async move { ask(traffic, &get("/slow")).await });
    let begun = async {
        loop {
            let metrics = ask(proxy.bound.admin, &get("/metrics?filter=^request_total$")).await;
            if metrics.contains("request_total{") && metrics.contains("} 1\n") {
                break;
            }
        }
    };
    tokio::time::timeout(DEADLINE, begun)
        .await
        .expect("the request is counted when it begins");
    proxy.terminate.send(()).await.expect("it serves");
    let not_ready = async {
        while !ask(proxy.bound.admin, &get("/ready"))
            .await
            .starts_with("HTTP/1.1 503")
        {}
    };
    tokio::time::timeout(DEADLINE, not_ready)
        .await
        .expect("it says that it ends");
    assert!(
        ask(traffic, &get("/")).await.starts_with("HTTP/1.1 200"),
        "it keeps serving"
    );
    go.notify_one();
    assert!(slow.await.expect("answered").starts_with("HTTP/1.1 200"));
    tokio::time::timeout(DEADLINE, proxy.served)
        .await
        .expect("it ends")
        .expect("no panic")
        .expect("it served");
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_the_end_up() {
    let proxy = start(application().await.0, 1);
    let mut idle = TcpStream::connect(proxy.bound.listeners[0])
        .await
        .expect("it listens");
    idle.write_all(get("/").as_bytes()).await.expect("written");
    let mut answer = [0; 4];
    idle.read_exact(&mut answer).await.expect("an answer");
    proxy.terminate.send(()).await.expect("it serves");
    tokio::time::timeout(Duration::from_secs(5), proxy.served)
        .await
        .expect("it ends")
        .expect("no panic")
        .expect("it served");
}

#[tokio::test]
async fn a_taken_port_is_a_clear_error() {
    let taken = TcpListener::bind(LOOPBACK).await.expect("a free port");
    let addr = taken.local_addr().expect("an address");
    let error = bind_all(&[addr]).expect_err("taken");
    assert!(error.contains(&addr.to_string()), "{error}");
}

#[tokio::test]
async fn the_port_of_another_proxy_is_taken() {
    let application = TcpListener::bind(LOOPBACK).await.expect("a free port");
    let other = start(application.local_addr().expect("an address"), 2);
    let addr = other.bound.listeners[0];
    let error = bind_all(&[addr]).expect_err("it is another proxy's");
    assert!(
        error.starts_with(&format!("cannot listen on {addr}: ")),
        "{error}"
    );
}

#[tokio::test]
async fn one_address_has_one_listener() {
    let addr = free();
    let error = bind_all(&[free(), addr, addr]).expect_err("the address is there twice");
    assert!(
        error.starts_with(&format!("cannot listen on {addr}: ")),
        "{error}"
    );
}

#[tokio::test]
async fn all_addresses_and_one_of_them_have_a_listener_each() {
    let addr = free();
    let all = SocketAddr::from((Ipv4Addr::UNSPECIFIED, addr.port()));
    assert_eq!(bind_all(&[all, addr]), Ok(()));
    assert_eq!(bind_all(&[addr, all]), Ok(()));
}

/// Binds a proxy to these addresses, and to free ports besides.
fn bind_all(listeners: &[SocketAddr]) -> Result<(), String> {
    let listeners = listeners.iter().map(|addr| (*addr, Aim::Outbound));
    let mut config = Config {
        listeners: listeners.collect(),
        ..Config::default()
    };
    config.admin.addr = LOOPBACK;
    let settings = Settings::parse(r#"{"version":1,"mesh":"default"}"#).expect("settings");
    let bound = app::bind(config, watch::channel(Arc::new(settings)).1);
    bound.map(|_| ()).map_err(|error| error.to_string())
}

/// An application that answers one request when it is told to.
async fn held() -> (SocketAddr, tokio::sync::oneshot::Sender<()>) {
    let listener = TcpListener::bind(LOOPBACK).await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let (release, released) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let _read = stream.read(&mut [0; 1024]).await;
        let _released = released.await;
        let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
        let _written = stream.write_all(answer).await;
    });
    (addr, release)
}

/// Waits until something is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let so = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    let in_time = tokio::time::timeout(DEADLINE, so).await;
    in_time.unwrap_or_else(|_| panic!("{what}: not in time"));
}

/// A container ends its proxy, and the kubelet tells the pod to end: neither is a second signal.
#[tokio::test]
async fn after_a_shutdown_the_second_signal_ends_it_at_once() {
    let (application, release) = held().await;
    let proxy = start(application, 1);
    let (traffic, admin) = (proxy.bound.listeners[0], proxy.bound.admin);
    let asked = tokio::spawn(async move { ask(traffic, &get("/")).await });
    until("the request is under way", async || {
        let metrics = ask(admin, &get("/metrics?filter=^request_total$")).await;
        metrics.contains("request_total{") && metrics.contains("} 1\n")
    })
    .await;
    let shutdown = "POST /shutdown HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let told = ask(admin, shutdown).await;
    assert!(told.starts_with("HTTP/1.1 200"), "{told}");
    until("it says that it ends", async || {
        ask(admin, &get("/ready")).await.starts_with("HTTP/1.1 503")
    })
    .await;
    proxy.terminate.send(()).await.expect("it serves");
    let terminate = proxy.terminate.clone();
    until("the signal is heard", async || terminate.capacity() == 2).await;
    assert!(
        ask(admin, &get("/ready")).await.starts_with("HTTP/1.1 503"),
        "it drains"
    );
    drop(terminate);
    assert!(!asked.is_finished(), "the request is under way");
    proxy.terminate.send(()).await.expect("it drains");
    tokio::time::timeout(DEADLINE, proxy.served)
        .await
        .expect("it ends")
        .expect("no panic")
        .expect("it served");
    drop((release, asked));
}
