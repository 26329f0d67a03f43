//! What the page shows of a proxy's traffic, and that it shows it to everyone: small and large, light and dark, by eye
//! and by what a screen reader is told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use weir_proxy::telemetry;

use crate::browser::Browser;
use crate::http;
use crate::process::{Proxy, until};
use crate::served::Served;

const PHONE: (u32, u32) = (360, 740);
const SCREEN: (u32, u32) = (1280, 800);

/// All figures of a direction, as they stand at one moment.
fn figures(browser: &mut Browser, direction: &str) -> BTreeMap<String, String> {
    let all = format!(
        "Object.fromEntries([...document.querySelectorAll('[data-direction={direction}] [data-figure]')]
            .map((figure) => [figure.dataset.figure, figure.textContent]))"
    );
    serde_json::from_value(browser.value(&all)).unwrap()
}

/// A figure in its base unit: requests, milliseconds or bytes.
fn number(text: &str) -> f64 {
    let (digits, unit) = text.split_once(' ').unwrap_or((text, ""));
    let number: f64 = digits
        .replace(',', "")
        .parse()
        .unwrap_or_else(|_| panic!("{text:?} begins with no number"));
    match unit {
        "s" | "kB/s" => number * 1e3,
        "MB/s" => number * 1e6,
        _ => number,
    }
}

fn state(browser: &mut Browser) -> String {
    let state = browser.value("document.getElementById('state')?.textContent");
    state.as_str().unwrap_or_default().to_owned()
}

/// Ends a thread of the scope, also when the test fails: the scope would wait for it for ever.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `look` while requests go through the proxy: three of four are answered 200, one 404.
fn with_traffic(proxy: &Proxy, look: impl FnOnce()) {
    let over = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                proxy.request(3, "/");
                proxy.request(1, "/missing");
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let _over = SetOnDrop(over);
        look();
    });
}

/// What would be wrong at this size: a page wider than the screen, text cut off, too little contrast.
const LAYOUT: &str = r#"(() => {
  const wrong = [];
  const root = document.documentElement;
  if (root.scrollWidth > innerWidth) wrong.push(`the page is ${root.scrollWidth} wide, the screen ${innerWidth}`);
  for (const element of document.querySelectorAll("h1, h2, dt, dd, th, td, caption, a, p, #state")) {
    const box = element.getBoundingClientRect();
    if (box.width === 0) continue;
    if (element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).display !== "inline")
      wrong.push(`cut off: ${element.textContent}`);
    if (box.right > innerWidth + 1 || box.left < -1) wrong.push(`beyond the screen: ${element.textContent}`);
    if (parseFloat(getComputedStyle(element).fontSize) < 12) wrong.push(`too small: ${element.textContent}`);
    const ratio = contrast(getComputedStyle(element).color, background(element));
    if (ratio < 4.5) wrong.push(`contrast ${ratio.toFixed(2)}: ${element.textContent}`);
  }
  return wrong;
  function background(element) {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (!color.endsWith(", 0)")) return color;
    }
    return "rgb(255, 255, 255)";
  }
  function luminance(color) {
    const [r, g, b] = color.match(/[\d.]+/g).map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }
  function contrast(a, b) {
    const [x, y] = [luminance(a), luminance(b)].sort((x, y) => y - x);
    return (x + 0.05) / (y + 0.05);
  }
})()"#;

fn assert_readable(browser: &mut Browser, name: &str) {
    let wrong = browser.value(LAYOUT);
    let picture = browser.picture(name);
    assert_eq!(wrong, json!([]), "{name}; see {}", picture.display());
}

#[test]
fn it_shows_the_traffic_as_it_goes() {
    let mut proxy = Proxy::start("");
    let mut browser = Browser::start("page");
    browser.show(PHONE, false);
    with_traffic(&proxy, || {
        browser.open(&format!("http://{}/", proxy.admin));
        until("the page has looked twice", || {
            let about = browser.value("document.getElementById('about')?.textContent");
            about.as_str().is_some_and(|text| text.contains("The last"))
        });
        assert_eq!(state(&mut browser), "Ready");
        let inbound = figures(&mut browser, "inbound");
        let of = |name: &str| number(&inbound[name]);
        assert!(
            of("rate") > 1.0 && of("in") > 1.0 && of("out") > 1.0,
            "{inbound:?}"
        );
        assert_eq!(inbound["success"], "100 %");
        let ordered = 0.0 < of("p50") && of("p50") <= of("p95") && of("p95") <= of("p99");
        assert!(ordered, "{inbound:?}");
        let outbound = figures(&mut browser, "outbound");
        assert_eq!((&*outbound["rate"], &*outbound["success"]), ("0", "–"));
        let rows =
            browser.value("[...document.querySelectorAll('tbody th')].map((th) => th.textContent)");
        let rows: Vec<String> = serde_json::from_value(rows).unwrap();
        assert!(
            rows.contains(&"0.shop.svc.cluster.local".to_owned()),
            "{rows:?}"
        );
        for (size, dark, name) in [
            (PHONE, false, "page-phone-light"),
            (PHONE, true, "page-phone-dark"),
            (SCREEN, false, "page-screen-light"),
            (SCREEN, true, "page-screen-dark"),
        ] {
            browser.show(size, dark);
            assert_readable(&mut browser, name);
        }
    });
    assert_eq!(browser.complaints, [""; 0]);
    assert_eq!(http::get(proxy.admin, "/ready", "").status, 200);
    assert_eq!(ended_over_http(&proxy), 200);
    proxy.ended();
    until("the page says that nobody answers", || {
        state(&mut browser).starts_with("No answer")
    });
}

