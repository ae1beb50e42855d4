//! A server without VMs.

use super::*;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

#[test]
fn who_asks_too_often_is_told_when_to_ask_again() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("api");
    let listener = UnixListener::bind(&socket).unwrap();
    let book = Book::at(&place.path().join("book")).unwrap();
    let mut serving = Serving::new(listener.into(), book).unwrap();
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
