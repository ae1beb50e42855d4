//! JSON in which each key stands once: of two, one reader takes the first, and another one the last.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

/// The path of a key that stands twice in an object, if there is one. What is no JSON is for others to say.
pub fn said_twice(json: &[u8]) -> Option<String> {
    let twice = RefCell::new(None);
    let value = Inside {
        path: String::new(),
        twice: &twice,
    };
    let _ = value.deserialize(&mut serde_json::Deserializer::from_slice(json));
    twice.into_inner()
}

/// Something at a place, in which no key may stand twice.
struct Inside<'a> {
    path: String,
    twice: &'a RefCell<Option<String>>,
}

impl Inside<'_> {
    fn at(&self, path: String) -> Self {
        let twice = self.twice;
        Self { path, twice }
    }
}

impl<'de> DeserializeSeed<'de> for Inside<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Inside<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut keys = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let path = match self.path.is_empty() {
                true => key.clone(),
                false => format!("{}.{key}", self.path),
            };
            if !keys.insert(key) {
                *self.twice.borrow_mut() = Some(path);
                return Err(A::Error::custom("a key stands twice"));
            }
            map.next_value_seed(self.at(path))?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        for place in 0.. {
            let inside = self.at(format!("{}[{place}]", self.path));
            if seq.next_element_seed(inside)?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_that_stands_twice_is_named() {
        for (json, path) in [
            (r#"{"a": 1, "b": [{"a": 1.5}, {"a": null}]}"#, None),
            (r#"{"a": 1, "b": 2, "a": 3}"#, Some("a")),
            (r#"{"labels": {"x": "", "x": "y"}}"#, Some("labels.x")),
            (
                r#"{"config": {"disks": [{}, {"path": "a", "p\u0061th": "b"}]}}"#,
                Some("config.disks[1].path"),
            ),
            (r#"{"a": 1, "#, None),
            ("", None),
            ("-5", None),
        ] {
            assert_eq!(said_twice(json.as_bytes()).as_deref(), path, "{json}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(said_twice(deep.as_bytes()), None);
    }
}
