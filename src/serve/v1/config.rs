//! The machine of a VM, as clients describe it and are told of it: the keys of a configuration file.

use kvmlet_manager::Asked;
use kvmlet_spec::{Setting, VcpuCount};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// The keys of a configuration file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Config(pub Map<String, Value>);

/// What is said elsewhere in the description of a VM, or by kvmlet itself.
pub const NOT_IN_CONFIG: [(&str, &str); 8] = [
    ("command", "say it as `command` beside `config`"),
    ("env", "say it as `service.env`"),
    ("workdir", "say it as `service.workdir`"),
    ("hostname", "say it as `service.hostname`"),
    ("stop_timeout", "say it as `service.stop_timeout`"),
    ("vsock", "kvmlet speaks with the guest by it"),
    ("stats", "`GET /v1/vms/{name}/stats` tells them"),
    ("jail", "it is as strict as this host can make it"),
];

/// Is it said elsewhere?
fn is_elsewhere(key: &str) -> bool {
    NOT_IN_CONFIG.iter().any(|(name, _)| *name == key)
}

impl Config {
    /// What was asked of the machine, so that it can be asked again.
    pub fn of(asked: &Asked) -> Value {
        let Some(keys) = asked.config.as_object() else {
            return asked.config.clone();
        };
        let mut keys = keys.clone();
        keys.retain(|key, _| !is_elsewhere(key));
        keys.into()
    }
}

impl JsonSchema for Config {
    fn schema_name() -> Cow<'static, str> {
        "Config".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = object();
        for setting in Setting::of_flags().chain(Setting::of_flags().flat_map(Setting::keys)) {
            let definition = setting.definition();
            let first = definition.key.split(['.', '[']).next().unwrap_or_default();
            if !first.is_empty() && !is_elsewhere(first) {
                let steps: Vec<_> = definition.key.split('.').collect();
                let most = match definition.key {
                    "vcpus" => u64::from(VcpuCount::MAX),
                    _ => 10_000,
                };
                let leaf = leaf(
                    &setting.help_of_key(),
                    definition.value,
                    (steps.len() == 1, most),
                );
                put(&mut schema, &steps, leaf);
            }
        }
        let mut told = Schema::default();
        told.insert(
            "description".into(),
            "The machine: the keys of a configuration file, as docs/reference.md lists them. Paths are absolute. Without `kernel` it is the one \
             that `kernels/build` has made."
                .into(),
        );
        for (key, value) in schema {
            told.insert(key, value);
        }
        told
    }
}

/// One that has no keys yet, and none but those that it gets.
fn object() -> Map<String, Value> {
    let object = json!({ "type": "object", "properties": {}, "additionalProperties": false });
    object.as_object().cloned().unwrap_or_default()
}

/// A value. What it can be is checked as a whole by who reads it: what is said of it here, all that can be is.
fn leaf(help: &str, value: &str, (is_top, most): (bool, u64)) -> Map<String, Value> {
    let kind = match value {
        "" | "on|off" => json!({ "type": "boolean" }),
        "N" if is_top => json!({ "type": "integer", "minimum": 1, "maximum": most }),
        "SIZE" if is_top => json!({ "type": "string", "pattern": "^[1-9][0-9]{0,3}[KMG]$" }),
        "FILE" => json!({ "type": "string", "pattern": "^/[^\u{0}]*$" }),
        "TEXT" => json!({ "type": "string" }),
        _ => json!({}),
    };
    let mut leaf = kind.as_object().cloned().unwrap_or_default();
    leaf.insert("description".into(), help.into());
    leaf
}

/// Puts a value where its keys lead to in an object.
fn put(object: &mut Map<String, Value>, steps: &[&str], leaf: Map<String, Value>) {
    let Some((step, rest)) = steps.split_first() else {
        return;
    };
    let key = step.trim_end_matches("[]");
    let Some(Value::Object(properties)) = object.get_mut("properties") else {
        return;
    };
    let entry = properties.entry(key).or_insert_with(|| json!({}));
    let Value::Object(entry) = entry else {
        return;
    };
    match (step.ends_with("[]"), rest.is_empty()) {
        // What leads to others was told of by itself.
        (false, true) if entry.contains_key("description") => {}
        (false, true) => entry.extend(leaf),
        (false, false) => {
            make(entry, object_of);
            put(entry, rest, leaf);
        }
        (true, true) => {
            make(entry, |entry| {
                entry.insert("type".into(), "array".into());
            });
            entry
                .entry("description")
                .or_insert(leaf["description"].clone());
        }
        (true, false) => {
            make(entry, |entry| {
                entry.insert("type".into(), "array".into());
                entry.insert("items".into(), self::object().into());
            });
            if let Some(Value::Object(items)) = entry.get_mut("items") {
                put(items, rest, leaf);
            }
        }
    }
}

/// Says what it is, where nothing has.
fn make(entry: &mut Map<String, Value>, say: impl FnOnce(&mut Map<String, Value>)) {
    if !entry.contains_key("type") {
        say(entry);
    }
}

fn object_of(entry: &mut Map<String, Value>) {
    entry.extend(object());
}
