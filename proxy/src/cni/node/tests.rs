//! A node in a directory: what is written there, and when.

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::cni::conflist::ENTRY;

pub(in crate::cni) const LIST_A: &str =
    r#"{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"a"}]}"#;
pub(in crate::cni) const ONE: &str = r#"{"cniVersion":"0.4.0","name":"one","type":"bridge"}"#;

/// A node's directories; gone at the end.
pub(in crate::cni) struct Place {
    root: PathBuf,
    pub(in crate::cni) node: Node,
}

impl Place {
    pub(in crate::cni) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("weir-cni-{}-{number}", std::process::id()));
        let node = Node {
            bin_dir: root.join("bin"),
            conf_dir: root.join("net.d"),
            program: root.join("program"),
            compared: Cell::default(),
        };
        fs::create_dir_all(&node.bin_dir).unwrap();
        fs::create_dir_all(&node.conf_dir).unwrap();
        fs::write(&node.program, "program 1").unwrap();
        Self { root, node }
    }

    pub(in crate::cni) fn put(&self, name: &str, text: &str) {
        fs::write(self.node.conf_dir.join(name), text).unwrap();
    }

    pub(in crate::cni) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.node.conf_dir.join(name)).unwrap()
    }

    pub(in crate::cni) fn plugin(&self) -> PathBuf {
        self.node.bin_dir.join(PLUGIN)
    }

    /// Every file there is, by its name.
    pub(in crate::cni) fn files(&self) -> Vec<String> {
        let both = [&self.node.bin_dir, &self.node.conf_dir];
        let entries = both.into_iter().flat_map(|dir| fs::read_dir(dir).unwrap());
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Looks and does all there is to do; then nothing may be left. Gives what was done and what is in the way.
    fn settle(&self, aim: Aim) -> (Vec<String>, Vec<String>) {
        let look = self.node.look(aim);
        let done = look.steps.iter().map(|step| {
            assert!(step.apply(&self.node.program).unwrap(), "{step}");
            step.done()
        });
        let done = done.collect();
        let after = self.node.look(aim);
        assert_eq!(after.steps, [], "it is not at rest");
        assert_eq!(after.unmet, look.unmet);
        (done, look.unmet)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is left lies in a directory for such things.
        let _left = fs::remove_dir_all(&self.root);
    }
}

fn added(text: &str) -> String {
    text.replace("]}", &format!(",{ENTRY}]}}"))
}

#[test]
fn the_program_and_its_entry_are_put_and_taken() {
    let place = Place::new();
    place.put("10-a.conflist", LIST_A);
    place.put("20-b.conflist", LIST_A);
    place.put("README", "{");
    let (done, unmet) = place.settle(Aim::Installed);
    assert_eq!((done.len(), unmet.len()), (2, 0), "{done:?} {unmet:?}");
    assert_eq!(fs::read_to_string(place.plugin()).unwrap(), "program 1");
    assert_eq!(files::like(&place.plugin()).unwrap().mode, 0o755);
    assert_eq!(place.text("10-a.conflist"), added(LIST_A));
    assert_eq!(place.text("20-b.conflist"), LIST_A, "it is not in use");
    let names = ["10-a.conflist", "20-b.conflist", "README"];
    assert_eq!(place.files(), [&names[..], &["weir-cni"]].concat());
    let (done, unmet) = place.settle(Aim::Removed);
    assert_eq!((done.len(), unmet.len()), (2, 0), "{done:?} {unmet:?}");
    assert_eq!(place.text("10-a.conflist"), LIST_A);
    assert_eq!(place.files(), names);
}

