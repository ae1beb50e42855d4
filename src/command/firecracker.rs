//! The command lines of `kvmlet firecracker` and `kvmlet jailer`, which are Firecracker's: `kvmlet-serve` reads them, and
//! `kvmlet help`, `completions` and `man` have to know them, too.

use clap::{Arg, ArgAction, Command};

/// The verb of Firecracker's own command line, and the name under which a program has it.
pub const FIRECRACKER: &str = "firecracker";
/// The same for its jailer.
pub const JAILER: &str = "jailer";

/// Something that can be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flag {
    /// As it is written, without what flags begin with.
    pub name: &'static str,
    /// What its value is called, if it has one.
    pub value: Option<&'static str>,
    /// It can be said again.
    pub repeats: bool,
    /// What it is about.
    pub about: &'static str,
}

impl Flag {
    /// One without a value.
    pub const fn switch(name: &'static str, about: &'static str) -> Self {
        Self {
            name,
            value: None,
            repeats: false,
            about,
        }
    }

    /// One with a value.
    pub const fn valued(name: &'static str, value: &'static str, about: &'static str) -> Self {
        Self {
            name,
            value: Some(value),
            repeats: false,
            about,
        }
    }
}

const fn switch(name: &'static str, about: &'static str) -> Flag {
    Flag::switch(name, about)
}

const fn valued(name: &'static str, value: &'static str, about: &'static str) -> Flag {
    Flag::valued(name, value, about)
}

const fn list(name: &'static str, value: &'static str, about: &'static str) -> Flag {
    Flag {
        name,
        value: Some(value),
        repeats: true,
        about,
    }
}

/// A command line.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Its verb.
    pub verb: &'static str,
    /// What it does, in a sentence.
    pub about: &'static str,
    /// What more there is to know.
    pub more: &'static str,
    /// What can be said.
    pub flags: &'static [Flag],
    /// What all words behind `--` are, if there may be any.
    pub rest: Option<&'static str>,
}

/// Firecracker's.
pub const FIRECRACKER_LINE: Line = Line {
    verb: FIRECRACKER,
    about: "Serve Firecracker's API for one VM",
    more: "Answers the API of Firecracker 1.17 on a Unix socket, so that its clients drive a VM of kvmlet's. Under the name \
           `firecracker` the program is the same. See docs/firecracker.md.",
    flags: &[
        valued(
            "api-sock",
            "PATH",
            "Path of the API's socket [default: /run/firecracker.socket]",
        ),
        switch(
            "boot-timer",
            "Have the guest tell when it has booted: it can, always",
        ),
        valued(
            "config-file",
            "FILE",
            "JSON file that describes the VM, which starts at once",
        ),
        valued("describe-snapshot", "FILE", "Not supported"),
        switch(
            "enable-pci",
            "Put devices on a PCI bus, instead of at fixed addresses",
        ),
        valued(
            "http-api-max-payload-size",
            "BYTES",
            "Longest body of a request, in bytes [default: 51200]",
        ),
        valued("id", "ID", "Id of the VM [default: anonymous-instance]"),
        valued(
            "level",
            "LEVEL",
            "How much is logged: Error, Warning, Info, Debug, Trace, Off",
        ),
        valued(
            "log-path",
            "PATH",
            "File or pipe that messages go to, instead of standard error",
        ),
        valued(
            "metadata",
            "FILE",
            "JSON that the guest finds as its metadata",
        ),
        valued(
            "metrics-path",
            "PATH",
            "File or pipe that measurements go to",
        ),
        valued("mmds-size-limit", "BYTES", "How long metadata may be"),
        valued("module", "NAME", "Not supported"),
        switch("no-api", "Serve no API: --config-file describes the VM"),
        switch("no-seccomp", "Build no walls around the VM's process"),
        valued(
            "parent-cpu-time-us",
            "US",
            "CPU time of who has started this process",
        ),
        valued("seccomp-filter", "FILE", "Not supported"),
        switch("show-level", "Log levels, too"),
        switch("show-log-origin", "Log where messages come from, too"),
        switch("snapshot-version", "Print the version of snapshots"),
        valued(
            "start-time-cpu-us",
            "US",
            "CPU time when this process was wanted",
        ),
        valued("start-time-us", "US", "When this process was wanted"),
        switch("version", "Print the version"),
        switch("help", "Print this"),
    ],
    rest: None,
};

