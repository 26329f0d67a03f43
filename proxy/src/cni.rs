//! Redirection by the node. `weir-proxy` is a CNI plugin as well (`plugin`): a container runtime calls it for each pod,
//! and it installs there what `init` would. `weir-proxy cni` (`keeper`) keeps it installed on a node (`node`), as the last
//! of the network configuration in use (`conflist`). Called by `main`; must not know what a proxy does.

pub mod conflist;
mod files;
mod keeper;
mod namespace;
mod node;
pub mod plugin;

pub use self::keeper::{Args, KeeperError, run};
pub use self::plugin::serve;

/// The plugin's name: its type in a network configuration, and its file in the directory of plugins.
pub const PLUGIN: &str = "weir-cni";

/// The capability by which a container runtime tells a plugin a pod's annotations: containerd 1.5, CRI-O 1.28.
pub const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// The version of the CNI specification that is spoken where nobody asks for another.
pub const VERSION: &str = "1.1.0";

/// Every version of the specification that is served: those with chained plugins.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", VERSION];
