use jiff::SignedDuration;
use serde_json::json;
use weir_crds::Mesh;
use weir_crds::mesh::MeshSpec;

use super::*;
use crate::folder::Folder;
use crate::state::StateDir;

#[tokio::test(start_paused = true)]
async fn a_mesh_that_was_switched_off_uses_the_files_that_there_are() {
    let folder = Folder::new("keeper");
    let state = StateDir::open(&folder.path().join("state")).unwrap();
    let files = Files::open(state).unwrap();
    let mut keeper = Keeper::on_files(files, Duration::from_secs(5), Metrics::default());
    let root = || {
        let life = SignedDuration::from_hours(24);
        let pair = Pair::authority("mesh", Timestamp::now(), life).unwrap();
        folder.write("c", &pair.certificate);
        folder.write("k", &pair.key);
        let root = Root::read(&pair, Timestamp::now()).unwrap();
        root.anchor().to_owned()
    };
    let mesh = |enabled: Option<&str>| {
        let place = |name: &str| json!({"file": folder.path().join(name)});
        let conf = json!({"cert": place("c"), "key": place("k")});
        let backend = json!({"name": "ca", "type": "provided", "conf": conf});
        let spec = json!({"mtls": {"enabledBackend": enabled, "backends": [backend]}});
        let mesh = Arc::new(Mesh::new("default", MeshSpec(spec)));
        MeshSet::from([("default".to_owned(), mesh)])
    };
    let secrets = SecretSet::new();
    let mut used = async |meshes: &MeshSet| {
        let now = Timestamp::now();
        keeper.pass((meshes, &secrets), now, true).await.unwrap();
        let pause = keeper.given.as_ref().and_then(Given::pause);
        let view = keeper.view().borrow().clone().unwrap();
        let signer = view["default"].signer.as_ref().ok().cloned();
        let anchor = signer.map(|signer| signer.root.anchor().to_owned());
        (anchor, pause.is_some())
    };
    let first = root();
    assert_eq!(used(&mesh(Some("ca"))).await, (Some(first), true));
    assert_eq!(used(&mesh(None)).await, (None, false), "nothing to look at");
    let second = root();
    assert_eq!(used(&mesh(Some("ca"))).await, (Some(second), true));
}

#[tokio::test]
async fn a_backend_whose_name_no_file_can_have_is_unusable() {
    let folder = Folder::new("keeper-name");
    let state = StateDir::open(&folder.path().join("state")).unwrap();
    let files = Files::open(state).unwrap();
    let mut keeper = Keeper::on_files(files, Duration::from_secs(5), Metrics::default());
    let backend = json!({"name": "ca/1", "type": "builtin"});
    let spec = json!({"mtls": {"enabledBackend": "ca/1", "backends": [backend]}});
    let mesh = Arc::new(Mesh::new("default", MeshSpec(spec)));
    let meshes = MeshSet::from([("default".to_owned(), mesh)]);
    let secrets = SecretSet::new();
    let pass = keeper.pass((&meshes, &secrets), Timestamp::now(), true);
    pass.await.unwrap_err();
    let view = keeper.view().borrow().clone().unwrap();
    let Err(NotReady::Unusable(violation)) = &view["default"].signer else {
        panic!("{view:?}");
    };
    assert_eq!(violation.field, "mtls.backends[0].name");
}
