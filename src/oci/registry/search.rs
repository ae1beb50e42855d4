//! Which images a registry has: its search, in the form that docker's has (version 1), or the list of its repositories
//! (distribution's `_catalog`).

use super::exchange::{self, Ask};
use super::{Access, Error, Registry, token};
use kvmlet_image::reference::{DEFAULT_REGISTRY, Reference};
use serde::Deserialize;
use std::time::{Duration, Instant};
use ureq::Body;
use ureq::http::{Response, StatusCode, header};

/// The longest answer that is read.
const MAX_LENGTH: usize = 4 << 20;
/// How many names are asked for at once, and how many times: more than a million are in no list.
const PAGE: usize = 1000;
const MAX_PAGES: usize = 1000;
/// And for how long.
const LISTING: Duration = Duration::from_secs(60);
/// Who searches for Docker Hub, which has no list of its repositories.
const HUB: &str = "https://index.docker.io";

/// An image that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Its repository in that registry, without that: `nginx` of Docker Hub's official ones.
    pub name: String,
    /// What its maker says of it: nothing that steers a terminal, on one line.
    pub description: String,
    /// How many like it.
    pub stars: u64,
    /// It is one of docker's official images.
    pub is_official: bool,
}

#[derive(Deserialize)]
struct Answer {
    results: Vec<One>,
}

#[derive(Default, Deserialize)]
struct One {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    star_count: Option<u64>,
    #[serde(default)]
    is_official: Option<bool>,
}

impl One {
    fn called(name: String) -> Self {
        Self {
            name: Some(name),
            ..Self::default()
        }
    }
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    repositories: Option<Vec<String>>,
}

impl Registry {
    /// Images that have to do with a text, at most so many: by the registry's own search, or, where it has none, those of
    /// its repositories that have it in their names. Without a text, its repositories.
    ///
    /// # Errors
    /// When it tells nobody what it has.
    pub fn search(&self, text: &str, most: usize) -> Result<Vec<Hit>, Error> {
        let access = Access::catalog();
        let found = match text {
            "" => None,
            text => self.by_search(text, most, &access)?,
        };
        match found {
            Some(found) => Ok(found),
            None if self.name() == DEFAULT_REGISTRY => Err(self.tells_nothing()),
            None => self.by_list(text, most, &access),
        }
    }

    fn tells_nothing(&self) -> Error {
        Error::NoSearch {
            registry: self.name.clone(),
        }
    }

    /// What its search says, if it has one. Passwords are for the registry, which Docker Hub's search is not part of.
    fn by_search(
        &self,
        text: &str,
        most: usize,
        access: &Access,
    ) -> Result<Option<Vec<Hit>>, Error> {
        let is_hub = self.name() == DEFAULT_REGISTRY;
        let base = if is_hub { HUB } else { &self.base };
        let url = format!("{base}/v1/search?q={}&n={most}", token::escaped(text));
        let ask = Ask::get(url).header(header::ACCEPT, "application/json");
        let mut answer = self.patient(|| ask.send(&self.agent, None))?;
        if answer.status() == StatusCode::UNAUTHORIZED && !is_hub {
            answer = match self.ask(&ask, access, "/v1/search") {
                Err(Error::Denied { .. }) => return Ok(None),
                other => other?,
            };
        }
        if is_hub && !answer.status().is_success() {
            return Err(self.status(answer, "/v1/search", false));
        }
        if !answer.status().is_success() {
            return Ok(None);
        }
        // Many a server has a page for people at each path.
        let Ok(found) = serde_json::from_slice::<Answer>(&self.whole(answer, "/v1/search")?) else {
            return Ok(None);
        };
        let hits = found.results.into_iter().filter_map(|one| self.hit(one));
        Ok(Some(hits.take(most).collect()))
    }

    /// Those of its repositories that have a text in their names.
    fn by_list(&self, text: &str, most: usize, access: &Access) -> Result<Vec<Hit>, Error> {
        const WHAT: &str = "/v2/_catalog";
        let mut url = format!("{}{WHAT}?n={PAGE}", self.base);
        let mut hits: Vec<Hit> = Vec::new();
        let since = Instant::now();
        for _ in 0..MAX_PAGES {
            let answer = self.ask(&Ask::get(url.clone()), access, WHAT)?;
            match answer.status().as_u16() {
                200 => {}
                401 | 403 | 429 | 500.. => {
                    return Err(self.status(answer, WHAT, self.knows(access)?));
                }
                _ => return Err(self.tells_nothing()),
            }
            let next = exchange::text(answer.headers(), &header::LINK);
            let next = next.and_then(|link| exchange::resolve(&url, following(&link)?));
            let page = self.whole(answer, WHAT)?;
            let page: Page = serde_json::from_slice(&page).map_err(|_| self.tells_nothing())?;
            let names = page.repositories.unwrap_or_default();
            for name in names.into_iter().filter(|name| name.contains(text)) {
                if hits.iter().all(|hit| hit.name != name) {
                    hits.extend(self.hit(One::called(name)));
                }
                if hits.len() == most {
                    return Ok(hits);
                }
            }
            match next.filter(|next| exchange::is_same_origin(next, &self.base)) {
                Some(next) if next != url && since.elapsed() < LISTING => url = next,
                Some(next) if next != url => {
                    log::warn!(
                        "the registry `{}` has more than could be looked through in {} s",
                        self.name,
                        LISTING.as_secs()
                    );
                    break;
                }
                _ => break,
            }
        }
        Ok(hits)
    }

    fn whole(&self, answer: Response<Body>, what: &str) -> Result<Vec<u8>, Error> {
        exchange::read(answer, MAX_LENGTH).map_err(|error| {
            let why = match error.kind() {
                std::io::ErrorKind::FileTooLarge => format!("more than {MAX_LENGTH} bytes"),
                _ => format!("something that cannot be read: {error}"),
            };
            self.wrong(what, why)
        })
    }

    /// What can be pulled of what a stranger names.
    fn hit(&self, one: One) -> Option<Hit> {
        let name = one.name?;
        // A host that looks like one, whatever this is.
        let reference = Reference::parse(&format!("registry.example/{name}")).ok()?;
        let is_plain = reference.repository() == name;
        let description = one.description.unwrap_or_default();
        let words = description.split(|c: char| c.is_control() || c == ' ');
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        is_plain.then(|| Hit {
            name,
            description: words.join(" "),
            stars: one.star_count.unwrap_or(0),
            is_official: one.is_official.unwrap_or(false),
        })
    }
}

/// Where the next page is, as a `Link` says (RFC 8288).
fn following(link: &str) -> Option<&str> {
    let links = link.split(',').filter_map(|one| {
        let (target, parameters) = one.trim().strip_prefix('<')?.split_once('>')?;
        let mut parameters = parameters.split(';').map(str::trim);
        let is_next = parameters.any(|it| matches!(it, "rel=\"next\"" | "rel=next"));
        is_next.then_some(target)
    });
    links.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found() {
        for (link, expected) in [
            (
                "</v2/_catalog?last=b&n=2>; rel=\"next\"",
                Some("/v2/_catalog?last=b&n=2"),
            ),
            ("<a>; rel=prev, <b>; x; rel=next", Some("b")),
            ("<a>; rel=\"prev\"", None),
            ("a; rel=next", None),
            ("<a", None),
            ("", None),
        ] {
            assert_eq!(following(link), expected, "{link}");
        }
    }
}
