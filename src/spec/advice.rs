//! The way out of an error, which names settings without knowing by which name its reader sets them.

use super::{Dialect, Setting};
use std::borrow::Cow;
use std::error::Error;
use std::fmt;

/// An error that may know what a person can do about it, for whoever tells it.
pub trait Remedy: Error {
    /// The way out, where one is known.
    fn remedy(&self) -> Option<Advice>;
}

/// What a person can do: text with settings in it. [`advice!`](crate::advice) makes it.
///
/// ```
/// use kvmlet_spec::{Dialect, Setting, advice};
///
/// let advice = advice!("ask for less with {}, or share: {}", Setting::Memory, (Setting::MemoryMode, "shared"));
/// assert_eq!(advice.in_words_of(Dialect::Flags), "ask for less with --memory, or share: --memory-mode shared");
/// assert_eq!(advice.to_string(), "ask for less with `memory`, or share: `\"memory_mode\": \"shared\"`");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice(Vec<Piece>);

/// A part of an [`Advice`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text, which is the same for everybody.
    Text(Cow<'static, str>),
    /// The name of a setting, or what sets it to a value.
    Setting(Setting, Option<Cow<'static, str>>),
    /// Advice of somebody else.
    Advice(Advice),
}

impl Advice {
    /// The template with a piece in the place of each `{}`. Use [`advice!`](crate::advice).
    #[doc(hidden)]
    pub fn compose<const N: usize>(template: &'static str, pieces: [Piece; N]) -> Self {
        let mut all = Vec::with_capacity(2 * N + 1);
        let mut texts = template.split("{}");
        all.extend(texts.next().map(|text| Piece::Text(text.into())));
        for (piece, text) in pieces.into_iter().zip(texts) {
            all.push(piece);
            all.push(Piece::Text(text.into()));
        }
        Self(all)
    }

    /// The same, with settings named as they are set there.
    pub fn in_words_of(&self, dialect: Dialect) -> String {
        let mut text = String::new();
        // Text takes all that is written.
        let _ = self.write(&mut text, dialect);
        text
    }

    fn write(&self, out: &mut impl fmt::Write, dialect: Dialect) -> fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => out.write_str(text),
            Piece::Setting(setting, value) => setting.write(out, value.as_deref(), dialect),
            Piece::Advice(advice) => advice.write(out, dialect),
        })
    }

    /// Several ways out, with text between them; none if there is none.
    pub fn joined(ways: impl IntoIterator<Item = Self>, between: &'static str) -> Option<Self> {
        let mut ways = ways.into_iter();
        let mut all = ways.next()?;
        for way in ways {
            all.0.push(Piece::Text(between.into()));
            all.0.extend(way.0);
        }
        Some(all)
    }

    /// Another way out behind this one.
    pub fn or(self, other: Self) -> Self {
        Self(vec![self.into(), "; or ".into(), other.into()])
    }
}

/// In the words of a configuration file.
impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, Dialect::File)
    }
}

impl From<&'static str> for Advice {
    fn from(text: &'static str) -> Self {
        Self(vec![text.into()])
    }
}

impl From<String> for Advice {
    fn from(text: String) -> Self {
        Self(vec![text.into()])
    }
}

impl From<Cow<'static, str>> for Advice {
    fn from(text: Cow<'static, str>) -> Self {
        Self(vec![Piece::Text(text)])
    }
}

impl From<&'static str> for Piece {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Piece {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<Setting> for Piece {
    fn from(setting: Setting) -> Self {
        Self::Setting(setting, None)
    }
}

impl<V: Into<Cow<'static, str>>> From<(Setting, V)> for Piece {
    fn from((setting, value): (Setting, V)) -> Self {
        Self::Setting(setting, Some(value.into()))
    }
}

impl From<Advice> for Piece {
    fn from(advice: Advice) -> Self {
        Self::Advice(advice)
    }
}

/// An [`Advice`] of a text with `{}` in it, and what stands there: a [`Setting`], a setting with the value that it
/// should have, or text.
#[macro_export]
macro_rules! advice {
    ($template:literal $(, $piece:expr)* $(,)?) => {
        $crate::Advice::compose($template, [$($crate::Piece::from($piece)),*])
    };
}

#[cfg(test)]
mod tests {
    use crate::{Dialect, Setting};

    #[test]
    fn settings_are_named_as_they_are_set() {
        for (advice, flags, file) in [
            (
                advice!("leave out {}", Setting::Initrd),
                "leave out --initrd",
                "leave out `initrd`",
            ),
            (
                advice!("or {}", (Setting::OvercommitCpus, "1.1".to_string())),
                "or --overcommit cpus=1.1",
                "or `\"overcommit\": {\"cpus\": 1.1}`",
            ),
            (
                advice!("take {}.", (Setting::NetTap, "tap0")),
                "take --net tap=tap0.",
                "take `\"nets\": [{\"tap\": \"tap0\"}]`.",
            ),
            (
                advice!("have {}", (Setting::ScratchSize, "1G")),
                "have --scratch FILE,size=1G",
                "have `\"scratch_size\": \"1G\"`",
            ),
            (
                advice!("leave out {}", Setting::NetQueues),
                "leave out `queues` of --net",
                "leave out `nets[].queues`",
            ),
            (
                advice!("add {}", (Setting::BalloonReporting, "off")),
                "add --balloon reporting=off",
                "add `\"balloon\": {\"reporting\": false}`",
            ),
            (
                advice!("or {}", (Setting::Publish, "80")),
                "or --publish 80",
                "or `\"nets\": [{\"publish\": [\"80\"]}]`",
            ),
            ("plain".into(), "plain", "plain"),
        ] {
            assert_eq!(advice.in_words_of(Dialect::Flags), flags);
            assert_eq!(advice.to_string(), file);
        }
    }
}
