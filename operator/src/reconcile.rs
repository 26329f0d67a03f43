//! Compares what is with what should be and says what to write. Pure: objects and the time come
//! in, a change goes out. Called by `status` and `apply`; it knows no client.

mod dataplane;
mod policies;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use weir_crds::{Mesh, Violation, validate, violation};

pub use self::dataplane::{ConversionError, DataplaneChange, dataplane, dataplane_change};
pub use self::policies::{
    INITIAL_POLICIES, Policies, decided, initial_policies, is_of_predecessor,
};

/// Condition: the specification follows the rules.
pub const ACCEPTED: &str = "Accepted";
/// Condition: the specification is the one that proxies are given; of a Dataplane, that its pod is ready.
pub use crate::index::READY;

/// Event: a ServiceProfile or an HTTPRoute is not obeyed in all it says.
pub const ROUTE_IGNORED: &str = "RouteIgnored";

/// Longest message of a condition, in bytes; beyond it the rest is counted, not listed.
const LONGEST_MESSAGE: usize = 4096;
/// Longest text of an event, in bytes (the API server admits 1024).
const LONGEST_NOTE: usize = 1000;

/// An event to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Warning, else Normal.
    pub is_warning: bool,
    /// One word in CamelCase.
    pub reason: &'static str,
    /// For people, at most 1000 bytes.
    pub text: String,
}

/// What the author of a route is told of what is wrong in it.
#[must_use]
pub fn route_note(problems: &[String]) -> Note {
    Note {
        is_warning: true,
        reason: ROUTE_IGNORED,
        text: shorten(problems.join("; "), LONGEST_NOTE),
    }
}

/// A status to write, and the event that goes with it.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusChange {
    /// All our conditions.
    pub conditions: Vec<Condition>,
    /// Only where a condition moved.
    pub note: Option<Note>,
}

/// Reason of [`READY`] where the certificate authority cannot be used.
const AUTHORITY: &str = "AuthorityUnusable";

/// The change of a Mesh's status, if it needs one, given what is wrong with its certificate authority
/// that its specification alone does not show. A condition that stays keeps its time.
#[must_use]
pub fn mesh_status(
    mesh: &Mesh,
    authority: Option<&Violation>,
    now: Timestamp,
) -> Option<StatusChange> {
    let violations = validate::mesh(&mesh.spec.0);
    let known = mesh
        .status
        .as_ref()
        .map_or(&[][..], |status| &status.conditions);
    let generation = mesh.metadata.generation;
    let conditions: Vec<Condition> = verdicts(&violations, authority)
        .into_iter()
        .map(|verdict| verdict.condition(known, generation, now))
        .collect();
    let ours: Vec<&Condition> = known
        .iter()
        .filter(|condition| [ACCEPTED, READY].contains(&condition.type_.as_str()))
        .collect();
    if ours.len() == conditions.len() && conditions.iter().all(|wanted| ours.contains(&wanted)) {
        return None;
    }
    let note = note(mesh, known, &conditions);
    Some(StatusChange { conditions, note })
}

/// Whether a Mesh's status says that the certificate authority of this very specification cannot be used.
#[must_use]
pub fn blames_authority(mesh: &Mesh) -> bool {
    let mut conditions = mesh.status.iter().flat_map(|status| &status.conditions);
    conditions.any(|one| {
        one.type_ == READY
            && one.reason == AUTHORITY
            && one.observed_generation == mesh.metadata.generation
    })
}

/// What to do about the Mesh that exists where the user made none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initial {
    /// It was decided before.
    Done,
    /// There is no Mesh: create it, then remember.
    Create,
    /// The user has Meshes: only remember.
    Remember,
}

/// Decides about the initial Mesh: only an installation that never had a Mesh gets one.
#[must_use]
pub fn initial_mesh(was_decided: bool, meshes: usize) -> Initial {
    match (was_decided, meshes) {
        (true, _) => Initial::Done,
        (false, 0) => Initial::Create,
        (false, _) => Initial::Remember,
    }
}

struct Verdict {
    type_: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn condition(self, known: &[Condition], generation: Option<i64>, now: Timestamp) -> Condition {
        let status = if self.holds { "True" } else { "False" };
        let since = known
            .iter()
            .find(|condition| condition.type_ == self.type_ && condition.status == status)
            .map_or_else(
                || Time(whole_seconds(now)),
                |condition| condition.last_transition_time.clone(),
            );
        Condition {
            last_transition_time: since,
            message: self.message,
            observed_generation: generation,
            reason: self.reason.to_owned(),
            status: status.to_owned(),
            type_: self.type_.to_owned(),
        }
    }
}

