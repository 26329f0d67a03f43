//! Which policies a new Mesh gets: Kuma's permission for everyone, once. Pure: called by the writer in `apply`; it
//! knows no client. A user who deletes the permission is not overruled, so that it was decided is kept in the Mesh.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use kube::{Resource, ResourceExt};
use weir_crds::names::DEFAULTS_GENERATED;
use weir_crds::traffic_permission::TrafficPermissionSpec;
use weir_crds::{Mesh, TrafficPermission};

use super::whole_seconds;

/// Condition: it was decided which policies the Mesh begins with. Never taken back.
pub const INITIAL_POLICIES: &str = "InitialPolicies";

/// What to do about the policies that a Mesh begins with.
#[derive(Clone, Debug, PartialEq)]
pub enum Policies {
    /// It was decided before, or the Mesh is going.
    Decided,
    /// The Mesh wants none: only remember.
    Skip,
    /// Create this, then remember.
    Create(Box<TrafficPermission>),
}

/// Decides about the policies of one Mesh. Decided are those whose status says so, and those that Kuma's annotation
/// calls done: an installation of Kuma, or a backup of one.
#[must_use]
pub fn initial_policies(mesh: &Mesh) -> Policies {
    let status = mesh.status.iter();
    let is_marked = status
        .flat_map(|status| &status.conditions)
        .any(|condition| condition.type_ == INITIAL_POLICIES);
    let is_kumas = mesh
        .annotations()
        .get(DEFAULTS_GENERATED)
        .is_some_and(|value| value == "true");
    if is_marked || is_kumas || mesh.metadata.deletion_timestamp.is_some() {
        return Policies::Decided;
    }
    if mesh.spec.skips_creating(&TrafficPermission::kind(&())) {
        return Policies::Skip;
    }
    // It goes with the Mesh.
    match mesh.owner_ref(&()) {
        Some(owner) => Policies::Create(Box::new(allow_all(mesh, owner))),
        None => Policies::Decided,
    }
}

/// The condition that remembers the decision.
#[must_use]
pub fn decided(mesh: &Mesh, policies: &Policies, now: Timestamp) -> Condition {
    let (reason, message) = match policies {
        Policies::Create(permission) => (
            "Created",
            format!(
                "TrafficPermission {} was created, once",
                permission.name_any()
            ),
        ),
        Policies::Skip | Policies::Decided => (
            "Skipped",
            "spec.skipCreatingInitialPolicies: no policy was created".to_owned(),
        ),
    };
    Condition {
        last_transition_time: Time(whole_seconds(now)),
        message,
        observed_generation: mesh.metadata.generation,
        reason: reason.to_owned(),
        status: "True".to_owned(),
        type_: INITIAL_POLICIES.to_owned(),
    }
}

/// Whether a permission belongs to a Mesh that this one succeeds: the API server is about to collect it.
#[must_use]
pub fn is_of_predecessor(permission: &TrafficPermission, mesh: &Mesh) -> bool {
    let mut owners = permission.owner_references().iter();
    owners.any(|owner| {
        owner.kind == Mesh::kind(&()) && Some(&owner.uid) != mesh.metadata.uid.as_ref()
    })
}

/// Everyone may connect to everyone, under Kuma's name.
fn allow_all(mesh: &Mesh, owner: OwnerReference) -> TrafficPermission {
    let name = format!("allow-all-{}", mesh.name_any());
    let mut permission = TrafficPermission::new(&name, TrafficPermissionSpec::allow_all());
    permission.mesh = Some(mesh.name_any());
    permission.metadata.owner_references = Some(vec![owner]);
    permission
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weir_crds::mesh::MeshSpec;
    use weir_crds::validate;

    use super::*;

    fn mesh(spec: Value) -> Mesh {
        let mut mesh = Mesh::new("shop", MeshSpec(spec));
        mesh.metadata.uid = Some("1".to_owned());
        mesh
    }

    fn created(mesh: &Mesh) -> TrafficPermission {
        match initial_policies(mesh) {
            Policies::Create(permission) => *permission,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_new_mesh_lets_everyone_connect() {
        let permission = created(&mesh(json!({})));
        assert_eq!(
            serde_json::to_value(&permission).unwrap(),
            json!({
                "apiVersion": "kuma.io/v1alpha1",
                "kind": "TrafficPermission",
                "mesh": "shop",
                "metadata": {
                    "name": "allow-all-shop",
                    "ownerReferences": [{
                        "apiVersion": "kuma.io/v1alpha1", "kind": "Mesh", "name": "shop", "uid": "1",
                    }],
                },
                "spec": {
                    "sources": [{"match": {"kuma.io/service": "*"}}],
                    "destinations": [{"match": {"kuma.io/service": "*"}}],
                },
            })
        );
        assert_eq!(validate::traffic_permission(&permission.spec.0), []);
    }

    #[test]
    fn a_mesh_may_begin_without() {
        for skipped in [json!(["*"]), json!(["Retry", "TrafficPermission"])] {
            let mesh = mesh(json!({"skipCreatingInitialPolicies": skipped}));
            assert_eq!(initial_policies(&mesh), Policies::Skip, "{skipped}");
        }
        for other in [json!([]), json!(["Retry"]), json!(["trafficpermission"])] {
            created(&mesh(json!({"skipCreatingInitialPolicies": other})));
        }
    }

    #[test]
    fn it_is_decided_once() {
        for spec in [json!({}), json!({"skipCreatingInitialPolicies": ["*"]})] {
            let mut mesh = mesh(spec);
            let now = "2026-11-01T00:00:00.5Z".parse().unwrap();
            let condition = decided(&mesh, &initial_policies(&mesh), now);
            let since = condition.last_transition_time.0;
            assert_eq!(since.to_string(), "2026-11-01T00:00:00Z");
            mesh.status = serde_json::from_value(json!({"conditions": [condition]})).unwrap();
            assert_eq!(initial_policies(&mesh), Policies::Decided);
            // Whatever it asks for later.
            mesh.spec = MeshSpec(json!({}));
            assert_eq!(initial_policies(&mesh), Policies::Decided);
        }
    }

    #[test]
    fn what_kuma_decided_stands() {
        let mut mesh = mesh(json!({}));
        let mut annotate = |value: &str| {
            let annotations = mesh.annotations_mut();
            annotations.insert(DEFAULTS_GENERATED.to_owned(), value.to_owned());
            initial_policies(&mesh)
        };
        assert_eq!(annotate("true"), Policies::Decided);
        assert!(matches!(annotate("false"), Policies::Create(_)));
    }

    #[test]
    fn a_mesh_that_is_going_gets_nothing() {
        let mut mesh = mesh(json!({}));
        mesh.metadata.deletion_timestamp = Some(Time("2026-11-01T00:00:00Z".parse().unwrap()));
        assert_eq!(initial_policies(&mesh), Policies::Decided);
    }

    #[test]
    fn a_permission_is_of_the_mesh_with_its_uid() {
        let first = mesh(json!({}));
        let mut second = first.clone();
        second.metadata.uid = Some("2".to_owned());
        let permission = created(&first);
        assert!(!is_of_predecessor(&permission, &first));
        assert!(is_of_predecessor(&permission, &second));
        let users = TrafficPermission::new("allow-all-shop", TrafficPermissionSpec::allow_all());
        assert!(!is_of_predecessor(&users, &second));
    }
}