#[test]
fn no_configuration_ever_names_a_plugin_that_is_not_there() {
    let place = Place::new();
    place.put("10-a.conflist", LIST_A);
    let plugin = place.plugin();
    let steps = place.node.look(Aim::Installed).steps;
    assert_eq!(steps[0], Step::Copy(plugin.clone()));
    place.settle(Aim::Installed);
    let steps = place.node.look(Aim::Removed).steps;
    assert_eq!(steps.last(), Some(&Step::Delete(plugin)));
    // Nobody can say whether this one names it.
    place.put("20-b.conflist", "{\"plugins\": [{\"type\": \"weir-cni\"");
    let (_, unmet) = place.settle(Aim::Removed);
    assert!(
        unmet[0].contains("20-b.conflist") && unmet[0].contains("by hand"),
        "{unmet:?}"
    );
    assert!(place.plugin().exists());
}

#[test]
fn another_program_replaces_the_plugin() {
    let place = Place::new();
    place.put("10-a.conflist", LIST_A);
    place.settle(Aim::Installed);
    for changed in ["program 2", "program 1 and more", "p"] {
        fs::write(&place.node.program, changed).unwrap();
        place.node.compared.take();
        let (done, _) = place.settle(Aim::Installed);
        assert_eq!(done, [format!("installed {}", place.plugin().display())]);
        assert_eq!(fs::read_to_string(place.plugin()).unwrap(), changed);
    }
    // Somebody else has touched it.
    fs::write(place.plugin(), "x").unwrap();
    assert_eq!(place.settle(Aim::Installed).0.len(), 1);
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(place.plugin(), permissions).unwrap();
    assert_eq!(place.settle(Aim::Installed).0.len(), 1);
    fs::remove_file(place.plugin()).unwrap();
    assert_eq!(place.settle(Aim::Installed).0.len(), 1);
}

#[test]
fn mode_and_owner_of_a_configuration_stay() {
    let place = Place::new();
    place.put("10-a.conflist", LIST_A);
    let path = place.node.conf_dir.join("10-a.conflist");
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o640);
    fs::set_permissions(&path, permissions).unwrap();
    // Only root may give files away.
    let owner = std::os::unix::fs::chown(&path, Some(1234), Some(2345)).map(|()| (1234, 2345));
    let before = files::like(&path).unwrap();
    place.settle(Aim::Installed);
    let after = files::like(&path).unwrap();
    assert_eq!((after.mode, after.owner), (0o640, before.owner));
    assert!(owner.is_err() || after.owner == Some((1234, 2345)));
}

#[test]
fn what_is_in_use_is_the_first_that_can_be_read() {
    let place = Place::new();
    fs::create_dir(place.node.conf_dir.join("00-directory.conflist")).unwrap();
    symlink("nowhere", place.node.conf_dir.join("00-link.conf")).unwrap();
    place.put("01-a.conf~", ONE);
    place.put("02-half.conflist", &LIST_A[..20]);
    place.put("03-list.conf", LIST_A);
    place.put("10-a.conflist", LIST_A);
    let look = place.node.look(Aim::Installed);
    assert_eq!(look.remarks.len(), 2, "{:?}", look.remarks);
    assert!(
        look.remarks[0].contains("02-half.conflist: left as it is"),
        "{:?}",
        look.remarks
    );
    assert!(look.remarks[1].contains("\"type\""), "{:?}", look.remarks);
    let (_, unmet) = place.settle(Aim::Installed);
    assert!(unmet.is_empty(), "{unmet:?}");
    assert_eq!(place.text("10-a.conflist"), added(LIST_A));
    assert_eq!(place.text("02-half.conflist"), LIST_A[..20]);
}

#[test]
fn a_version_that_is_not_served_is_left_alone() {
    let place = Place::new();
    let old = LIST_A.replace("1.0.0", "0.2.0");
    place.put("10-a.conflist", &old);
    place.put("20-b.conflist", LIST_A);
    let (_, unmet) = place.settle(Aim::Installed);
    assert!(
        unmet[0].contains("10-a.conflist") && unmet[0].contains("0.2.0"),
        "{unmet:?}"
    );
    assert_eq!(
        (place.text("10-a.conflist"), place.text("20-b.conflist")),
        (old, LIST_A.into())
    );
}

