use std::path::Path;

use jiff::SignedDuration;
use serde_json::json;
use weir_crds::mesh::MeshSpec;

use super::reading::{FILE_SIZE, READ_TIME, UnderWay};
use super::*;
use crate::folder::Folder;

const LOOK: Duration = Duration::from_secs(5);

fn authority(certificate: &Path, key: &Path) -> Authority {
    let conf = json!({"cert": {"file": certificate}, "key": {"file": key}});
    let backend = json!({"name": "ca", "type": "provided", "conf": conf});
    let spec = json!({"mtls": {"enabledBackend": "ca", "backends": [backend]}});
    MeshSpec(spec).authority().unwrap().unwrap()
}

fn pair() -> Pair {
    Pair::authority("mesh", Timestamp::now(), SignedDuration::from_hours(24)).unwrap()
}

/// The files `c` and `k` of one Mesh.
struct Scene {
    folder: Folder,
    authority: Authority,
    given: Given,
}

impl Scene {
    fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        let place = |name: &str| folder.path().join(name);
        Self {
            authority: authority(&place("c"), &place("k")),
            given: Given::new(LOOK),
            folder,
        }
    }

    fn write(&self, pair: &Pair) {
        self.folder.write("c", &pair.certificate);
        self.folder.write("k", &pair.key);
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Looks at them; what is used comes back, empty for what cannot be read.
    async fn look(&mut self) -> Pair {
        self.given
            .read(&[("default", self.authority.clone())])
            .await;
        let mut texts = self.given.look("default", &self.authority);
        let mut text = |name: &str| {
            let text = texts.remove(&self.folder.path().join(name).display().to_string());
            text.unwrap().unwrap_or_default()
        };
        Pair {
            certificate: text("c"),
            key: text("k"),
        }
    }
}

async fn pass(time: Duration) {
    tokio::time::advance(time).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_both_files_is_one() {
    let mut scene = Scene::new("given");
    let (first, second) = (pair(), pair());
    assert_eq!(scene.given.pause(), None);
    scene.write(&first);
    assert_eq!(scene.look().await, first, "the first are used at once");
    assert_eq!(scene.given.pause(), Some(LOOK));
    scene.folder.write("c", &second.certificate);
    assert_eq!(scene.look().await, first);
    scene.folder.write("k", &second.key);
    for _ in 0..3 {
        // Every pass looks, however soon it comes.
        assert_eq!(scene.look().await, first);
        pass(LOOK / 4).await;
    }
    assert_eq!(scene.look().await, first);
    pass(LOOK / 4).await;
    assert_eq!(scene.look().await, second);
    // Away and back.
    std::fs::remove_file(scene.path("k")).unwrap();
    assert_eq!(scene.look().await, second);
    scene.folder.write("k", &second.key);
    pass(LOOK).await;
    assert_eq!(scene.look().await, second);
    std::fs::remove_file(scene.path("k")).unwrap();
    assert_eq!(scene.look().await, second, "it was there in between");
    pass(LOOK).await;
    assert_eq!(scene.look().await.key, "");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_gives_way_at_once() {
    let mut scene = Scene::new("given-misfit");
    let (first, second) = (pair(), pair());
    scene.folder.write("c", &first.certificate);
    scene.folder.write("k", &second.key);
    assert_ne!(scene.look().await, second);
    scene.write(&second);
    assert_eq!(scene.look().await, second);
}

#[tokio::test(start_paused = true)]
async fn a_mesh_that_names_none_for_a_while_begins_anew() {
    let mut scene = Scene::new("given-off");
    let (first, second) = (pair(), pair());
    scene.write(&first);
    assert_eq!(scene.look().await, first);
    scene.given.read(&[]).await;
    assert_eq!(scene.given.pause(), None, "nothing is to be looked at");
    scene.write(&second);
    assert_eq!(scene.look().await, second, "the old root is not used again");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_holds_up_its_own_files_alone() {
    let mut scene = Scene::new("given-hung");
    let first = pair();
    scene.write(&first);
    let hang = |scene: &mut Scene| {
        let never = UnderWay {
            text: tokio::spawn(std::future::pending()),
            is_stale: false,
        };
        let key = scene.path("k");
        scene.given.reading.under_way.insert(key, never);
    };
    hang(&mut scene);
    let start = Instant::now();
    let found = scene.look().await;
    assert_eq!(
        (found.certificate, found.key),
        (first.certificate.clone(), String::new())
    );
    assert_eq!(start.elapsed().as_secs(), READ_TIME.as_secs());
    let told = scene.given.look("default", &scene.authority);
    let told = told[&scene.path("k")].clone().unwrap_err();
    assert!(
        told.contains("k cannot be read: there is no answer"),
        "{told}"
    );
    scene.given.reading.under_way.clear();
    assert_eq!(scene.look().await, first);
    // What was read before is used on, and the disk is waited for once.
    hang(&mut scene);
    let start = Instant::now();
    for _ in 0..3 {
        assert_eq!(scene.look().await, first);
    }
    assert_eq!(start.elapsed().as_secs(), READ_TIME.as_secs());
    // One half of another pair is none.
    let second = pair();
    scene.write(&second);
    for _ in 0..3 {
        assert_eq!(scene.look().await, first);
        pass(LOOK).await;
    }
    scene.given.reading.under_way.clear();
    scene.look().await;
    pass(LOOK).await;
    assert_eq!(scene.look().await, second, "it is read again");
}

#[tokio::test(start_paused = true)]
async fn what_was_read_while_nobody_named_it_is_read_again() {
    let mut scene = Scene::new("given-stale");
    let (first, second) = (pair(), pair());
    let (answer, late) = tokio::sync::oneshot::channel();
    let hung = UnderWay {
        text: tokio::spawn(async { Ok(late.await.unwrap()) }),
        is_stale: false,
    };
    let key = scene.path("k");
    scene.given.reading.under_way.insert(key, hung);
    scene.given.read(&[]).await;
    answer.send(first.key).unwrap();
    tokio::task::yield_now().await;
    scene.write(&second);
    assert_eq!(scene.look().await, second);
}

#[tokio::test]
async fn what_cannot_be_read_is_said_with_its_path() {
    let folder = Folder::new("given-odd");
    let place = |name: &str| folder.path().join(name);
    std::fs::create_dir(place("directory")).unwrap();
    std::fs::write(place("latin"), b"\xe9").unwrap();
    let long = usize::try_from(FILE_SIZE).unwrap() + 1;
    std::fs::write(place("long"), vec![b'x'; long]).unwrap();
    for (name, why) in [
        ("gone", "cannot be read: No such file"),
        ("directory", "is no file"),
        ("latin", "is not UTF-8"),
        ("long", "is longer than 1048576 bytes"),
    ] {
        let path = place(name);
        let authority = authority(&path, &path);
        let mut given = Given::new(Duration::ZERO);
        given.read(&[("m", authority.clone())]).await;
        let texts = given.look("m", &authority);
        let told = texts.into_values().next().unwrap().unwrap_err();
        let wanted = format!("{} {why}", path.display());
        assert!(told.starts_with(&wanted), "{told}");
    }
}
