//! A folder with documents and a state directory, and what is written there.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Every wait of a test ends by then.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks at what is waited for.
const PAUSE: Duration = Duration::from_millis(20);

/// Waits, but not for ever.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not in time: {what}"),
    }
}

/// Asks until the answer is as wanted, and returns it.
pub(crate) async fn until<T, F: Future<Output = T>>(
    what: &str,
    mut ask: impl FnMut() -> F,
    wanted: impl Fn(&T) -> bool,
) -> T {
    soon(what, async {
        loop {
            let answer = ask().await;
            if wanted(&answer) {
                return answer;
            }
            tokio::time::sleep(PAUSE).await;
        }
    })
    .await
}

/// Removed at the end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let path = path.join(format!("universal-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(path.join("documents")).expect("a folder");
        Self(path)
    }

    pub(crate) fn documents(&self) -> PathBuf {
        self.0.join("documents")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    /// A file beside the documents.
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.documents().join(name), text).expect("written");
    }

    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.documents().join(name)).expect("removed");
    }

    /// What verifies the operator.
    pub(crate) fn authority(&self) -> PathBuf {
        self.state().join("operator-ca.pem")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A Mesh whose authority the operator makes.
pub(crate) const STRICT: &str = "type: Mesh
name: default
mtls:
  enabledBackend: ca-1
  backends:
  - name: ca-1
    type: builtin
    mode: STRICT
";

pub(crate) const SHOP_TO_WEB: &str = "type: TrafficPermission
name: shop-to-web
mesh: default
sources:
- match:
    kuma.io/service: shop
destinations:
- match:
    kuma.io/service: web
";

/// A Dataplane of `service` at 127.0.0.1, which listens on a port and forwards to another.
pub(crate) fn dataplane(name: &str, service: &str, (port, to): (u16, u16)) -> String {
    format!(
        "type: Dataplane
mesh: default
name: {name}
networking:
  address: 127.0.0.1
  inbound:
  - port: {port}
    servicePort: {to}
    tags:
      kuma.io/service: {service}
      kuma.io/zone: east
"
    )
}

/// The same with an outbound to web.
pub(crate) fn caller(name: &str, service: &str, ports: (u16, u16), outbound: u16) -> String {
    let own = dataplane(name, service, ports);
    format!(
        "{own}  outbound:
  - port: {outbound}
    tags:
      kuma.io/service: web
"
    )
}
