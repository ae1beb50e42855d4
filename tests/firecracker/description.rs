//! The table of operations as a document (OpenAPI 3.1), for programs that make requests of one.

use crate::operations::{Operation, When, operations};
use serde_json::{Map, Value, json};

/// Fields that have a value even where they are left out: null is none.
const NEVER_NULL: [&str; 18] = [
    "version",
    "imds_compat",
    "smt",
    "track_dirty_pages",
    "huge_pages",
    "is_read_only",
    "cache_type",
    "stats_polling_interval_s",
    "free_page_hinting",
    "free_page_reporting",
    "emit_id",
    "properties",
    "snapshot_type",
    "enable_diff_snapshots",
    "resume_vm",
    "network_overrides",
    "clock_realtime",
    "drive_overrides",
];

/// Fields of objects inside a body that have to be there.
const NEEDED_INSIDE: [&str; 8] = [
    "size",
    "refill_time",
    "backend_type",
    "backend_path",
    "iface_id",
    "host_dev_name",
    "uds_path",
    "path_on_host",
];

/// The words that a field may be.
fn words(field: &str, operation: &Operation) -> Option<Value> {
    let words: &[&str] = match field {
        "action_type" => &["InstanceStart", "FlushMetrics", "SendCtrlAltDel"],
        "state" => &["Paused", "Resumed"],
        "cache_type" => &["Unsafe", "Writeback"],
        "io_engine" => &["Sync", "Async"],
        "huge_pages" if operation.path == "/snapshot/load" => {
            &["Snapshot", "None", "Transparent", "2M"]
        }
        "huge_pages" => &["None", "Transparent", "2M"],
        "level" => &["Off", "Trace", "Debug", "Info", "Warn", "Warning", "Error"],
        "snapshot_type" => &["Full", "Diff"],
        "backend_type" => &["File", "Uffd"],
        "version" => &["V1", "V2"],
        _ => return None,
    };
    Some(json!(words))
}

/// What a value is, by one that is one.
fn schema(field: &str, value: &Value, needs: &[&str], operation: &Operation) -> Value {
    let of = |name: &str, value: &Value| schema(name, value, &NEEDED_INSIDE, operation);
    match value {
        Value::Bool(_) => json!({ "type": "boolean" }),
        Value::Number(_) => json!({ "type": "integer", "minimum": 0 }),
        Value::Array(all) => {
            json!({ "type": "array", "maxItems": 3, "items": of("", &all[0]) })
        }
        Value::Object(_) if field == "properties" => {
            json!({ "type": "object", "additionalProperties": { "type": "string" } })
        }
        Value::Object(fields) => {
            let all = fields.iter().map(|(name, value)| {
                let mut schema = of(name, value);
                let is_patch = (operation.method, operation.path) == ("PATCH", "/machine-config");
                let is_needed = needs.contains(&name.as_str()) || ["drive_id"].contains(&&**name);
                if !is_needed && (is_patch || !NEVER_NULL.contains(&name.as_str())) {
                    schema = json!({ "anyOf": [schema, { "type": "null" }] });
                }
                (name.clone(), schema)
            });
            let all: Map<_, _> = all.collect();
            let needs: Vec<_> = needs.iter().filter(|it| all.contains_key(**it)).collect();
            json!({ "type": "object", "properties": all, "required": needs, "additionalProperties": false })
        }
        _ => match words(field, operation) {
            Some(words) => json!({ "type": "string", "enum": words }),
            None => json!({ "type": "string" }),
        },
    }
}

fn described(operation: &Operation) -> Value {
    let fault = json!({
        "type": "object", "properties": { "fault_message": { "type": "string", "minLength": 1 } },
        "required": ["fault_message"], "additionalProperties": false,
    });
    let told = |schema: Value| json!({ "description": "", "content": { "application/json": { "schema": schema } } });
    let mut answers = Map::new();
    answers.insert("400".into(), told(fault));
    match (operation.when, operation.method) {
        (When::Never(_), _) => {}
        (_, "GET") if operation.path == "/mmds" => {
            answers.insert("200".into(), told(json!({})));
        }
        (_, "GET") => drop(answers.insert("200".into(), told(json!({ "type": "object" })))),
        _ => drop(answers.insert("204".into(), json!({ "description": "" }))),
    }
    if operation.is_free() {
        answers.insert("413".into(), answers["400"].clone());
    }
    let mut described = json!({ "responses": answers });
    if operation.body.is_object() {
        let schema = match operation.when {
            When::Never(_) => json!({}),
            _ if operation.is_free() => json!({}),
            _ => schema("", &operation.body, operation.needs, operation),
        };
        described["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    described
}

/// The document. Of an id it says the one that the table has, and that there are others.
pub fn description() -> Value {
    let mut paths = Map::new();
    for operation in operations() {
        let (path, id) = match operation.path.rsplit_once('/') {
            Some((above @ ("/drives" | "/network-interfaces" | "/pmem"), id)) => {
                (format!("{above}/{{id}}"), Some(id))
            }
            _ => (operation.path.to_owned(), None),
        };
        let mut described = described(&operation);
        if let Some(id) = id {
            described["parameters"] = json!([{
                "name": "id", "in": "path", "required": true,
                "schema": { "anyOf": [{ "const": id }, { "type": "string", "minLength": 1 }] },
            }]);
        }
        let known = paths.entry(path).or_insert_with(|| json!({}));
        known[operation.method.to_ascii_lowercase()] = described;
    }
    json!({ "openapi": "3.1.0", "info": { "title": "operations", "version": "1.17.0" }, "paths": paths })
}
