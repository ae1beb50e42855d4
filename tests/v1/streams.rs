//! Programs that are executed beside a VM's service, and archives, over connections of their own.

use crate::harness::{Test, deadline};
use crate::served::{Served, agent, is_possible, receive};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Instant;

pub const TESTS: &[Test] = &[
    ("what_a_program_writes_is_told_with_its_end", lines),
    ("a_program_has_its_input_and_signals_by_frames", frames),
    ("what_cannot_be_executed_is_told_at_once", refused),
    ("programs_that_go_on_for_ever_hold_up_nobody", crowded),
    ("archives_are_looked_at_before_they_are_sent", archives),
];

/// Of frames: what is in them.
const INPUT: u8 = 0;
const STDOUT: u8 = 1;
const RESIZE: u8 = 3;
const SIGNAL: u8 = 4;
const ENDED: u8 = 5;
const PROBLEM: u8 = 6;

fn running(served: &Served, name: &str) {
    let path = format!("/v1/vms/{name}");
    served.done("PUT", &path, &agent(&["out=ready", "stay"]));
    served.post(&format!("{path}/start"));
    served.has_written(name, "ready\n");
}

fn lines() {
    if !is_possible() {
        return;
    }
    let served = Served::new();
    running(&served, "web");
    let exec = |body: Value| {
        let told = served.ask("POST", "/v1/vms/web/exec", &body.to_string());
        assert_eq!(told.status, 200, "{told:?}");
        Value::from(told.lines())
    };
    let body =
        json!({ "command": ["out=one", "err=two", "env=A", "exit=7"], "env": { "A": "123" } });
    let all = exec(body);
    let wanted = json!([
        { "stream": "stdout", "text": "one\n" },
        { "stream": "stderr", "text": "two\n" },
        { "stream": "stdout", "text": "A 3\n" },
        { "exit_code": 7 },
    ]);
    assert_eq!(all, wanted);
    let body = json!({ "command": ["user", "exit=0"], "user": "7:8" });
    assert_eq!(exec(body)[0]["text"], "7:8\n");
    // Much more than is held of it at a time.
    let all = exec(json!({ "command": ["many=3000000", "exit=0"] }));
    let all = all.as_array().unwrap();
    let texts = all.iter().filter_map(|line| line["text"].as_str());
    assert_eq!(texts.map(str::len).sum::<usize>(), 3_000_000);
    assert_eq!(all.last().unwrap()["exit_code"], 0);
    // Whoever speaks HTTP/1.0 has no chunks.
    let mut stream = served.connect();
    let body = json!({ "command": ["out=old", "exit=0"] }).to_string();
    let length = body.len();
    let head = format!("POST /v1/vms/web/exec HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(head.as_bytes()).unwrap();
    let told = receive(stream);
    assert!(told.field("Transfer-Encoding").is_none(), "{told:?}");
    assert_eq!(told.lines()[0]["text"], "old\n");
}

/// A connection that was asked to be upgraded, and its head.
fn upgraded(served: &Served, name: &str, body: &Value) -> (UnixStream, String) {
    let mut stream = served.connect();
    let body = body.to_string();
    let length = body.len();
    let request = format!(
        "POST /v1/vms/{name}/exec HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: kvmlet-exec\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(
            stream.read(&mut byte).unwrap(),
            1,
            "{}",
            head.escape_ascii()
        );
        head.extend(byte);
    }
    (stream, String::from_utf8(head).unwrap())
}

fn frame(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u32).to_be_bytes();
    [&[kind, 0, 0, 0], &length[..], content].concat()
}

fn next(stream: &mut UnixStream) -> (u8, Vec<u8>) {
    let mut header = [0; 8];
    stream.read_exact(&mut header).unwrap();
    let [kind, 0, 0, 0, a, b, c, d] = header else {
        panic!("{header:?}");
    };
    let mut content = vec![0; u32::from_be_bytes([a, b, c, d]) as usize];
    stream.read_exact(&mut content).unwrap();
    (kind, content)
}

