//! A whole proxy in a pod whose traffic is really redirected, an operator beside it, and a network of which every address
//! in the ranges of services and pods answers with its name. Used by the stories of discovery.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::thread::move_into_link_name_space;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weir_crds::settings::Settings;
use weir_proxy::accept::{Aim, Guard};
use weir_proxy::app;
use weir_proxy::control::Operator as Operated;
use weir_proxy::control::discovery;
use weir_proxy::control::operator::{self, Target};
use weir_proxy::destinations;

use crate::namespace::{Namespace, become_user};
use crate::operator::{Operator, Serving};
use crate::parser::{self, Labels, Syntax};
use crate::pod::{POD_V4, Pod};
use crate::stand_in::{PROXY_UID, redirect};

/// Longest time that anything may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub(crate) struct Mesh {
    pub(crate) pod: Pod,
    pub(crate) operator: Operator,
    pub(crate) control: Option<Control>,
    pub(crate) settings: watch::Sender<Arc<Settings>>,
    admin: SocketAddr,
    terminate: tokio::sync::mpsc::Sender<()>,
    proxy: Option<JoinHandle<()>>,
}

/// A running operator, on a thread of its own.
pub(crate) struct Control {
    pub(crate) addr: SocketAddr,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    pub(crate) fn start(pod: &Pod, operator: &Operator, port: u16) -> Self {
        let (stop, operator) = (CancellationToken::new(), operator.clone());
        let (told, addr) = mpsc::channel();
        let stopped = stop.clone();
        let thread = inside(&pod.inside, None, async move {
            let serving: Serving = operator.serve((LOOPBACK, port).into()).await;
            told.send(serving.addr).unwrap();
            stopped.cancelled().await;
        });
        Self {
            addr: addr.recv_timeout(DEADLINE).unwrap(),
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Runs a future on a thread of its own in a namespace, as a user if one is given.
pub(crate) fn inside(
    namespace: &Namespace,
    uid: Option<u32>,
    run: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    let path = std::fs::File::open(namespace.path()).unwrap();
    thread::spawn(move || {
        move_into_link_name_space(path.as_fd(), None).unwrap();
        if let Some(uid) = uid {
            become_user(uid);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(run);
    })
}

impl Mesh {
    /// A first connection waits for the operator's answer as long as that takes.
    pub(crate) fn start() -> Self {
        Self::start_with(DEADLINE)
    }

    /// It waits as long as it does by default.
    pub(crate) fn impatient() -> Self {
        Self::start_with(destinations::Config::default().wait)
    }

    fn start_with(wait: Duration) -> Self {
        let pod = Pod::new();
        for range in ["10.96.0.0/16", "10.244.0.0/16"] {
            pod.peer.exec(&format!("ip route add local {range} dev lo"));
        }
        serve(&pod.peer, 8080);
        serve(&pod.peer, 80);
        let operator = Operator::new(None);
        let control = Control::start(&pod, &operator, 0);
        redirect(&pod.inside, "");
        let mut config = config(control.addr);
        config.worker.destinations.wait = wait;
        let (settings, in_force) = watch::channel(Arc::new(Settings::without_metrics("default")));
        let (terminate, terminated) = tokio::sync::mpsc::channel(2);
        let (told, admin) = mpsc::channel();
        let proxy = inside(&pod.inside, Some(PROXY_UID), async move {
            let app = app::bind(config, in_force).map_err(|error| error.to_string());
            let app = app.unwrap();
            told.send(app.bound().admin).unwrap();
            app.serve(terminated).await.unwrap();
        });
        let mesh = Self {
            admin: admin.recv_timeout(DEADLINE).unwrap(),
            pod,
            operator,
            control: Some(control),
            settings,
            terminate,
            proxy: Some(proxy),
        };
        mesh.until("it beats, and is connected", |mesh| {
            mesh.scrape("/ready").starts_with("HTTP/1.0 200")
        });
        mesh
    }

    /// The body of a request to this address, and how long it took.
    pub(crate) fn get(&self, to: &str, host: &str) -> (String, Duration) {
        let start = Instant::now();
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = self.pod.inside.enter(|| ask(addr(to), &request));
        let body = answer.rsplit_once("\r\n\r\n").map(|(_, body)| body);
        (body.unwrap_or(&answer).to_owned(), start.elapsed())
    }

    /// Everything that is answered to these bytes.
    pub(crate) fn say(&self, to: &str, bytes: &str) -> String {
        self.pod.inside.enter(|| ask(addr(to), bytes))
    }

    fn scrape(&self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.0\r\nHost: proxy\r\n\r\n");
        self.pod.inside.enter(|| ask(self.admin, &request))
    }

    /// The series of a family that was used, in the order of printing.
    pub(crate) fn series(&self, family: &str) -> Vec<(Labels, f64)> {
        let answer = self.scrape(&format!("/metrics?filter=^{family}$"));
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let families = parser::parse(body, Syntax::Text).unwrap();
        let samples = families.into_iter().flat_map(|family| family.samples);
        samples
            .map(|sample| (sample.labels, sample.value))
            .collect()
    }

    /// Waits until it is true.
    pub(crate) fn until(&self, what: &str, is_it: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !is_it(self) {
            assert!(start.elapsed() < DEADLINE, "not in time: {what}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let _ends = self.terminate.try_send(());
        let _at_once = self.terminate.try_send(());
        if let Some(proxy) = self.proxy.take()
            && proxy.join().is_err()
            && !thread::panicking()
        {
            panic!("the proxy has panicked");
        }
    }
}

fn config(operator: SocketAddr) -> app::Config {
    let target = Target::parse(&format!("http://{operator}"), None).unwrap();
    let mut config = app::Config {
        workers: 1,
        listeners: vec![
            ((LOOPBACK, 4140).into(), Aim::Outbound),
            ((Ipv4Addr::UNSPECIFIED, 4143).into(), Aim::Inbound),
        ],
        operator: Some(Operated {
            connection: operator::Config::new(target),
            discovery: discovery::Config::default(),
            settings: None,
            services: None,
        }),
        beats: true,
        ..app::Config::default()
    };
    config.worker.guard = Guard {
        pod_ips: vec![POD_V4],
        own_ports: vec![4140, 4143, 4191],
        ..Guard::default()
    };
    config.admin.addr = (LOOPBACK, 0).into();
    config.admin.metrics_ip = LOOPBACK;
    config
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Says `bytes`, and reads all there is; nothing where the connection is reset.
pub(crate) fn ask(to: SocketAddr, bytes: &str) -> String {
    let mut stream = TcpStream::connect_timeout(&to, DEADLINE).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let _reset = stream.write_all(bytes.as_bytes());
    let mut answer = String::new();
    match stream.read_to_string(&mut answer) {
        Ok(_) => answer,
        Err(error) => format!("{:?}", error.kind()),
    }
}

/// Answers every request on this port of every address with that address and the status that its path ends with, else
/// 200; one whose path ends with `never` is not answered. On threads that end with the test process.
fn serve(namespace: &Namespace, port: u16) {
    let listener = namespace.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)));
    let listener = listener.unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
}

/// The client may leave whenever it likes.
fn answer(mut stream: TcpStream) -> Option<()> {
    let name = stream.local_addr().ok()?.to_string();
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let n = stream.read(&mut buffer).ok().filter(|n| *n > 0)?;
        head.extend_from_slice(&buffer[..n]);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let closes = head.windows(6).any(|w| w == b": clos");
        let end = if closes { "Connection: close\r\n" } else { "" };
        let status = status(&head);
        if status == "never" {
            head.clear();
            continue;
        }
        let answer = format!(
            "HTTP/1.1 {status} OK\r\n{end}Content-Length: {}\r\n\r\n{name}",
            name.len()
        );
        stream.write_all(answer.as_bytes()).ok()?;
        if closes {
            return Some(());
        }
        head.clear();
    }
}

/// What the path of a request ends with, as far as it says how to answer.
fn status(head: &[u8]) -> String {
    let head = String::from_utf8_lossy(head);
    let path = head.split(' ').nth(1).unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default();
    let is_status = last == "never" || last.parse::<u16>().is_ok();
    if is_status { last } else { "200" }.to_owned()
}
