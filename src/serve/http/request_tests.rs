//! Requests, and what is none.

use super::*;

fn parse(bytes: &[u8], most: usize) -> Parsed {
    super::parse(bytes, most, |method, path| {
        method == Method::Put && path == "/files"
    })
}

const MOST: usize = 100;

#[test]
fn a_request_is_whole_at_its_last_byte() {
    let text = b"PUT /actions?x=1 HTTP/1.1\r\nHost: localhost\r\ncontent-length: 3\r\n\r\n{ }GET / HTTP/1.1\r\n\r\n";
    let end = text.len() - 18;
    for length in 0..end {
        let parsed = parse(&text[..length], MOST);
        assert_eq!(parsed, Parsed::Partial { expects: false }, "{length}");
    }
    let Parsed::Whole(request, length) = parse(text, MOST) else {
        panic!("it is whole");
    };
    assert_eq!((request.method, &*request.path), (Method::Put, "/actions"));
    assert_eq!(request.query, "x=1");
    assert_eq!((&*request.body, length), (&b"{ }"[..], end));
    assert!(!request.closes);
    let Parsed::Whole(next, 18) = parse(&text[end..], MOST) else {
        panic!("so is the next one");
    };
    assert_eq!((next.method, next.body.len()), (Method::Get, 0));
}

#[test]
fn what_is_not_understood_is_told_apart() {
    for (text, status, part) in [
        ("nonsense\r\n\r\n", 400, "Invalid HTTP request"),
        (
            "COPY / HTTP/1.1\r\n\r\n",
            400,
            "method and/or path: COPY /.",
        ),
        (
            "PUT / HTTP/1.1\r\nContent-Length: 101\r\n\r\n",
            413,
            "limit of 100",
        ),
        (
            "PUT / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            413,
            "limit",
        ),
        (
            "PUT / HTTP/1.1\r\nContent-Length: +1\r\n\r\nx",
            400,
            "Content-Length",
        ),
        (
            "PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            400,
            "Content-Length",
        ),
        (
            "PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
            400,
            "two things",
        ),
        (
            "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "Transfer-Encoding",
        ),
    ] {
        let Parsed::Bad(was, why) = parse(text.as_bytes(), MOST) else {
            panic!("{text}");
        };
        assert_eq!(was, status, "{text}");
        assert!(why.contains(part), "{text}: {why}");
    }
    let long = vec![b'a'; LONGEST_HEAD];
    assert!(matches!(parse(&long, MOST), Parsed::Bad(_, _)));
    let mut endless = b"GET / HTTP/1.1\r\nA: ".to_vec();
    endless.resize(LONGEST_HEAD, b'a');
    assert!(matches!(parse(&endless, MOST), Parsed::Bad(431, _)));
}

#[test]
fn a_target_may_name_its_server() {
    for (target, path, query) in [
        ("/a?b", "/a", "b"),
        ("http://localhost/v1/vms?x=1", "/v1/vms", "x=1"),
        ("HTTP://a:80/b", "/b", ""),
        ("http://a", "/", ""),
        ("http://a?x=/", "/", "x=/"),
        ("http://", "/", ""),
        ("http:/", "http:/", ""),
        ("ftp://a/b", "ftp://a/b", ""),
        ("*", "*", ""),
    ] {
        let text = format!("GET {target} HTTP/1.1\r\n\r\n");
        let Parsed::Whole(request, _) = parse(text.as_bytes(), MOST) else {
            panic!("{target}");
        };
        assert_eq!((&*request.path, &*request.query), (path, query), "{target}");
    }
}

#[test]
fn clients_say_how_they_go_on() {
    let request = |text: &str| match parse(text.as_bytes(), MOST) {
        Parsed::Whole(request, _) => request,
        other => panic!("{other:?}"),
    };
    let whole = |text: &str| request(text).closes;
    for (text, old) in [
        ("GET / HTTP/1.0\r\n\r\n", true),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", false),
        ("GET / HTTP/1.1\r\n\r\n", false),
    ] {
        assert_eq!(request(text).is_old, old, "{text}");
    }
    assert!(!whole("GET / HTTP/1.0\r\n\r\n"));
    assert!(whole("GET / HTTP/1.0\r\nConnection: close\r\n\r\n"));
    assert!(whole(
        "GET / HTTP/1.1\r\nConnection: Keep-Alive, Close\r\n\r\n"
    ));
    assert!(!whole("GET / HTTP/1.1\r\nConnection: closed\r\n\r\n"));
    let expecting = b"PUT / HTTP/1.1\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(parse(expecting, MOST), Parsed::Partial { expects: true });
}

#[test]
fn a_body_that_comes_as_it_likes_is_left_to_who_takes_it() {
    let told = |text: &str| match parse(text.as_bytes(), MOST) {
        Parsed::Whole(request, end) => (request.coming, text.len() - end),
        other => panic!("{text}: {other:?}"),
    };
    let coming = |length, expects| Some(Coming { length, expects });
    assert_eq!(
        told("PUT /files?path=/a HTTP/1.1\r\nContent-Length: 101\r\n\r\nabc"),
        (coming(Some(101), false), 3)
    );
    assert_eq!(
        told("PUT /files HTTP/1.1\r\nTransfer-Encoding: Chunked\r\nExpect: 100-continue\r\n\r\n"),
        (coming(None, true), 0)
    );
    // A short one is read at once.
    assert_eq!(
        told("PUT /files HTTP/1.1\r\nContent-Length: 2\r\n\r\nab"),
        (None, 0)
    );
    for text in [
        "PUT /files HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "PUT /files HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        "PUT /files HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET /files HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        assert!(
            matches!(parse(text.as_bytes(), MOST), Parsed::Bad(400, _)),
            "{text}"
        );
    }
}

#[test]
fn who_wants_to_speak_something_else_says_so_twice() {
    for (text, upgrade) in [
        (
            "POST / HTTP/1.1\r\nConnection: x, Upgrade\r\nUpgrade: Kvmlet-Exec\r\n\r\n",
            Some("kvmlet-exec"),
        ),
        ("POST / HTTP/1.1\r\nUpgrade: kvmlet-exec\r\n\r\n", None),
        ("POST / HTTP/1.1\r\nConnection: upgrade\r\n\r\n", None),
        (
            "POST / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: kvmlet-exec\r\n\r\n",
            None,
        ),
    ] {
        let Parsed::Whole(request, _) = parse(text.as_bytes(), MOST) else {
            panic!("{text}");
        };
        assert_eq!(request.upgrade.as_deref(), upgrade, "{text}");
    }
}
