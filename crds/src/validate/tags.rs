//! Rules of tags and of selectors, which are tags whose values may be wildcards.
//! Called by the rules of every resource that has them. Knows no resource.

use std::collections::BTreeMap;

use super::Report;
use crate::names::SERVICE_TAG;
use crate::node::Node;

const NAME_MESSAGE: &str =
    "tag name must consist of alphanumeric characters, dots, dashes, slashes and underscores";
const VALUE_MESSAGE: &str =
    "tag value must consist of alphanumeric characters, dots, dashes and underscores";
const SELECTOR_MESSAGE: &str = "tag value must consist of alphanumeric characters, dots, dashes, slashes and \
                                underscores or be \"*\"";

/// The tags of a workload; what could be read of them.
pub(super) fn tags(report: &mut Report, node: &Node<'_>) -> Option<BTreeMap<String, String>> {
    let tags = report.read(node.text_map())?;
    each(report, node, &tags, (is_tag_value, VALUE_MESSAGE));
    Some(tags)
}

/// The tags a workload is selected by; at least one.
pub(super) fn selector(report: &mut Report, node: &Node<'_>) {
    let Some(tags) = report.read(node.text_map()) else {
        return;
    };
    if tags.is_empty() {
        report.add(node, "must have at least one tag");
    }
    each(report, node, &tags, (is_selector_value, SELECTOR_MESSAGE));
}

/// Adds that a service must be named, unless it is.
pub(super) fn require_service(
    report: &mut Report,
    node: &Node<'_>,
    tags: &BTreeMap<String, String>,
) {
    if !tags.contains_key(SERVICE_TAG) {
        report.add(node, format!("mandatory tag {SERVICE_TAG:?} is missing"));
    }
}

fn each(
    report: &mut Report,
    node: &Node<'_>,
    tags: &BTreeMap<String, String>,
    (allowed, message): (fn(&str) -> bool, &str),
) {
    for (key, value) in tags {
        if key.is_empty() {
            report.add(node, "tag name must be non-empty");
        }
        if !key.bytes().all(|byte| is_value_byte(byte) || byte == b'/') {
            report.add_at(node.path_of_entry(key), NAME_MESSAGE);
        }
        if value.is_empty() {
            report.add_at(node.path_of_entry(key), "tag value must be non-empty");
        }
        if !allowed(value) {
            report.add_at(node.path_of_entry(key), message);
        }
    }
}

fn is_value_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-_:".contains(&byte)
}

fn is_tag_value(value: &str) -> bool {
    value.bytes().all(is_value_byte)
}

fn is_selector_value(value: &str) -> bool {
    value == "*"
        || value
            .bytes()
            .all(|byte| is_value_byte(byte) || byte == b'/')
}
