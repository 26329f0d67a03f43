//! Finds where in a YAML text the value at a path stands.
//! Called by `universal` for each violation. It walks the path with a deserializer that refuses the value it ends at,
//! so that the parser's own error tells the place; there is no second parser.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Position;

/// The position of the value at `path` in the document of that index, or of what encloses it where it is absent.
pub(super) fn position(text: &str, document: usize, path: &str) -> Option<Position> {
    let steps = steps(path);
    let source = serde_yaml::Deserializer::from_str(text).nth(document)?;
    let error = Walk { steps: &steps }.deserialize(source).err()?;
    position_of(&error)
}

/// The position of a parser's error.
pub(super) fn position_of(error: &serde_yaml::Error) -> Option<Position> {
    let location = error.location()?;
    Some(Position {
        line: location.line(),
        column: location.column(),
    })
}

/// One step of a path.
#[derive(Debug, PartialEq)]
enum Step {
    Key(String),
    Index(usize),
}

/// Splits `a.b[0]["c.d"].e`. What is no path of that form ends the walk early.
fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        let (step, after) = match rest.strip_prefix('[') {
            Some(inside) => bracket(inside),
            None => {
                let end = rest.find(['.', '[']).unwrap_or(rest.len());
                (Some(Step::Key(rest[..end].to_owned())), &rest[end..])
            }
        };
        let Some(step) = step else {
            break;
        };
        steps.push(step);
        rest = after.strip_prefix('.').unwrap_or(after);
    }
    steps
}

/// Reads an index or a JSON string up to the closing bracket.
fn bracket(inside: &str) -> (Option<Step>, &str) {
    let mut strings = serde_json::Deserializer::from_str(inside).into_iter::<serde_json::Value>();
    let step = match strings.next() {
        Some(Ok(serde_json::Value::String(key))) => Some(Step::Key(key)),
        Some(Ok(index)) => index
            .as_u64()
            .and_then(|index| usize::try_from(index).ok())
            .map(Step::Index),
        _ => None,
    };
    let after = inside.get(strings.byte_offset()..).unwrap_or_default();
    (step, after.strip_prefix(']').unwrap_or(after))
}

/// Goes along the steps and then fails.
#[derive(Clone, Copy)]
struct Walk<'s> {
    steps: &'s [Step],
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<(), D::Error> {
        source.deserialize_any(self)
    }
}

/// Scalars, and whatever does not match the next step, are refused by the trait's own defaults.
impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing: this is where the walk ends")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if let Some((Step::Key(wanted), steps)) = self.steps.split_first() {
            while let Some(key) = map.next_key::<String>()? {
                if key == *wanted {
                    return map.next_value_seed(Walk { steps });
                }
                map.next_value::<IgnoredAny>()?;
            }
        }
        Err(A::Error::custom("the walk ends here"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        if let Some((Step::Index(wanted), steps)) = self.steps.split_first() {
            for _ in 0..*wanted {
                if list.next_element::<IgnoredAny>()?.is_none() {
                    break;
                }
            }
            list.next_element_seed(Walk { steps })?;
        }
        Err(A::Error::custom("the walk ends here"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
type: Mesh
---
type: Dataplane
networking:
  inbound:
  - port: 1
    tags: {\"kuma.io/service\": web}
  - port: 2
    tags:
      version: \"1\"
flow: [a, {b: c}]
";

    fn at(path: &str) -> (usize, usize) {
        let position = position(TEXT, 1, path).unwrap();
        (position.line, position.column)
    }

    #[test]
    fn a_path_is_split_into_its_steps() {
        let key = |key: &str| Step::Key(key.into());
        assert_eq!(
            steps("a.b[10].c"),
            [key("a"), key("b"), Step::Index(10), key("c")]
        );
        assert_eq!(
            steps(r#"a[0]["x.y/z"].c"#),
            [key("a"), Step::Index(0), key("x.y/z"), key("c")]
        );
        assert_eq!(steps(""), []);
        assert_eq!(steps("a[oops"), [key("a")]);
    }

    #[test]
    fn values_are_found() {
        assert_eq!(at("type"), (3, 7));
        assert_eq!(at("networking.inbound[0].port"), (6, 11));
        assert_eq!(
            at(r#"networking.inbound[0].tags["kuma.io/service"]"#),
            (7, 31)
        );
        assert_eq!(at(r#"networking.inbound[1].tags["version"]"#), (10, 16));
        assert_eq!(at("flow[1].b"), (11, 15));
    }

    #[test]
    fn what_is_absent_is_looked_for_in_what_encloses_it() {
        assert_eq!(at("networking.inbound[1].servicePort"), (8, 5));
        assert_eq!(at("metrics.conf"), (3, 1));
        assert_eq!(at("networking.inbound[7]"), (6, 3));
        assert_eq!(position(TEXT, 2, "type"), None);
    }
}
