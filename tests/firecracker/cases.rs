//! Every operation, by five cases, asked of VMs that are there: one that has not started, and one whose guest runs.

use crate::client::Served;
use crate::harness::packets::enter_own_network;
use crate::harness::{Test, deadline, program};
use crate::operations::{OPERATIONS, Operation, When, operations};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[("each_operation_is_tried_in_five_cases", all)];

/// What an operation was tried with, or why there is no such case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    /// As many requests were answered as they have to be.
    Tried(usize),
    None(&'static str),
}

const CASES: [&str; 5] = [
    "taken",
    "at another time",
    "a field of another type",
    "an unknown field",
    "a field too few",
];
const NO_BODY: &str = "it has no body";
const ANY_TIME: &str = "it is answered at any time";
const FREE: &str = "any JSON is taken";
const NO_NEED: &str = "no field of it has to be there";

/// A VM that waits for its description, and one that runs.
struct Vms {
    before: Served,
    after: Served,
}

impl Vms {
    /// Those that take this operation.
    fn taking(&self, operation: &Operation) -> Vec<&Served> {
        match operation.when {
            When::Before => vec![&self.before],
            When::After => vec![&self.after],
            When::Always | When::Never(_) => vec![&self.before, &self.after],
        }
    }
}

fn all() {
    enter_own_network().unwrap();
    for tap in ["tap0", "tap1"] {
        let mut ip = Command::new("ip");
        ip.args(["tuntap", "add", tap, "mode", "tap"]);
        assert!(ip.status().unwrap().success());
    }
    let all = operations();
    let names: BTreeSet<_> = all.iter().map(|it| (it.method, it.path)).collect();
    assert_eq!(names.len(), OPERATIONS);

    let vms = Vms {
        before: Served::new(),
        after: Served::new(),
    };
    let taken: Vec<Cell> = all.iter().map(|it| taken(&vms.after, it)).collect();
    let known = [&vms.before, &vms.after].map(|vm| vm.told("/vm/config"));
    for (operation, taken) in all.iter().zip(taken) {
        let cells = [
            taken,
            at_another_time(&vms, operation),
            another_type(&vms, operation),
            no_such_field(&vms, operation),
            field_too_few(&vms, operation),
        ];
        for (case, cell) in CASES.iter().zip(cells) {
            let (method, path) = (operation.method, operation.path);
            println!("{method} {path}, {case}: {cell:?}");
            assert_ne!(cell, Cell::Tried(0), "{method} {path}, {case}");
        }
    }
    // What was refused has changed nothing.
    let now = [&vms.before, &vms.after].map(|vm| vm.told("/vm/config"));
    assert_eq!(now, known);
    assert_eq!(
        [vms.before.state(), vms.after.state()],
        ["Not started", "Paused"]
    );
    goes_on(&vms.after);
    pressed();
}

/// Names of what there is, for the bodies of a VM's life.
fn names(vm: &Served) -> Map<String, Value> {
    let names = json!({
        "kernel_image_path": program("saved"), "initrd_path": null, "boot_args": "",
        "path_on_host": vm.file("disk"), "huge_pages": "None", "uds_path": vm.file("v"),
        "serial_out_path": vm.file("serial"), "log_path": vm.file("log"), "metrics_path": vm.file("metrics"),
        "snapshot_path": vm.file("state"), "mem_file_path": vm.file("memory"), "backend_path": vm.file("memory"),
    });
    names.as_object().unwrap().clone()
}

/// The same body with other values, by the names of fields, wherever they are.
fn with(body: &Value, values: &Map<String, Value>) -> Value {
    match body {
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| {
                let known = values.get(name).cloned();
                (name.clone(), known.unwrap_or_else(|| with(value, values)))
            };
            Value::Object(fields.iter().map(field).collect())
        }
        Value::Array(all) => all.iter().map(|value| with(value, values)).collect(),
        other => other.clone(),
    }
}

/// The operation is done, in a life of which those before it in the table are the beginning.
fn taken(vm: &Served, operation: &Operation) -> Cell {
    let Operation {
        method, path, when, ..
    } = *operation;
    match (when, operation.body["action_type"].as_str(), path) {
        (When::Never(why), ..) => {
            let body = if method == "GET" { "" } else { "{}" };
            let (status, told) = vm.ask(method, path, body);
            let told: Value = serde_json::from_str(&told).unwrap();
            let told = told["fault_message"].as_str().unwrap();
            assert!(status == 400 && told.starts_with(why), "{told}");
            return Cell::None(why);
        }
        (_, Some("SendCtrlAltDel"), _) => {
            return Cell::None("for a guest that hears it: see below");
        }
        (_, _, "/snapshot/load") => return Cell::None("for a VM that was saved: see below"),
        (_, _, "/drives/root_1") if when == When::Before => {
            let disk = std::fs::File::create(vm.file("disk")).unwrap();
            disk.set_len(1 << 20).unwrap();
        }
        _ => {}
    }
    if method == "GET" {
        assert!(vm.told(path).is_object(), "{path}");
    } else {
        vm.done(method, path, &with(&operation.body, &names(vm)));
    }
    if operation.body["action_type"] == "InstanceStart" {
        rounds(vm, "serial", 1);
    }
    Cell::Tried(1)
}

