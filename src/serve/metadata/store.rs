//! The data that a guest finds.

use serde_json::{Map, Value};

/// JSON of a bounded length.
#[derive(Clone, Debug)]
pub struct Store {
    /// None until something was put there.
    value: Option<Value>,
    most_bytes: usize,
}

/// Why something is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unstored {
    /// There is nothing yet that could be changed.
    Empty,
    /// It would be longer than it may be.
    TooLong,
}

impl Store {
    /// An empty one.
    pub const fn new(most_bytes: usize) -> Self {
        let value = None;
        Self { value, most_bytes }
    }

    /// What is there, if anything was put there.
    pub const fn value(&self) -> Option<&Value> {
        self.value.as_ref()
    }

    /// Replaces all of it.
    ///
    /// # Errors
    /// When it is too long.
    pub fn put(&mut self, value: Value) -> Result<(), Unstored> {
        // As it is written, without spaces.
        if value.to_string().len() > self.most_bytes {
            return Err(Unstored::TooLong);
        }
        self.value = Some(value);
        Ok(())
    }

    /// Changes some of it, as RFC 7396 says.
    ///
    /// # Errors
    /// When nothing is there, or it gets too long; it stays as it was then.
    pub fn merge(&mut self, patch: Value) -> Result<(), Unstored> {
        let mut value = self.value.clone().ok_or(Unstored::Empty)?;
        merge(&mut value, patch);
        self.put(value)
    }
}

/// RFC 7396 §2. What was read has a bounded depth.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(changes) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(fields) = target.as_object_mut() else {
        return;
    };
    for (name, change) in changes {
        match change {
            Value::Null => drop(fields.remove(&name)),
            change => merge(fields.entry(name).or_insert(Value::Null), change),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn changes_are_merged_as_rfc_7396_has_it() {
        // Its appendix A.
        for (before, patch, after) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b"}),
                json!({"b": "c"}),
                json!({"a": "b", "b": "c"}),
            ),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (
                json!({"a": "b", "b": "c"}),
                json!({"a": null}),
                json!({"b": "c"}),
            ),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (
                json!({"a": [{"b": "c"}]}),
                json!({"a": [1]}),
                json!({"a": [1]}),
            ),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"a": "foo"}), json!("bar"), json!("bar")),
            (
                json!({"e": null}),
                json!({"a": 1}),
                json!({"e": null, "a": 1}),
            ),
            (
                json!([1, 2]),
                json!({"a": "b", "c": null}),
                json!({"a": "b"}),
            ),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ] {
            let mut store = Store::new(1000);
            store.put(before.clone()).unwrap();
            store.merge(patch.clone()).unwrap();
            assert_eq!(store.value(), Some(&after), "{before} {patch}");
        }
    }

    #[test]
    fn it_is_no_longer_than_it_may_be_and_stays_as_it_was() {
        let mut store = Store::new(10);
        assert_eq!(store.merge(json!({})), Err(Unstored::Empty));
        assert_eq!(store.put(json!("123456789")), Err(Unstored::TooLong));
        assert_eq!(store.value(), None);
        store.put(json!({"a": "bc"})).unwrap();
        assert_eq!(store.merge(json!({"a": "bcd"})), Err(Unstored::TooLong));
        assert_eq!(store.value(), Some(&json!({"a": "bc"})));
    }
}