/// Its jailer's.
pub const JAILER_LINE: Line = Line {
    verb: JAILER,
    about: "Start `kvmlet firecracker` as Firecracker's jailer does",
    more: "Prepares a directory as Firecracker 1.17's jailer does, makes it the root of `kvmlet firecracker`, and runs that there \
           as another user. The VM's process has kvmlet's own walls around it in there. Under the name `jailer` the program is \
           the same. See docs/firecracker.md.",
    flags: &[
        valued(
            "id",
            "ID",
            "Id of the VM: 1 to 64 letters, digits and hyphens",
        ),
        valued(
            "exec-file",
            "FILE",
            "What is run: kvmlet, by its path or by a link to it",
        ),
        valued("uid", "NUMBER", "The user that it is run as"),
        valued("gid", "NUMBER", "The group that it is run as"),
        valued(
            "chroot-base-dir",
            "DIRECTORY",
            "Where the VMs' directories are [default: /srv/jailer]",
        ),
        valued(
            "netns",
            "PATH",
            "Network namespace in which taps are looked up",
        ),
        switch(
            "daemonize",
            "Go on in the background, in a session of its own, without a console",
        ),
        switch("new-pid-ns", "Go on in a PID namespace of its own"),
        list(
            "cgroup",
            "FILE=VALUE",
            "A value of the cgroup in which it runs, such as cpu.shares=10; can be given again",
        ),
        valued(
            "cgroup-version",
            "VERSION",
            "Version of the cgroup, 1 or 2 [default: 1]",
        ),
        valued(
            "parent-cgroup",
            "PATH",
            "The cgroup below which its own is made [default: the name of --exec-file]",
        ),
        list(
            "resource-limit",
            "RESOURCE=VALUE",
            "A limit of its process: fsize (bytes of a file) or no-file (open files) [default: no-file=2048]; can be given again",
        ),
        switch("version", "Print the version"),
        switch("help", "Print this"),
    ],
    rest: Some("What is passed on to `kvmlet firecracker`"),
};

impl Line {
    /// For who makes completions and pages of it.
    pub fn command(&self) -> Command {
        let args = self.flags.iter().map(|flag| {
            let arg = Arg::new(flag.name).long(flag.name).help(flag.about);
            match flag.value {
                Some(value) if flag.repeats => arg.value_name(value).action(ArgAction::Append),
                Some(value) => arg.value_name(value),
                None => arg.action(ArgAction::SetTrue),
            }
        });
        let command = Command::new(self.verb)
            .about(self.about)
            .long_about(format!("{}.\n\n{}", self.about, self.more))
            .disable_help_flag(true)
            .disable_version_flag(true)
            .args(args);
        match self.rest {
            None => command,
            Some(about) => command.arg(
                Arg::new("rest")
                    .last(true)
                    .num_args(0..)
                    .value_name("ARGUMENTS")
                    .help(about),
            ),
        }
    }

    /// What there is to know, as text.
    pub fn help(&self) -> String {
        let rest = if self.rest.is_some() {
            " [-- ARGUMENTS]"
        } else {
            ""
        };
        let mut text = format!(
            "{}.\n\n{}\n\nUsage: kvmlet {} [OPTIONS]{rest}\n\nOptions:\n",
            self.about, self.more, self.verb
        );
        for flag in self.flags {
            let said = match flag.value {
                Some(value) => format!("--{} {value}", flag.name),
                None => format!("--{}", flag.name),
            };
            text.push_str(&format!("  {said:<35} {}\n", flag.about));
        }
        text
    }

