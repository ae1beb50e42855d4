//! The way out of an error, which names settings without knowing by which name its reader sets them.

use super::{Dialect, Setting};
use std::borrow::Cow;
use std::error::Error;
use std::fmt::{self, Write};

/// An error that may know what a person can do about it, for whoever tells it.
pub trait Remedy: Error {
    /// The way out, where one is known.
    fn remedy(&self) -> Option<Advice>;
}

/// What a person can do: text with settings in it, one way or several. [`advice!`](crate::advice) makes it.
///
/// ```
/// use kvmlet_spec::{Dialect, Setting, advice};
///
/// let advice = advice!("ask for less with {}, or share: {}", Setting::Memory, (Setting::MemoryMode, "shared"));
/// assert_eq!(advice.in_words_of(Dialect::Flags), "ask for less with --memory, or share: --memory-mode shared");
/// assert_eq!(advice.to_string(), "ask for less with `memory`, or share: `\"memory_mode\": \"shared\"`");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    ways: Vec<Vec<Piece>>,
    /// What stands between ways; none where they are told as one sentence.
    between: Option<&'static str>,
}

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
    /// The template with a piece in the place of each `{}`, and a way out on each side of a `|`. Use
    /// [`advice!`](crate::advice).
    #[doc(hidden)]
    pub fn compose<const N: usize>(template: &'static str, pieces: [Piece; N]) -> Self {
        Self::of(template, Vec::from(pieces))
    }

    // Once, and not for each number of pieces.
    fn of(template: &'static str, pieces: Vec<Piece>) -> Self {
        let mut pieces = pieces.into_iter();
        let mut ways = Vec::new();
        for way in template.split('|') {
            let mut all = Vec::new();
            for (place, text) in way.split("{}").enumerate() {
                if place > 0 {
                    all.extend(pieces.next());
                }
                all.push(Piece::Text(text.into()));
            }
            ways.push(all);
        }
        Self {
            ways,
            between: None,
        }
    }

    /// The same, with settings named as they are set there. A way out that takes a setting which cannot be said there is
    /// none: it is left out. Nothing is left where there is no other.
    pub fn in_words_of(&self, dialect: Dialect) -> String {
        let way = |way: &Vec<Piece>| {
            let mut text = String::new();
            let written = way
                .iter()
                .try_for_each(|piece| piece.write(&mut text, dialect));
            written.ok().filter(|()| !text.is_empty()).map(|()| text)
        };
        let ways: Vec<String> = self.ways.iter().filter_map(way).collect();
        match (self.between, ways.as_slice()) {
            (Some(between), ways) => ways.join(between),
            (None, [first @ .., last]) if !first.is_empty() => {
                format!("{}, or {last}", first.join(", "))
            }
            (None, ways) => ways.concat(),
        }
    }

    /// Several ways out, with text between them; none if there is none.
    pub fn joined(ways: impl IntoIterator<Item = Self>, between: &'static str) -> Option<Self> {
        let ways: Vec<_> = ways.into_iter().map(|way| vec![way.into()]).collect();
        let between = Some(between);
        (!ways.is_empty()).then_some(Self { ways, between })
    }

    /// Another way out behind this one.
    pub fn or(self, other: Self) -> Self {
        Self {
            ways: vec![vec![self.into()], vec![other.into()]],
            between: Some("; or "),
        }
    }

    fn text(text: Cow<'static, str>) -> Self {
        Self {
            ways: vec![vec![Piece::Text(text)]],
            between: None,
        }
    }
}

impl Piece {
    /// # Errors
    /// Where that cannot be said in this dialect.
    fn write(&self, out: &mut String, dialect: Dialect) -> fmt::Result {
        match self {
            Piece::Text(text) => out.write_str(text),
            Piece::Setting(setting, value) => setting.write(out, value.as_deref(), dialect),
            Piece::Advice(advice) => match advice.in_words_of(dialect) {
                text if text.is_empty() => Err(fmt::Error),
                text => out.write_str(&text),
            },
        }
    }
}

/// In the words of a configuration file.
impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.in_words_of(Dialect::File))
    }
}

impl From<&'static str> for Advice {
    fn from(text: &'static str) -> Self {
        Self::text(text.into())
    }
}

impl From<String> for Advice {
    fn from(text: String) -> Self {
        Self::text(text.into())
    }
}

impl From<Cow<'static, str>> for Advice {
    fn from(text: Cow<'static, str>) -> Self {
        Self::text(text)
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
/// should have, or text. `|` in it stands between ways out, which are told as "a, b, or c": those of them that can be said.
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

    #[test]
    fn what_a_dialect_cannot_say_is_no_way_out() {
        let less = || {
            advice!(
                "ask for less with {}|end others|add {}",
                Setting::CpuQuota,
                Setting::Initrd
            )
        };
        for (advice, flags, service) in [
            (
                less(),
                "ask for less with --cpu-quota, end others, or add --initrd",
                "ask for less with --cpus, or end others",
            ),
            (
                advice!("leave out {}", Setting::Initrd),
                "leave out --initrd",
                "",
            ),
            (
                less().or(advice!("leave out {}", Setting::Pci)),
                "ask for less with --cpu-quota, end others, or add --initrd; or leave out --pci",
                "ask for less with --cpus, or end others",
            ),
            (
                advice!("see it{}", advice!(" with {}", Setting::Pci)),
                "see it with --pci",
                "",
            ),
        ] {
            assert_eq!(advice.in_words_of(Dialect::Flags), flags);
            assert_eq!(advice.in_words_of(Dialect::Service), service);
        }
    }

    #[test]
    fn each_verb_has_words_of_its_own() {
        let said = |dialect| {
            let port = (Setting::Publish, "80");
            let all = advice!(
                "{}|{}|{}|{}|{}",
                Setting::Vcpus,
                (Setting::NetSubnet, "10.1.2.0/30"),
                port,
                Setting::Initrd,
                (Setting::OvercommitCpus, "2")
            );
            all.in_words_of(dialect)
        };
        for (dialect, expected) in [
            (
                Dialect::Flags,
                "--cpus, --net subnet=10.1.2.0/30, --publish 80, --initrd, or --overcommit cpus=2",
            ),
            (
                Dialect::Service,
                "--vcpus, --net=subnet=10.1.2.0/30, --publish 80, or --overcommit cpus=2",
            ),
            (
                Dialect::Copy,
                "`--vcpus` of `kvmlet run`, `--net=subnet=10.1.2.0/30` of `kvmlet run`, --publish 80, or `--overcommit cpus=2` of `kvmlet run`",
            ),
            (
                Dialect::Again,
                "`--vcpus` of `kvmlet run`, `--net=subnet=10.1.2.0/30` of `kvmlet run`, `--publish 80` of `kvmlet run`, or `--overcommit cpus=2` of `kvmlet run`",
            ),
            (
                Dialect::Resume,
                "--net subnet=10.1.2.0/30, --publish 80, or --overcommit cpus=2",
            ),
        ] {
            assert_eq!(said(dialect), expected, "{dialect:?}");
        }
    }
}
