//! Every request: taken, at the wrong time, of the wrong type, with a field too many and one too few.

use super::super::log::Log;
use super::super::machine::Machine;
use super::super::metadata::Metadata;
use super::super::phase::Phase;
use super::super::vm::Vm;
use super::*;
use kvmlet_spec::JailMode;
use serde_json::{Value, json};

// The table of all operations, which the tests with VMs have, too.
#[path = "../../../tests/firecracker/operations.rs"]
mod operations;
use operations::{OPERATIONS, Operation, When as Time, operations};

const TOO_LATE: &str = "not supported after starting the microVM.";
const TOO_EARLY: &str = "not supported before starting the microVM.";

/// A VM of which nothing is asked that it would have to answer itself.
fn vm(phase: Phase) -> Vm {
    let mut log = Log::new("test");
    log.set(None, Some(super::super::model::Level::Off), None, None)
        .unwrap();
    let mut vm = Vm::new("test".into(), log, Machine::default(), JailMode::Auto, None);
    vm.phase = phase;
    vm
}

fn ask(vm: &mut Vm, method: Method, path: &str, body: &str) -> (u16, String) {
    let request = Request {
        method,
        path: path.into(),
        query: String::new(),
        body: body.into(),
        closes: false,
        is_old: false,
        chunks: true,
        upgrade: None,
        coming: None,
    };
    let answer = vm.handle(&request).expect("nothing was asked of a VM");
    let body = answer.body.unwrap_or_default();
    let json: Value = serde_json::from_str(&body).unwrap_or_default();
    let told = json["fault_message"].as_str().map(String::from);
    (answer.status, told.unwrap_or(body))
}

/// What is taken with a body.
fn bodies() -> Vec<Operation> {
    let mut all = operations();
    all.retain(|it| it.body.is_object() && !it.is_free() && !matches!(it.when, Time::Never(_)));
    all
}

fn method(name: &str) -> Method {
    let mut all = [Method::Get, Method::Put, Method::Patch].into_iter();
    all.find(|method| method.name() == name).unwrap()
}

fn refused(vm: &mut Vm, asked: &Operation, body: &Value) -> String {
    let (status, why) = ask(vm, method(asked.method), asked.path, &body.to_string());
    assert_eq!(status, 400, "{} {body}", asked.path);
    why
}

#[test]
fn what_is_described_is_taken_and_told_again() {
    let mut vm = vm(Phase::NotStarted);
    let described = bodies().into_iter().filter(|asked| {
        asked.when == Time::Before && !matches!(asked.path, "/actions" | "/snapshot/load")
    });
    for asked in described {
        let method = method(asked.method);
        let answered = ask(&mut vm, method, asked.path, &asked.body.to_string());
        assert_eq!(answered, (204, String::new()), "{}", asked.path);
    }
    let (status, config) = ask(&mut vm, Method::Get, "/vm/config", "");
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(status, 200);
    assert_eq!(config["boot-source"]["boot_args"], "quiet");
    assert_eq!(
        config["drives"][0]["rate_limiter"]["ops"]["refill_time"],
        100
    );
    assert_eq!(config["network-interfaces"][0]["host_dev_name"], "tap0");
    assert_eq!(config["balloon"]["amount_mib"], 8);
    assert_eq!(config["vsock"]["guest_cid"], 3);
    let (_, machine) = ask(&mut vm, Method::Get, "/machine-config", "");
    let machine: Value = serde_json::from_str(&machine).unwrap();
    assert_eq!(
        (&machine["mem_size_mib"], &machine["huge_pages"]),
        (&json!(128), &json!("None"))
    );
    // It is what a file may say, too.
    let file = Machine::of_file(&config.to_string());
    assert_eq!(json!(file.unwrap()), config);
}

#[test]
fn each_request_has_its_time() {
    for asked in bodies() {
        let (phase, why) = match asked.when {
            Time::Before => (Phase::Running, TOO_LATE),
            _ => (Phase::NotStarted, TOO_EARLY),
        };
        let told = refused(&mut vm(phase), &asked, &asked.body);
        assert!(told.ends_with(why), "{}: {told}", asked.path);
    }
    let early = ask(
        &mut vm(Phase::NotStarted),
        Method::Get,
        "/balloon/statistics",
        "",
    );
    assert!(early.1.ends_with(TOO_EARLY), "{early:?}");
}

#[test]
fn a_field_that_is_none_is_named() {
    for asked in bodies() {
        let mut body = asked.body.clone();
        body["no_such"] = json!(1);
        let told = refused(&mut vm(Phase::NotStarted), &asked, &body);
        assert!(
            told.contains("unknown field `no_such`"),
            "{}: {told}",
            asked.path
        );
    }
}

