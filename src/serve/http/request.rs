//! What a client sends.

use httparse::{EMPTY_HEADER, Header, Status};
use std::borrow::Cow;

/// No request's head is longer.
pub const LONGEST_HEAD: usize = 8 << 10;
/// None has more fields in its head.
const MOST_FIELDS: usize = 64;

/// What is to be done with what a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// It is told.
    Get,
    /// It is set.
    Put,
    /// A part of it is set.
    Patch,
    /// It is taken away.
    Delete,
    /// Something is done with it.
    Post,
    /// It would be told.
    Head,
    /// What can be done with it is told.
    Options,
    /// The request is told again.
    Trace,
    /// It is asked what the body says.
    Query,
}

impl Method {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Post => "POST",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Query => "QUERY",
        }
    }

    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Get,
        Self::Put,
        Self::Patch,
        Self::Delete,
        Self::Post,
        Self::Head,
        Self::Options,
        Self::Trace,
        Self::Query,
    ];

    fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }
}

/// A request as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is to be done.
    pub method: Method,
    /// Without what stands behind a `?`.
    pub path: String,
    /// That.
    pub query: String,
    /// As it was sent.
    pub body: Vec<u8>,
    /// The client wants no more of this connection.
    pub closes: bool,
    /// It speaks HTTP/1.0, whose connections end with an answer, and does not say that it goes on.
    pub is_old: bool,
}

/// What has come so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Not all of a request. The client may wait to be told to go on.
    Partial { expects: bool },
    /// A request, and how many bytes it took.
    Whole(Request, usize),
    /// Nothing that is understood: how that is answered, and why. What follows it cannot be told from it.
    Bad(u16, String),
}

/// Reads the request that these bytes begin with, whose body is no longer than that.
pub fn parse(bytes: &[u8], longest_body: usize) -> Parsed {
    let mut fields = [EMPTY_HEADER; MOST_FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    let start = match head.parse(bytes) {
        Ok(Status::Complete(start)) => start,
        Ok(Status::Partial) if bytes.len() < LONGEST_HEAD => {
            return Parsed::Partial { expects: false };
        }
        Ok(Status::Partial) => {
            return Parsed::Bad(431, "The head of the request is too long.".into());
        }
        Err(error) => return Parsed::Bad(400, format!("Invalid HTTP request: {error}.")),
    };
    if start > LONGEST_HEAD {
        return Parsed::Bad(431, "The head of the request is too long.".into());
    }
    let (name, target) = (
        head.method.unwrap_or_default(),
        head.path.unwrap_or_default(),
    );
    let target = origin_form(target);
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let Some(method) = Method::of(name) else {
        return Parsed::Bad(
            400,
            format!("Invalid request method and/or path: {name} {path}."),
        );
    };
    let (length, expects) = match body_of(head.headers) {
        Ok(body) => body,
        Err(why) => return Parsed::Bad(400, why.into()),
    };
    if length > longest_body {
        return Parsed::Bad(
            413,
            format!(
                "Request payload with size {length} is larger than the limit of {longest_body} allowed by server."
            ),
        );
    }
    let end = start + length;
    let Some(body) = bytes.get(start..end) else {
        return Parsed::Partial {
            expects: expects && bytes.len() == start,
        };
    };
    let says = |word| says(head.headers, "Connection", word);
    let request = Request {
        method,
        path: path.into(),
        query: query.into(),
        body: body.into(),
        closes: says("close"),
        is_old: head.version == Some(0) && !says("keep-alive"),
    };
    Parsed::Whole(request, end)
}

/// What is asked for, without the scheme and the authority that those who speak as to a proxy put before it (RFC 9112 §3.2.2):
/// there is one server here, whatever it is called.
fn origin_form(target: &str) -> Cow<'_, str> {
    let (scheme, rest) = match target.split_at_checked(7) {
        Some((scheme, rest)) => (scheme, rest),
        None => return target.into(),
    };
    if !scheme.eq_ignore_ascii_case("http://") {
        return target.into();
    }
    match rest.find(['/', '?']) {
        Some(start) if rest[start..].starts_with('/') => rest[start..].into(),
        Some(start) => format!("/{}", &rest[start..]).into(),
        None => "/".into(),
    }
}

/// How long a body is, and whether the client waits to be told to send it.
fn body_of(fields: &[Header<'_>]) -> Result<(usize, bool), &'static str> {
    let named = |name: &'static str| {
        let named = move |field: &&Header<'_>| field.name.eq_ignore_ascii_case(name);
        fields.iter().filter(named)
    };
    if named("Transfer-Encoding").next().is_some() {
        return Err("Transfer-Encoding is not understood: say Content-Length.");
    }
    let mut lengths = named("Content-Length").map(|field| length(field.value));
    let length = lengths
        .next()
        .unwrap_or(Some(0))
        .ok_or("Invalid Content-Length.")?;
    if lengths.any(|other| other != Some(length)) {
        return Err("Content-Length says two things.");
    }
    Ok((length, says(fields, "Expect", "100-continue")))
}

/// Digits and nothing else (RFC 9110 §8.6).
fn length(value: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(value).ok()?;
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // One that no number holds is too long for any bound.
    digits.then(|| text.parse().unwrap_or(usize::MAX))
}

fn says(fields: &[Header<'_>], name: &str, word: &str) -> bool {
    let values = fields
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case(name));
    let mut words = values.flat_map(|field| field.value.split(|byte| *byte == b','));
    words.any(|value| value.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