fn ended_over_http(proxy: &Proxy) -> u16 {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(proxy.admin).unwrap();
    stream
        .write_all(b"POST /shutdown HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    http::read(&answer).status
}

/// A node of the accessibility tree: its role and its name.
fn node(node: &Value) -> (String, String) {
    let text = |key: &str| node[key]["value"].as_str().unwrap_or_default().to_owned();
    (text("role"), text("name"))
}

#[test]
fn it_says_that_a_pod_is_not_redirected() {
    let proxy = Served::start();
    proxy.telemetry.redirection().set(true);
    let mut browser = Browser::start("redirection");
    browser.show(PHONE, false);
    browser.open(&format!("http://{}/", proxy.addr));
    until("the page has looked", || state(&mut browser) == "Ready");
    proxy.telemetry.redirection().set(false);
    until("the page says it", || {
        state(&mut browser) == "Ready, but not redirected: traffic goes past this proxy"
    });
    assert_readable(&mut browser, "page-not-redirected");
    assert_eq!(browser.complaints, [""; 0]);
}

#[test]
fn it_does_without_what_a_policy_leaves_out() {
    let proxy = Served::start();
    let left_out = ["process_start_time_seconds", "proxy_build_info"];
    let policy = left_out.map(|f| format!("{f}: {{drop: true}}")).join(",");
    let policy = telemetry::policy(&format!("families: {{{policy}}}")).unwrap();
    proxy.telemetry.set_policy(&policy);
    proxy.record("web.shop", &[200]);
    let mut browser = Browser::start("policy");
    browser.open(&format!("http://{}/", proxy.addr));
    until("the page has looked twice", || {
        let about = browser.value("document.getElementById('about')?.textContent");
        about
            .as_str()
            .is_some_and(|about| about.starts_with("The last "))
    });
    assert_eq!(state(&mut browser), "Ready");
    assert_eq!(browser.complaints, [""; 0]);
}

#[test]
fn a_screen_reader_is_told_what_is_what() {
    let proxy = Proxy::start("");
    let mut browser = Browser::start("reader");
    browser.open(&format!("http://{}/", proxy.admin));
    until("the page has looked", || state(&mut browser) == "Ready");
    let tree = browser.call("Accessibility.getFullAXTree", json!({}));
    let nodes: Vec<_> = tree["nodes"].as_array().unwrap().iter().map(node).collect();
    for (role, name) in [
        ("RootWebArea", "Weir proxy"),
        ("heading", "Weir proxy"),
        ("status", ""),
        ("main", ""),
        ("region", "Inbound from others to this application"),
        ("region", "Outbound from this application to others"),
        ("navigation", "What this port serves"),
        ("link", "Metrics"),
        ("link", "Configuration"),
        ("term", ""),
        ("definition", ""),
    ] {
        let found = nodes
            .iter()
            .any(|(r, n)| r == role && (name.is_empty() || n == name));
        assert!(found, "{role} {name:?} in {nodes:?}");
    }
    let language = browser.value("document.documentElement.lang");
    assert_eq!(language, json!("en"));
    // What is there for the eye only is not read out.
    assert!(
        nodes
            .iter()
            .all(|(role, _)| role != "image" && role != "SvgRoot"),
        "{nodes:?}"
    );
}

#[test]
fn its_policy_keeps_everything_else_out() {
    let proxy = Proxy::start("");
    let mut browser = Browser::start("policy");
    browser.open(&format!("http://{}/", proxy.admin));
    until("the page has looked", || state(&mut browser) == "Ready");
    let other = Proxy::start("");
    let script = format!(
        "(async () => {{
            const tried = [];
            window.intruded = false;
            const script = document.createElement('script');
            script.textContent = 'window.intruded = true';
            document.body.append(script);
            document.body.setAttribute('style', 'margin: 7px');
            tried.push(window.intruded);
            tried.push(getComputedStyle(document.body).marginTop === '7px');
            tried.push(await fetch('http://{}/metrics').then(() => true, () => false));
            return tried;
        }})()",
        other.admin
    );
    assert_eq!(browser.value(&script), json!([false, false, false]));
}