/// Every object in a body but the outermost, by where it is.
fn inner(body: &Value, at: &str) -> Vec<String> {
    let steps: Vec<(String, &Value)> = match body {
        Value::Object(fields) => fields.iter().map(|(name, it)| (name.clone(), it)).collect(),
        Value::Array(all) => all
            .iter()
            .enumerate()
            .map(|(i, it)| (i.to_string(), it))
            .collect(),
        _ => return Vec::new(),
    };
    let below = steps.into_iter().flat_map(|(step, value)| {
        let at = format!("{at}/{step}");
        let own = value.is_object().then(|| at.clone());
        own.into_iter().chain(inner(value, &at)).collect::<Vec<_>>()
    });
    below.collect()
}

#[test]
fn fields_of_fields_are_looked_at_as_well() {
    let mut looked_at = 0;
    for asked in bodies() {
        // The words in there are the user's own.
        let objects = inner(&asked.body, "")
            .into_iter()
            .filter(|at| at != "/properties");
        for at in objects {
            looked_at += 1;
            let refused_with = |change: &dyn Fn(&mut Value), part: &str| {
                let mut body = asked.body.clone();
                change(body.pointer_mut(&at).unwrap());
                let told = refused(&mut vm(Phase::NotStarted), &asked, &body);
                assert!(told.contains(part), "{} {at}: {told}", asked.path);
            };
            refused_with(&|it| it["no_such"] = json!(1), "unknown field `no_such`");
            refused_with(&|it| *it = json!(7), "deserializing the json body");
            // Even one with as many values as it has fields, of their types.
            refused_with(
                &|it| *it = it.as_object().unwrap().values().cloned().collect(),
                "deserializing the json body",
            );
            let fields = asked.body.pointer(&at).unwrap().as_object().unwrap();
            for (field, value) in fields {
                let wrong = if value.is_string() {
                    json!(7)
                } else {
                    json!("x")
                };
                refused_with(
                    &|it| it[field] = wrong.clone(),
                    "deserializing the json body",
                );
            }
        }
    }
    // A limiter has two buckets: two of drives, four of interfaces; three overrides, and a back end of memory; a leaf of CPUID
    // with one of its registers, and a register alone.
    assert_eq!(looked_at, 6 * 3 + 4 + 3);
}

#[test]
fn there_is_no_operation_that_is_not_known() {
    let all = operations();
    let names: std::collections::BTreeSet<_> = all.iter().map(|it| (it.method, it.path)).collect();
    assert_eq!(names.len(), OPERATIONS);
    let refusals = all.iter().filter_map(|it| match it.when {
        Time::Never(why) => Some((it, why)),
        _ => None,
    });
    // In whatever phase, with the reason.
    for (asked, why) in refusals {
        for phase in [Phase::NotStarted, Phase::Running, Phase::Paused] {
            let body = match asked.body.is_null() {
                true => String::new(),
                false => asked.body.to_string(),
            };
            let (status, told) = ask(&mut vm(phase), method(asked.method), asked.path, &body);
            let is_refused = status == 400 && told.starts_with(why);
            assert!(is_refused, "{} {}: {told}", asked.method, asked.path);
        }
    }
}

#[test]
fn a_field_that_is_missing_is_named() {
    for asked in bodies() {
        for field in asked.needs {
            let mut body = asked.body.clone();
            body.as_object_mut().unwrap().remove(*field);
            let told = refused(&mut vm(Phase::NotStarted), &asked, &body);
            assert!(
                told.contains(&format!("missing field `{field}`")),
                "{}: {told}",
                asked.path
            );
        }
    }
}

#[test]
fn a_field_of_another_type_is_refused() {
    for asked in bodies() {
        let fields: Vec<String> = asked.body.as_object().unwrap().keys().cloned().collect();
        for field in fields {
            let mut body = asked.body.clone();
            // No field of any body is one of these both.
            body[&field] = if body[&field].is_array() {
                json!(7)
            } else {
                json!([[]])
            };
            let told = refused(&mut vm(Phase::NotStarted), &asked, &body);
            assert!(
                told.contains("deserializing the json body"),
                "{} {field}: {told}",
                asked.path
            );
        }
        for (body, part) in [
            ("", "Empty "),
            ("{", "deserializing"),
            ("[]", "deserializing"),
            ("[null]", "deserializing"),
            ("[null, null]", "deserializing"),
        ] {
            let mut vm = vm(Phase::NotStarted);
            let (status, told) = ask(&mut vm, method(asked.method), asked.path, body);
            assert!(
                status == 400 && told.contains(part),
                "{} {body}: {told}",
                asked.path
            );
        }
    }
}