    /// Reads the words behind the verb.
    ///
    /// # Errors
    /// When a word is not known, was given twice, or has no value where it needs one.
    pub fn read(&self, words: &[std::ffi::OsString]) -> Result<Given, String> {
        let mut given = Given::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if word == "--" && self.rest.is_some() {
                given.rest = words.cloned().collect();
                break;
            }
            let text = word
                .to_str()
                .ok_or_else(|| format!("{word:?} is not UTF-8"))?;
            let name = match text {
                "-h" => "help",
                "-V" => "version",
                text => text
                    .strip_prefix("--")
                    .ok_or_else(|| format!("unexpected argument `{text}`"))?,
            };
            let (name, glued) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name, None),
            };
            let known = self.flags.iter().find(|flag| flag.name == name);
            let flag = known.ok_or_else(|| format!("unknown argument `--{name}`"))?;
            if !flag.repeats && given.has(flag.name) {
                return Err(format!("--{name} was given twice"));
            }
            let value = match (flag.value, glued) {
                (Some(_), Some(value)) => Some(value),
                (Some(_), None) => {
                    let next = words.next().and_then(|next| next.to_str());
                    let next = next.filter(|next| !next.starts_with("--"));
                    let next = next.ok_or_else(|| format!("--{name} needs a value"))?;
                    Some(next.to_owned())
                }
                (None, Some(_)) => return Err(format!("--{name} takes no value")),
                (None, None) => None,
            };
            given.flags.push((flag.name, value));
        }
        Ok(given)
    }
}

/// What was said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    flags: Vec<(&'static str, Option<String>)>,
    /// The words behind `--`.
    pub rest: Vec<std::ffi::OsString>,
}

impl Given {
    /// Was it said?
    pub fn has(&self, name: &str) -> bool {
        self.flags.iter().any(|(known, _)| *known == name)
    }

    /// Its value, if it was said.
    pub fn value(&self, name: &str) -> Option<String> {
        self.values(name).next()
    }

    /// Its values, in their order.
    pub fn values(&self, name: &str) -> impl Iterator<Item = String> {
        let named = self.flags.iter().filter(move |(known, _)| *known == name);
        named.filter_map(|(_, value)| value.clone())
    }

    /// Its value as a number.
    ///
    /// # Errors
    /// When it is no number, or too large a one.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        let parsed = self.value(name).map(|text| text.parse::<T>());
        let parsed = parsed.transpose();
        parsed.map_err(|_| format!("--{name} is a whole number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_consistent_and_told_whole() {
        for line in [FIRECRACKER_LINE, JAILER_LINE] {
            line.command().debug_assert();
            let help = line.help();
            for flag in line.flags {
                assert!(help.contains(&format!("\n  --{}", flag.name)), "{help}");
                assert!(help.contains(flag.about), "{help}");
            }
        }
    }

    #[test]
    fn words_are_read_up_to_two_hyphens() {
        let read = |text: &str| {
            let words: Vec<_> = text.split(' ').map(Into::into).collect();
            JAILER_LINE.read(&words)
        };
        let given = read("--id a --cgroup x.a=1 --cgroup=x.b=2 --daemonize -- --id b").unwrap();
        assert_eq!(given.value("id").as_deref(), Some("a"));
        let cgroup: Vec<_> = given.values("cgroup").collect();
        assert_eq!(cgroup, ["x.a=1", "x.b=2"]);
        assert!(given.has("daemonize") && !given.has("new-pid-ns"));
        assert_eq!(given.rest, ["--id", "b"]);
        for (text, part) in [
            ("--id a --id b", "--id was given twice"),
            ("--cgroup", "--cgroup needs a value"),
            ("--daemonize=1", "--daemonize takes no value"),
            ("--api-sock a", "unknown argument `--api-sock`"),
            ("a", "unexpected argument `a`"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        let none = FIRECRACKER_LINE.read(&["--".into()]).unwrap_err();
        assert!(none.contains("unknown argument `--`"), "{none}");
        assert_eq!(
            read("--uid x").unwrap().number::<u32>("uid"),
            Err("--uid is a whole number".into())
        );
    }
}
