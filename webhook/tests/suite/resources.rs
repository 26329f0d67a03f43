//! Reviews of our own kinds, from body to body.

use serde_json::{Value, json};

use crate::{
    exchange::{message, patched, review},
    fixture::{api_server, empty, filled},
};

fn of_kind(kind: &str, operation: &str, object: Value) -> Value {
    json!({"kind": {"group": "kuma.io", "version": "v1alpha1", "kind": kind}, "operation": operation,
           "name": object["metadata"]["name"], "object": object})
}

#[tokio::test]
async fn a_mesh_in_use_is_not_deleted() {
    let fixture = empty(Some(api_server()));
    let deletion = |name: &str| {
        json!({"kind": {"group": "kuma.io", "version": "v1alpha1", "kind": "Mesh"}, "operation": "DELETE",
               "name": name, "object": null, "oldObject": {"metadata": {"name": name}}})
    };
    let response = review(&fixture, "/validate", deletion("used")).await;
    assert_eq!(
        message(&response),
        "mesh: unable to delete mesh, there are still some dataplanes attached"
    );
    assert_eq!(
        review(&fixture, "/validate", deletion("idle")).await["allowed"],
        true
    );
}

#[tokio::test]
async fn an_invalid_mesh_is_refused_with_kumas_paths_and_texts() {
    let fixture = filled(json!({}));
    let backend = |name: &str, kind: &str| json!({"name": name, "type": kind});
    let backends = [
        backend("a", "prometheus"),
        backend("a", "prometheus"),
        backend("b", "statsd"),
    ];
    let spec = json!({"metrics": {"enabledBackend": "none", "backends": backends}});
    let mesh = json!({"metadata": {"name": "default"}, "spec": spec});
    let response = review(&fixture, "/validate", of_kind("Mesh", "CREATE", mesh)).await;
    message(&response);
    assert_eq!(
        response["status"]["details"],
        json!({"name": "default", "group": "kuma.io", "kind": "Mesh", "causes": [
            {"reason": "FieldValueInvalid", "field": "spec.metrics.backends[1].name", "message": "\"a\" name is already used for another backend"},
            {"reason": "FieldValueInvalid", "field": "spec.metrics.backends[2].type", "message": "unknown backend type. Available backends: \"prometheus\""},
            {"reason": "FieldValueInvalid", "field": "spec.metrics.enabledBackend", "message": "has to be set to one of the backends in the mesh"},
        ]})
    );
}

#[tokio::test]
async fn the_authority_in_use_does_not_change() {
    let fixture = filled(json!({}));
    let mesh = |ca: &str| {
        let backends = json!([{"name": ca, "type": "builtin"}]);
        json!({"metadata": {"name": "default"}, "spec": {"mtls": {"enabledBackend": ca, "backends": backends}}})
    };
    let mut request = of_kind("Mesh", "UPDATE", mesh("new"));
    request["oldObject"] = mesh("old");
    let response = review(&fixture, "/validate", request.clone()).await;
    assert!(
        message(&response)
            .starts_with("spec.mtls.enabledBackend: Changing CA when mTLS is enabled is forbidden")
    );
    request["oldObject"] = mesh("new");
    assert_eq!(
        review(&fixture, "/validate", request).await["allowed"],
        true
    );
}

#[tokio::test]
async fn a_permission_of_a_mesh_that_is_not_there_is_warned_of() {
    let fixture = filled(json!({}));
    let of = |mesh: &str, operation: &str, old: &str| {
        let every = json!([{"match": {"kuma.io/service": "*"}}]);
        let object = json!({"metadata": {"name": "x"}, "mesh": mesh, "spec": {"sources": every, "destinations": every}});
        let mut request = of_kind("TrafficPermission", operation, object);
        request["oldObject"] = json!({"mesh": old});
        request
    };
    for (mesh, operation, old, is_there) in [
        ("default", "CREATE", "", true),
        ("defalt", "CREATE", "", false),
        ("no name", "CREATE", "", false),
        ("defalt", "UPDATE", "default", false),
        // Its Mesh is gone, which is known.
        ("gone", "UPDATE", "gone", true),
    ] {
        let response = review(&fixture, "/validate", of(mesh, operation, old)).await;
        assert_eq!(response["allowed"], true, "{response}");
        let warnings = match is_there {
            true => Value::Null,
            false => json!([format!(
                "mesh: Mesh {mesh:?} does not exist: until it does, this TrafficPermission has no effect"
            )]),
        };
        assert_eq!(response["warnings"], warnings);
    }
}