#[test]
fn the_id_in_a_path_is_the_one_in_its_body() {
    let mut vm = vm(Phase::NotStarted);
    let body = r#"{"drive_id": "a", "path_on_host": "/dev/null", "is_root_device": false}"#;
    for (path, part) in [
        ("/drives/b", "The id from the path [b] does not match"),
        ("/drives/a-b", "alphanumeric"),
        ("/drives/", "cannot be empty"),
        (
            "/drives",
            "Invalid request method and/or path: PUT /drives.",
        ),
        ("/drives/a/b", "Invalid request method and/or path"),
    ] {
        let (status, told) = ask(&mut vm, Method::Put, path, body);
        assert!(status == 400 && told.contains(part), "{path}: {told}");
    }
}

#[test]
fn what_is_asked_for_always_is_told_in_every_phase() {
    for (phase, state) in [
        (Phase::NotStarted, "Not started"),
        (Phase::Running, "Running"),
        (Phase::Paused, "Paused"),
    ] {
        let mut vm = vm(phase);
        let (status, told) = ask(&mut vm, Method::Get, "/", "");
        let told: Value = serde_json::from_str(&told).unwrap();
        let expected = json!({ "app_name": "Firecracker", "id": "test", "state": state, "vmm_version": "1.17.0" });
        assert_eq!((status, told), (200, expected));
        let version = ask(&mut vm, Method::Get, "/version", "");
        assert_eq!(version, (200, r#"{"firecracker_version":"1.17.0"}"#.into()));
        for path in ["/machine-config", "/vm/config"] {
            assert_eq!(ask(&mut vm, Method::Get, path, "").0, 200, "{path}");
            let (status, told) = ask(&mut vm, Method::Get, path, "{}");
            assert_eq!((status, &*told), (400, "GET request cannot have a body."));
        }
        assert_eq!(
            ask(&mut vm, Method::Get, "/balloon", "").1,
            "No balloon device was found."
        );
    }
    // What it is doing already needs no VM.
    let mut paused = vm(Phase::Paused);
    let again = ask(&mut paused, Method::Patch, "/vm", r#"{"state": "Paused"}"#);
    assert_eq!(again.0, 204);
}

#[test]
fn metadata_are_stored_changed_and_told() {
    let mut vm = vm(Phase::NotStarted);
    vm.metadata = Metadata::new(60, None).unwrap();
    let long = format!(r#"{{"a": "{}"}}"#, "x".repeat(60));
    let mut try_it = |method, body| ask(&mut vm, method, "/mmds", body);
    let none = (
        400,
        "MMDS error: The MMDS data store is not initialized.".into(),
    );
    assert_eq!(try_it(Method::Get, ""), (200, "{}".into()));
    assert_eq!(try_it(Method::Patch, "{}"), none);
    assert_eq!(try_it(Method::Put, ""), (400, "Empty PUT request.".into()));
    assert_eq!(try_it(Method::Put, "{").0, 400);
    // Whatever it is, a list, too.
    assert_eq!(try_it(Method::Put, "[1, [2]]").0, 204);
    assert_eq!(try_it(Method::Get, ""), (200, "[1,[2]]".into()));
    assert_eq!(try_it(Method::Put, r#"{"a": {"b": 1}, "c": 2}"#).0, 204);
    assert_eq!(
        try_it(Method::Patch, r#"{"a": {"d": []}, "c": null}"#).0,
        204
    );
    let (status, why) = try_it(Method::Patch, &long);
    assert_eq!(status, 413);
    assert!(why.contains("doesn't fit"), "{why}");
    let told = (200, r#"{"a":{"b":1,"d":[]}}"#.to_owned());
    assert_eq!(try_it(Method::Get, ""), told);
    // Once the guest runs, there are some, or never.
    vm.phase = Phase::Running;
    assert_eq!(ask(&mut vm, Method::Put, "/mmds", "{}").0, 204);
    vm.metadata = Metadata::new(60, None).unwrap();
    for (method, body) in [
        (Method::Get, ""),
        (Method::Put, "{}"),
        (Method::Patch, "{}"),
    ] {
        assert_eq!(ask(&mut vm, method, "/mmds", body), none);
    }
}

#[test]
fn what_cannot_be_had_is_refused_with_the_reason() {
    let mut vm = vm(Phase::NotStarted);
    for (method, path, part) in [
        (Method::Put, "/pmem/p0", "pmem is not"),
        (Method::Put, "/hotplug/memory", "memory-hotplug is not"),
        (
            Method::Patch,
            "/balloon/hinting/start",
            "balloon hinting is not",
        ),
        (Method::Delete, "/drives/d", "PCI is not enabled"),
        (
            Method::Get,
            "/nowhere",
            "Invalid request method and/or path: GET /nowhere.",
        ),
        (
            Method::Delete,
            "/",
            "Invalid request method and/or path: DELETE /.",
        ),
    ] {
        let (status, told) = ask(
            &mut vm,
            method,
            path,
            if method == Method::Get { "" } else { "{}" },
        );
        assert!(status == 400 && told.contains(part), "{path}: {told}");
    }
}
