//! What is refused, and how that is told.

use crate::harness::Test;
use crate::served::{Served, agent, is_possible, receive, send};
use serde_json::json;
use std::io::Write;

pub const TESTS: &[Test] = &[
    ("what_is_not_understood_is_told_by_its_field", fields),
    ("what_there_is_not_is_told_apart", missing),
    ("who_breaks_http_is_told_so", broken),
    ("another_user_is_not_heard", stranger),
    ("settings_are_named_as_clients_set_them", words),
    ("who_cannot_serve_says_why", unserved),
];

fn fields() {
    if !is_possible() {
        return;
    }
    let served = Served::new();
    let put = |body: &str| served.refused(400, "PUT", "/v1/vms/web", body);
    for body in ["", "{", "[]", "null", "1", "{} {}"] {
        put(body);
    }
    for (body, part) in [
        ("", "missing"),
        (" []", "a list"),
        ("\"x\"", "a text"),
        ("null", "a single word"),
        ("-1", "a number"),
    ] {
        let problem = put(body);
        let detail = format!("the body is {part}, and is to be a JSON object");
        assert_eq!(problem["detail"], detail, "{body}");
    }
    let long = format!("/v1/vms/{}", "a".repeat(300));
    served.refused(404, "GET", &long, "");
    let problem = served.refused(400, "PUT", &long, &agent(&["stay"]).to_string());
    assert_eq!(problem["field"], "name");
    let problem = served.refused(400, "GET", "/v1/vms/%ff", "");
    assert!(
        problem["detail"].as_str().unwrap().contains("UTF-8"),
        "{problem}"
    );
    let with = |change: fn(&mut serde_json::Value)| {
        let mut wanted = agent(&["stay"]);
        change(&mut wanted);
        put(&wanted.to_string())
    };
    for (change, field) in [
        (
            (|it| it["cmd"] = json!([])) as fn(&mut serde_json::Value),
            "cmd",
        ),
        (
            |it| drop(it.as_object_mut().unwrap().remove("config")),
            "config",
        ),
        (|it| it["config"]["memroy"] = json!("1G"), "config"),
        (
            |it| it["config"]["kernel"] = json!("vmlinux"),
            "config.kernel",
        ),
        (|it| it["config"]["stats"] = json!("/s"), "config.stats"),
        (|it| it["restart"] = json!("often"), "restart"),
        (
            |it| it["service"]["workdir"] = json!("x"),
            "service.workdir",
        ),
    ] {
        let problem = with(change);
        assert_eq!(problem["field"], field, "{problem}");
    }
    let near = with(|it| it["config"]["memroy"] = json!("1G"));
    assert!(
        near["detail"]
            .as_str()
            .unwrap()
            .contains("did you mean `memory`"),
        "{near}"
    );
    // Of two that are said, a reader could take either.
    for (body, field) in [
        (
            r#"{"config": {"memory": "64M", "memory": "32M"}}"#,
            "config.memory",
        ),
        (
            r#"{"config": {}, "labels": {"a": "", "b": "", "a": ""}}"#,
            "labels.a",
        ),
        (r#"{"config": {}, "config": {}}"#, "config"),
    ] {
        assert_eq!(put(body)["field"], field);
    }
    for signal in [0, 65] {
        let path = format!("/v1/vms/web/kill?signal={signal}");
        let problem = served.refused(400, "POST", &path, "");
        assert_eq!(problem["detail"], "`signal` is a whole number from 1 to 64");
    }
    let name = served.refused(400, "PUT", "/v1/vms/-x", &agent(&[]).to_string());
    assert_eq!(name["field"], "name");
    for path in [
        "/v1/vms?x=1",
        "/v1/events?since=-1&follow=false",
        "/v1/events?since=1&since=2",
        "/v1/events?follow=maybe",
    ] {
        served.refused(400, "GET", path, "");
    }
    assert_eq!(served.get("/v1/vms")["vms"], json!([]));
}

fn missing() {
    if !is_possible() {
        return;
    }
    let served = Served::new();
    for path in ["/", "/v1", "/v1/", "/v2/vms", "/v1/vms/a/b/c", "/version"] {
        served.refused(404, "GET", path, "");
    }
    for (method, path) in [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/start"),
        ("POST", "/stop"),
        ("POST", "/kill"),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("GET", "/wait"),
        ("GET", "/logs"),
        ("GET", "/stats"),
    ] {
        let problem = served.refused(404, method, &format!("/v1/vms/nobody{path}"), "");
        assert_eq!(problem["type"], "urn:kvmlet:not-found", "{problem}");
    }
    let told = served.ask("PATCH", "/v1/vms/web", "{}");
    assert_eq!(
        (told.status, told.field("Allow")),
        (405, Some("PUT, GET, DELETE"))
    );
    let told = served.raw("HEAD", "/v1/vms", "");
    assert_eq!((told.status, &*told.body), (405, ""));
}

fn broken() {
    if !is_possible() {
        return;
    }
    let served = Served::new();
    for (text, status) in [
        ("nonsense\r\n\r\n", 400),
        (
            "GET /v1/vms HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        (
            "PUT /v1/vms/a HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n",
            413,
        ),
    ] {
        let mut stream = served.connect();
        stream.write_all(text.as_bytes()).unwrap();
        let told = receive(stream);
        assert_eq!(told.status, status, "{text}");
        assert_eq!(told.field("Content-Type"), Some("application/problem+json"));
        assert_eq!(told.json()["status"], status);
    }
    // The target may name the server. Of HTTP/1.0 a connection ends with its answer, unless its client goes on.
    let mut stream = served.connect();
    send(&mut stream, "GET", "http://localhost/v1/vms", "");
    assert_eq!(receive(stream).status, 200);
    let mut stream = served.connect();
    stream.write_all(b"GET /v1/vms HTTP/1.0\r\n\r\n").unwrap();
    let told = receive(stream);
    assert_eq!(
        (told.status, told.field("Connection")),
        (200, Some("close"))
    );
    // As many silent clients as there are seats, and more, are in nobody's way for long.
    let silent: Vec<_> = (0..200).map(|_| served.connect()).collect();
    std::thread::sleep(std::time::Duration::from_secs(1));
    served.get("/v1/vms");
    drop(silent);
}

fn stranger() {
    if !is_possible() {
        return;
    }
    let served = Served::new();
    let look = |path: &std::path::Path| {
        std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(path).unwrap()) & 0o777
    };
    assert_eq!(look(&served.socket), 0o600);
    // Even where somebody has opened the way to it.
    let open = |path: &std::path::Path, mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, mode).unwrap();
    };
    open(&served.socket, 0o666);
    open(served.socket.parent().unwrap(), 0o755);
    let mut curl = std::process::Command::new("curl");
    curl.args(["--silent", "--max-time", "10", "--unix-socket"]);
    curl.arg(&served.socket).arg("http://localhost/v1/vms");
    std::os::unix::process::CommandExt::uid(&mut curl, 43_210);
    let output = curl.output().unwrap();
    assert!(
        !output.status.success() && output.stdout.is_empty(),
        "{output:?}"
    );
    served.get("/v1/vms");
}

