//! A directory as users change it, and what is in force after each look.

use std::sync::Arc;

use super::*;
use crate::folder::Folder;
use crate::health::Readiness;
use crate::index::Wanted;
use crate::metrics::Metrics;
use crate::workload::Workload;

const MESH: &str = "type: Mesh
name: default
mtls:
  enabledBackend: ca
  backends:
  - name: ca
    type: builtin
";

fn dataplane(name: &str, port: &str) -> String {
    format!(
        "type: Dataplane
mesh: default
name: {name}
networking:
  address: 127.0.0.1
  inbound:
  - port: {port}
    servicePort: 9
    tags: {{kuma.io/service: web, kuma.io/zone: east}}
"
    )
}

const PERMISSION: &str = "type: TrafficPermission
mesh: default
name: all
sources: [{match: {kuma.io/service: '*'}}]
destinations: [{match: {kuma.io/service: '*'}}]
";

struct Scene {
    folder: Folder,
    documents: Documents,
    metrics: Metrics,
}

impl Scene {
    fn new(name: &str) -> Self {
        let (folder, metrics) = (Folder::new(name), Metrics::default());
        let config = Config {
            directory: folder.path().to_owned(),
            look: LOOK,
            settle: Duration::ZERO,
        };
        Self {
            documents: Documents::new(config, metrics.clone()),
            folder,
            metrics,
        }
    }

    /// Looks; answers what is wrong.
    async fn look(&mut self) -> Vec<String> {
        self.documents.look().await;
        let told = self.documents.told.iter();
        told.map(ToString::to_string).collect()
    }

    fn ports(&self) -> Vec<u16> {
        let wanted = Wanted {
            mesh: "default".to_owned(),
            service: "web".to_owned(),
            ..Wanted::default()
        };
        let offers = self.documents.offers().borrow().clone().unwrap();
        let found = offers.of(&wanted);
        found.iter().map(|offer| offer.address.port()).collect()
    }

    fn workload(&self, name: &str) -> Option<Arc<Workload>> {
        let key = ("default".to_owned(), name.to_owned());
        self.documents.workloads().named(key).borrow().clone()
    }

    fn permissions(&self) -> usize {
        let view = self.documents.permissions().borrow().clone().unwrap();
        view.get("default").map_or(0, Vec::len)
    }

    fn counts(&self, state: &str, count: usize) -> bool {
        let line = format!("weir_operator_documents{{state=\"{state}\"}} {count}\n");
        self.metrics.render().contains(&line)
    }
}

#[tokio::test]
async fn documents_are_what_the_rest_reads() {
    let mut scene = Scene::new("documents");
    assert!(scene.documents.meshes().borrow().is_none());
    let both = format!("{MESH}---\n{}", dataplane("web-1", "80"));
    scene.folder.write("a.yaml", &both);
    scene.folder.write("b.yml", PERMISSION);
    scene.folder.write(".draft.yaml", "rubbish");
    scene.folder.write("readme.txt", "rubbish");
    assert_eq!(scene.look().await, [""; 0]);
    assert_eq!((scene.ports(), scene.permissions()), (vec![80], 1));
    let workload = scene.workload("web-1").unwrap();
    assert_eq!(workload.name.as_deref(), Some("web.mesh"));
    assert!(workload.tags["kuma.io/zone"].contains("east"));
    let offers = scene.documents.offers().borrow().clone().unwrap();
    let offer = offers.at("default", ([127, 0, 0, 1], 80).into()).unwrap();
    assert_eq!(offer.identity.as_deref(), Some("web.mesh"));
    assert_eq!(offer.labels["zone"], "east");
    assert!(scene.counts("in_force", 3) && scene.counts("wrong", 0));

    let mut meshes = scene.documents.meshes();
    meshes.mark_unchanged();
    scene.look().await;
    scene
        .folder
        .write("b.yml", &format!("# Rewritten\n{PERMISSION}"));
    scene.look().await;
    assert!(!meshes.has_changed().unwrap());
}

