//! The rules a resource must obey, in Kuma's order and words, and those that Kuma lacks.
//! Called by the webhook (on a `spec`) and by `universal` (on a document); paths are without `spec.`, see
//! [`crate::violation::prefixed`]. Rules only judge: nothing is changed here, and nothing outside the value is known
//! unless it is passed in.

mod dataplane;
mod metrics;
mod mtls;
mod patch;
mod tags;

use serde_json::Value;

use crate::mesh::MeshSpec;
use crate::names::SYSTEM_NAMESPACE;
use crate::node::Node;
use crate::ports;
use crate::violation::Violation;

pub use dataplane::dataplane;
pub use patch::container_patch;

/// Longest name of a Mesh, in characters.
const NAME_LIMIT: usize = 63;

/// What is wrong with the content of a Mesh.
pub fn mesh(spec: &Value) -> Vec<Violation> {
    let mut report = Report::default();
    let root = Node::root(spec);
    if report.read(root.object()).is_none() {
        return report.violations;
    }
    mtls::rules(&mut report, &root.get("mtls"));
    metrics::rules(&mut report, &root.get("metrics"));
    constraints(&mut report, &root.get("constraints"));
    routing(&mut report, &root);
    report.violations
}

/// What is wrong with the name of a Mesh.
pub fn mesh_name(name: &str) -> Vec<Violation> {
    match name.chars().count() {
        0 => vec![Violation::new("name", "cannot be empty")],
        1..=NAME_LIMIT => Vec::new(),
        _ => vec![Violation::new(
            "name",
            "cannot be longer than 63 characters",
        )],
    }
}

/// What is wrong with turning `old` into `new`: an authority in use cannot be exchanged for another.
pub fn mesh_update(old: &MeshSpec, new: &MeshSpec) -> Vec<Violation> {
    match (old.enabled_ca(), new.enabled_ca()) {
        (Some(old), Some(new)) if old != new => vec![Violation::new(
            "mtls.enabledBackend",
            "Changing CA when mTLS is enabled is forbidden. Disable mTLS first and then change the CA",
        )],
        _ => Vec::new(),
    }
}

/// What is wrong with deleting a Mesh.
pub fn mesh_deletion(has_dataplanes: bool) -> Vec<Violation> {
    if !has_dataplanes {
        return Vec::new();
    }
    let message = "unable to delete mesh, there are still some dataplanes attached";
    vec![Violation::new("mesh", message)]
}

/// What is wrong with the `mesh` beside the `spec` of a TrafficPermission or a Dataplane in Kubernetes.
pub fn mesh_reference(mesh: Option<&str>) -> Vec<Violation> {
    match mesh {
        None | Some("") => vec![Violation::new("mesh", "cannot be empty")],
        Some(_) => Vec::new(),
    }
}

/// What is wrong with the content of a TrafficPermission.
pub fn traffic_permission(spec: &Value) -> Vec<Violation> {
    let mut report = Report::default();
    let root = Node::root(spec);
    if report.read(root.object()).is_none() {
        return report.violations;
    }
    for name in ["sources", "destinations"] {
        let list = root.get(name);
        let Some(selectors) = report.read(list.items()) else {
            continue;
        };
        if selectors.is_empty() {
            report.add(&list, "must have at least one element");
        }
        for selector in selectors {
            if report.read(selector.object()).is_some() {
                tags::selector(&mut report, &selector.get("match"));
            }
        }
    }
    report.violations
}

/// What is wrong with the namespace of a ContainerPatch; its path needs no prefix.
pub fn container_patch_namespace(namespace: &str) -> Vec<Violation> {
    if namespace == SYSTEM_NAMESPACE {
        return Vec::new();
    }
    vec![Violation::new(
        "metadata.namespace",
        format!(
            "ContainerPatch can only be placed in {SYSTEM_NAMESPACE} namespace. \
             It can be however referenced by pods in all namespaces"
        ),
    )]
}

fn constraints(report: &mut Report, constraints: &Node<'_>) {
    let proxy = constraints.get("dataplaneProxy");
    if report.read(constraints.object()).is_none() || report.read(proxy.object()).is_none() {
        return;
    }
    for name in ["requirements", "restrictions"] {
        for entry in report.read(proxy.get(name).items()).unwrap_or_default() {
            if report.read(entry.object()).is_some() {
                tags::selector(report, &entry.get("tags"));
            }
        }
    }
}

fn routing(report: &mut Report, root: &Node<'_>) {
    let routing = root.get("routing");
    let egress = routing
        .object()
        .and_then(|routing| routing.get("zoneEgress").flag());
    let secured = root.get("mtls").get("enabledBackend").text_or_empty();
    if report.read(egress).flatten() == Some(true) && secured == Ok("") {
        report.add_at("mtls", "has to be set when zoneEgress enabled");
    }
}

/// Collects violations in the order in which they are found.
#[derive(Default)]
struct Report {
    violations: Vec<Violation>,
}

impl Report {
    /// Records that `node` breaks a rule.
    fn add(&mut self, node: &Node<'_>, message: impl Into<String>) {
        self.violations.push(node.violation(message));
    }

    /// Records that the field at `path` breaks a rule.
    fn add_at(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.violations.push(Violation::new(path, message));
    }

    /// What was read, or `None` and the reason recorded.
    fn read<T>(&mut self, read: Result<T, Violation>) -> Option<T> {
        read.map_err(|violation| self.violations.push(violation))
            .ok()
    }

    /// A port that may be absent but not out of range.
    fn optional_port(&mut self, node: &Node<'_>) -> Option<u16> {
        let number = self.read(node.number())??;
        let port = ports::checked(number);
        if port.is_none() {
            self.add(node, ports::RANGE_MESSAGE);
        }
        port
    }

    /// A port that has to be there.
    fn required_port(&mut self, node: &Node<'_>) -> Option<u16> {
        if node.is_absent() {
            self.add(node, ports::RANGE_MESSAGE);
        }
        self.optional_port(node)
    }

    /// A text that has to be one of a few, or absent.
    fn one_of(&mut self, node: &Node<'_>, what: &str, known: &[&str]) {
        let Some(Some(text)) = self.read(node.text()) else {
            return;
        };
        if !known.contains(&text) {
            let known: Vec<String> = known.iter().map(|name| format!("{name:?}")).collect();
            self.add(
                node,
                format!("unknown {what}. Available {what}s: {}", known.join(", ")),
            );
        }
    }

    /// The backends of a section, each name once, with the section's `enabledBackend` among them. `judge` is called
    /// for every backend, after its name was judged.
    fn backends(&mut self, section: &Node<'_>, mut judge: impl FnMut(&mut Self, &Node<'_>)) {
        let list = section.get("backends");
        let mut names: Vec<&str> = Vec::new();
        for backend in self.read(list.items()).unwrap_or_default() {
            if self.read(backend.object()).is_none() {
                continue;
            }
            let field = backend.get("name");
            if let Some(name) = self.read(field.text_or_empty()) {
                if names.contains(&name) {
                    self.add(
                        &field,
                        format!("{name:?} name is already used for another backend"),
                    );
                }
                names.push(name);
            }
            judge(self, &backend);
        }
        let field = section.get("enabledBackend");
        let enabled = self.read(field.text_or_empty()).unwrap_or_default();
        if !enabled.is_empty() && !names.contains(&enabled) {
            self.add(&field, "has to be set to one of the backends in the mesh");
        }
    }
}

#[cfg(test)]
mod tests;
