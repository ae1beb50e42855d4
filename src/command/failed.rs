//! Errors as a person reads them.

use kvmlet_spec::{Advice, Dialect, Failure, Remedy};
use kvmlet_sys::{environment, lack, standard_error, whole_file};
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::OnceLock;

static DIALECT: OnceLock<Dialect> = OnceLock::new();

/// Has this process name settings as whoever has started it does: once, before anything is told.
pub fn speak(dialect: Dialect) {
    let _ = DIALECT.set(dialect);
}

/// Whose words settings are named in by this process: flags of a machine where nothing else was said.
pub fn dialect() -> Dialect {
    *DIALECT.get().unwrap_or(&Dialect::Flags)
}

/// An error with the way out, if there is one.
#[derive(Debug)]
pub struct Failed {
    error: Box<dyn StdError>,
    help: Option<Advice>,
    is_told: bool,
}

impl Failed {
    /// An error without a way out.
    pub fn new(error: impl Into<Box<dyn StdError>>) -> Self {
        Self {
            error: error.into(),
            help: None,
            is_told: false,
        }
    }

    /// What a program that was run has told its user itself: there is no more to say.
    pub fn told(error: impl Into<Box<dyn StdError>>) -> Self {
        Self {
            is_told: true,
            ..Self::new(error)
        }
    }

    /// What was wanted in vain, and why, which is told as its cause.
    pub fn in_vain(what: impl Into<String>, why: impl Into<Box<dyn StdError>>) -> Self {
        Self::new(InVain {
            what: what.into(),
            why: why.into(),
        })
    }

    /// An error with the way out that it knows, if it knows one.
    pub fn with(error: impl Into<Box<dyn StdError>>, help: Option<impl Into<Advice>>) -> Self {
        Self {
            help: help.map(Into::into),
            ..Self::new(error)
        }
    }

    /// A file that cannot be written whole.
    pub fn of_file(error: whole_file::Error) -> Self {
        let help = error.help();
        Self::with(error, help)
    }

    /// An environment that cannot be made safe.
    pub fn of_environment(error: environment::Error) -> Self {
        let help = error.help();
        Self::with(error, help)
    }

    /// Adds a way out.
    pub fn help(mut self, help: impl Into<Advice>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Prints the chain of causes, and the way out, to standard error; nothing if that is done.
    pub fn print(&self) {
        standard_error::tell(self.to_string().as_bytes());
    }

    /// As another program is told.
    pub fn failure(&self) -> Failure {
        let mut failure = Failure::of(&*self.error);
        let help = self.help.as_ref();
        let help = help.map(|help| help.in_words_of(Dialect::File));
        failure.help = help.filter(|help| !help.is_empty());
        failure
    }

    /// What went wrong, without why.
    pub fn first_line(&self) -> String {
        self.error.to_string()
    }
}

/// What was wanted, and its cause.
#[derive(Debug)]
struct InVain {
    what: String,
    why: Box<dyn StdError>,
}

impl fmt::Display for InVain {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.what)
    }
}

impl StdError for InVain {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.why)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_told {
            return Ok(());
        }
        writeln!(out, "error: {}", system_message(&*self.error))?;
        let mut root = &*self.error;
        while let Some(error) = root.source() {
            writeln!(out, "  caused by: {}", system_message(error))?;
            root = error;
        }
        let lack = lack::way_out(&*self.error).map(Advice::from);
        let help = lack.as_ref().or(self.help.as_ref());
        match help.map(|help| help.in_words_of(dialect())) {
            Some(help) if !help.is_empty() => writeln!(out, "  help: {}", printable(&help)),
            _ => Ok(()),
        }
    }
}

/// A text without what steers a terminal or turns its lines around, which a path may have in it.
fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            // The lines of a text are its own.
            '\n' | '\t' => printable.push(char),
            char if char.is_control() || turns(char) => printable.extend(char.escape_debug()),
            char => printable.push(char),
        }
    }
    printable
}

