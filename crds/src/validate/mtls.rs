//! Rules of `mtls`: the certificate authorities of a Mesh.
//! Called by the rules of a Mesh. The contents of certificates are not looked at: whoever reads them judges them.

use super::Report;
use crate::node::Node;

/// Where an authority given by the user may come from.
const SOURCES: [&str; 4] = ["secret", "inline", "inlineString", "file"];

/// `mtls` of a Mesh.
pub(super) fn rules(report: &mut Report, mtls: &Node<'_>) {
    if report.read(mtls.object()).is_none() {
        return;
    }
    let list = mtls.get("backends");
    if list.items().is_ok_and(|backends| backends.len() > 1) {
        report.add(&list, "cannot have more than 1 backends");
    }
    let skip = report.read(mtls.get("skipValidation").flag()).flatten() == Some(true);
    report.backends(mtls, |report, backend| authority(report, backend, skip));
}

fn authority(report: &mut Report, backend: &Node<'_>, skip_validation: bool) {
    rotation(report, &backend.get("dpCert"));
    let kind = backend.get("type");
    match report.read(kind.text_or_empty()) {
        Some("provided") if !skip_validation => provided(report, &backend.get("conf")),
        Some("builtin" | "provided") | None => {}
        Some(_) => report.add(&kind, "could not find installed plugin for this type"),
    }
    report.one_of(&backend.get("mode"), "mode", &["STRICT", "PERMISSIVE"]);
}

/// `dpCert`: where it is there, its certificates need a life time. The path is the one Kuma reports.
fn rotation(report: &mut Report, certificate: &Node<'_>) {
    if report.read(certificate.object()).is_none() || certificate.is_absent() {
        return;
    }
    let expiration = certificate.get("rotation").get("expiration");
    if let Some(text) = report.read(expiration.text_or_empty())
        && !is_life_time(text)
    {
        let violation = expiration.violation("");
        let field = "mtls.dpcert.rotation.expiration";
        let message = "has to be a valid format";
        report
            .violations
            .push(violation.reported_at(field, message));
    }
}

/// Digits and a unit, or 0.
fn is_life_time(text: &str) -> bool {
    let unit = text.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let digits = text.len() - unit.len();
    text == "0" || (digits > 0 && ["y", "w", "d", "h", "m", "s", "ms"].contains(&unit))
}

fn provided(report: &mut Report, conf: &Node<'_>) {
    if report.read(conf.object()).is_none() {
        return;
    }
    for name in ["cert", "key"] {
        source(report, &conf.get(name));
    }
}

fn source(report: &mut Report, source: &Node<'_>) {
    if report.read(source.object()).is_none() {
        return;
    }
    if source.is_absent() {
        report.add(source, "has to be defined");
        return;
    }
    // A key whose value is null was still chosen: it is empty.
    let chosen = |name: &&str| source.value().get(name).is_some();
    match SOURCES.into_iter().find(chosen) {
        None => report.add(
            source,
            "data source has to be chosen. Available sources: secret, file, inline",
        ),
        Some(name) => {
            let value = source.get(name);
            if report.read(value.text_or_empty()) == Some("") {
                report.add(&value, "cannot be empty");
            }
        }
    }
}