fn verdicts(violations: &[Violation], authority: Option<&Violation>) -> [Verdict; 2] {
    if violations.is_empty() {
        let accepted = Verdict {
            type_: ACCEPTED,
            holds: true,
            reason: "Valid",
            message: "the specification is valid".to_owned(),
        };
        return [accepted, in_force(authority)];
    }
    let listed = violation::joined(&violation::prefixed("spec.", violations.to_vec()));
    [
        Verdict {
            type_: ACCEPTED,
            holds: false,
            reason: "Invalid",
            message: shorten(listed, LONGEST_MESSAGE),
        },
        Verdict {
            type_: READY,
            holds: false,
            reason: "Invalid",
            message: format!("the specification is not valid, see condition {ACCEPTED}"),
        },
    ]
}

fn in_force(authority: Option<&Violation>) -> Verdict {
    let (holds, reason, message) = match authority {
        None => {
            let message = "proxies of this Mesh are given this specification".to_owned();
            (true, "InForce", message)
        }
        Some(violation) => {
            let blamed = violation::prefixed("spec.", vec![violation.clone()]);
            let message = shorten(violation::joined(&blamed), LONGEST_MESSAGE);
            (false, AUTHORITY, message)
        }
    };
    Verdict {
        type_: READY,
        holds,
        reason,
        message,
    }
}

/// An event where a verdict moved, or where what is wrong became something else.
fn note(mesh: &Mesh, known: &[Condition], conditions: &[Condition]) -> Option<Note> {
    accepted_note(mesh, known, conditions).or_else(|| authority_note(known, conditions))
}

fn authority_note(known: &[Condition], conditions: &[Condition]) -> Option<Note> {
    let ready = |list: &[Condition]| list.iter().find(|one| one.type_ == READY).cloned();
    let after = ready(conditions)?;
    let before = ready(known).filter(|before| before.reason == AUTHORITY);
    let is_warning = after.reason == AUTHORITY;
    match before {
        Some(before) if is_warning && before.message == after.message => None,
        None if !is_warning => None,
        _ => Some(Note {
            is_warning,
            reason: if is_warning {
                AUTHORITY
            } else {
                "AuthorityUsable"
            },
            text: shorten(after.message, LONGEST_NOTE),
        }),
    }
}

fn accepted_note(mesh: &Mesh, known: &[Condition], conditions: &[Condition]) -> Option<Note> {
    let accepted = |list: &[Condition]| list.iter().find(|one| one.type_ == ACCEPTED).cloned();
    let before = accepted(known);
    let after = accepted(conditions)?;
    let is_warning = after.status == "False";
    let same = before.is_some_and(|before| {
        before.status == after.status && (!is_warning || before.message == after.message)
    });
    if same {
        return None;
    }
    let text = if is_warning {
        after.message
    } else {
        format!("Mesh {} is valid", mesh.name_any())
    };
    Some(Note {
        is_warning,
        reason: if is_warning { "Invalid" } else { "Accepted" },
        text: shorten(text, LONGEST_NOTE),
    })
}

fn shorten(mut text: String, longest: usize) -> String {
    const MARK: &str = " ...";
    if text.len() > longest {
        text.truncate(text.floor_char_boundary(longest - MARK.len()));
        text.push_str(MARK);
    }
    text
}

