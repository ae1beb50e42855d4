//! Clients of all kinds, at a socket without a VM behind it.

use super::*;
use crate::http::Method;
use crate::http::Peers;
use crate::http::connection::GRACE;
use rustix::net::SendFlags;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

const MOST: usize = 10;

const MANNER: Manner = Manner {
    name: "S",
    seats: MOST,
    longest_body: 100,
    old_go_on: false,
    comes: |_, path| path == "/as-it-comes",
    peers: Peers::All,
    descriptors: 1,
    refuse: |status, why| Answer::new(status, Some(format!("[{why}]"))),
};

struct Served {
    server: Server,
    path: PathBuf,
    _place: tempfile::TempDir,
}

impl Served {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self {
            server: Server::new(listener.into(), MANNER),
            path,
            _place: place,
        }
    }

    fn connect(&mut self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        self.server.turn();
        stream
    }

    /// Sends something, and answers each whole request with its path.
    fn send(&mut self, client: &mut UnixStream, text: &str) {
        client.write_all(text.as_bytes()).unwrap();
        self.server.turn();
        while let Some((id, request)) = self.server.next_request() {
            self.server.answer(id, &Answer::told(request.path));
        }
    }
}

/// What has come for a client, until nothing more does.
fn read(client: &mut UnixStream) -> String {
    client.set_nonblocking(true).unwrap();
    let mut text = Vec::new();
    let _ = client.read_to_end(&mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn requests_on_one_connection_are_answered_in_their_order() {
    let mut served = Served::new();
    let mut client = served.connect();
    served.send(
        &mut client,
        "GET /a HTTP/1.1\r\n\r\nPUT /b HTTP/1.1\r\nContent-Length: 2\r\n\r\n{",
    );
    let text = read(&mut client);
    assert!(
        text.starts_with("HTTP/1.1 200 ") && text.ends_with("\r\n\r\n/a"),
        "{text}"
    );
    served.send(&mut client, "}GET /c HTTP/1.1\r\nConnection: close\r\n\r\n");
    let text = read(&mut client);
    let (b, c) = (text.find("/b").unwrap(), text.find("/c").unwrap());
    assert!(b < c && text.contains("Connection: close"), "{text}");
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert!(served.server.connections.is_empty());
}

#[test]
fn one_who_sends_nonsense_is_told_and_closed() {
    let mut served = Served::new();
    let mut client = served.connect();
    served.send(&mut client, "\0\0\r\n\r\n");
    let text = read(&mut client);
    assert!(
        text.starts_with("HTTP/1.1 400 ") && text.contains("[Invalid HTTP"),
        "{text}"
    );
    assert!(served.server.connections.is_empty());
}

#[test]
fn who_comes_when_all_seats_are_taken_is_told_so() {
    let mut served = Served::new();
    let mut seated: Vec<_> = (0..MOST).map(|_| served.connect()).collect();
    // They have sent a part of a request, and keep nobody from being told.
    for client in &mut seated {
        served.send(client, "GET /");
    }
    let mut beyond: Vec<_> = (0..MOST_REFUSED).map(|_| served.connect()).collect();
    let is_refused = |text: &str| {
        assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
        assert!(text.contains("[Too many open"), "{text}");
    };
    // The first one has been silent for longest, and is told without being asked.
    let mut one_more = served.connect();
    assert_eq!(served.server.connections.len(), MOST + MOST_REFUSED);
    is_refused(&read(&mut beyond[0]));
    for client in beyond[1..].iter_mut().chain([&mut one_more]) {
        served.send(client, "GET /x HTTP/1.1\r\n\r\n");
        is_refused(&read(client));
    }
    assert_eq!(served.server.connections.len(), MOST);
    served.send(&mut seated[0], "a HTTP/1.1\r\n\r\n");
    assert!(read(&mut seated[0]).ends_with("/a"));
}

#[test]
fn a_crowd_of_silent_clients_keeps_nobody_from_being_answered() {
    let mut served = Served::new();
    let mut crowd: Vec<_> = (0..100).map(|_| served.connect()).collect();
    assert_eq!(served.server.connections.len(), MOST + MOST_REFUSED);
    let ask = |served: &mut Served| {
        let mut client = served.connect();
        served.send(&mut client, "GET /a HTTP/1.1\r\n\r\n");
        read(&mut client)
    };
    // They have just come, and are about to ask: who has a seat keeps it for now.
    assert!(ask(&mut served).starts_with("HTTP/1.1 503 "));
    std::thread::sleep(GRACE);
    // Now they are silent, and it is theirs who sends.
    for _ in 0..2 * MOST {
        let text = ask(&mut served);
        assert!(text.ends_with("\r\n\r\n/a"), "{text}");
    }
    // Who has no seat is told so without asking.
    let told = crowd.iter_mut().map(read);
    let told = told.filter(|text| text.starts_with("HTTP/1.1 503 "));
    assert_eq!(told.count(), 100 - MOST);
}

#[test]
fn who_sends_slowly_gives_its_seat_to_who_does_not() {
    let mut served = Served::new();
    let mut slow: Vec<_> = (0..MOST).map(|_| served.connect()).collect();
    for client in &mut slow {
        served.send(client, "GET /");
    }
    std::thread::sleep(GRACE);
    let mut client = served.connect();
    served.send(&mut client, "GET /b HTTP/1.1\r\n\r\n");
    assert!(read(&mut client).ends_with("/b"));
    let text = read(&mut slow[0]);
    assert!(
        text.starts_with("HTTP/1.1 408 ") && text.contains("[The request was not whole"),
        "{text}"
    );
    served.send(&mut slow[1], "c HTTP/1.1\r\n\r\n");
    assert!(read(&mut slow[1]).ends_with("/c"));
}

#[test]
fn who_comes_in_a_crowd_with_a_request_is_heard() {
    let mut served = Served::new();
    let silent = |served: &Served, count| -> Vec<_> {
        let connect = |_| UnixStream::connect(&served.path).unwrap();
        (0..count).map(connect).collect()
    };
    let _before = silent(&served, 40);
    let mut client = UnixStream::connect(&served.path).unwrap();
    let _after = silent(&served, 40);
    served.send(&mut client, "GET /a HTTP/1.1\r\n\r\n");
    served.send(&mut client, "");
    served.send(&mut client, "");
    let text = read(&mut client);
    assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
}

#[test]
fn who_does_not_read_is_not_waited_for() {
    let mut served = Served::new();
    let mut client = served.connect();
    let _ = client.write_all(b"GET /a HTTP/1.1\r\n\r\n");
    served.server.turn();
    let (id, request) = served.server.next_request().unwrap();
    assert_eq!(request.method, Method::Get);
    served.server.answer(id, &Answer::told("x".repeat(4 << 20)));
    assert!(!served.server.connections.is_empty());
    let mut other = served.connect();
    served.send(&mut other, "GET /b HTTP/1.1\r\n\r\n");
    assert!(read(&mut other).ends_with("/b"));
    let since = Instant::now();
    served.server.finish().unwrap();
    assert!(since.elapsed() >= LAST);
}

#[test]
fn who_keeps_a_connection_for_later_gives_its_seat() {
    let mut served = Served::new();
    let mut kept: Vec<_> = (0..MOST).map(|_| served.connect()).collect();
    for client in &mut kept {
        served.send(client, "GET /a HTTP/1.1\r\n\r\n");
        assert!(read(client).ends_with("/a"));
    }
    let mut next = served.connect();
    served.send(&mut next, "GET /b HTTP/1.1\r\n\r\n");
    assert!(read(&mut next).ends_with("/b"));
    // The one that has waited longest is gone, and no other.
    assert_eq!(kept[0].read(&mut [0]).unwrap(), 0);
    served.send(&mut kept[1], "GET /c HTTP/1.1\r\n\r\n");
    assert!(read(&mut kept[1]).ends_with("/c"));
    assert_eq!(served.server.connections.len(), MOST);
}

#[test]
fn who_is_left_to_somebody_else_has_no_seat() {
    let mut served = Served::new();
    let mut client = served.connect();
    let text = b"PUT /as-it-comes HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc";
    client.write_all(text).unwrap();
    served.server.turn();
    let (id, request) = served.server.next_request().unwrap();
    assert!(request.coming.is_some_and(|coming| coming.length.is_none()));
    // What comes now is not for this server.
    client.write_all(b"\r\n").unwrap();
    served.server.turn();
    let (stream, sent) = served.server.part(id).unwrap();
    assert_eq!(sent, b"3\r\nabc");
    assert!(served.server.connections.is_empty());
    let mut rest = [0; 8];
    let rest = rustix::io::read(&stream, &mut rest).unwrap();
    assert_eq!(rest, 2);
}

#[test]
fn of_descriptors_that_come_along_no_more_stay_open_than_may() {
    let mut served = Served::new();
    let mut client = served.connect();
    let mut readers = Vec::new();
    // Each byte of a request may bring some.
    for byte in b"GET /a HTTP/1.1" {
        let pipes: Vec<_> = (0..6).map(|_| std::io::pipe().unwrap()).collect();
        let writers: Vec<_> = pipes.iter().map(|(_, writer)| writer.as_fd()).collect();
        kvmlet_control::send_with(&client, &[*byte], &writers, SendFlags::empty()).unwrap();
        drop(writers);
        readers.extend(pipes.into_iter().map(|(reader, _)| reader));
        served.server.turn();
    }
    let is_closed = |reader: &std::io::PipeReader| {
        wait::one(Slot::readable(reader.as_fd()), Until::Now).unwrap()
    };
    let open = |readers: &[_]| readers.iter().filter(|it| !is_closed(it)).count();
    assert_eq!(open(&readers), 1);
    client.write_all(b"\r\n\r\n").unwrap();
    served.server.turn();
    let (id, request) = served.server.next_request().unwrap();
    assert_eq!(open(&readers), 1);
    let along = served.server.along(id);
    assert!(along.too_many && along.descriptors.len() == 1);
    drop(along);
    assert_eq!(open(&readers), 0);
    served.server.answer(id, &Answer::told(request.path));
    assert!(read(&mut client).ends_with("/a"));

    // The next request has its own, and what nobody asks for is closed with the answer.
    let (reader, writer) = std::io::pipe().unwrap();
    let text = b"GET /b HTTP/1.1\r\n\r\n";
    kvmlet_control::send_with(&client, text, &[writer.as_fd()], SendFlags::empty()).unwrap();
    drop(writer);
    served.server.turn();
    let (id, request) = served.server.next_request().unwrap();
    assert!(!is_closed(&reader));
    served.server.answer(id, &Answer::told(request.path));
    assert!(is_closed(&reader) && served.server.has(id));
    // Or when the client goes.
    let (reader, writer) = std::io::pipe().unwrap();
    kvmlet_control::send_with(&client, b"G", &[writer.as_fd()], SendFlags::empty()).unwrap();
    drop((writer, client));
    served.server.turn();
    served.server.turn();
    assert!(is_closed(&reader));
}
