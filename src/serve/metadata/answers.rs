//! What a guest's request is answered.

use super::counted::Counted;
use super::tokens::Tokens;
use crate::http::{Answer, JSON, Method, Request};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::net::Ipv4Addr;
use std::time::Duration;

/// How a guest asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// For a path.
    #[default]
    V1,
    /// For a token first, and with that for a path.
    V2,
}

/// What a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Where a guest finds it.
    pub address: Ipv4Addr,
    /// How a guest asks it.
    pub version: Version,
    /// All is told as text.
    pub imds_compat: bool,
}

/// What is found, and how it is told.
#[derive(Debug)]
pub struct Answers {
    version: Version,
    /// All is told as text, whatever a request accepts.
    is_text: bool,
    tokens: Tokens,
    data: Value,
    /// What was done so far.
    pub(super) counted: Counted,
}

/// The fields of a request's head that matter here.
#[derive(Debug, Default)]
pub(super) struct Fields {
    accepts_json: bool,
    token: Option<String>,
    /// The field's name as it was written, and how long a token is to be good.
    lifetime: Option<(String, String)>,
    /// It came by somebody else.
    forwarded: Option<String>,
}

const TEXT: &str = "text/plain";
const TOKENS: [&str; 2] = ["X-metadata-token", "X-aws-ec2-metadata-token"];
const LIFETIMES: [&str; 2] = [
    "X-metadata-token-ttl-seconds",
    "X-aws-ec2-metadata-token-ttl-seconds",
];
/// Six hours.
const LONGEST_LIFE: u32 = 21600;
const TOKEN_PATH: &str = "/latest/api/token";

impl Fields {
    /// Notes a field, if it matters.
    pub fn note(&mut self, name: &str, value: &[u8]) {
        let is = |names: &[&str]| names.iter().any(|other| other.eq_ignore_ascii_case(name));
        let text = || String::from_utf8_lossy(value.trim_ascii()).into_owned();
        if is(&["Accept"]) {
            let mut kinds = value.split(|byte| *byte == b',');
            self.accepts_json |= kinds.any(|kind| {
                let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
                kind.trim_ascii().eq_ignore_ascii_case(JSON.as_bytes())
            });
        } else if is(&TOKENS) {
            self.token = Some(text());
        } else if is(&LIFETIMES) {
            self.lifetime = Some((name.into(), text()));
        } else if is(&["X-Forwarded-For"]) {
            self.forwarded = Some(name.into());
        }
    }
}

fn text(status: u16, body: impl Into<String>) -> Answer {
    Answer::new(status, Some(body.into())).of_kind(TEXT)
}

/// How something is answered that is no request.
pub(super) fn bad(status: u16, why: String) -> Answer {
    text(status, why)
}

impl Answers {
    /// With nothing to be found yet, and a secret that nobody else has.
    pub fn new(version: Version, is_text: bool, secret: [u8; 32]) -> Self {
        Self {
            version,
            is_text,
            tokens: Tokens::new(secret),
            data: Value::Null,
            counted: Counted::default(),
        }
    }

    /// Replaces what is found.
    pub fn set(&mut self, data: Value) {
        self.data = data;
    }

    /// Answers a request that has come now.
    pub(super) fn answer(&mut self, request: &Request, fields: &Fields, now: Duration) -> Answer {
        match request.method {
            Method::Get => self.get(&request.path, fields, now),
            Method::Put => self.put(&request.path, fields, now),
            _ => text(405, "Not allowed HTTP method.").with("Allow", "GET, PUT"),
        }
    }

    fn get(&mut self, path: &str, fields: &Fields, now: Duration) -> Answer {
        if self.version == Version::V2 {
            let Some(token) = &fields.token else {
                self.counted.rx_no_token += 1;
                let [name, other] = TOKENS;
                let why = format!("No MMDS token provided: `{name}` or `{other}` has to be one.");
                return text(401, why);
            };
            if !self.tokens.know(token, now) {
                self.counted.rx_invalid_token += 1;
                return text(401, "MMDS token not valid.");
            }
        }
        let pointer = single(path);
        let pointer = pointer.strip_suffix('/').unwrap_or(&pointer);
        // A null is what is there before anything was put.
        let found = self.data.pointer(pointer).filter(|_| !self.data.is_null());
        let Some(found) = found else {
            return not_found(path);
        };
        let kind = if fields.accepts_json { JSON } else { TEXT };
        let told = match fields.accepts_json && !self.is_text {
            true => Some(found.to_string()),
            false => listed(found),
        };
        match told {
            Some(told) => Answer::told(told).of_kind(kind),
            None => text(
                501,
                "Cannot retrieve value. The value has an unsupported type.",
            ),
        }
    }

    fn put(&mut self, path: &str, fields: &Fields, now: Duration) -> Answer {
        if let Some(name) = &fields.forwarded {
            let why = format!("Invalid header. Reason: Unsupported header name. Key: {name}");
            return text(400, why);
        }
        if single(path) != TOKEN_PATH {
            return not_found(path);
        }
        let Some((name, value)) = &fields.lifetime else {
            let [name, other] = LIFETIMES;
            let why = format!("Token time to live value not found: `{name}` or `{other}` says it.");
            return text(400, why);
        };
        let Ok(seconds) = value.parse::<u32>() else {
            let why = format!("Invalid header. Reason: Invalid value. Key:{name}; Value:{value}");
            return text(400, why);
        };
        if !(1..=LONGEST_LIFE).contains(&seconds) {
            return text(
                400,
                format!(
                    "Invalid time to live value provided for token: {seconds}. It has to be from 1 to {LONGEST_LIFE}."
                ),
            );
        }
        let end = now + Duration::from_secs(seconds.into());
        let told = LIFETIMES.into_iter();
        let name = told
            .clone()
            .find(|known| known.eq_ignore_ascii_case(name))
            .unwrap_or(LIFETIMES[0]);
        text(200, self.tokens.make(end)).with(name, seconds.to_string())
    }
}

fn not_found(path: &str) -> Answer {
    text(404, format!("Resource not found: {path}."))
}

/// A path in which no slash follows another.
fn single(path: &str) -> String {
    let mut single = String::with_capacity(path.len());
    for char in path.chars() {
        if char != '/' || !single.ends_with('/') {
            single.push(char);
        }
    }
    single
}

/// As EC2's service tells it: text as it is, and of an object the names, with a slash behind those of objects. Nothing else
/// can be told so.
fn listed(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Object(fields) => {
            let names = fields.iter().map(|(name, value)| match value {
                Value::Object(_) => format!("{name}/"),
                _ => name.clone(),
            });
            Some(names.collect::<Vec<_>>().join("\n"))
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "answers_tests.rs"]
mod tests;