/// Conditions carry whole seconds; a fraction would come back changed.
fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).expect("the whole second of a timestamp is one too")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weir_crds::mesh::MeshSpec;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn mesh(generation: i64, spec: Value) -> Mesh {
        let mut mesh = Mesh::new("default", MeshSpec(spec));
        mesh.metadata.generation = Some(generation);
        mesh
    }

    fn broken() -> Value {
        json!({"metrics": {"enabledBackend": "a", "backends": []}})
    }

    /// Writes the change into the Mesh, as the API server would.
    fn store(mesh: &mut Mesh, change: &StatusChange) {
        mesh.status = serde_json::from_value(json!({"conditions": change.conditions})).unwrap();
    }

    #[test]
    fn a_valid_mesh_is_accepted_once() {
        let mut mesh = mesh(1, json!({}));
        let change = mesh_status(&mesh, None, at("2026-11-01T00:00:00.7Z")).unwrap();
        let shown: Vec<_> = change
            .conditions
            .iter()
            .map(|one| (one.type_.as_str(), one.status.as_str()))
            .collect();
        assert_eq!(shown, [("Accepted", "True"), ("Ready", "True")]);
        assert_eq!(change.conditions[0].observed_generation, Some(1));
        let since = &change.conditions[0].last_transition_time;
        assert_eq!(since.0, at("2026-11-01T00:00:00Z"));
        let note = change.note.as_ref().unwrap();
        assert_eq!((note.is_warning, note.reason), (false, "Accepted"));
        store(&mut mesh, &change);
        assert_eq!(mesh_status(&mesh, None, at("2026-11-02T00:00:00Z")), None);
    }

    #[test]
    fn an_invalid_mesh_is_refused_with_the_field_and_a_warning() {
        let change = mesh_status(&mesh(3, broken()), None, at("2026-11-01T00:00:00Z")).unwrap();
        let accepted = &change.conditions[0];
        assert_eq!(
            (accepted.status.as_str(), accepted.reason.as_str()),
            ("False", "Invalid")
        );
        assert_eq!(
            accepted.message,
            "spec.metrics.enabledBackend: has to be set to one of the backends in the mesh"
        );
        assert_eq!(change.conditions[1].status, "False");
        let note = change.note.unwrap();
        assert!(note.is_warning);
        assert_eq!(note.text, accepted.message);
    }

    #[test]
    fn a_new_generation_moves_neither_the_time_nor_an_event() {
        let mut stored = mesh(1, json!({}));
        let first = mesh_status(&stored, None, at("2026-11-01T00:00:00Z")).unwrap();
        store(&mut stored, &first);
        stored.metadata.generation = Some(2);
        let second = mesh_status(&stored, None, at("2026-11-02T00:00:00Z")).unwrap();
        assert_eq!(second.note, None);
        assert_eq!(second.conditions[0].observed_generation, Some(2));
        assert_eq!(
            second.conditions[0].last_transition_time,
            first.conditions[0].last_transition_time
        );
    }

    #[test]
    fn a_verdict_that_moves_moves_the_time_and_makes_an_event() {
        let mut stored = mesh(1, json!({}));
        let first = mesh_status(&stored, None, at("2026-11-01T00:00:00Z")).unwrap();
        store(&mut stored, &first);
        stored.spec = MeshSpec(broken());
        let second = mesh_status(&stored, None, at("2026-11-02T00:00:00Z")).unwrap();
        assert_eq!(
            second.conditions[0].last_transition_time.0,
            at("2026-11-02T00:00:00Z")
        );
        assert!(second.note.as_ref().unwrap().is_warning);
        store(&mut stored, &second);
        stored.spec = MeshSpec(json!({}));
        let third = mesh_status(&stored, None, at("2026-11-03T00:00:00Z")).unwrap();
        assert_eq!(third.note.unwrap().reason, "Accepted");
    }

    #[test]
    fn an_authority_that_cannot_be_used_is_told_with_its_field() {
        let mut stored = mesh(1, json!({}));
        let first = mesh_status(&stored, None, at("2026-11-01T00:00:00Z")).unwrap();
        store(&mut stored, &first);
        let field = "mtls.backends[0].conf.cert.secret";
        let wrong = Violation::new(field, "there is no Secret");
        let time = at("2026-11-02T00:00:00Z");
        let second = mesh_status(&stored, Some(&wrong), time).unwrap();
        let [accepted, ready] = &second.conditions[..] else {
            panic!("{:?}", second.conditions);
        };
        assert_eq!(
            (accepted.status.as_str(), ready.status.as_str()),
            ("True", "False")
        );
        assert_eq!(ready.message, format!("spec.{field}: there is no Secret"));
        let note = second.note.clone().unwrap();
        assert!(note.is_warning && note.text.contains(field), "{note:?}");
        assert!(!blames_authority(&stored));
        store(&mut stored, &second);
        assert!(blames_authority(&stored));
        assert_eq!(mesh_status(&stored, Some(&wrong), time), None);
        stored.metadata.generation = Some(2);
        assert!(!blames_authority(&stored), "another specification");
        stored.metadata.generation = Some(1);
        let third = mesh_status(&stored, None, time).unwrap();
        assert_eq!(third.conditions[1].status, "True");
        assert!(!third.note.unwrap().is_warning);
    }

    #[test]
    fn another_writers_condition_is_left_alone() {
        let mut stored = mesh(1, json!({}));
        let mut change = mesh_status(&stored, None, at("2026-11-01T00:00:00Z")).unwrap();
        let mut foreign = change.conditions[0].clone();
        foreign.type_ = "Theirs".to_owned();
        change.conditions.push(foreign);
        store(&mut stored, &change);
        assert_eq!(mesh_status(&stored, None, at("2026-11-02T00:00:00Z")), None);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text = shorten("ü".repeat(600), LONGEST_NOTE);
        assert!(text.len() <= LONGEST_NOTE && text.ends_with("ü ..."));
        assert_eq!(shorten("short".to_owned(), LONGEST_NOTE), "short");
    }

    #[test]
    fn only_an_installation_that_never_had_a_mesh_gets_one() {
        assert_eq!(initial_mesh(false, 0), Initial::Create);
        assert_eq!(initial_mesh(false, 2), Initial::Remember);
        assert_eq!(initial_mesh(true, 0), Initial::Done);
        assert_eq!(initial_mesh(true, 1), Initial::Done);
    }
}