#[tokio::test]
async fn without_a_document_of_it_mesh_default_is_the_initial_one() {
    let mut scene = Scene::new("initial");
    scene.folder.write("a.yaml", &dataplane("web-1", "80"));
    assert_eq!(scene.look().await, [""; 0]);
    let meshes = scene.documents.meshes().borrow().clone().unwrap();
    assert_eq!(meshes["default"].spec, weir_crds::mesh::MeshSpec::initial());
    let other = dataplane("web-2", "81").replace("mesh: default", "mesh: other");
    scene.folder.write("b.yaml", &other);
    let told = scene.look().await;
    assert!(
        told[0].contains(r#"b.yaml: Dataplane "web-2": mesh: there is no document"#),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_mesh_that_is_wrong_or_gone_is_not_replaced_by_one_without_mutual_tls() {
    let names = |scene: &Scene| {
        let meshes = scene.documents.meshes().borrow().clone().unwrap();
        meshes.keys().cloned().collect::<Vec<_>>()
    };
    // Wrong from the start, as after a new start of the operator.
    let mut scene = Scene::new("mesh");
    scene.folder.write("a.yaml", &dataplane("web-1", "80"));
    scene
        .folder
        .write("m.yaml", &MESH.replace("builtin", "vault"));
    assert_eq!(scene.look().await.len(), 2);
    assert_eq!(names(&scene), [""; 0]);
    scene.folder.write("m.yaml", MESH);
    assert_eq!(scene.look().await, [""; 0]);
    assert_eq!(names(&scene), ["default"]);
    // Gone, as for a moment while somebody replaces all files.
    std::fs::remove_file(scene.folder.path().join("m.yaml")).unwrap();
    let told = scene.look().await;
    assert!(told[0].contains("there is no document of Mesh"), "{told:?}");
    assert_eq!(names(&scene), [""; 0]);
}

#[tokio::test]
async fn a_wrong_document_keeps_what_was_right_and_is_named() {
    let mut scene = Scene::new("wrong");
    let two = |second: &str| format!("{}---\n{second}", dataplane("web-1", "80"));
    scene
        .folder
        .write("a.yaml", &two(&dataplane("web-2", "81")));
    scene.folder.write("b.yaml", PERMISSION);
    scene.look().await;

    scene
        .folder
        .write("a.yaml", &two(&dataplane("web-2", "70000")));
    let told = scene.look().await;
    assert_eq!(told.len(), 1, "{told:?}");
    for words in [
        "a.yaml: ",
        r#"Dataplane "web-2""#,
        "line 17 ",
        "networking.inbound[0].port",
    ] {
        assert!(told[0].contains(words), "{words}: {told:?}");
    }
    assert_eq!(scene.ports(), [80, 81]);
    assert!(scene.counts("wrong", 1) && scene.counts("in_force", 3));

    // The other document of the file goes on being read.
    let moved = format!("{}---\na: [", dataplane("web-1", "85"));
    scene.folder.write("a.yaml", &moved);
    assert_eq!(scene.look().await.len(), 1);
    assert_eq!(scene.ports(), [81, 85]);

    scene.folder.write("a.yaml", &two(""));
    assert_eq!(scene.look().await, [""; 0]);
    assert_eq!(scene.ports(), [80]);
    assert!(scene.workload("web-2").is_none() && scene.counts("wrong", 0));
    std::fs::remove_file(scene.folder.path().join("b.yaml")).unwrap();
    scene.look().await;
    assert_eq!(scene.permissions(), 0);
}

#[tokio::test]
async fn a_file_or_a_directory_that_cannot_be_read_keeps_what_was_right() {
    let mut scene = Scene::new("unread");
    scene.folder.write("a.yaml", &dataplane("web-1", "80"));
    scene.look().await;
    let place = scene.folder.path().join("a.yaml");
    for (content, words) in [
        (vec![0xff; 4], "UTF-8"),
        (vec![b' '; FILE_SIZE as usize + 1], "longer than"),
    ] {
        std::fs::write(&place, content).unwrap();
        let told = scene.look().await;
        assert!(told[0].contains(words), "{told:?}");
        assert_eq!(scene.ports(), [80]);
    }
    std::fs::remove_file(&place).unwrap();
    std::fs::create_dir(&place).unwrap();
    assert!(scene.look().await[0].contains("is no file"));
    assert_eq!(scene.ports(), [80]);

    let elsewhere = scene.folder.path().with_extension("gone");
    std::fs::rename(scene.folder.path(), &elsewhere).unwrap();
    let told = scene.look().await;
    assert!(
        told.iter().any(|told| told.contains("cannot be listed")),
        "{told:?}"
    );
    assert_eq!(scene.ports(), [80]);
    std::fs::rename(&elsewhere, scene.folder.path()).unwrap();
    std::fs::remove_dir(&place).unwrap();
    scene.folder.write("m.yaml", MESH);
    assert_eq!(scene.look().await, [""; 0]);
    assert!(scene.ports().is_empty());
}

#[tokio::test]
async fn a_file_that_is_being_written_is_left_until_it_has_settled() {
    let mut scene = Scene::new("settling");
    scene.documents.config.settle = Duration::from_secs(3600);
    let old = std::time::SystemTime::now() - Duration::from_secs(7200);
    let age = |scene: &Scene, name: &str| {
        let file = std::fs::File::options()
            .write(true)
            .open(scene.folder.path().join(name));
        file.unwrap().set_modified(old).unwrap();
    };
    scene.folder.write("a.yaml", &dataplane("web-1", "80"));
    assert!(!scene.documents.look().await);
    assert!(scene.documents.meshes().borrow().is_none());
    age(&scene, "a.yaml");
    assert!(scene.documents.look().await);
    assert_eq!(scene.ports(), [80]);
    // Half of it is a document, too.
    scene.folder.write("a.yaml", MESH);
    assert!(!scene.documents.look().await);
    assert_eq!(scene.ports(), [80]);
    age(&scene, "a.yaml");
    assert!(scene.documents.look().await);
    assert!(scene.ports().is_empty());
    // A document that moves to another file is never in neither.
    scene.folder.write("a.yaml", &dataplane("web-1", "80"));
    age(&scene, "a.yaml");
    scene.folder.write("m.yaml", MESH);
    assert!(!scene.documents.look().await);
    let meshes = |scene: &Scene| scene.documents.meshes().borrow().clone().unwrap();
    assert!(scene.ports().is_empty() && meshes(&scene).len() == 1);
    age(&scene, "m.yaml");
    assert!(scene.documents.look().await);
    assert_eq!((scene.ports(), meshes(&scene).len()), (vec![80], 1));
    // Nor is a file that is written anew.
    std::fs::remove_file(scene.folder.path().join("m.yaml")).unwrap();
    assert!(!scene.documents.look().await);
    scene.folder.write("m.yaml", MESH);
    age(&scene, "m.yaml");
    assert!(scene.documents.look().await);
    assert_eq!((scene.ports(), meshes(&scene).len()), (vec![80], 1));
}

#[tokio::test]
async fn a_directory_without_any_file_is_not_meant() {
    let mut scene = Scene::new("emptied");
    scene.folder.write("a.yaml", &dataplane("web-1", "80"));
    assert_eq!(scene.look().await, [""; 0]);
    std::fs::remove_file(scene.folder.path().join("a.yaml")).unwrap();
    let told = scene.look().await;
    assert!(told[0].contains("has no file *.yaml"), "{told:?}");
    assert_eq!(scene.ports(), [80]);
    scene.folder.write("b.yaml", MESH);
    assert_eq!(scene.look().await, [""; 0]);
    assert!(scene.ports().is_empty());
}

#[tokio::test]
async fn of_two_documents_of_one_name_the_first_counts() {
    let mut scene = Scene::new("twice");
    scene.folder.write("a.yaml", &dataplane("web-1", "80"));
    scene.folder.write("b.yaml", &dataplane("web-1", "81"));
    scene.folder.write("m.yaml", MESH);
    let told = scene.look().await;
    assert!(
        told[0].contains("b.yaml: ") && told[0].contains("stands in a.yaml"),
        "{told:?}"
    );
    assert_eq!(scene.ports(), [80]);
    std::fs::remove_file(scene.folder.path().join("a.yaml")).unwrap();
    assert_eq!(scene.look().await, [""; 0]);
    assert_eq!(scene.ports(), [81]);
}

#[tokio::test]
async fn metrics_of_a_dataplane_may_stand_in_a_document_of_their_own() {
    let mut scene = Scene::new("override");
    let over = "type: Dataplane\nmesh: default\nname: web-1\nmetrics: {type: prometheus, conf: {port: 1234}}\n";
    scene.folder.write("a.yaml", &dataplane("web-1", "80"));
    scene.folder.write("b.yaml", over);
    assert_eq!(scene.look().await, [""; 0]);
    let port = |scene: &Scene| {
        let workload = scene.workload("web-1").unwrap();
        workload.metrics.as_ref().and_then(|over| over.conf.port)
    };
    assert_eq!(port(&scene), Some(1234));
    let own = over
        .split_once("metrics")
        .unwrap()
        .1
        .replace("1234", "2345");
    let own = format!("{}metrics{own}", dataplane("web-1", "80"));
    scene.folder.write("a.yaml", &own);
    let told = scene.look().await;
    assert!(
        told[0].contains("b.yaml: ") && told[0].contains("metrics: "),
        "{told:?}"
    );
    assert_eq!(port(&scene), Some(2345));
}

#[tokio::test]
async fn a_gateway_is_a_workload_and_no_endpoint() {
    let mut scene = Scene::new("gateway");
    let gateway = "type: Dataplane
mesh: default
name: edge-1
networking:
  address: 127.0.0.1
  gateway: {type: DELEGATED, tags: {kuma.io/service: edge}}
";
    scene.folder.write("a.yaml", gateway);
    assert_eq!(scene.look().await, [""; 0]);
    let workload = scene.workload("edge-1").unwrap();
    assert_eq!(workload.name.as_deref(), Some("edge.mesh"));
    assert!(workload.tags["kuma.io/service"].contains("edge"));
    let offers = scene.documents.offers().borrow().clone().unwrap();
    assert_eq!(*offers, crate::index::OfferSet::default());
}

#[tokio::test]
async fn a_name_that_is_none_is_no_endpoint_and_said() {
    let mut scene = Scene::new("names");
    let named = dataplane("web-1", "80").replace("127.0.0.1", "does-not-exist.invalid");
    let local = dataplane("web-2", "81").replace("127.0.0.1", "localhost");
    scene
        .folder
        .write("a.yaml", &format!("{named}---\n{local}"));
    let told = scene.look().await;
    assert!(
        told[0].contains(r#"cannot resolve "does-not-exist.invalid""#),
        "{told:?}"
    );
    assert_eq!(scene.ports(), [81]);
    assert!(scene.workload("web-1").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_look_goes_on_while_dns_is_away_and_an_end_does_not_wait() {
    let mut scene = Scene::new("away");
    let away = Hosts::new(|_| Box::pin(std::future::pending()));
    scene.documents.desk.as_mut().unwrap().hosts = away;
    for number in 0..100 {
        let named = dataplane(&format!("web-{number}"), "80");
        let named = named.replace("127.0.0.1", &format!("host-{number}.example"));
        scene.folder.write(&format!("{number}.yaml"), &named);
    }
    let begun = tokio::time::Instant::now();
    assert_eq!(scene.look().await.len(), 100);
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    scene.folder.write("z.yaml", &dataplane("web-z", "90"));
    let begun = tokio::time::Instant::now();
    assert_eq!(scene.look().await.len(), 100);
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(scene.ports(), [90]);
    // Not even names that are new are waited for.
    let other = dataplane("web-y", "91").replace("127.0.0.1", "other.example");
    scene.folder.write("y.yaml", &other);
    let stop = CancellationToken::new();
    let pending = Readiness::default().register("the documents");
    let running = tokio::spawn(scene.documents.run(pending, stop.clone()));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let begun = tokio::time::Instant::now();
    stop.cancel();
    running.await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_running_reader_takes_changes_over_and_is_pending_until_the_first_look() {
    let scene = Scene::new("running");
    let readiness = Readiness::default();
    let elsewhere = scene.folder.path().with_extension("later");
    std::fs::rename(scene.folder.path(), &elsewhere).unwrap();
    let stop = CancellationToken::new();
    let mut offers = scene.documents.offers();
    let pending = readiness.register("the documents");
    let running = tokio::spawn(scene.documents.run(pending, stop.clone()));
    tokio::time::sleep(LOOK * 3).await;
    assert_eq!(readiness.waiting_for(), ["the documents"]);
    std::fs::rename(&elsewhere, scene.folder.path()).unwrap();
    scene.folder.write("a.yaml", &dataplane("web-1", "80"));
    let read = offers.wait_for(Option::is_some);
    tokio::time::timeout(LOOK * 100, read)
        .await
        .unwrap()
        .unwrap();
    tokio::time::sleep(LOOK).await;
    assert!(readiness.waiting_for().is_empty());
    stop.cancel();
    running.await.unwrap();
}
