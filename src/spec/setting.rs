//! Settings by name, in the words of whoever asks: a command line, a configuration file.

pub use super::definitions::{Definition, Setting};
use super::nearest;
use std::borrow::Cow;
use std::fmt;

/// Whose words a setting is named in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dialect {
    /// Keys of a configuration file: what an error says by itself.
    #[default]
    File,
    /// Flags of a command line that describes a machine.
    Flags,
    /// Those by which a machine that was saved goes on.
    Resume,
    /// Those by which a service is run.
    Service,
    /// Those by which an instance goes on as another one, which has what the first was run with.
    Copy,
    /// An instance is started again, as it was run.
    Again,
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

    /// What its key does: a flag that begins with `no-` says the opposite of the key that it is for.
    pub fn help_of_key(self) -> Cow<'static, str> {
        let definition = self.definition();
        match definition.flag.strip_prefix("no-") {
            Some(flag) if flag == definition.key => format!("`false`: {}", definition.help).into(),
            _ => definition.help.into(),
        }
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
    ///
    /// # Errors
    /// Where it cannot be said in that dialect.
    pub(super) fn write(
        self,
        out: &mut impl fmt::Write,
        value: Option<&str>,
        dialect: Dialect,
    ) -> fmt::Result {
        match dialect {
            Dialect::File => self.write_key(out, value),
            Dialect::Flags => self.write_flag(out, value, ' '),
            Dialect::Resume if self.is_of_host() => self.write_flag(out, value, ' '),
            Dialect::Resume => Err(fmt::Error),
            Dialect::Service => self.write_word(out, value),
            Dialect::Copy if self == Setting::Publish => self.write_word(out, value),
            Dialect::Copy | Dialect::Again => {
                let mut word = String::new();
                self.write_word(&mut word, value)?;
                match word.contains('`') {
                    true => write!(out, "{word} of `kvmlet run`"),
                    false => write!(out, "`{word}` of `kvmlet run`"),
                }
            }
        }
    }

    /// Is its value a number in JSON?
    fn is_number(self) -> bool {
        ["N", "FACTOR", "CPUS", "SECONDS", "BYTES"].contains(&self.definition().value)
    }

    /// Is it said anew when a machine goes on that was saved? All else is as it was.
    fn is_of_host(self) -> bool {
        const FLAGS: &[Setting] = &[
            Setting::Disks,
            Setting::Nets,
            Setting::Publish,
            Setting::Vsock,
            Setting::CpuQuota,
            Setting::Cpuset,
            Setting::CpuWeight,
            Setting::CpuScope,
            Setting::HugePages,
            Setting::MemoryMode,
            Setting::CgroupParent,
            Setting::Overcommit,
            Setting::Stats,
            Setting::Jail,
            Setting::NoJail,
            Setting::BestEffort,
        ];
        FLAGS.iter().any(|it| it.flag() == self.flag())
    }

    /// Writes how it is said of a service: by docker's names, and not at all where it is about machines only.
    fn write_word(self, out: &mut impl fmt::Write, value: Option<&str>) -> fmt::Result {
        let docker = match self {
            Setting::Vcpus => "vcpus",
            Setting::CpuQuota => "cpus",
            Setting::Cpuset => "cpuset-cpus",
            // Its values are others.
            Setting::CpuWeight => return out.write_str("--cpu-shares"),
            Setting::DiskReadOnly => return out.write_str("`:ro` of --volume"),
            Setting::Root => return out.write_str("IMAGE"),
            Setting::Command => return out.write_str("COMMAND"),
            Setting::Kernel
            | Setting::Memory
            | Setting::CgroupParent
            | Setting::ReadOnly
            | Setting::Publish
            | Setting::Dns
            | Setting::Env
            | Setting::Workdir
            | Setting::Hostname
            | Setting::StopTimeout
            | Setting::BestEffort => return self.write_flag(out, value, ' '),
            // A value of this one that stood alone would be the image.
            _ if self.flag() == Setting::Nets.flag() => return self.write_flag(out, value, '='),
            _ if [Setting::Overcommit.flag(), Setting::Scratch.flag()].contains(&self.flag()) => {
                return self.write_flag(out, value, ' ');
            }
            _ => return Err(fmt::Error),
        };
        match value {
            None => write!(out, "--{docker}"),
            Some(value) => write!(out, "--{docker} {value}"),
        }
    }

    /// Writes it as a flag, which has `before` between its name and its value.
    fn write_flag(
        self,
        out: &mut impl fmt::Write,
        value: Option<&str>,
        before: char,
    ) -> fmt::Result {
        let Definition { flag, name, .. } = self.definition();
        match (name, value) {
            (None, None) => write!(out, "--{flag}"),
            (None, Some(value)) => write!(out, "--{flag}{before}{value}"),
            (Some(name), None) => write!(out, "`{name}` of --{flag}"),
            // What comes first there has no key.
            (Some("path"), Some(value)) => write!(out, "--{flag}{before}{value}"),
            (Some(name), Some(value)) => {
                let has_path = self.keys().any(|key| key.name() == "path");
                let path = if has_path { "FILE," } else { "" };
                write!(out, "--{flag}{before}{path}{name}={value}")
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
