//! JSON that is looked at before it is built. A value is a slice of the body until somebody wants it: built whole, a list of
//! short numbers takes thirty times its text. What nobody wants is skipped.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Refusal;

/// Most fields of one object.
const MOST_FIELDS: usize = 128;

/// The fields of an object.
#[derive(Debug, Default)]
pub(super) struct Fields<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> Fields<'a> {
    /// Takes a field out, where it is there.
    pub fn remove(&mut self, key: &str) -> Option<&'a RawValue> {
        self.0.remove(key)
    }

    /// A field as it is written, where it is there.
    pub fn get(&self, key: &str) -> Option<&'a str> {
        self.0.get(key).map(|value| value.get())
    }

    /// Takes a field out, where it is there and not null.
    ///
    /// # Errors
    /// A value of another type.
    pub fn take<T: Deserialize<'a>>(&mut self, key: &str) -> Result<Option<T>, Refusal> {
        self.remove(key).filter(|value| value.get() != "null").map(|value| read(key, value)).transpose()
    }

    /// The same of a field that must be there.
    ///
    /// # Errors
    /// One that is not, too.
    pub fn required<T: Deserialize<'a>>(&mut self, key: &str) -> Result<T, Refusal> {
        self.take(key)?.ok_or_else(|| Refusal::invalid(key, "expected, but missing"))
    }

    /// What is left, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(key, value)| (key.as_str(), *value))
    }
}

/// The elements of a list, `MOST` of them at most.
#[derive(Debug)]
pub(super) struct List<'a, const MOST: usize> {
    pub items: Vec<&'a RawValue>,
    /// There are more than these.
    pub more: bool,
}

/// A value as a type; `place` is where it stands.
///
/// # Errors
/// One of another type.
pub(super) fn read<'a, T: Deserialize<'a>>(place: &str, value: &'a RawValue) -> Result<T, Refusal> {
    serde_json::from_str(value.get()).map_err(|error| {
        let message = error.to_string();
        // The line and the column are those of the value, not of the body.
        Refusal::invalid(place, message.rsplit_once(" at line ").map_or(message.as_str(), |(what, _)| what))
    })
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Object)
    }
}

struct Object;

impl<'de> Visitor<'de> for Object {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            if fields.len() == MOST_FIELDS && !fields.contains_key(&key) {
                return Err(A::Error::custom(format!("expected at most {MOST_FIELDS} fields, got more")));
            }
            fields.insert(key, map.next_value::<&'de RawValue>()?);
        }
        Ok(Fields(fields))
    }
}

impl<'de, const MOST: usize> Deserialize<'de> for List<'de, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Elements::<MOST>)
    }
}

struct Elements<const MOST: usize>;

impl<'de, const MOST: usize> Visitor<'de> for Elements<MOST> {
    type Value = List<'de, MOST>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while items.len() < MOST {
            match list.next_element::<&'de RawValue>()? {
                Some(item) => items.push(item),
                None => return Ok(List { items, more: false }),
            }
        }
        let mut more = false;
        while list.next_element::<IgnoredAny>()?.is_some() {
            more = true;
        }
        Ok(List { items, more })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_slices_of_the_body_and_only_so_many_are_looked_at() {
        let body = br#"{"n": 2, "no": null, "list": [1, [2, 3], "x"], "n": 3, "a\u0062": { }}"#;
        let mut fields: Fields<'_> = serde_json::from_slice(body).unwrap();
        let list = fields.remove("list").unwrap();
        assert_eq!(list.get(), r#"[1, [2, 3], "x"]"#);
        assert!(body.as_ptr_range().contains(&list.get().as_ptr()), "a copy");
        assert_eq!(fields.take::<u64>("n").unwrap(), Some(3), "the last of two");
        assert_eq!((fields.take::<u64>("no").unwrap(), fields.take::<u64>("nowhere").unwrap()), (None, None));
        assert_eq!(fields.iter().map(|(key, value)| (key, value.get())).collect::<Vec<_>>(), [("ab", "{ }")]);
        let two: List<'_, 2> = read("list", list).unwrap();
        assert_eq!(
            (two.items.iter().map(|item| item.get()).collect::<Vec<_>>(), two.more),
            (vec!["1", "[2, 3]"], true)
        );
        let three: List<'_, 3> = read("list", list).unwrap();
        assert!(three.items.len() == 3 && !three.more);
        let wrong = read::<String>("list", list).unwrap_err().to_string();
        assert_eq!(wrong, "400: list: invalid type: sequence, expected a string");
    }

    #[test]
    fn an_object_of_too_many_fields_is_refused_and_one_key_many_times_is_one() {
        let object = |keys: &mut dyn Iterator<Item = usize>| {
            let fields: Vec<String> = keys.map(|key| format!("\"{key}\":0")).collect();
            format!("{{{}}}", fields.join(","))
        };
        let many = object(&mut (0..=MOST_FIELDS));
        let error = serde_json::from_str::<Fields<'_>>(&many).unwrap_err().to_string();
        assert!(error.starts_with("expected at most 128 fields, got more"), "{error}");
        let fits = object(&mut (0..10 * MOST_FIELDS).map(|key| key % MOST_FIELDS));
        assert_eq!(serde_json::from_str::<Fields<'_>>(&fits).unwrap().0.len(), MOST_FIELDS);
    }
}