/// Unicode's marks of direction, and its line ends.
fn turns(char: char) -> bool {
    matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// An operating system's message without Rust's "(os error N)".
fn system_message(error: &(dyn StdError + 'static)) -> String {
    const NUMBER: &str = " (os error ";
    let mut text = printable(&error.to_string());
    let mut last = None;
    while let Some(start) = text.find(NUMBER) {
        let Some(length) = text[start..].find(')') else {
            break;
        };
        let number = text[start + NUMBER.len()..start + length].parse();
        last = number.ok().filter(|_| start + length + 1 == text.len());
        text.replace_range(start..=start + length, "");
    }
    // The system's own begin with a capital. Nothing else is changed of a text that ends with them.
    let said = last.map(|number| io::Error::from_raw_os_error(number).to_string());
    let said = said.as_deref().and_then(|said| said.split(NUMBER).next());
    if let Some(start) = said.and_then(|said| text.strip_suffix(said).map(str::len)) {
        let lower = text[start..].to_lowercase();
        text.replace_range(start.., &lower);
    }
    text
}

impl<E: Remedy + 'static> From<E> for Failed {
    fn from(error: E) -> Self {
        let remedy = error.remedy();
        Self::with(error, remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was opened, and what the system said.
    #[derive(Debug)]
    struct Unopened(&'static str, io::Error);

    impl fmt::Display for Unopened {
        fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(out, "cannot open `{}`", self.0)
        }
    }

    impl StdError for Unopened {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.1)
        }
    }

    #[test]
    fn numbers_of_the_system_are_left_out_and_nothing_behind_them() {
        let denied = io::Error::from_raw_os_error(libc::EACCES);
        assert_eq!(system_message(&denied), "permission denied");
        let both = io::Error::other(format!("no tap ({denied}); no rights ({denied}) for One"));
        assert_eq!(
            system_message(&both),
            "no tap (Permission denied); no rights (Permission denied) for One"
        );
        assert_eq!(
            system_message(&io::Error::other("a (os error ")),
            "a (os error "
        );
    }

    #[test]
    fn only_the_system_s_own_words_are_changed() {
        let missing = io::Error::from_raw_os_error(libc::ENOENT);
        let named = io::Error::other(format!("cannot use `NoSuchFILE`: {missing}"));
        assert_eq!(
            system_message(&named),
            "cannot use `NoSuchFILE`: no such file or directory"
        );
        let other = io::Error::other("Its OWN words (os error 2)");
        assert_eq!(system_message(&other), "Its OWN words");
    }

    #[test]
    fn nothing_steers_a_terminal() {
        let error = Unopened(
            "\u{1b}]0;PWN\u{7}\u{9b}",
            io::Error::other("a\rb\nc\u{202e}d\u{2028}\u{2066}"),
        );
        assert_eq!(
            Failed::new(error).help("\u{1b}[31mred").to_string(),
            "error: cannot open `\\u{1b}]0;PWN\\u{7}\\u{9b}`\n  caused by: a\\rb\nc\\u{202e}d\\u{2028}\\u{2066}\n  help: \\u{1b}[31mred\n"
        );
    }

    #[test]
    fn a_lack_of_descriptors_is_that_wherever_it_shows() {
        let lack = || io::Error::from_raw_os_error(libc::EMFILE);
        // Each C library has words of its own for it.
        let words = lack().to_string().to_lowercase();
        let words = words.strip_suffix(" (os error 24)").unwrap();
        for (failed, first) in [
            (
                Failed::new(Unopened("vmlinux", lack())).help("build one"),
                "cannot open `vmlinux`\n  caused by: ",
            ),
            (Failed::new(lack()), ""),
        ] {
            let text = failed.to_string();
            assert!(
                text.starts_with(&format!("error: {first}{words}\n  help: ")),
                "{text}"
            );
            assert!(text.contains("`ulimit -n`"), "{text}");
        }
    }

    #[test]
    fn the_whole_chain_is_one_block() {
        let error = || Unopened("nowhere", io::Error::from_raw_os_error(2));
        assert_eq!(
            Failed::with(error(), Some("build one")).to_string(),
            "error: cannot open `nowhere`\n  caused by: no such file or directory\n  help: build one\n"
        );
        assert_eq!(
            Failed::in_vain("no copy", error()).to_string(),
            "error: no copy\n  caused by: cannot open `nowhere`\n  caused by: no such file or directory\n"
        );
        assert!(
            !Failed::with(error(), None::<&str>)
                .to_string()
                .contains("help")
        );
    }
}
