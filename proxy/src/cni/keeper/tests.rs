//! When the keeper looks, what it says, and what its flags are.

use std::cell::RefCell;
use std::fs;

use clap::{CommandFactory, Parser};
use tokio::time::timeout;

use super::*;
use crate::cni::node::tests::{LIST_A, ONE, Place};

const INTERVAL: Duration = Duration::from_secs(2);

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

/// What is said to it since the last time.
#[derive(Default)]
struct Lines(RefCell<Vec<Said>>);

impl Lines {
    fn take(&self) -> Vec<Said> {
        self.0.take()
    }

    fn put(&self, said: Said) {
        self.0.borrow_mut().push(said);
    }
}

fn text(said: &Said) -> &str {
    match said {
        Said::Done(text) | Said::Odd(text) => text,
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_network_plugin_writes_anew_is_edited_again() {
    let place = Place::new();
    let lines = Lines::default();
    let keeping = keep(&place.node, Aim::Installed, INTERVAL, |said| {
        lines.put(said)
    });
    tokio::pin!(keeping);
    // The first look, and the two after it.
    assert!(timeout(INTERVAL * 5 / 2, &mut keeping).await.is_err());
    let [Said::Done(done), Said::Odd(waits)] = &lines.take()[..] else {
        panic!("something else is said");
    };
    assert!(done.contains("installed"), "{done}");
    assert!(
        waits.contains("waits for") && waits.contains("net.d"),
        "{waits}"
    );
    for _ in 0..2 {
        place.put("10-a.conflist", LIST_A);
        assert!(timeout(INTERVAL / 4, &mut keeping).await.is_err());
        assert_eq!(place.text("10-a.conflist"), LIST_A, "nobody has looked yet");
        assert!(timeout(INTERVAL, &mut keeping).await.is_err());
        assert!(place.text("10-a.conflist").contains("weir-cni"));
        assert!(timeout(INTERVAL * 10, &mut keeping).await.is_err());
        let said = lines.take();
        assert!(text(&said[0]).contains("added weir-cni to"), "{said:?}");
        assert_eq!(said.len(), 1, "{said:?}");
        // Looks come at the same times again.
        assert!(timeout(INTERVAL * 3 / 4, &mut keeping).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_odd_is_told_once_and_again_when_it_comes_back() {
    let place = Place::new();
    place.put("10-a.conflist", LIST_A);
    let lines = Lines::default();
    let keeping = keep(&place.node, Aim::Installed, INTERVAL, |said| {
        lines.put(said)
    });
    tokio::pin!(keeping);
    let mut odd = Vec::new();
    assert!(timeout(INTERVAL / 2, &mut keeping).await.is_err());
    for is_broken in [true, true, false, true] {
        let path = place.node.conf_dir.join("05-b.conf");
        if is_broken {
            place.put("05-b.conf", "{");
        } else {
            fs::remove_file(path).unwrap();
        }
        lines.take();
        assert!(timeout(INTERVAL, &mut keeping).await.is_err());
        odd.push(lines.take().len());
    }
    assert_eq!(odd, [1, 0, 0, 1]);
}

#[tokio::test(start_paused = true)]
async fn removing_goes_on_and_says_so_once() {
    let place = Place::new();
    place.put("10-one.conf", ONE);
    let lines = Lines::default();
    let kept = |aim| {
        timeout(
            INTERVAL * 3,
            keep(&place.node, aim, INTERVAL, |said| lines.put(said)),
        )
    };
    for _ in 0..2 {
        assert!(kept(Aim::Installed).await.is_err());
        let all = ["10-one-weir-cni.conflist", "10-one.conf", "weir-cni"];
        assert_eq!(place.files(), all);
        lines.take();
        assert!(kept(Aim::Removed).await.is_err());
        assert_eq!(place.files(), ["10-one.conf"]);
        assert_eq!(lines.take().len(), 2);
    }
}

#[test]
fn a_step_that_fails_ends_the_look() {
    let place = Place::new();
    place.put("10-a.conflist", LIST_A);
    fs::remove_file(&place.node.program).unwrap();
    let found = turn(&place.node, Aim::Installed, &mut |said| panic!("{said:?}"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(place.text("10-a.conflist"), LIST_A);
}

#[test]
fn a_check_tells_what_is_missing_and_changes_nothing() {
    let place = Place::new();
    place.put("10-a.conflist", LIST_A);
    let told = |aim| check(&place.node.look(aim)).map_err(|error| error.to_string());
    let error = told(Aim::Installed).unwrap_err();
    assert!(
        error.contains("bin/weir-cni is not this program; "),
        "{error}"
    );
    assert!(error.ends_with("10-a.conflist"), "{error}");
    assert_eq!(place.files(), ["10-a.conflist"]);
    told(Aim::Removed).unwrap();
    turn(&place.node, Aim::Installed, &mut |_| {});
    place.put("05-b.conf", "{");
    told(Aim::Installed).expect("an odd file is in nobody's way");
    let error = told(Aim::Removed).unwrap_err();
    assert!(error.contains("weir-cni is a plugin of "), "{error}");
    assert!(error.ends_with("bin/weir-cni is still there"), "{error}");
    let empty = Place::new();
    turn(&empty.node, Aim::Installed, &mut |_| {});
    let error = check(&empty.node.look(Aim::Installed)).unwrap_err();
    assert!(
        error.to_string().contains("no network configuration yet"),
        "{error}"
    );
    assert!(!error.is_config());
}

#[test]
fn every_flag_has_its_default_and_its_variable() {
    Cli::command().debug_assert();
    let args = Cli::parse_from(["cni"]).args;
    assert_eq!(args.bin_dir, PathBuf::from("/host/opt/cni/bin"));
    assert_eq!(args.conf_dir, PathBuf::from("/host/etc/cni/net.d"));
    assert_eq!(args.interval, INTERVAL);
    assert!(!args.remove && !args.check);
    let help = Cli::command().render_long_help().to_string();
    for name in ["BIN_DIR", "CONF_DIR", "REMOVE", "INTERVAL"] {
        assert!(
            help.contains(&format!("[env: WEIR_CNI_{name}=")),
            "{name}: {help}"
        );
    }
    assert!(help.contains("[env: WEIR_LOG="), "{help}");
}

#[test]
fn wrong_flags_are_told() {
    for interval in ["0", "99ms", "soon"] {
        assert!(Cli::try_parse_from(["cni", "--interval", interval]).is_err());
    }
    let args = Cli::parse_from(["cni", "--log-level", "loud"]).args;
    let error = run(&args).unwrap_err();
    assert!(
        error.is_config() && error.to_string().contains("--log-level"),
        "{error}"
    );
}