fn ended(stream: &mut UnixStream) -> Value {
    let (kind, content) = next(stream);
    assert_eq!(kind, ENDED, "{}", content.escape_ascii());
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    serde_json::from_slice(&content).unwrap()
}

fn frames() {
    if !is_possible() {
        return;
    }
    let served = Served::new();
    running(&served, "web");
    let echo = json!({ "command": ["echo", "exit=3"], "input": true });
    let (mut stream, head) = upgraded(&served, "web", &echo);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("\r\nUpgrade: kvmlet-exec\r\n"), "{head}");
    // Any bytes, there and back, and more than anybody holds.
    let sent: Vec<u8> = (0..600_000_u32).map(|number| number as u8).collect();
    let mut writes = stream.try_clone().unwrap();
    let parts = sent.clone();
    let writing = std::thread::spawn(move || {
        for part in parts.chunks(50_000) {
            writes.write_all(&frame(INPUT, part)).unwrap();
        }
        writes.write_all(&frame(INPUT, b"")).unwrap();
    });
    let mut read = Vec::new();
    while read.len() < sent.len() {
        let (kind, content) = next(&mut stream);
        assert_eq!(kind, STDOUT, "{}", content.escape_ascii());
        read.extend(content);
    }
    assert!(read == sent);
    writing.join().unwrap();
    assert_eq!(ended(&mut stream), json!({ "exit_code": 3 }));

    let size = json!({ "command": ["size", "exit=0"], "tty": { "columns": 1, "rows": 1 } });
    let (mut stream, _) = upgraded(&served, "web", &size);
    stream.write_all(&frame(RESIZE, &[1, 2, 0, 3])).unwrap();
    assert_eq!(next(&mut stream), (STDOUT, b"size=258x3\n".to_vec()));
    assert_eq!(ended(&mut stream)["exit_code"], 0);

    let (mut stream, _) = upgraded(&served, "web", &json!({ "command": ["stay"] }));
    stream.write_all(&frame(SIGNAL, &[9])).unwrap();
    assert_eq!(ended(&mut stream), json!({ "exit_code": 137, "signal": 9 }));

    // That nothing more is sent is the end of the input.
    let (mut stream, _) = upgraded(&served, "web", &echo);
    stream.write_all(&frame(INPUT, b"last")).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(next(&mut stream), (STDOUT, b"last".to_vec()));
    assert_eq!(ended(&mut stream)["exit_code"], 3);
}

fn refused() {
    if !is_possible() {
        return;
    }
    let served = Served::new();
    running(&served, "web");
    served.done("PUT", "/v1/vms/not", &agent(&["stay"]));
    let stay = json!({ "command": ["stay"] }).to_string();
    served.refused(404, "POST", "/v1/vms/nobody/exec", &stay);
    served.refused(409, "POST", "/v1/vms/not/exec", &stay);
    let problem = served.refused(
        422,
        "POST",
        "/v1/vms/web/exec",
        &json!({ "command": ["fail=127"] }).to_string(),
    );
    let detail = problem["detail"].as_str().unwrap();
    assert_eq!(detail, "the guest cannot run it: on purpose");
    assert!(problem["help"].is_string(), "{problem}");
    for (body, field) in [
        (json!({}), "command"),
        (json!({ "command": [] }), "command"),
        (json!({ "command": ["a\u{0}"] }), "command"),
        (json!({ "command": ["cat"], "input": true }), "input"),
        (json!({ "command": ["cat"], "stdin": true }), "stdin"),
    ] {
        let problem = served.refused(400, "POST", "/v1/vms/web/exec", &body.to_string());
        assert_eq!(problem["field"], field, "{problem}");
    }
    // What it cannot start is answered as anything else, and not in frames.
    let (_, head) = upgraded(&served, "web", &json!({ "command": ["fail=126"] }));
    assert!(head.starts_with("HTTP/1.1 422 "), "{head}");
    served.post("/v1/vms/web/pause");
    let problem = served.refused(409, "POST", "/v1/vms/web/exec", &stay);
    assert_eq!(problem["help"], "resume it");
    served.refused(409, "GET", "/v1/vms/web/files?path=/", "");
}

