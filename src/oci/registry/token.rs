//! Tokens that a registry takes, from who gives them (distribution's token authentication).

use super::exchange::{self, Ask};
use crate::credentials::Credentials;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use ureq::Agent;
use ureq::http::{Method, StatusCode, header};

/// The longest answer that is read.
const MAX_LENGTH: usize = 1 << 20;

/// Who gives tokens, for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Giver {
    /// A URL.
    pub realm: String,
    /// Its name for the registry.
    pub service: Option<String>,
}

#[derive(Deserialize)]
struct Given {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

/// Why there is no token.
#[derive(Debug)]
pub enum Refused {
    /// Who gives tokens cannot be reached.
    Unreachable(ureq::Error),
    /// It says no.
    Status(StatusCode, Vec<u8>),
    /// It answers with something else.
    Answer(&'static str),
}

/// What HTTP shows a name and a password as.
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

impl Giver {
    /// Asks for one that is good for `scopes`.
    pub fn ask(
        &self,
        agent: &Agent,
        scopes: &[String],
        credentials: Option<&Credentials>,
    ) -> Result<String, Refused> {
        let form;
        let (ask, authorization) = match credentials {
            Some(Credentials::IdentityToken(token)) => {
                form = self.form(scopes, token);
                let ask = Ask {
                    method: Method::POST,
                    url: self.realm.clone(),
                    headers: Vec::new(),
                    body: form.as_bytes(),
                    receiving: exchange::RECEIVING,
                };
                let kind = "application/x-www-form-urlencoded";
                (ask.header(header::CONTENT_TYPE, kind), None)
            }
            Some(Credentials::Password { user, password }) => {
                let url = self.url(scopes, Some(user));
                (Ask::get(url), Some(basic(user, password)))
            }
            None => (Ask::get(self.url(scopes, None)), None),
        };
        let answer = ask.send(agent, authorization.as_deref());
        let answer = answer.map_err(Refused::Unreachable)?;
        let status = answer.status();
        let bytes = exchange::read(answer, MAX_LENGTH);
        let bytes = bytes.map_err(|_| Refused::Answer("an answer that cannot be read"))?;
        if !status.is_success() {
            return Err(Refused::Status(status, bytes));
        }
        let given: Given =
            serde_json::from_slice(&bytes).map_err(|_| Refused::Answer("no JSON"))?;
        let token = given
            .token
            .or(given.access_token)
            .filter(|token| !token.is_empty());
        token.ok_or(Refused::Answer("no token"))
    }

    fn url(&self, scopes: &[String], account: Option<&str>) -> String {
        let mut url = self.realm.clone();
        let mut add = |name: &str, value: &str| {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(&format!("{name}={}", escaped(value)));
        };
        if let Some(service) = &self.service {
            add("service", service);
        }
        scopes.iter().for_each(|scope| add("scope", scope));
        if let Some(account) = account {
            add("account", account);
        }
        url
    }

    fn form(&self, scopes: &[String], token: &str) -> String {
        let service = self.service.as_deref().unwrap_or_default();
        let pairs = [
            ("grant_type", "refresh_token"),
            ("service", service),
            ("client_id", "kvmlet"),
            ("scope", &scopes.join(" ")),
            ("refresh_token", token),
        ];
        let pairs = pairs.map(|(name, value)| format!("{name}={}", escaped(value)));
        pairs.join("&")
    }
}

/// As a part of a URL's query.
pub fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' | b':' => {
                escaped.push(byte.into());
            }
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_escaped() {
        let giver = Giver {
            realm: "https://auth/token".into(),
            service: Some("a b&c".into()),
        };
        assert_eq!(
            giver.url(&["repository:a/b:pull,push".into()], Some("me@home")),
            "https://auth/token?service=a%20b%26c&scope=repository:a/b:pull%2Cpush&account=me%40home"
        );
        assert_eq!(
            giver.form(&["x".into(), "y".into()], "t+t"),
            "grant_type=refresh_token&service=a%20b%26c&client_id=kvmlet&scope=x%20y&refresh_token=t%2Bt"
        );
    }
}
