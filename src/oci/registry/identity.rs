//! Who asks, as a registry wants to be shown it: a name and a password, or a token.

use super::challenge::{self, Challenge};
use super::exchange::{self, Ask};
use super::token::{self, Giver, Refused};
use super::{Access, Error, Registry, is_loopback, lock};
use crate::credentials::Credentials;
use ureq::Body;
use ureq::http::{Response, Uri, header};

impl Registry {
    /// Notes what the registry wants to be shown. Whoever it leads to is shown nothing, and a password that is for one
    /// place is not for another one halfway.
    ///
    /// # Errors
    /// When the answer is not the registry's own, or wants it shown to somebody else than before.
    pub(super) fn heed(&self, answer: Response<Body>, what: &str) -> Result<(), Error> {
        if !exchange::is_of(&answer, &self.base) {
            return Err(self.status(answer, what, false));
        }
        let headers = answer.headers().get_all(header::WWW_AUTHENTICATE);
        let all = headers.iter().filter_map(|value| value.to_str().ok());
        let mut all: Vec<Challenge> = all.flat_map(challenge::parse).collect();
        all.sort_by_key(|challenge| *challenge == Challenge::Basic);
        let Some(first) = all.into_iter().next() else {
            return Ok(());
        };
        let mut known = lock(&self.challenge);
        let (before, after) = (
            known.as_ref().map(|it| self.shown_to(it)),
            self.shown_to(&first),
        );
        if before.is_some_and(|before| !exchange::is_same_origin(before, after)) {
            let why = format!("another place for passwords, `{}`", after.escape_debug());
            return Err(self.wrong(what, why));
        }
        *known = Some(first);
        Ok(())
    }

    /// Who gets to see a password: a URL.
    fn shown_to<'a>(&'a self, challenge: &'a Challenge) -> &'a str {
        match challenge {
            Challenge::Basic => &self.base,
            Challenge::Bearer { realm, .. } => realm,
        }
    }

    /// Asks whether a name and a password are taken.
    ///
    /// # Errors
    /// When they are not, or the registry does not answer.
    pub fn check(&self, credentials: &Credentials) -> Result<(), Error> {
        let challenge = lock(&self.challenge).clone();
        let authorization = match challenge {
            None => return Ok(()),
            Some(Challenge::Bearer { realm, service, .. }) => {
                let giver = self.giver(realm, service)?;
                let given = giver.ask(&self.agent, &[], Some(credentials));
                let token = given.map_err(|refused| self.refused(refused, "/v2/", true))?;
                format!("Bearer {token}")
            }
            Some(Challenge::Basic) => self.basic(credentials),
        };
        let ask = Ask::get(format!("{}/v2/", self.base));
        let answer = self.patient(|| ask.send(&self.agent, Some(&authorization)))?;
        match answer.status().is_success() {
            true => Ok(()),
            false => Err(self.status(answer, "/v2/", true)),
        }
    }

    pub(super) fn authorization(
        &self,
        access: &Access,
        what: &str,
    ) -> Result<Option<String>, Error> {
        let challenge = lock(&self.challenge).clone();
        match challenge {
            None => Ok(None),
            Some(Challenge::Basic) => {
                let credentials = self.credentials(access)?;
                Ok(credentials.map(|credentials| self.basic(&credentials)))
            }
            Some(Challenge::Bearer { realm, service, .. }) => {
                let key = access.key();
                if let Some(token) = lock(&self.tokens).get(&key) {
                    return Ok(Some(format!("Bearer {token}")));
                }
                let giver = self.giver(realm, service)?;
                let credentials = self.credentials(access)?;
                let given = giver.ask(&self.agent, &access.scopes(), credentials.as_ref());
                let token =
                    given.map_err(|refused| self.refused(refused, what, credentials.is_some()))?;
                lock(&self.tokens).insert(key, token.clone());
                Ok(Some(format!("Bearer {token}")))
            }
        }
    }

    /// A password does not go over a network without TLS because a registry says so.
    fn giver(&self, realm: String, service: Option<String>) -> Result<Giver, Error> {
        match is_safe(&realm, &self.base) {
            true => Ok(Giver { realm, service }),
            false => Err(self.wrong(
                "/v2/",
                format!("a place for tokens without TLS, `{}`", realm.escape_debug()),
            )),
        }
    }

    fn basic(&self, credentials: &Credentials) -> String {
        match credentials {
            Credentials::Password { user, password } => token::basic(user, password),
            Credentials::IdentityToken(token) => format!("Bearer {token}"),
        }
    }

    fn credentials(&self, access: &Access) -> Result<Option<Credentials>, Error> {
        Ok(self.shown.to(&self.name, access.repository())?)
    }

    pub(super) fn knows(&self, access: &Access) -> Result<bool, Error> {
        Ok(self.credentials(access)?.is_some())
    }

    fn refused(&self, refused: Refused, what: &str, known: bool) -> Error {
        match refused {
            Refused::Unreachable(source) => Error::Unreachable {
                registry: self.name.clone(),
                source: Box::new(source),
            },
            Refused::Status(status, body) => self.said(status, &body, what, known),
            Refused::Answer(why) => self.wrong(what, format!("{why} in the place of a token")),
        }
    }
}

/// Whether a password may go to a URL that a registry at `base` names: with TLS; without it only where the user has
/// agreed to that, which is the registry's own host, or within this one.
fn is_safe(url: &str, base: &str) -> bool {
    let parts = |url: &str| {
        let uri: Uri = url.parse().ok()?;
        Some((uri.scheme_str()?.to_owned(), uri.host()?.to_lowercase()))
    };
    let (Some((scheme, host)), Some((base_scheme, base_host))) = (parts(url), parts(base)) else {
        return false;
    };
    let is_near = host == base_host || is_loopback(&host) && is_loopback(&base_host);
    scheme == "https" || scheme == "http" && base_scheme == "http" && is_near
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_goes_without_tls_to_the_registrys_host_only() {
        for (url, base) in [
            ("https://auth.example/token", "https://registry.example"),
            ("https://auth.example/token", "http://registry.example"),
            (
                "http://registry.example:81/token",
                "http://registry.example:80",
            ),
            ("http://Registry.example/token", "http://registry.example"),
            ("http://localhost:81/token", "http://127.0.0.1:5000"),
            ("http://[::1]:81/token", "http://localhost"),
        ] {
            assert!(is_safe(url, base), "{url} of {base}");
        }
        for (url, base) in [
            ("http://registry.example/token", "https://registry.example"),
            ("http://localhost/token", "https://localhost"),
            ("http://evil.example/token", "http://registry.example"),
            ("http://evil.example/token", "http://localhost:5000"),
            ("http://localhost@evil.example/", "http://localhost:5000"),
            ("http://localhost/token", "http://registry.example"),
            ("ftp://localhost/token", "http://localhost"),
            ("token", "http://localhost"),
        ] {
            assert!(!is_safe(url, base), "{url} of {base}");
        }
    }
}
