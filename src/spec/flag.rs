//! Settings that are written as a list of keys: `root.erofs,ro,cache=writeback`.

use super::{Error, Memory, Setting, json};

/// The keys of one text as a user gave them; each is known and given once.
pub(super) struct Flag<'a> {
    of: &'static str,
    given: Vec<(&'a str, Option<&'a str>)>,
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
        let mut given: Vec<(&'a str, Option<&'a str>)> = Vec::new();
        for (index, item) in text.split(',').enumerate() {
            let (key, value) = match item.split_once('=') {
                Some((key, value)) => (key.trim(), Some(value)),
                None if index == 0 && !keys.contains(&item) => (main, Some(item)),
                None => (item.trim(), None),
            };
            if !keys.contains(&key) {
                return Err(Error::FlagKey {
                    of,
                    key: key.into(),
                    nearest: json::nearest(key, keys.iter().copied()),
                    known: keys.iter().map(|key| (*key).into()).collect(),
                });
            }
            if given.iter().any(|(other, _)| *other == key) {
                let key = key.into();
                return Err(Error::FlagTwice { of, key });
            }
            given.push((key, value));
        }
        Ok(Self { of, given })
    }

    fn find(&self, key: &str) -> Option<Option<&'a str>> {
        let mut given = self.given.iter();
        given
            .find(|(other, _)| *other == key)
            .map(|(_, value)| *value)
    }

    /// The value of a key, if it was given.
    pub fn text(
        &self,
        key: &'static str,
        expected: &'static str,
    ) -> Result<Option<&'a str>, Error> {
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

/// A file's name may have a comma, which is where the keys of a flag are split.
pub(super) fn comma_hint(nearest: &Option<String>, known: &[String]) -> &'static str {
    match nearest.is_none() && known.iter().any(|key| key == "path") {
        true => "; a path with a comma in it can only be given in a configuration file",
        false => "",
    }
}
