//! The kernel command line, of which each word belongs to something that was asked for.

use super::Error;
use std::fmt;

/// A kernel command line in the making: words, then what is for the guest's init alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    text: String,
    /// What stands behind ` -- `.
    for_init: String,
    shares: Vec<Share>,
}

/// How much of a command line one thing takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// What was asked for, by its name in the configuration, or `devices`.
    pub what: &'static str,
    /// What it takes, in bytes, the spaces before its words included.
    pub bytes: usize,
    /// The longest of several that have names, and what it takes.
    pub longest: Option<(String, usize)>,
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` has {}", self.what, self.bytes)?;
        match &self.longest {
            Some((name, bytes)) => write!(f, " (`{name}` alone {bytes})"),
            None => Ok(()),
        }
    }
}

impl CommandLine {
    /// One word more for `what`.
    pub fn word(&mut self, what: &'static str, word: &str) {
        self.named_word(what, None, word);
    }

    /// One word more for `what`, of which there are several with names.
    pub fn named_word(&mut self, what: &'static str, name: Option<&str>, word: &str) {
        if word.is_empty() {
            return;
        }
        let before = self.text.len();
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        self.text.push_str(word);
        let bytes = self.text.len() - before;
        self.count(what, bytes);
        if let (Some(name), Some(share)) = (name, self.shares.last_mut())
            && share.longest.as_ref().is_none_or(|(_, most)| *most < bytes)
        {
            share.longest = Some((name.into(), bytes));
        }
    }

    /// A text of the user's own. What stands behind its `--` is for init: the kernel looks for no parameters there,
    /// so it goes behind all words that are still to come.
    pub fn user_text(&mut self, what: &'static str, text: &str) {
        let (parameters, for_init) = split_at_dashes(text);
        self.word(what, parameters.trim());
        if let Some(rest) = for_init {
            self.for_init = format!(" -- {}", rest.trim());
            self.count(what, self.for_init.len());
        }
    }

    fn count(&mut self, what: &'static str, bytes: usize) {
        match self.shares.last_mut() {
            Some(share) if share.what == what => share.bytes += bytes,
            _ => self.shares.push(Share {
                what,
                bytes,
                longest: None,
            }),
        }
    }

    /// The whole line, for a kernel that takes `limit` bytes.
    ///
    /// # Errors
    /// When it is longer: what takes how much, the most first.
    pub fn fit(&self, limit: usize) -> Result<String, Error> {
        let line = format!("{}{}", self.text, self.for_init);
        if line.len() <= limit {
            return Ok(line);
        }
        let mut shares = self.shares.clone();
        shares.sort_by_key(|share| std::cmp::Reverse(share.bytes));
        Err(Error::CmdlineTooLong {
            bytes: line.len(),
            limit,
            shares,
        })
    }
}

/// Splits where Linux does: at the first word `--`, quoted or not (`parse_args` in kernel/params.c, `next_arg` in
/// lib/cmdline.c, and `isspace`, to which the byte 0xa0 is a space).
fn split_at_dashes(text: &str) -> (&str, Option<&str>) {
    let is_space = |byte: u8| byte == b' ' || byte == 0xa0;
    let (mut start, mut quoted) = (0, false);
    let ends = text.bytes().chain([b' ']).enumerate();
    for (at, byte) in ends {
        match byte {
            b'"' => quoted = !quoted,
            byte if is_space(byte) && (!quoted || at == text.len()) => {
                // Bytes: a character may have 0xa0 in its middle.
                if let b"--" | b"\"--\"" = &text.as_bytes()[start..at] {
                    return (&text[..start], Some(text.get(at..).unwrap_or_default()));
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    (text, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(user: &str) -> String {
        let mut line = CommandLine::default();
        line.user_text("cmdline", user);
        line.word("devices", "virtio_mmio.device=4K@0xd0000000:5");
        line.word("root", "kvmlet.root=/dev/vda");
        line.fit(1000).unwrap()
    }

    #[test]
    fn what_is_for_init_comes_last() {
        const OURS: &str = "virtio_mmio.device=4K@0xd0000000:5 kvmlet.root=/dev/vda";
        for (user, expected) in [
            ("", OURS.into()),
            ("quiet", format!("quiet {OURS}")),
            ("quiet -- foo", format!("quiet {OURS} -- foo")),
            ("quiet  --  a -- b ", format!("quiet {OURS} -- a -- b")),
            ("quiet \"--\" foo", format!("quiet {OURS} -- foo")),
            ("quiet --", format!("quiet {OURS} -- ")),
            ("-- foo", format!("{OURS} -- foo")),
            ("x=\"a -- b\" c", format!("x=\"a -- b\" c {OURS}")),
            ("--x --=1 a--", format!("--x --=1 a-- {OURS}")),
            ("\u{e0} -- b", format!("\u{e0} {OURS} -- b")),
        ] {
            assert_eq!(line(user), expected, "{user:?}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_accounted_for() {
        let mut line = CommandLine::default();
        line.user_text("cmdline", "quiet -- foo");
        line.named_word("env", Some("A"), "kvmlet.env=A=1");
        line.named_word(
            "env",
            Some("BIG"),
            &format!("kvmlet.env=BIG={}", "x".repeat(100)),
        );
        line.word("command", "kvmlet.arg=sh");
        let bytes = line.fit(1000).unwrap().len();
        assert!(line.fit(bytes).is_ok());
        let error = line.fit(bytes - 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the kernel command line has 157 bytes, and this kernel takes 156: `env` has 131 (`BIG` alone 116), \
             `command` has 14, `cmdline` has 12"
        );
        let Error::CmdlineTooLong { shares, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(shares.iter().map(|share| share.bytes).sum::<usize>(), bytes);
    }
}
