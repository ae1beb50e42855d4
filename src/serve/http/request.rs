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
    /// It understands an answer in chunks (RFC 9112 §7.1).
    pub chunks: bool,
    /// What it wants to speak instead of HTTP from the answer on.
    pub upgrade: Option<String>,
    /// How the body comes of which nothing is read yet: one that is taken as it comes.
    pub coming: Option<Coming>,
}

/// A body that is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coming {
    /// How long it is; none where it comes in chunks.
    pub length: Option<usize>,
    /// The client waits to be told to send it.
    pub expects: bool,
}

/// What has come so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Not all of a request. The client may wait to be told to go on.
    Partial {
        /// It does.
        expects: bool,
    },
    /// A request, and how many bytes it took.
    Whole(Request, usize),
    /// Nothing that is understood: how that is answered, and why. What follows it cannot be told from it.
    Bad(u16, String),
}

/// The same of requests that all have their body, and tells the fields of the head of one that is whole.
pub fn parse_with(bytes: &[u8], longest_body: usize, mut field: impl FnMut(&str, &[u8])) -> Parsed {
    let parsed = parse(bytes, longest_body, NOTHING_COMES);
    if let Parsed::Whole(..) = parsed {
        let mut fields = [EMPTY_HEADER; MOST_FIELDS];
        let mut head = httparse::Request::new(&mut fields);
        if head.parse(bytes).is_ok() {
            head.headers.iter().for_each(|it| field(it.name, it.value));
        }
    }
    parsed
}

/// Of no request the body is taken as it comes.
pub const NOTHING_COMES: fn(Method, &str) -> bool = |_, _| false;

/// Reads the request that these bytes begin with, whose body is no longer than that; but those that come as they like are read without.
pub fn parse(bytes: &[u8], longest_body: usize, comes: fn(Method, &str) -> bool) -> Parsed {
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
    let coming = length.is_none_or(|length| length > longest_body);
    if coming && comes(method, path) {
        let mut request = request_of(&head, method, path, query);
        request.coming = Some(Coming { length, expects });
        // Where it ends is known to whoever takes it.
        request.closes = true;
        return Parsed::Whole(request, start);
    }
    let Some(length) = length else {
        let why = "Transfer-Encoding is not understood: say Content-Length.";
        return Parsed::Bad(400, why.into());
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
    let mut request = request_of(&head, method, path, query);
    request.body = body.into();
    Parsed::Whole(request, end)
}

/// What a head says, without a body.
fn request_of(
    head: &httparse::Request<'_, '_>,
    method: Method,
    path: &str,
    query: &str,
) -> Request {
    let says = |word| says(head.headers, "Connection", word);
    let mut fields = head.headers.iter();
    let upgrade = fields.find(|field| field.name.eq_ignore_ascii_case("Upgrade"));
    let upgrade = upgrade.filter(|_| says("upgrade") && head.version == Some(1));
    let upgrade = upgrade.and_then(|field| str::from_utf8(field.value).ok());
    Request {
        method,
        path: path.into(),
        query: query.into(),
        body: Vec::new(),
        closes: says("close"),
        is_old: head.version == Some(0) && !says("keep-alive"),
        chunks: head.version == Some(1),
        upgrade: upgrade.map(|text| text.trim().to_ascii_lowercase()),
        coming: None,
    }
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

/// How long a body is, if that is known before, and whether the client waits to be told to send it.
fn body_of(fields: &[Header<'_>]) -> Result<(Option<usize>, bool), &'static str> {
    let named = |name: &'static str| {
        let named = move |field: &&Header<'_>| field.name.eq_ignore_ascii_case(name);
        fields.iter().filter(named)
    };
    let expects = says(fields, "Expect", "100-continue");
    let mut codings = named("Transfer-Encoding");
    if let Some(coding) = codings.next() {
        // Who says both may mean either (RFC 9112 §6.1).
        let is_chunked = coding.value.trim_ascii().eq_ignore_ascii_case(b"chunked");
        return match is_chunked
            && codings.next().is_none()
            && named("Content-Length").next().is_none()
        {
            true => Ok((None, expects)),
            false => Err("Transfer-Encoding is not understood: say Content-Length."),
        };
    }
    let mut lengths = named("Content-Length").map(|field| length(field.value));
    let length = lengths
        .next()
        .unwrap_or(Some(0))
        .ok_or("Invalid Content-Length.")?;
    if lengths.any(|other| other != Some(length)) {
        return Err("Content-Length says two things.");
    }
    Ok((Some(length), expects))
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
#[path = "request_tests.rs"]
mod tests;