#[test]
fn a_configuration_of_one_plugin_is_chained_in_a_list_that_comes_first() {
    let place = Place::new();
    place.put("10-one.conf", ONE);
    let (done, _) = place.settle(Aim::Installed);
    assert!(done[1].contains("10-one.conf, in "), "{done:?}");
    let names = place.node.names().unwrap();
    assert_eq!(names, ["10-one-weir-cni.conflist", "10-one.conf"]);
    assert_eq!(place.text("10-one.conf"), ONE);
    assert!(place.text("10-one-weir-cni.conflist").contains(ONE));
    // It follows.
    let other = ONE.replace("one", "two");
    place.put("10-one.conf", &other);
    place.settle(Aim::Installed);
    assert!(place.text("10-one-weir-cni.conflist").contains(&other));
    // Half of a file may become a whole one.
    place.put("10-one.conf", &other[..9]);
    assert_eq!(place.settle(Aim::Installed).0.len(), 0);
    place.put("10-one.conf", &other);
    place.settle(Aim::Removed);
    assert_eq!(place.files(), ["10-one.conf"]);
}

#[test]
fn a_list_of_what_is_not_in_use_any_more_goes() {
    for change in ["gone", "another", "version"] {
        let place = Place::new();
        place.put("10-one.json", ONE);
        place.settle(Aim::Installed);
        let original = place.node.conf_dir.join("10-one.json");
        match change {
            "gone" => fs::remove_file(original).unwrap(),
            "another" => place.put("05-a.conflist", LIST_A),
            _ => place.put("10-one.json", &ONE.replace("0.4.0", "0.1.0")),
        }
        place.settle(Aim::Installed);
        let names = place.node.names().unwrap();
        assert!(
            !names.contains(&"10-one-weir-cni.conflist".to_owned()),
            "{change}: {names:?}"
        );
    }
}

#[test]
fn what_somebody_has_written_meanwhile_is_not_overwritten() {
    let place = Place::new();
    place.put("10-a.conflist", LIST_A);
    let look = place.node.look(Aim::Installed);
    let theirs = LIST_A.replace("\"a\"", "\"b\"");
    place.put("10-a.conflist", &theirs);
    assert!(!look.steps[1].apply(&place.node.program).unwrap());
    assert_eq!(
        place.files(),
        ["10-a.conflist"],
        "nothing is left beside it"
    );
    assert_eq!(place.text("10-a.conflist"), theirs);
    place.settle(Aim::Installed);
    assert_eq!(place.text("10-a.conflist"), added(&theirs));
}

#[test]
fn what_an_ended_try_has_left_is_in_nobodys_way() {
    let place = Place::new();
    place.put("10-a.conflist", LIST_A);
    place.put(".10-a.conflist.weir-cni-new", "half");
    place.settle(Aim::Installed);
    assert_eq!(place.files(), ["10-a.conflist", "weir-cni"]);
}

#[test]
fn a_directory_that_is_missing_is_named_with_the_remedy() {
    for aim in [Aim::Installed, Aim::Removed] {
        for is_bin in [true, false] {
            let place = Place::new();
            let node = &place.node;
            let missing = if is_bin {
                &node.bin_dir
            } else {
                &node.conf_dir
            };
            fs::remove_dir(missing).unwrap();
            let unmet = node.look(aim).unmet;
            let is_named = unmet[0].contains(&missing.display().to_string());
            assert!(is_named && unmet[0].contains("hostPath"), "{unmet:?}");
        }
    }
}

#[test]
fn an_error_says_what_to_do() {
    let said = |kind: ErrorKind| {
        let error = FileError::new("write", Path::new("/host/x"))(kind.into());
        error.to_string()
    };
    assert!(said(ErrorKind::ReadOnlyFilesystem).ends_with("without readOnly"));
    assert!(said(ErrorKind::PermissionDenied).contains("cannot write /host/x: "));
    assert!(said(ErrorKind::PermissionDenied).contains("uid 0"));
    assert!(said(ErrorKind::StorageFull).contains("make room"));
}
