//! Messages for whoever looks after the VM, in the manner of Firecracker's: with the time and the VM's id.

use super::fault::Fault;
use super::model::Level;
use kvmlet_sys::standard_error;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where messages go, and which.
#[derive(Debug)]
pub struct Log {
    id: String,
    file: Option<File>,
    level: Level,
    show_level: bool,
    show_origin: bool,
}

impl Log {
    /// Of a VM: to standard error, and no more than what went wrong, until somebody says otherwise.
    pub fn new(id: &str) -> Self {
        Self {
            id: id.into(),
            file: None,
            level: Level::Warn,
            show_level: false,
            show_origin: false,
        }
    }

    /// Has messages go to a file or a pipe. What is not said stays.
    pub fn set(
        &mut self,
        path: Option<&Path>,
        level: Option<Level>,
        show_level: Option<bool>,
        show_origin: Option<bool>,
    ) -> Result<(), Fault> {
        if let Some(path) = path {
            self.file = Some(open(path)?);
            self.level = Level::Info;
        }
        self.level = level.unwrap_or(self.level);
        self.show_level = show_level.unwrap_or(self.show_level);
        self.show_origin = show_origin.unwrap_or(self.show_origin);
        Ok(())
    }

    /// Where the VM's own messages go, if not to standard error.
    pub fn file(&self) -> Option<File> {
        self.file.as_ref().and_then(|file| file.try_clone().ok())
    }

    /// As many of kvmlet's flags say that this much is to be told.
    pub fn verbosity(&self) -> u8 {
        match self.level {
            Level::Off | Level::Error | Level::Warn | Level::Info => 0,
            Level::Debug => 1,
            Level::Trace => 2,
        }
    }

    /// Something that happens.
    pub fn info(&self, text: &str) {
        if matches!(self.level, Level::Info | Level::Debug | Level::Trace) {
            self.write("INFO", text);
        }
    }

    /// Something that goes wrong.
    pub fn warn(&self, text: &str) {
        if !matches!(self.level, Level::Off | Level::Error) {
            self.write("WARN", text);
        }
    }

    /// Something has failed.
    pub fn error(&self, text: &str) {
        if self.level != Level::Off {
            self.write("ERROR", text);
        }
    }

    /// A pipe that nobody reads from keeps nobody waiting: it loses what is said.
    fn write(&self, level: &str, text: &str) {
        let mut words = vec![time(), format!("[{}:main", self.id)];
        if self.show_level {
            words.push(level.into());
        }
        if self.show_origin {
            words.push("kvmlet-serve".into());
        }
        let (time, place) = (words.remove(0), words.join(":"));
        // Text of a client's or a VM's is one line, and steers no terminal.
        let harmless = |char: char| if char.is_control() { ' ' } else { char };
        let text: String = text.chars().map(harmless).collect();
        match self.file.as_ref() {
            Some(mut file) => drop(file.write_all(format!("{time} {place}] {text}\n").as_bytes())),
            None => standard_error::say(format_args!("kvmlet: {text}")),
        }
    }
}

/// A file or a pipe that somebody is told by, which is made where there is none.
pub fn open(path: &Path) -> Result<File, Fault> {
    let mut options = File::options();
    // The reader of a pipe may come later, and go.
    options
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NONBLOCK);
    options
        .open(path)
        .map_err(|error| Fault(format!("`{}` cannot be opened: {error}", path.display())))
}

/// By UTC, as RFC 3339 has it.
fn time() -> String {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        since.subsec_nanos()
    )
}

/// The date of a day after 1 January 1970, by counting years from March, so that the leap day is the last of one.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, (month + 2) % 12 + 1);
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_told_by_their_dates() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_786, (2026, 11, 29)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), expected, "{days}");
        }
    }

    #[test]
    fn a_message_is_a_line_with_its_place() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        let mut log = Log::new("vm-1");
        log.set(Some(&path), None, Some(true), Some(true)).unwrap();
        log.info("a\nb");
        log.set(None, Some(Level::Error), None, None).unwrap();
        log.info("nothing");
        let text = std::fs::read_to_string(path).unwrap();
        assert!(
            text.ends_with(" [vm-1:main:INFO:kvmlet-serve] a b\n"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1);
    }
}
