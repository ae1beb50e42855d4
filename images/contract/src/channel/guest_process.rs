use alloc::format;
use alloc::string::String;

/// The agent's [tool](super::Role::Tool) that lists the guest's processes: to standard output, a [`GuestProcess`] a line.
pub const PROCESSES: &str = "processes";

/// The longest command in a list of processes, in bytes.
pub const MAX_COMMAND: usize = 1024;

/// A process of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestProcess<'a> {
    /// Its number in the guest.
    pub pid: u32,
    /// That of its parent; 0 if it has none.
    pub parent: u32,
    /// Whose it is.
    pub uid: u32,
    /// How much time it has had of processors, in milliseconds.
    pub cpu_ms: u64,
    /// How much of its memory is in RAM, in KiB.
    pub rss_kib: u64,
    /// Its arguments with spaces between them; its name in brackets if it has none, as the kernel's threads.
    pub command: &'a str,
}

impl<'a> GuestProcess<'a> {
    /// As a line. Of the command no more than [`MAX_COMMAND`] bytes are told, and what steers a terminal is replaced.
    pub fn to_line(&self) -> String {
        let Self {
            pid,
            parent,
            uid,
            cpu_ms,
            rss_kib,
            command,
        } = self;
        let mut told = String::new();
        for c in command.chars() {
            let c = if c.is_control() { '?' } else { c };
            if told.len() + c.len_utf8() > MAX_COMMAND {
                break;
            }
            told.push(c);
        }
        format!("{pid} {parent} {uid} {cpu_ms} {rss_kib} {told}\n")
    }

    /// From a line, without its end; nothing if it is none.
    pub fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.splitn(6, ' ');
        let mut number = || {
            let field = fields.next()?;
            // `parse` takes a sign as well.
            let digits = field.bytes().all(|byte| byte.is_ascii_digit());
            field.parse::<u64>().ok().filter(|_| digits)
        };
        let mut small = || u32::try_from(number()?).ok();
        let (pid, parent, uid) = (small()?, small()?, small()?);
        let (cpu_ms, rss_kib) = (number()?, number()?);
        let command = fields.next()?;
        let told = command.len() <= MAX_COMMAND && !command.contains(char::is_control);
        told.then_some(Self {
            pid,
            parent,
            uid,
            cpu_ms,
            rss_kib,
            command,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_comes_back(numbers: (u32, u32, u32), cpu_ms: u64, rss_kib: u64, command in "\\PC{0,100}") {
            let process = GuestProcess {
                pid: numbers.0, parent: numbers.1, uid: numbers.2, cpu_ms, rss_kib, command: &command,
            };
            let line = process.to_line();
            let line = line.strip_suffix('\n').unwrap_or_default();
            prop_assert_eq!(GuestProcess::parse(line), Some(process));
        }

        #[test]
        fn any_line_is_a_process_or_none(line: String) {
            if let Some(process) = GuestProcess::parse(&line) {
                let again = process.to_line();
                prop_assert_eq!(GuestProcess::parse(again.trim_end_matches('\n')), Some(process));
            }
        }
    }

    #[test]
    fn a_command_is_bounded_and_steers_nothing() {
        let command = format!("a\x1b]0;x\n{}", "é".repeat(MAX_COMMAND));
        let process = GuestProcess {
            pid: 7,
            parent: 1,
            uid: 0,
            cpu_ms: 10,
            rss_kib: 4,
            command: &command,
        };
        let line = process.to_line();
        assert!(line.starts_with("7 1 0 10 4 a?]0;x?é"), "{line}");
        assert!(line.len() <= MAX_COMMAND + 12, "{}", line.len());
    }

    #[test]
    fn what_is_no_process_is_refused() {
        let lines = [
            "",
            "1 0 0 10 4",
            "1 0 0 10 x sh",
            "+1 0 0 10 4 sh",
            "4294967296 0 0 10 4 sh",
            "1 0 0 10 4 a\x1bb",
        ];
        for line in lines {
            assert_eq!(GuestProcess::parse(line), None, "{line:?}");
        }
    }
}