#[tokio::test]
async fn only_the_operator_writes_dataplanes_of_pods() {
    let fixture = filled(json!({}));
    let inbound = json!([{"port": 80, "tags": {"kuma.io/service": "web"}}]);
    let of = |manager: &str| {
        let metadata = json!({"name": "x", "namespace": "shop", "labels": {"app.kubernetes.io/managed-by": manager}});
        let spec = json!({"networking": {"address": "10.0.0.1", "inbound": inbound}});
        let object = json!({"metadata": metadata, "mesh": "default", "spec": spec});
        of_kind("Dataplane", "CREATE", object)
    };
    let response = review(&fixture, "/validate", of("weir-operator")).await;
    assert!(
        message(&response).starts_with(
            "metadata.labels[\"app.kubernetes.io/managed-by\"]: \"weir-operator\" marks"
        ),
        "{response}"
    );
    let response = review(&fixture, "/validate", of("Helm")).await;
    assert_eq!(response["allowed"], true, "{response}");
}

#[tokio::test]
async fn the_other_kinds_have_their_rules() {
    let fixture = filled(json!({}));
    let named = |fields: Value| {
        let mut object = json!({"metadata": {"name": "x", "namespace": "shop"}});
        object
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        object
    };
    let permission = named(
        json!({"mesh": "default", "spec": {"sources": [], "destinations": [{"match": {"kuma.io/service": "*"}}]}}),
    );
    let response = review(
        &fixture,
        "/validate",
        of_kind("TrafficPermission", "CREATE", permission),
    )
    .await;
    assert_eq!(
        message(&response),
        "spec.sources: must have at least one element"
    );
    let dataplane = named(json!({"mesh": "default", "spec": {}}));
    let response = review(
        &fixture,
        "/validate",
        of_kind("Dataplane", "CREATE", dataplane),
    )
    .await;
    assert_eq!(message(&response), "spec.networking: must be defined");
    let mut request = of_kind("ContainerPatch", "CREATE", named(json!({"spec": {}})));
    request["namespace"] = json!("shop");
    let response = review(&fixture, "/validate", request).await;
    assert!(
        message(&response).contains("ContainerPatch can only be placed in kuma-system namespace")
    );
    let foreign = json!({"kind": {"group": "apps", "version": "v1", "kind": "Mesh"}, "operation": "CREATE", "object": {}});
    assert_eq!(
        review(&fixture, "/validate", foreign).await["allowed"],
        true
    );
}

#[tokio::test]
async fn a_meshs_defaults_are_persisted_once() {
    let fixture = filled(json!({}));
    let backends = json!([{"name": "p", "type": "prometheus"}]);
    let mesh = json!({"metadata": {"name": "default"}, "spec": {"metrics": {"enabledBackend": "p", "backends": backends}}});
    let response = review(
        &fixture,
        "/default",
        of_kind("Mesh", "CREATE", mesh.clone()),
    )
    .await;
    let after = patched(&mesh, &response);
    let conf = &after["spec"]["metrics"]["backends"][0]["conf"];
    assert_eq!(
        (&conf["port"], &conf["path"]),
        (&json!(5670), &json!("/metrics"))
    );
    let again = review(&fixture, "/default", of_kind("Mesh", "UPDATE", after)).await;
    assert_eq!(again["patch"], Value::Null);
}