/// Waits until a guest has told of more rounds than that, in a file.
fn rounds(vm: &Served, file: &str, more_than: usize) -> usize {
    let since = Instant::now();
    loop {
        let text = std::fs::read_to_string(vm.file(file)).unwrap_or_default();
        assert!(!text.contains("failed"), "{text}");
        let rounds = text.matches("round=").count();
        if rounds > more_than {
            return rounds;
        }
        assert!(since.elapsed() < deadline(), "the guest does nothing");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The VM that was saved goes on, and one from its files.
fn goes_on(vm: &Served) {
    let mut other = Served::new();
    let serial = json!({ "serial_out_path": other.file("serial") });
    other.done("PUT", "/serial", &serial);
    let mut all = operations().into_iter();
    let load = all.find(|it| it.path == "/snapshot/load").unwrap();
    let mut names = names(vm);
    names.insert("uds_path".into(), json!(other.file("v")));
    other.done("PUT", load.path, &with(&load.body, &names));
    assert_eq!(other.state(), "Running");
    let interface = &other.told("/vm/config")["network-interfaces"][0];
    assert_eq!(interface["host_dev_name"], "tap1");
    rounds(&other, "serial", 1);
    let had = rounds(vm, "serial", 0);
    vm.go("Resumed");
    rounds(vm, "serial", had + 1);
    for vm in [vm, &other] {
        assert_eq!(vm.ask("GET", "/", "").0, 200);
    }
    other.process.kill().unwrap();
}

/// A guest that hears the button ends.
fn pressed() {
    let mut vm = Served::new();
    vm.describe("power_button", "");
    vm.act("InstanceStart");
    vm.line();
    let since = Instant::now();
    let press = json!({ "action_type": "SendCtrlAltDel" }).to_string();
    while vm.ask("PUT", "/actions", &press).0 != 204 {
        assert!(since.elapsed() < deadline(), "it hears nothing");
    }
    assert_eq!(vm.wait().code(), Some(0));
}

fn at_another_time(vms: &Vms, operation: &Operation) -> Cell {
    let (vm, why) = match operation.when {
        When::Before => (&vms.after, "not supported after starting the microVM."),
        When::After => (&vms.before, "not supported before starting the microVM."),
        When::Never(why) => return Cell::None(why),
        // Of what was not described it is told that there is none.
        When::Always => {
            let body = match operation.body.is_null() {
                true => String::new(),
                false => operation.body.to_string(),
            };
            let asked = vms.before.ask(operation.method, operation.path, &body);
            let there_is_none = (400, r#"{"fault_message":"No balloon device was found."}"#);
            let is_none = (asked.0, &*asked.1) == there_is_none;
            assert!([200, 204].contains(&asked.0) || is_none, "{asked:?}");
            return Cell::None(ANY_TIME);
        }
    };
    let told = match operation.body.is_null() {
        false => vm.refused(operation.method, operation.path, &operation.body),
        true => vm.ask(operation.method, operation.path, "").1,
    };
    assert!(told.contains(why), "{}: {told}", operation.path);
    Cell::Tried(1)
}

/// Bodies that are each refused, by words that have this in them.
fn refused(vms: &Vms, operation: &Operation, bodies: &[(Value, String)]) -> Cell {
    let mut tried = 0;
    for vm in vms.taking(operation) {
        for (body, why) in bodies {
            let told = vm.refused(operation.method, operation.path, body);
            assert!(told.contains(why), "{} {body}: {told}", operation.path);
            tried += 1;
        }
    }
    Cell::Tried(tried)
}

fn another_type(vms: &Vms, operation: &Operation) -> Cell {
    let Some(fields) = fields(operation) else {
        return without_body(vms, operation);
    };
    if operation.is_free() {
        for vm in vms.taking(operation) {
            let (status, told) = vm.ask(operation.method, operation.path, "{");
            assert_eq!(status, 400, "{told}");
            assert!(told.contains("deserializing the json body"), "{told}");
        }
        return Cell::Tried(2);
    }
    let wrong = |body| (body, "deserializing the json body".to_owned());
    let mut bodies = vec![wrong(json!([])), wrong(json!("x"))];
    for (name, value) in fields {
        let mut body = operation.body.clone();
        // No field is one of these both.
        body[name] = if value.is_array() {
            json!(7)
        } else {
            json!([[]])
        };
        bodies.push(wrong(body));
    }
    refused(vms, operation, &bodies)
}

fn no_such_field(vms: &Vms, operation: &Operation) -> Cell {
    if fields(operation).is_none() {
        return without_body(vms, operation);
    }
    if operation.is_free() {
        return Cell::None(FREE);
    }
    let mut body = operation.body.clone();
    body["no_such"] = json!(1);
    refused(
        vms,
        operation,
        &[(body, "unknown field `no_such`".to_owned())],
    )
}

fn field_too_few(vms: &Vms, operation: &Operation) -> Cell {
    let Some(fields) = fields(operation) else {
        return without_body(vms, operation);
    };
    if operation.needs.is_empty() {
        return Cell::None(NO_NEED);
    }
    let lacking = |name: &&str| {
        let mut fields = fields.clone();
        fields.remove(*name);
        (fields.into(), format!("missing field `{name}`"))
    };
    let bodies: Vec<_> = operation.needs.iter().map(lacking).collect();
    refused(vms, operation, &bodies)
}

fn fields(operation: &Operation) -> Option<&Map<String, Value>> {
    let is_taken = !matches!(operation.when, When::Never(_));
    operation.body.as_object().filter(|_| is_taken)
}

/// One that has no body is refused with one; what is refused as a whole is so with any.
fn without_body(vms: &Vms, operation: &Operation) -> Cell {
    let (why, cell) = match operation.when {
        When::Never(why) => (why, Cell::None(why)),
        _ => ("GET request cannot have a body.", Cell::None(NO_BODY)),
    };
    let body = json!({ "no_such": [] });
    refused(vms, operation, &[(body, why.to_owned())]);
    cell
}
