//! The reviews of our own kinds: `/validate` and `/default`.
//! Called by `serve`; the rules and their texts are those of `weir_crds`, and the field paths Kuma's.

use serde_json::Value;
use weir_crds::{Violation, default, mesh::MeshSpec, names, validate, violation::prefixed};

use super::Service;
use crate::{
    cluster::LookupError,
    review::{Answer, Request},
};

/// Refuses an object that breaks its kind's rules, and the deletion of a Mesh in use.
pub(super) async fn validate(service: &Service, request: &Request) -> Result<Answer, LookupError> {
    let part = request.sub_resource.as_deref().unwrap_or_default();
    if request.kind.group != names::GROUP || !part.is_empty() {
        return Ok(Answer::unchanged());
    }
    let violations = match request.operation.as_str() {
        "CREATE" | "UPDATE" => rules(request),
        "DELETE" if request.kind.kind == "Mesh" => {
            validate::mesh_deletion(service.cluster.has_dataplanes(&request.name).await?)
        }
        _ => Vec::new(),
    };
    if !violations.is_empty() {
        return Ok(Answer::Denied(violations));
    }
    let missing = missing_mesh(service, request).await?;
    Ok(Answer::warned(missing.into_iter().collect()))
}

/// That the Mesh which an object begins to belong to is not there: a permission of no Mesh holds nowhere. No refusal, for
/// the Mesh may come right after it, as in a dry run of both.
async fn missing_mesh(service: &Service, request: &Request) -> Result<Option<String>, LookupError> {
    let kind = request.kind.kind.as_str();
    let mesh = &request.object["mesh"];
    let begins = request.old_object["mesh"] != *mesh;
    let named = mesh.as_str().filter(|name| !name.is_empty() && begins);
    let Some(name) = named.filter(|_| ["Dataplane", "TrafficPermission"].contains(&kind)) else {
        return Ok(None);
    };
    let is_missing = service.cluster.mesh(name).await?.is_none();
    Ok(is_missing.then(|| {
        format!("mesh: Mesh {name:?} does not exist: until it does, this {kind} has no effect")
    }))
}

/// A Dataplane that the operator makes from a pod says who the pod is, so nobody else writes one.
fn of_the_operator(object: &Value) -> Option<Violation> {
    let is_operators = object["metadata"]["labels"][names::MANAGED_BY] == names::OPERATOR;
    is_operators.then(|| {
        let field = format!("metadata.labels[{:?}]", names::MANAGED_BY);
        let message = format!(
            "{:?} marks the Dataplanes that the operator makes from pods and keeps as it made them: change the pod, or \
             leave the label away",
            names::OPERATOR
        );
        Violation::new(&field, message)
    })
}

/// All rules of the object's kind.
fn rules(request: &Request) -> Vec<Violation> {
    let object = &request.object;
    let spec = &object["spec"];
    let of_spec = |violations| prefixed("spec.", violations);
    let mut violations = Vec::new();
    match request.kind.kind.as_str() {
        "Mesh" => {
            let name = object["metadata"]["name"].as_str().unwrap_or(&request.name);
            violations.extend(validate::mesh_name(name));
            violations.extend(of_spec(validate::mesh(spec)));
            if request.operation == "UPDATE" {
                let old = MeshSpec(request.old_object["spec"].clone());
                violations.extend(of_spec(validate::mesh_update(
                    &old,
                    &MeshSpec(spec.clone()),
                )));
            }
        }
        "Dataplane" => {
            violations.extend(of_the_operator(object));
            violations.extend(validate::mesh_reference(object["mesh"].as_str()));
            violations.extend(of_spec(validate::dataplane(spec)));
        }
        "TrafficPermission" => {
            violations.extend(validate::mesh_reference(object["mesh"].as_str()));
            violations.extend(of_spec(validate::traffic_permission(spec)));
        }
        "ContainerPatch" => {
            let namespace = request.namespace.as_deref().unwrap_or_default();
            violations.extend(validate::container_patch_namespace(namespace));
            violations.extend(of_spec(validate::container_patch(spec)));
        }
        _ => {}
    }
    violations
}

/// Persists the defaults of a Mesh; the other kinds have none.
pub(super) fn default(request: &Request) -> Answer {
    let wanted = request.kind.group == names::GROUP
        && request.kind.kind == "Mesh"
        && matches!(request.operation.as_str(), "CREATE" | "UPDATE");
    if !wanted {
        return Answer::unchanged();
    }
    let mut object = request.object.clone();
    if let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) {
        default::mesh(spec);
    }
    Answer::Allowed {
        patch: json_patch::diff(&request.object, &object),
        warnings: Vec::new(),
    }
}
