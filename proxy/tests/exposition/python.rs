//! The client library of Python reads what we write, with the parser that its authors test against the standard. The
//! library is installed once, into a cache outside the checkout, by `e2e/lib/prometheus-client`.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::parser::{self, Family, Syntax};
use crate::served::Served;
use crate::{everything, http};

/// Prints the families that a body on the standard input holds: name, type, unit, and the samples of each.
const SCRIPT: &str = r#"
import json, sys
from importlib import import_module
parse = import_module(sys.argv[1]).text_string_to_metric_families
body = sys.stdin.buffer.read().decode()
print(json.dumps([
    {"name": f.name, "type": f.type, "unit": f.unit, "help": f.documentation,
     "samples": [[s.name, s.labels, s.value] for s in f.samples]}
    for f in parse(body)]))
"#;

/// The interpreter that has the library.
fn interpreter() -> String {
    let install = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/lib/prometheus-client");
    let output = Command::new(install)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "e2e/lib/prometheus-client fails");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn python(module: &str, body: &str) -> Value {
    let mut child = Command::new(interpreter())
        .args(["-c", SCRIPT, module])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(body.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "Python refuses it:\n{body}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn as_python_prints(family: &Family) -> Value {
    let samples = family.samples.iter();
    json!({
        "name": family.name,
        "type": family.kind,
        "unit": family.unit.as_deref().unwrap_or_default(),
        "help": family.help,
        "samples": samples.map(|s| json!([s.name, s.labels, s.value])).collect::<Vec<_>>(),
    })
}

fn served() -> Served {
    let served = Served::start();
    everything::count(&served.telemetry, &served.recorder);
    served.record("web.shop", &[200, 503]);
    served.record("a\"b\\c\nd{e=\"f\"},# \u{e9}", &[200]);
    http::get(served.addr, "/metrics", "");
    served
}

#[test]
fn python_reads_our_open_metrics_as_we_mean_it() {
    let accept = "Accept: application/openmetrics-text\r\n";
    let body = http::get(served().addr, "/metrics", accept).text();
    let ours = parser::parse(&body, Syntax::OpenMetrics).unwrap();
    let theirs = python("prometheus_client.openmetrics.parser", &body);
    for (ours, theirs) in ours.iter().zip(theirs.as_array().unwrap()) {
        let ours = as_python_prints(ours);
        for key in ["name", "type", "unit", "help"] {
            assert_eq!(ours[key], theirs[key]);
        }
        same_samples(&ours, theirs);
    }
    assert_eq!(ours.len(), theirs.as_array().unwrap().len());
}

#[test]
fn python_reads_our_text_as_we_mean_it() {
    let body = http::get(served().addr, "/metrics", "").text();
    let ours = parser::parse(&body, Syntax::Text).unwrap();
    let theirs = python("prometheus_client.parser", &body);
    for (ours, theirs) in ours.iter().zip(theirs.as_array().unwrap()) {
        let ours = as_python_prints(ours);
        assert_eq!(
            (&ours["type"], &ours["help"]),
            (&theirs["type"], &theirs["help"])
        );
        same_samples(&ours, theirs);
    }
    assert_eq!(ours.len(), theirs.as_array().unwrap().len());
}

/// Integers and floats of the same value are the same.
fn same_samples(ours: &Value, theirs: &Value) {
    let [ours, theirs] = [ours, theirs].map(|family| family["samples"].as_array().unwrap());
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(theirs) {
        let name = match ours[0].as_str().unwrap() {
            // A counter of the text format, which this library has end in `_total`, whatever is written.
            "identity_cert_refresh_count" => theirs[0].as_str().unwrap().trim_end_matches("_total"),
            _ => theirs[0].as_str().unwrap(),
        };
        assert_eq!((ours[0].as_str(), &ours[1]), (Some(name), &theirs[1]));
        assert_eq!(ours[2].as_f64(), theirs[2].as_f64());
    }
}
