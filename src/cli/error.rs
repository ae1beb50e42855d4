//! Errors as a person reads them.

use crate::host::whole_file;
use std::error::Error as StdError;
use std::io::{self, Write};

/// An error with the way out, if there is one.
#[derive(Debug)]
pub(super) struct Failed {
    error: Box<dyn StdError>,
    help: Option<String>,
}

impl Failed {
    pub fn new(error: impl Into<Box<dyn StdError>>) -> Self {
        Self {
            error: error.into(),
            help: None,
        }
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Prints the chain of causes, and the way out, to standard error.
    pub fn print(&self) {
        // Nobody is left to tell when standard error is gone.
        let _ = io::stderr().write_all(self.text().as_bytes());
    }

    fn text(&self) -> String {
        let mut text = format!("error: {}\n", self.error);
        let mut cause = self.error.source();
        while let Some(error) = cause {
            text += &format!("  caused by: {}\n", system_message(error));
            cause = error.source();
        }
        if let Some(help) = &self.help {
            text += &format!("  help: {help}\n");
        }
        text
    }
}

/// An operating system's message without Rust's "(os error N)".
fn system_message(error: &dyn StdError) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(at) => text[..at].to_lowercase(),
        None => text,
    }
}

impl From<whole_file::Error> for Failed {
    fn from(error: whole_file::Error) -> Self {
        let help = error.help();
        let failed = Self::new(error);
        match help {
            Some(help) => failed.help(help),
            None => failed,
        }
    }
}

impl From<crate::Error> for Failed {
    fn from(error: crate::Error) -> Self {
        let help = error.help();
        Self {
            error: error.into(),
            help,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_chain_is_one_block() {
        let error = crate::Error::Open {
            what: "guest kernel",
            path: "nowhere".into(),
            source: io::Error::from_raw_os_error(2),
        };
        assert_eq!(
            Failed::from(error).text(),
            "error: cannot open guest kernel `nowhere`\n  \
               caused by: no such file or directory\n  \
               help: build one with `kernels/build`, or pass --kernel\n"
        );
    }
}
