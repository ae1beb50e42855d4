//! What happens, as it is told.

use crate::harness::Test;
use crate::served::{Served, agent, is_possible, receive, send};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;

pub const TESTS: &[Test] = &[
    ("events_are_told_as_they_come_and_none_is_missed", followed),
    ("those_who_watch_are_bounded_and_block_nobody", bounded),
];

/// Somebody who is told events.
struct Watcher(BufReader<UnixStream>);

impl Watcher {
    fn new(served: &Served, query: &str) -> Self {
        let mut stream = served.connect();
        send(&mut stream, "GET", &format!("/v1/events{query}"), "");
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(
            head.contains("Content-Type: application/x-ndjson\r\n"),
            "{head}"
        );
        Self(reader)
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).expect(&line)
    }
}

fn followed() {
    if !is_possible() {
        return;
    }
    let mut served = Served::new();
    let mut watcher = Watcher::new(&served, "");
    let wanted = agent(&["stay"]);
    served.done("PUT", "/v1/vms/one", &wanted);
    let first = watcher.next();
    assert_eq!(
        (&first["event"], &first["name"]),
        (&json!("create"), &json!("one"))
    );
    served.post("/v1/vms/one/start");
    let second = watcher.next();
    assert_eq!(second["event"], "start");
    assert_eq!(
        second["sequence"].as_u64(),
        first["sequence"].as_u64().map(|it| it + 1)
    );
    // Whoever comes back has all that it has missed, and goes on; also where the server has gone meanwhile.
    drop(watcher);
    served.post("/v1/vms/one/stop?timeout=0");
    served.start_again();
    let mut back = Watcher::new(&served, &format!("?since={}", second["sequence"]));
    let die = loop {
        let event = back.next();
        if event["event"] == "die" {
            break event;
        }
    };
    assert_eq!(die["name"], "one");
    served.done("DELETE", "/v1/vms/one", &json!(null));
    let mut last = die["sequence"].as_u64().unwrap();
    loop {
        let event = back.next();
        last += 1;
        assert_eq!(event["sequence"], last);
        if event["event"] == "destroy" {
            break;
        }
    }
    // Without an end to wait for, the answer ends itself.
    let told = served.ask("GET", "/v1/events?follow=false", "");
    let numbers: Vec<_> = told
        .lines()
        .iter()
        .map(|it| it["sequence"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (1..=last).collect::<Vec<_>>());
    let told = served.ask("GET", &format!("/v1/events?follow=false&since={last}"), "");
    assert_eq!(told.body, "");
}

fn bounded() {
    if !is_possible() {
        return;
    }
    let served = Served::new();
    let most = served.get("/v1/capabilities")["limits"]["watchers"]
        .as_u64()
        .unwrap();
    let mut watchers: Vec<_> = (0..most).map(|_| Watcher::new(&served, "")).collect();
    let mut one_more = served.connect();
    send(&mut one_more, "GET", "/v1/events", "");
    let told = receive(one_more);
    served.document.check("GET", "/v1/events", &told);
    assert_eq!(
        (told.status, &told.json()["retryable"]),
        (503, &json!(true))
    );
    // None of them reads.
    for round in 0..30 {
        let path = format!("/v1/vms/vm-{round}");
        served.done("PUT", &path, &agent(&["stay"]));
        served.done("DELETE", &path, &json!(null));
    }
    for watcher in &mut watchers {
        for number in 1..=60 {
            assert_eq!(watcher.next()["sequence"], number);
        }
    }
    // Who leaves makes room.
    drop(watchers.pop());
    served.done("PUT", "/v1/vms/last", &agent(&["stay"]));
    let mut newest = Watcher::new(&served, "?since=60");
    assert_eq!(newest.next()["sequence"], 61);
}
