//! Settings that are written as a list of keys: `root.erofs,ro,cache=writeback`.

use super::{Error, Memory, Setting};
use std::borrow::Cow;

/// What has the keys of an interface, in messages.
pub(super) const NET: &str = "a network interface";

/// The keys of one text as a user gave them; each is known and given once.
pub(super) struct Flag<'a> {
    of: &'static str,
    given: Vec<(&'static str, Option<Cow<'a, str>>)>,
}

impl<'a> Flag<'a> {
    /// Splits the text of a setting, which is `of` something. What comes first may be a value alone; it then belongs to
    /// `main`, unless it is one of the keys.
    ///
    /// # Errors
    /// A key that the setting does not have, with the nearest that is, or one given twice.
    pub fn parse(
        setting: Setting,
        of: &'static str,
        main: &'static str,
        text: &'a str,
    ) -> Result<Self, Error> {
        let keys: Vec<&str> = setting.keys().map(Setting::name).collect();
        let mut given: Vec<(&'static str, Option<Cow<'a, str>>)> = Vec::new();
        for (index, item) in items(text).into_iter().enumerate() {
            let (key, value) = match item.split_once('=') {
                Some((key, value)) => (key.trim(), Some(value)),
                None if index == 0 && !keys.contains(&item) => (main, Some(item)),
                None => (item.trim(), None),
            };
            let Some(key) = keys.iter().copied().find(|known| *known == key) else {
                return Err(Error::FlagKey {
                    of,
                    key: key.into(),
                    nearest: setting.nearest_name(key),
                    known: keys.iter().map(|key| (*key).into()).collect(),
                });
            };
            if given.iter().any(|(other, _)| *other == key) {
                let key = key.into();
                return Err(Error::FlagTwice { of, key });
            }
            given.push((key, value.map(unescape)));
        }
        Ok(Self { of, given })
    }

    fn find(&self, key: &str) -> Option<Option<&str>> {
        let mut given = self.given.iter();
        given
            .find(|(other, _)| *other == key)
            .map(|(_, value)| value.as_deref())
    }

    /// The value of a key, if it was given.
    pub fn text(&self, key: &'static str, expected: &'static str) -> Result<Option<&str>, Error> {
        match self.find(key) {
            None => Ok(None),
            Some(Some(value)) if !value.is_empty() => Ok(Some(value)),
            Some(_) => Err(self.wrong(key, "", expected)),
        }
    }

    /// Whether a key stands there, alone or with `on`, `off` or the like.
    pub fn switch(&self, key: &'static str) -> Result<bool, Error> {
        self.switch_or(key, false)
    }

    /// The same, with what holds when the key does not stand there.
    pub fn switch_or(&self, key: &'static str, default: bool) -> Result<bool, Error> {
        match self.find(key) {
            None => Ok(default),
            Some(Some("off" | "no" | "false")) => Ok(false),
            Some(None | Some("on" | "yes" | "true")) => Ok(true),
            Some(Some(value)) => Err(self.wrong(key, value, "on or off")),
        }
    }

    /// A whole number.
    pub fn number(&self, key: &'static str) -> Result<Option<u64>, Error> {
        self.parsed(key, "a whole number", |text| text.parse().ok())
    }

    /// A number of bytes.
    pub fn bytes(&self, key: &'static str) -> Result<Option<Memory>, Error> {
        self.parsed(key, "a size such as 512K or 10M", |text| text.parse().ok())
    }

    /// A value that `parse` understands.
    pub fn parsed<T>(
        &self,
        key: &'static str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        self.text(key, expected)?
            .map(|text| parse(text).ok_or_else(|| self.wrong(key, text, expected)))
            .transpose()
    }

    fn wrong(&self, key: &'static str, value: &str, expected: &'static str) -> Error {
        Error::FlagValue {
            of: self.of,
            key,
            value: value.into(),
            expected,
        }
    }
}

/// The parts of a text between commas. Two commas are one that belongs to a part, which [`unescape`] sees to.
fn items(text: &str) -> Vec<&str> {
    let mut items = Vec::new();
    let (mut start, mut at) = (0, 0);
    while let Some(found) = text[at..].find(',') {
        let comma = at + found;
        at = match text[comma + 1..].starts_with(',') {
            true => comma + 2,
            false => {
                items.push(&text[start..comma]);
                start = comma + 1;
                start
            }
        };
    }
    items.push(&text[start..]);
    items
}

fn unescape(value: &str) -> Cow<'_, str> {
    match value.contains(",,") {
        true => value.replace(",,", ",").into(),
        false => value.into(),
    }
}

/// A file's name may have a comma, which is where keys are split.
pub(super) fn comma_hint(nearest: &Option<String>, known: &[String]) -> &'static str {
    match nearest.is_none() && known.iter().any(|key| key == "path") {
        true => "; a comma in a path is written twice: `a,,b.img`",
        false => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_a_value_is_written_twice() {
        for (text, parts) in [
            ("", &[""][..]),
            ("a", &["a"]),
            ("a,b", &["a", "b"]),
            ("a,", &["a", ""]),
            ("a,,b", &["a,b"]),
            ("a,,,b", &["a,", "b"]),
            (",,,,", &[",,"]),
            ("a,,b.img,ro,,", &["a,b.img", "ro,"]),
            ("\u{e9},,\u{e9},x", &["\u{e9},\u{e9}", "x"]),
        ] {
            let found: Vec<_> = items(text).into_iter().map(unescape).collect();
            assert_eq!(found, parts, "{text}");
        }
    }
}
