//! A value of a free-form document together with its path, read with tolerant types and precise errors.
//! Every typed view of a resource is made through it. It knows JSON types and paths, and no resource.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::violation::Violation;

/// Longest piece of a wrong value that an error shows, in bytes.
const SHOWN_VALUE: usize = 60;

/// A place in a document. What is absent reads as null.
#[derive(Clone, Debug)]
pub(crate) struct Node<'a> {
    value: &'a Value,
    path: String,
}

/// What absent keys read as.
const ABSENT: &Value = &Value::Null;

impl<'a> Node<'a> {
    /// The top of a document.
    pub(crate) fn root(value: &'a Value) -> Self {
        Self::at(value, String::new())
    }

    /// A value whose path is known.
    pub(crate) fn at(value: &'a Value, path: String) -> Self {
        Self { value, path }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn value(&self) -> &'a Value {
        self.value
    }

    /// Whether the field is missing or null.
    pub(crate) fn is_absent(&self) -> bool {
        self.value.is_null()
    }

    /// The path of a key below this place.
    pub(crate) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// The path of an entry of this map, whose keys may hold dots: `tags["kuma.io/service"]`.
    pub(crate) fn path_of_entry(&self, key: &str) -> String {
        format!("{}[{}]", self.path, Value::from(key))
    }

    /// The value under `key`; absent where this place is no object.
    pub(crate) fn get(&self, key: &str) -> Node<'a> {
        Node::at(self.value.get(key).unwrap_or(ABSENT), self.path_of(key))
    }

    /// A violation of this field.
    pub(crate) fn violation(&self, message: impl Into<String>) -> Violation {
        Violation::new(self.path.clone(), message)
    }

    fn unexpected(&self, expected: &str) -> Violation {
        self.violation(format!("expected {expected}, found {}", shown(self.value)))
    }

    /// Refuses everything but an object or nothing.
    pub(crate) fn object(&self) -> Result<&Self, Violation> {
        match self.value {
            Value::Null | Value::Object(_) => Ok(self),
            _ => Err(self.unexpected("an object")),
        }
    }

    /// The elements of a list; nothing is an empty list.
    pub(crate) fn items(&self) -> Result<Vec<Node<'a>>, Violation> {
        match self.value {
            Value::Null => Ok(Vec::new()),
            Value::Array(items) => Ok(items
                .iter()
                .enumerate()
                .map(|(index, item)| Node::at(item, format!("{}[{index}]", self.path)))
                .collect()),
            _ => Err(self.unexpected("a list")),
        }
    }

    pub(crate) fn text(&self) -> Result<Option<&'a str>, Violation> {
        match self.value {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text)),
            _ => Err(self.unexpected("a string")),
        }
    }

    /// A text; nothing is the empty text.
    pub(crate) fn text_or_empty(&self) -> Result<&'a str, Violation> {
        Ok(self.text()?.unwrap_or_default())
    }

    /// A whole number from 0 to 2^32-1, also written as text or as `1.0`.
    pub(crate) fn number(&self) -> Result<Option<u32>, Violation> {
        let number = match self.value {
            Value::Null => return Ok(None),
            Value::Number(number) => whole(number),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        let wrong = || self.unexpected("a whole number from 0 to 4294967295");
        number.map(Some).ok_or_else(wrong)
    }

    pub(crate) fn flag(&self) -> Result<Option<bool>, Violation> {
        match self.value {
            Value::Null => Ok(None),
            Value::Bool(flag) => Ok(Some(*flag)),
            _ => Err(self.unexpected("true or false")),
        }
    }

    /// A map from names to texts; nothing is an empty map.
    pub(crate) fn text_map(&self) -> Result<BTreeMap<String, String>, Violation> {
        let Value::Object(entries) = self.object()?.value else {
            return Ok(BTreeMap::new());
        };
        entries
            .iter()
            .map(|(key, value)| {
                let text = Node::at(value, self.path_of_entry(key)).text_or_empty()?;
                Ok((key.clone(), text.to_owned()))
            })
            .collect()
    }
}

fn whole(number: &serde_json::Number) -> Option<u32> {
    if let Some(number) = number.as_u64() {
        return u32::try_from(number).ok();
    }
    let number = number.as_f64()?;
    let fits = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
    // Exact: the value is whole and within the range of the target.
    fits.then_some(number as u32)
}

/// A value as an error shows it: JSON, cut where it is long.
pub(crate) fn shown(value: &Value) -> String {
    let mut text = value.to_string();
    if text.len() > SHOWN_VALUE {
        let end = (0..=SHOWN_VALUE)
            .rev()
            .find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_whole_and_may_be_text() {
        let read = |value: Value| {
            Node::at(&value, "port".into())
                .number()
                .map_err(|v| v.to_string())
        };
        assert_eq!(read(json!(5670)), Ok(Some(5670)));
        assert_eq!(read(json!(5670.0)), Ok(Some(5670)));
        assert_eq!(read(json!("5670")), Ok(Some(5670)));
        assert_eq!(read(json!(null)), Ok(None));
        for wrong in [
            json!("80`"),
            json!(-1),
            json!(1.5),
            json!(4_294_967_296_u64),
            json!(true),
            json!([1]),
        ] {
            let error = read(wrong.clone()).unwrap_err();
            assert!(error.contains(&wrong.to_string()), "{error}");
        }
    }

    #[test]
    fn a_path_names_keys_indices_and_map_entries() {
        let value = json!({"list": [{"tags": {"kuma.io/service": 1}}]});
        let list = Node::root(&value).get("list").items().unwrap();
        let error = list[0].get("tags").text_map().unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"list[0].tags["kuma.io/service"]: expected a string, found 1"#
        );
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        let text = shown(&json!("é".repeat(100)));
        assert!(
            text.len() <= SHOWN_VALUE + '…'.len_utf8() && text.ends_with('…'),
            "{text}"
        );
    }
}