fn crowded() {
    if !is_possible() {
        return;
    }
    let served = Served::new();
    let most = served.get("/v1/capabilities")["limits"]["streams"].as_u64();
    let most = usize::try_from(most.unwrap()).unwrap();
    // A VM takes sixteen connections at a time.
    let names = ["one", "two", "three"];
    names.iter().for_each(|name| running(&served, name));
    let stay = json!({ "command": ["out=here", "stay"] });
    let mut all: Vec<UnixStream> = (0..most)
        .map(|place| {
            let (mut stream, head) = upgraded(&served, names[place % names.len()], &stay);
            assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
            assert_eq!(next(&mut stream), (STDOUT, b"here\n".to_vec()));
            stream
        })
        .collect();
    let body = stay.to_string();
    let problem = served.refused(503, "POST", "/v1/vms/one/exec", &body);
    assert_eq!(problem["retryable"], true);
    // They have no seats: as many as ever are served.
    let mut seated: Vec<_> = (0..60).map(|_| served.connect()).collect();
    for stream in &mut seated {
        stream
            .write_all(b"GET /v1/vms/one HTTP/1.1\r\n\r\n")
            .unwrap();
    }
    for stream in &mut seated {
        let mut start = [0; 12];
        stream.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
    }
    drop(seated);
    // One that goes makes room.
    drop(all.pop());
    let since = Instant::now();
    let mut last = loop {
        let (stream, head) = upgraded(&served, "one", &stay);
        if head.starts_with("HTTP/1.1 101 ") {
            break stream;
        }
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert!(since.elapsed() < deadline(), "there is no room");
    };
    assert_eq!(next(&mut last).0, STDOUT);
    // What ends before a program has says so.
    served.post("/v1/vms/one/kill");
    let (kind, problem) = next(&mut last);
    let problem: Value = serde_json::from_slice(&problem).unwrap();
    assert_eq!(
        (kind, &problem["status"]),
        (PROBLEM, &json!(409)),
        "{problem}"
    );
    assert_eq!(last.read(&mut [0]).unwrap(), 0);
}

fn archives() {
    if !is_possible() {
        return;
    }
    let served = Served::new();
    served.done("PUT", "/v1/vms/not", &agent(&["stay"]));
    for (method, query, field) in [
        ("GET", "", "path"),
        ("GET", "?path=etc", "path"),
        ("GET", "?path=/a%00", "path"),
        ("PUT", "?path=", "path"),
        ("PUT", "?path=/a&owners=yes", "owners"),
    ] {
        let problem = served.refused(400, method, &format!("/v1/vms/not/files{query}"), "");
        assert_eq!(problem["field"], field, "{method} {query}: {problem}");
    }
    let path = "/v1/vms/nobody/files?path=/";
    served.refused(404, "GET", path, "");
    served.refused(409, "GET", "/v1/vms/not/files?path=/", "");
    // Whoever has a long body is answered before it has come, or as soon as it has.
    let limit = served.get("/v1/capabilities")["limits"]["body_bytes"].as_u64();
    let long = "x".repeat(limit.unwrap() as usize + 100_000);
    served.refused(404, "PUT", path, &long);
    served.refused(409, "PUT", "/v1/vms/not/files?path=/", &long);
    let mut stream = served.connect();
    let head = format!(
        "PUT {path} HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(receive(stream).status, 404);
    // Of no other request bodies come in chunks.
    let mut stream = served.connect();
    let head = "PUT /v1/vms/web HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(receive(stream).status, 400);
}
