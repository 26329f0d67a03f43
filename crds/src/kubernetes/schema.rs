//! A vocabulary for schemas that describe and do not judge: no field is required, nothing is bounded or enumerated,
//! null is always admitted and unknown fields are kept, so that a wrong value reaches our own rules and their words.
//! Called by `definitions`. Knows no resource.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

/// The fields of an object, by name.
pub(super) type Fields<'a> = &'a [(&'a str, JSONSchemaProps)];

fn nullable(kind: &str, description: &str) -> JSONSchemaProps {
    JSONSchemaProps {
        type_: Some(kind.to_owned()),
        description: Some(description.to_owned()),
        nullable: Some(true),
        ..JSONSchemaProps::default()
    }
}

fn properties(fields: Fields<'_>) -> BTreeMap<String, JSONSchemaProps> {
    fields
        .iter()
        .map(|(name, schema)| ((*name).to_owned(), schema.clone()))
        .collect()
}

/// An object with some known fields.
pub(super) fn object(description: &str, fields: Fields<'_>) -> JSONSchemaProps {
    JSONSchemaProps {
        properties: Some(properties(fields)),
        x_kubernetes_preserve_unknown_fields: Some(true),
        ..nullable("object", description)
    }
}

/// A list of things alike.
pub(super) fn list(description: &str, item: JSONSchemaProps) -> JSONSchemaProps {
    JSONSchemaProps {
        items: Some(JSONSchemaPropsOrArray::Schema(Box::new(item))),
        ..nullable("array", description)
    }
}

/// A text.
pub(super) fn text(description: &str) -> JSONSchemaProps {
    nullable("string", description)
}

/// A whole number, also written as text.
pub(super) fn number(description: &str) -> JSONSchemaProps {
    JSONSchemaProps {
        type_: None,
        x_kubernetes_int_or_string: Some(true),
        ..nullable("", description)
    }
}

/// True, false or unsaid.
pub(super) fn flag(description: &str) -> JSONSchemaProps {
    nullable("boolean", description)
}

/// A map from names to texts.
pub(super) fn text_map(description: &str) -> JSONSchemaProps {
    let value = Box::new(JSONSchemaProps {
        type_: Some("string".to_owned()),
        nullable: Some(true),
        ..JSONSchemaProps::default()
    });
    JSONSchemaProps {
        additional_properties: Some(JSONSchemaPropsOrBool::Schema(value)),
        ..nullable("object", description)
    }
}

/// Anything at all: typed when it is used.
pub(super) fn free(description: &str) -> JSONSchemaProps {
    JSONSchemaProps {
        type_: None,
        x_kubernetes_preserve_unknown_fields: Some(true),
        ..nullable("", description)
    }
}

/// The whole object of a kind.
pub(super) fn root(description: &str, fields: Fields<'_>) -> JSONSchemaProps {
    JSONSchemaProps {
        type_: Some("object".to_owned()),
        description: Some(description.to_owned()),
        properties: Some(properties(fields)),
        ..JSONSchemaProps::default()
    }
}

/// `mesh` beside `spec`.
pub(super) fn mesh() -> JSONSchemaProps {
    JSONSchemaProps {
        type_: Some("string".to_owned()),
        description: Some("The Mesh that the object belongs to.".to_owned()),
        ..JSONSchemaProps::default()
    }
}

/// `status`, whose only writer is the operator: here the usual form of conditions is required. Some kinds have fields
/// beside the conditions.
pub(super) fn status(fields_of_kind: Fields<'_>) -> JSONSchemaProps {
    let plain = |kind: &str, format: Option<&str>, description: &str| JSONSchemaProps {
        type_: Some(kind.to_owned()),
        format: format.map(str::to_owned),
        description: Some(description.to_owned()),
        ..JSONSchemaProps::default()
    };
    let fields = [
        (
            "type",
            plain("string", None, "What the condition is about."),
        ),
        ("status", plain("string", None, "True, False or Unknown.")),
        (
            "reason",
            plain("string", None, "Why, in one word for programs."),
        ),
        (
            "message",
            plain("string", None, "Why, in a sentence for people."),
        ),
        (
            "lastTransitionTime",
            plain("string", Some("date-time"), "When the status last changed."),
        ),
        (
            "observedGeneration",
            plain(
                "integer",
                Some("int64"),
                "The generation of the object that was looked at.",
            ),
        ),
    ];
    let required = ["type", "status", "reason", "message", "lastTransitionTime"];
    let condition = JSONSchemaProps {
        required: Some(required.map(str::to_owned).to_vec()),
        ..root("One observation.", &fields)
    };
    let conditions = JSONSchemaProps {
        nullable: None,
        x_kubernetes_list_type: Some("map".to_owned()),
        x_kubernetes_list_map_keys: Some(vec!["type".to_owned()]),
        ..list("What was observed, one entry a type.", condition)
    };
    let fields = [&[("conditions", conditions)], fields_of_kind].concat();
    root("What the operator found.", &fields)
}
