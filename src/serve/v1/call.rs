//! A request whose route is known.

use super::problem::{BAD_REQUEST, NOT_FOUND, Problem};
use super::route::{Parameter, Route};
use super::subject::{Alone, Subject};
use super::unique::said_twice;
use crate::http::{Along, decoded};
use kvmlet_manager::{Book, Instance, Name, View};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What is asked for.
#[derive(Debug)]
pub struct Call {
    /// Whose VMs are meant.
    pub subject: Subject,
    /// Which VM it is about, if the path says so.
    pub name: String,
    /// Parameters that were given, of those that the route has.
    query: BTreeMap<&'static str, String>,
    /// As it was sent.
    pub body: Vec<u8>,
    /// What has come along.
    files: Vec<File>,
    /// Nobody waits for the answer any more.
    pub gone: Arc<AtomicBool>,
}

impl Call {
    /// Reads what stands behind the `?`. What no route has is refused.
    pub fn new(
        subject: Subject,
        route: &Route,
        name: String,
        query: &str,
        body: Vec<u8>,
    ) -> Result<Self, Problem> {
        let query = read_query(query, route.query)?;
        Ok(Self {
            subject,
            name,
            query,
            body,
            files: Vec::new(),
            gone: Arc::default(),
        })
    }

    /// The same, with what has come along.
    pub fn with(self, along: Along) -> Result<Self, Problem> {
        if along.too_many {
            let most = along.descriptors.len();
            let detail =
                format!("more descriptors came along than may, which is {most} at the most");
            return Err(Problem::new(BAD_REQUEST, detail));
        }
        let files = along.descriptors.into_iter().map(File::from).collect();
        Ok(Self { files, ..self })
    }

    /// A descriptor that has come along, by its place among those.
    pub fn file(&self, place: u32) -> Result<&File, Problem> {
        self.files.get(place as usize).ok_or_else(|| {
            let came = match self.files.len() {
                0 => "no descriptor came".into(),
                1 => "one descriptor came".into(),
                count => format!("{count} descriptors came"),
            };
            let detail = format!(
                "{came} along with the request, and none has the place {place} (the first has 0)"
            );
            Problem::in_field("fd", detail)
        })
    }

    /// A parameter.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// One that is a whole number of those.
    pub fn number(&self, name: &str, all: RangeInclusive<u64>) -> Result<Option<u64>, Problem> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let number = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = number.then(|| text.parse().ok()).flatten();
        match number.filter(|number| all.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(Problem::in_field(
                name,
                format!(
                    "`{name}` is a whole number from {} to {}",
                    all.start(),
                    all.end()
                ),
            )),
        }
    }

    /// One that is true or false.
    pub fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Problem::in_field(
                name,
                format!("`{name}` is `true` or `false`"),
            )),
        }
    }

    /// The body, as what it is to be.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        if let Some(key) = said_twice(&self.body) {
            let detail = format!("the body has the key `{}` twice", key.escape_debug());
            return Err(Problem::in_field(key, detail).help("say it once"));
        }
        if let Some(what) = is_no_object(&self.body) {
            let detail = format!("the body is {what}, and is to be a JSON object");
            return Err(Problem::new(BAD_REQUEST, detail).help(HELP));
        }
        let mut json = serde_json::Deserializer::from_slice(&self.body);
        let read = serde_path(&mut json);
        read.map_err(|error| {
            let detail = format!("the body is not what it is to be: {error}");
            let mut problem = Problem::new(BAD_REQUEST, detail).help(HELP);
            // serde quotes the key that it does not know, or misses.
            let message = error.to_string();
            let is_field = message.contains("unknown field") || message.contains("missing field");
            problem.field = message
                .split('`')
                .nth(1)
                .filter(|_| is_field)
                .map(Into::into);
            problem
        })
    }

    /// The user's, for what is asked of all of them.
    pub fn book(&self) -> Result<&Arc<Book>, Problem> {
        match &self.subject {
            Subject::Book(book) => Ok(book),
            Subject::Vm(_) => Err(Problem::new(
                NOT_FOUND,
                "this server has one VM, and no book",
            )),
        }
    }

    /// The only VM that there is.
    pub fn vm(&self) -> Result<&Arc<Alone>, Problem> {
        match &self.subject {
            Subject::Vm(vm) => Ok(vm),
            Subject::Book(_) => Err(Problem::new(NOT_FOUND, "this server has all VMs of a user")),
        }
    }

    /// What the path names.
    pub fn instance(&self) -> Result<Instance, Problem> {
        Ok(self.book()?.find(&self.name)?)
    }

    /// The same, and what is known of it.
    pub fn look(&self) -> Result<(Instance, View), Problem> {
        let instance = self.instance()?;
        let view = self.book()?.view(&instance)?;
        Ok((instance, view))
    }

    /// The path's name, for something that is new.
    pub fn new_name(&self) -> Result<Name, Problem> {
        let name = self.name.parse::<Name>();
        name.map_err(|error| Problem::in_field("name", error.to_string()))
    }
}

const HELP: &str = "`GET /v1/openapi.json` says what it is to be";

/// What a body is by how it begins, if no object begins so. A list would be taken for one, member by member.
fn is_no_object(body: &[u8]) -> Option<&'static str> {
    Some(match body.trim_ascii_start().first() {
        Some(b'{') => return None,
        Some(b'[') => "a list",
        Some(b'"') => "a text",
        Some(b'-' | b'0'..=b'9') => "a number",
        Some(b't' | b'f' | b'n') => "a single word",
        Some(_) => "no JSON",
        None => "missing",
    })
}

fn serde_path<'de, T: DeserializeOwned>(
    json: &mut serde_json::Deserializer<serde_json::de::SliceRead<'de>>,
) -> serde_json::Result<T> {
    let read = T::deserialize(&mut *json)?;
    json.end()?;
    Ok(read)
}

fn read_query(
    query: &str,
    known: &'static [Parameter],
) -> Result<BTreeMap<&'static str, String>, Problem> {
    let mut read = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (
            decoded(&name.replace('+', " ")),
            decoded(&value.replace('+', " ")),
        );
        let (Some(name), Some(value)) = (name, value) else {
            let detail = "what stands behind `?` is not percent-encoded UTF-8";
            return Err(Problem::new(BAD_REQUEST, detail));
        };
        let Some(parameter) = known.iter().find(|parameter| parameter.name == name) else {
            let all: Vec<_> = known.iter().map(|parameter| parameter.name).collect();
            let help = match all.is_empty() {
                true => "it takes none".into(),
                false => format!("it takes {}", all.join(", ")),
            };
            let detail = format!("there is no parameter `{}` here", name.escape_debug());
            return Err(Problem::in_field(name, detail).help(help));
        };
        if read.insert(parameter.name, value).is_some() {
            let detail = format!("`{name}` is said twice");
            return Err(Problem::in_field(name, detail));
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_those_of_the_route() {
        const KNOWN: &[Parameter] = &[Parameter {
            name: "since",
            about: "",
            schema: "{}",
            required: false,
        }];
        let read = read_query("since=a+b&", KNOWN).unwrap();
        assert_eq!(read["since"], "a b");
        for (query, part) in [
            ("since=1&since=2", "twice"),
            ("until=1", "no parameter `until`"),
            ("since=%zz", "percent-encoded"),
        ] {
            let problem = read_query(query, KNOWN).unwrap_err();
            assert!(problem.detail.contains(part), "{}", problem.detail);
            assert_eq!(problem.status, 400);
        }
    }
}
