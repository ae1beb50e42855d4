//! Names of instances, by docker's rules.

use crate::id::InstanceId;
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::str::FromStr;

/// What a file name can have, less what temporary names have beside.
const LONGEST: usize = 200;

/// A name: letters, digits, `_`, `.` and `-`, at least two, the first a letter or a digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(String);

/// Text that is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a name of an instance: {why}", text.escape_debug())]
pub struct NotAName {
    /// What the user wrote.
    pub text: String,
    /// The rule that it breaks.
    pub why: &'static str,
}

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name made of two words; of the 4096 that there are, one at random. From the third `attempt` on a number stands
    /// behind them, for those that are taken.
    ///
    /// # Errors
    /// When the kernel gives no random numbers.
    pub fn generated(attempt: u32) -> io::Result<Self> {
        let mut random = [0; 4];
        getrandom(&mut random, GetRandomFlags::empty())?;
        let [first, second, number, more] = random;
        let how = HOW[usize::from(first) % HOW.len()];
        let what = WHAT[usize::from(second) % WHAT.len()];
        Ok(Self(match attempt {
            0..2 => format!("{how}_{what}"),
            _ => format!("{how}_{what}{}", u16::from_ne_bytes([number, more])),
        }))
    }
}

impl FromStr for Name {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let wrong = |why| NotAName {
            text: text.into(),
            why,
        };
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        match text.as_bytes() {
            [] | [_] => Err(wrong("it has two characters at least")),
            [first, ..] if !first.is_ascii_alphanumeric() => {
                Err(wrong("the first character is a letter or a digit"))
            }
            bytes if !bytes.iter().all(|byte| is_inner(*byte)) => {
                Err(wrong("it is made of letters, digits, `_`, `.` and `-`"))
            }
            bytes if bytes.len() > LONGEST => Err(wrong("it has 200 characters at most")),
            _ if InstanceId::try_from(text.to_owned()).is_ok() => {
                Err(wrong("64 hexadecimal digits are an id"))
            }
            _ => Ok(Self(text.into())),
        }
    }
}

impl TryFrom<String> for Name {
    type Error = NotAName;

    fn try_from(text: String) -> Result<Self, NotAName> {
        text.parse()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const HOW: [&str; 64] = [
    "able", "agile", "amber", "ample", "apt", "avid", "bold", "brave", "bright", "brisk", "calm",
    "candid", "civil", "clear", "clever", "cosy", "crisp", "curious", "deft", "eager", "early",
    "easy", "fair", "fine", "fleet", "fond", "frank", "fresh", "gentle", "glad", "golden", "good",
    "grand", "happy", "hardy", "honest", "keen", "kind", "lively", "loyal", "lucid", "merry",
    "mild", "neat", "nimble", "noble", "open", "patient", "placid", "polite", "proud", "quick",
    "quiet", "ready", "rosy", "silent", "sleek", "smart", "snug", "steady", "sunny", "swift",
    "tidy", "warm",
];

const WHAT: [&str; 64] = [
    "acorn", "alder", "anchor", "apple", "aspen", "badger", "basil", "beacon", "beech", "birch",
    "bridge", "brook", "canyon", "cedar", "clover", "comet", "coral", "crane", "delta", "dune",
    "eagle", "elm", "ember", "falcon", "fern", "finch", "fjord", "garnet", "glade", "harbor",
    "hazel", "heron", "island", "ivy", "jasper", "juniper", "lagoon", "lark", "linden", "lotus",
    "maple", "marten", "meadow", "mint", "moss", "oak", "olive", "orchid", "otter", "pebble",
    "pine", "plover", "quartz", "raven", "reef", "river", "robin", "sparrow", "spruce", "stone",
    "swan", "thistle", "walnut", "willow",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_grammar() {
        for text in [
            "web",
            "ab",
            "0a",
            "Web_1.test-x",
            &"x".repeat(200),
            "abcdef012345",
        ] {
            assert_eq!(text.parse::<Name>().unwrap().as_str(), text);
        }
        for (text, why) in [
            ("", "two characters"),
            ("a", "two characters"),
            ("-a", "the first character"),
            (".a", "the first character"),
            ("_a", "the first character"),
            ("a/b", "is made of"),
            ("a b", "is made of"),
            ("a\nb", "is made of"),
            ("\u{e9}t\u{e9}", "the first character"),
            ("t\u{e9}", "is made of"),
            (&"x".repeat(201), "200 characters"),
            (&"0".repeat(64), "are an id"),
        ] {
            let error = text.parse::<Name>().unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn generated_names_are_names() {
        for attempt in 0..300 {
            let name = Name::generated(attempt).unwrap();
            assert_eq!(name.as_str().parse(), Ok(name.clone()));
        }
        for words in [HOW, WHAT] {
            let different: std::collections::BTreeSet<_> = words.into_iter().collect();
            assert_eq!(different.len(), 64);
        }
    }
}