fn words() {
    if !is_possible() {
        return;
    }
    let served = Served::new();
    let mut wanted = agent(&["stay"]);
    wanted["config"]["memory"] = json!("900G");
    served.done("PUT", "/v1/vms/web", &wanted);
    let problem = served.refused(422, "POST", "/v1/vms/web/start", "");
    let help = problem["help"].as_str().unwrap();
    assert!(
        help.contains("`memory`") && !help.contains("--"),
        "{problem}"
    );
    // What the verb would not understand is refused before there is an operation, and by fields.
    for (body, field) in [
        (json!({ "image": "a", "restart": "often" }), "restart"),
        (json!({ "image": "a", "memory": "lots" }), "memory"),
        (
            json!({ "image": "a", "stop_signal": "NOPE" }),
            "stop_signal",
        ),
        (json!({ "image": "a", "tmpfs": ["x"] }), "tmpfs"),
        (json!({ "image": "a", "volumes": ["a:b"] }), "volumes"),
        (
            json!({ "image": "a", "health": { "interval": "soon" } }),
            "health.interval",
        ),
        (json!({ "image": "a", "hostname": "a b" }), "hostname"),
        (json!({ "image": "a", "vcpus": 255 }), "vcpus"),
    ] {
        let problem = served.refused(400, "POST", "/v1/vms/web2/run", &body.to_string());
        assert_eq!(problem["field"], field, "{problem}");
        assert!(!problem.to_string().contains("--"), "{problem}");
    }
    assert_eq!(served.get("/v1/operations")["operations"], json!([]));
    let nobody = served.refused(404, "GET", "/v1/vms/nobody", "");
    assert_eq!(nobody["help"], "`GET /v1/vms` lists all that there are");
}

fn unserved() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kvmlet-serve"));
    let output = command.args(["serve", "--socket", "/nowhere/api"]).output();
    let output = output.unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{told}");
    for part in [
        "`/nowhere/api`",
        "caused by: no such file",
        "help: make the directory",
    ] {
        assert!(told.to_lowercase().contains(part), "{told}");
    }
}
