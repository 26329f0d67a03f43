//! What mutual TLS costs: the memory of idle pairs.

use std::fs;
use std::process::Command;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::mesh::Pair;
use crate::passes::echo;
use crate::proxy::application;

/// Resident bytes of this process.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/statm").expect("statm");
    let pages = status.split_whitespace().nth(1).expect("a second field");
    pages.parse::<usize>().expect("a number") * 4096
}

/// Set in the process that is measured.
const INSIDE: &str = "WEIR_TEST_COST";

/// In both proxies together, the sockets of the test and the application's buffers included. No other test is in the
/// process that is measured.
#[tokio::test]
async fn an_idle_pair_is_small() {
    if std::env::var_os(INSIDE).is_some() {
        return measure().await;
    }
    let test = ["cost::an_idle_pair_is_small", "--exact", "--nocapture"];
    let mut alone = Command::new(std::env::current_exe().expect("a path"));
    let output = alone.args(test).env(INSIDE, "1").output();
    let output = output.expect("it runs");
    let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
    assert!(
        output.status.success() && said.contains("an idle pair takes"),
        "{said}"
    );
    println!("{said}");
}

async fn measure() {
    let pair = Pair::start(application(echo).await);
    let open = async || {
        let mut client = pair.client.proxy.connect().await;
        client.write_all(&[7; 20_000]).await.expect("written");
        client.read_exact(&mut vec![0; 20_000]).await.expect("back");
        client
    };
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(open().await);
    }
    let before = resident();
    for _ in 0..1000 {
        held.push(open().await);
    }
    let each = (resident() - before) / 1000;
    println!("an idle pair takes {each} bytes in both proxies");
    assert!(each <= 2 * 35 * 1024, "{each} bytes");
}
