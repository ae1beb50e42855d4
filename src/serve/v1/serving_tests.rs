//! A server without VMs.

use super::*;
use kvmlet_manager::Book;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

#[test]
fn who_asks_too_often_is_told_when_to_ask_again() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("api");
    let listener = UnixListener::bind(&socket).unwrap();
    let book = Book::at(&place.path().join("book")).unwrap();
    let mut serving = Serving::new(listener.into(), Subject::Book(Arc::new(book)), None).unwrap();
    serving.rates = Rates::new(Duration::from_secs(1000), 3);
    let mut client = UnixStream::connect(&socket).unwrap();
    let requests = "GET /v1/nothing HTTP/1.1\r\n\r\n".repeat(5);
    client.write_all(requests.as_bytes()).unwrap();
    client.set_nonblocking(true).unwrap();
    let mut text = Vec::new();
    for _ in 0..20 {
        serving.turn();
        let _ = client.read_to_end(&mut text);
    }
    let text = String::from_utf8(text).unwrap();
    let statuses: Vec<_> = text
        .split("HTTP/1.1 ")
        .filter_map(|answer| answer.get(..3))
        .collect();
    assert_eq!(statuses, ["404", "404", "404", "429", "429"], "{text}");
    let (_, told) = text.split_once("HTTP/1.1 429").unwrap();
    for part in [
        "\r\nRetry-After: 1000\r\n",
        "\r\nRequest-Id: ",
        "Content-Type: application/problem+json",
        "\"retryable\":true",
        "urn:kvmlet:too-many-requests",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

/// Also where nobody knows what was asked for.
#[test]
fn each_answer_has_an_id_of_its_own() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("api");
    let listener = UnixListener::bind(&socket).unwrap();
    let book = Book::at(&place.path().join("book")).unwrap();
    let mut serving = Serving::new(listener.into(), Subject::Book(Arc::new(book)), None).unwrap();
    let long = "x".repeat(9000);
    let mut ids = std::collections::BTreeSet::new();
    let requests = [
        ("404", "GET /v1/nothing HTTP/1.1\r\n\r\n".to_owned()),
        ("400", "nonsense\r\n\r\n".into()),
        (
            "413",
            "PUT /v1/vms/a HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n".into(),
        ),
        ("431", format!("GET /{long} HTTP/1.1\r\n\r\n")),
    ];
    for (status, request) in &requests {
        let mut client = UnixStream::connect(&socket).unwrap();
        client.write_all(request.as_bytes()).unwrap();
        client.set_nonblocking(true).unwrap();
        let mut text = Vec::new();
        for _ in 0..20 {
            serving.turn();
            let _ = client.read_to_end(&mut text);
        }
        let text = String::from_utf8(text).unwrap();
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
        let (_, id) = text.split_once("\r\nRequest-Id: ").unwrap();
        let id = id.split("\r\n").next().unwrap().to_owned();
        assert!(text.contains(&format!("\"request_id\":\"{id}\"")), "{text}");
        ids.insert(id);
    }
    assert_eq!(ids.len(), requests.len());
}
