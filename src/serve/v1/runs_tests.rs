//! What is asked of a VM that is made of an image.

use super::*;
use serde_json::{Value, json};

fn read(body: Value) -> RunVm {
    serde_json::from_value(body).unwrap()
}

#[test]
fn what_is_wanted_is_said_by_flags() {
    let wanted = read(json!({
        "image": "nginx", "env": { "A": "-b" }, "volumes": ["data:/srv"], "cpus": 1.5,
        "health": { "command": "true", "retries": 2 }, "restart": "always", "pull": "never"
    }));
    wanted.check().unwrap();
    let flags: Vec<_> = wanted
        .flags()
        .iter()
        .map(|(flag, value)| format!("{flag}={value}"))
        .collect();
    assert_eq!(
        flags,
        [
            "env=A=-b",
            "volume=data:/srv",
            "pull=never",
            "restart=always",
            "cpus=1.5",
            "health-cmd=true",
            "health-retries=2"
        ]
    );
    for (body, field) in [
        (json!({ "image": "./root" }), "image"),
        (json!({ "image": "i", "kernel": "vmlinux" }), "kernel"),
        (
            json!({ "image": "i", "volumes": ["a:/b", "./c:/d"] }),
            "volumes[1]",
        ),
        (json!({ "image": "i", "env": { "A=B": "" } }), "env"),
        (json!({ "image": "i", "labels": { "": "" } }), "labels"),
        (json!({ "image": "i", "command": ["a\u{0}"] }), "command"),
        (json!({ "image": "" }), "image"),
        (json!({ "image": "i", "vcpus": 0 }), "vcpus"),
        (json!({ "image": "i", "vcpus": 255 }), "vcpus"),
        (json!({ "image": "i", "cpus": 0 }), "cpus"),
        (json!({ "image": "i", "hostname": "a b" }), "hostname"),
        (json!({ "image": "i", "hostname": "a..b" }), "hostname"),
        (json!({ "image": "i", "hostname": "-a" }), "hostname"),
        (json!({ "image": "i", "user": "a:b:c" }), "user"),
        (json!({ "image": "i", "workdir": "x" }), "workdir"),
        (
            json!({ "image": "i", "remove": true, "restart": "always" }),
            "restart",
        ),
        (
            json!({ "image": "i", "health": { "on_failure": "restart" } }),
            "health.on_failure",
        ),
    ] {
        let problem = read(body).check().unwrap_err();
        assert_eq!(
            (problem.status, problem.field.as_deref()),
            (400, Some(field))
        );
    }
}
