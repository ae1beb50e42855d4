//! Which instances a list has: `KEY=VALUE`, docker's keys. Of one key any value will do, but all labels have to be there.

use crate::{End, State, View};
use std::collections::BTreeMap;

/// Text that is not a filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAFilter {
    /// Without a value.
    #[error("`{}` is not a filter (KEY=VALUE)", .0.escape_debug())]
    Syntax(String),
    /// A key that there is not.
    #[error("there is no filter `{}` (ancestor, exited, health, id, label, name, status)", .0.escape_debug())]
    Key(String),
    /// A value that the key cannot have.
    #[error("`{}` is not {expected}", text.escape_debug())]
    Value {
        /// What the user wrote.
        text: String,
        /// What it should have been.
        expected: &'static str,
    },
}

#[derive(Clone, Debug)]
enum One {
    Id(String),
    Name(String),
    Status(State),
    Exited(u8),
    Image(String),
    Health(String),
    Label(String, Option<String>),
}

/// Filters, all of which an instance has to pass.
#[derive(Clone, Debug, Default)]
pub struct Filters(BTreeMap<String, Vec<One>>);

impl Filters {
    /// One more.
    ///
    /// # Errors
    /// When it is not one.
    pub fn add(&mut self, text: &str) -> Result<(), NotAFilter> {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| NotAFilter::Syntax(text.into()))?;
        let wrong = |expected| NotAFilter::Value {
            text: value.into(),
            expected,
        };
        let one = match key {
            "id" => One::Id(value.into()),
            "name" => One::Name(value.into()),
            "ancestor" => One::Image(value.into()),
            "status" => {
                let mut states = State::ALL.into_iter();
                let found = states.find(|state| state.name() == value);
                One::Status(found.ok_or_else(|| {
                    wrong("a state (created, running, paused, suspended, restarting, exited, dead)")
                })?)
            }
            "exited" => One::Exited(
                value
                    .parse()
                    .map_err(|_| wrong("an exit code from 0 to 255"))?,
            ),
            "health" if ["starting", "healthy", "unhealthy", "none"].contains(&value) => {
                One::Health(value.into())
            }
            "health" => return Err(wrong("a health (starting, healthy, unhealthy, none)")),
            "label" => match value.split_once('=') {
                Some((name, value)) => One::Label(name.into(), Some(value.into())),
                None => One::Label(value.into(), None),
            },
            _ => return Err(NotAFilter::Key(key.into())),
        };
        self.0.entry(key.into()).or_default().push(one);
        Ok(())
    }

    /// Does it ask for instances in a state, so that a list is not of those that run only?
    pub fn asks_for_state(&self) -> bool {
        ["status", "exited"]
            .iter()
            .any(|key| self.0.contains_key(*key))
    }

    /// Does an instance pass?
    pub fn pass(&self, view: &View) -> bool {
        self.0.iter().all(|(key, ones)| match key.as_str() {
            "label" => ones.iter().all(|one| one.passes(view)),
            _ => ones.iter().any(|one| one.passes(view)),
        })
    }
}

impl One {
    fn passes(&self, view: &View) -> bool {
        match self {
            Self::Id(id) => view.id.as_str().starts_with(id.as_str()),
            Self::Name(name) => view
                .name
                .as_ref()
                .is_some_and(|it| it.as_str().contains(name.as_str())),
            Self::Status(state) => view.state == *state,
            Self::Exited(code) => {
                matches!(&view.end, Some(End::Told(outcome)) if outcome.code == *code)
            }
            Self::Image(image) => [&*view.asked.image, view.asked.image_name()].contains(&&**image),
            Self::Health(health) => view.record.health.as_deref().unwrap_or("none") == health,
            Self::Label(name, value) => {
                let found = view.asked.labels.get(name);
                found.is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Book, InstanceId};

    #[test]
    fn filters_are_dockers() {
        let place = tempfile::tempdir().unwrap();
        let book = Book::at(&place.path().join("book")).unwrap();
        let mut asked = crate::Asked::new(InstanceId::random().unwrap(), "nginx.erofs");
        asked.labels.insert("tier".into(), "front".into());
        asked.labels.insert("test".into(), String::new());
        let (instance, name) = book.create(Some(&"web-1".parse().unwrap()), asked).unwrap();
        drop(
            instance
                .own()
                .unwrap()
                .begin()
                .unwrap()
                .end(7, None)
                .unwrap(),
        );
        let view = instance.view(Some(name)).unwrap();
        let passes = |texts: &[&str]| {
            let mut filters = Filters::default();
            texts.iter().for_each(|text| filters.add(text).unwrap());
            filters.pass(&view)
        };
        assert!(passes(&[]));
        for good in [
            &["name=eb"][..],
            &["name=db", "name=web"],
            &["status=exited"],
            &["status=running", "status=exited"],
            &["exited=7"],
            &["label=tier"],
            &["label=tier=front", "label=test"],
            &["ancestor=nginx.erofs"],
            &["health=none"],
            &["name=web", "status=exited"],
            &[&format!("id={}", view.id.short())],
        ] {
            assert!(passes(good), "{good:?}");
        }
        for bad in [
            &["name=db"][..],
            &["status=running"],
            &["exited=0"],
            &["label=tier=back"],
            &["label=tier", "label=none"],
            &["name=web", "status=dead"],
            &["health=healthy"],
            &["ancestor=nginx"],
            &["id=0x"],
        ] {
            assert!(!passes(bad), "{bad:?}");
        }
        for (text, expected) in [
            ("running", "`running` is not a filter (KEY=VALUE)"),
            ("color=red", "there is no filter `color` (ancestor"),
            ("status=up", "`up` is not a state (created, running"),
            ("exited=256", "is not an exit code"),
            ("health=ill", "is not a health"),
        ] {
            let error = Filters::default().add(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
