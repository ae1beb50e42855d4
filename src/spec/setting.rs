//! Settings by name, in the words of whoever asks: a command line, a configuration file.

pub use super::definitions::{Definition, Setting};
use super::nearest;
use std::fmt;

/// Whose words a setting is named in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dialect {
    /// Keys of a configuration file: what an error says by itself.
    #[default]
    File,
    /// Flags of a command line.
    Flags,
}

impl Setting {
    /// The key of its text form that was most likely meant by a name that is not known.
    pub(super) fn nearest_name(self, name: &str) -> Option<String> {
        nearest::name(self, name)
    }

    /// Its long flag, without dashes.
    pub const fn flag(self) -> &'static str {
        self.definition().flag
    }

    /// What stands in the place of its value.
    pub const fn value(self) -> &'static str {
        self.definition().value
    }

    /// What it does.
    pub const fn help(self) -> &'static str {
        self.definition().help
    }

    /// The settings whose flags are their own, in the order in which they are told.
    pub fn of_flags() -> impl Iterator<Item = Setting> + Clone {
        let is_flag = |it: &Setting| it.definition().name.is_none();
        Setting::ALL.iter().copied().filter(is_flag)
    }

    /// The settings that are keys of the value of this one's flag.
    pub fn keys(self) -> impl Iterator<Item = Setting> + Clone {
        let flag = self.definition().flag;
        let is_key = move |it: &Setting| {
            let definition = it.definition();
            definition.flag == flag && definition.name.is_some()
        };
        Setting::ALL.iter().copied().filter(is_key)
    }

    /// The key of its flag's value; the flag itself where it is none.
    pub fn name(self) -> &'static str {
        let definition = self.definition();
        definition.name.unwrap_or(definition.flag)
    }

    /// Writes its name, or what sets it to a value.
    pub(super) fn write(
        self,
        out: &mut impl fmt::Write,
        value: Option<&str>,
        dialect: Dialect,
    ) -> fmt::Result {
        match dialect {
            Dialect::Flags => self.write_flag(out, value),
            Dialect::File => self.write_key(out, value),
        }
    }

    /// Is its value a number in JSON?
    fn is_number(self) -> bool {
        ["N", "FACTOR", "CPUS", "SECONDS", "BYTES"].contains(&self.definition().value)
    }

    fn write_flag(self, out: &mut impl fmt::Write, value: Option<&str>) -> fmt::Result {
        let Definition { flag, name, .. } = self.definition();
        match (name, value) {
            (None, None) => write!(out, "--{flag}"),
            (None, Some(value)) => write!(out, "--{flag} {value}"),
            (Some(name), None) => write!(out, "`{name}` of --{flag}"),
            // What comes first there has no key.
            (Some("path"), Some(value)) => write!(out, "--{flag} {value}"),
            (Some(name), Some(value)) => {
                let has_path = self.keys().any(|key| key.name() == "path");
                let path = if has_path { "FILE," } else { "" };
                write!(out, "--{flag} {path}{name}={value}")
            }
        }
    }

    fn write_key(self, out: &mut impl fmt::Write, value: Option<&str>) -> fmt::Result {
        let key = self.definition().key;
        let Some(value) = value else {
            return write!(out, "`{}`", key.trim_end_matches("[]"));
        };
        out.write_char('`')?;
        let mut closing = String::new();
        for (number, step) in key.split('.').enumerate() {
            if number > 0 {
                out.write_char('{')?;
                closing.insert(0, '}');
            }
            match step.strip_suffix("[]") {
                Some(list) => {
                    write!(out, "\"{list}\": [")?;
                    closing.insert(0, ']');
                }
                None => write!(out, "\"{step}\": ")?,
            }
        }
        match value {
            "on" => out.write_str("true")?,
            "off" => out.write_str("false")?,
            value if self.is_number() => out.write_str(value)?,
            value => write!(out, "{value:?}")?,
        }
        write!(out, "{closing}`")
    }
}

/// The key in a configuration file.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, None, Dialect::File)
    }
}
