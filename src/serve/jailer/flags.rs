//! The jailer's command line.

use super::version;
use crate::firecracker;
use kvmlet_command::firecracker::{Given, JAILER_LINE};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// Where VMs' directories are if nothing is said.
const BASE: &str = "/srv/jailer";
/// How many files the processes of a VM may have open if nothing is said.
const OPEN_FILES: u64 = 2048;

/// What was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flags {
    pub id: String,
    pub exec_file: PathBuf,
    /// What the program is called in the jail, by which its directory is called, too.
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub base: PathBuf,
    pub netns: Option<PathBuf>,
    pub daemonize: bool,
    pub new_pid_ns: bool,
    pub cgroup: Cgroup,
    pub limits: Limits,
    /// For the program.
    pub rest: Vec<OsString>,
}

/// The cgroup that the program runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    pub version: Version,
    /// From the root of the hierarchy.
    pub parent: PathBuf,
    /// Files, and what is written to each.
    pub values: Vec<(String, String)>,
}

/// Which cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    One,
    Two,
}

/// What its processes may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub file_bytes: Option<u64>,
    /// None where nothing was said.
    pub open_files: Option<u64>,
}

impl Limits {
    /// How many files may be open, and whether somebody has said so.
    pub fn open_files(&self) -> (u64, bool) {
        (
            self.open_files.unwrap_or(OPEN_FILES),
            self.open_files.is_some(),
        )
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Jail(Box<Flags>),
    /// A text, and no more.
    Print(String),
}

impl Flags {
    /// The directory that becomes the root, below the base.
    pub fn steps(&self) -> [&str; 3] {
        [&self.name, &self.id, "root"]
    }

    /// The same, as a path.
    pub fn directory(&self) -> PathBuf {
        self.steps()
            .iter()
            .fold(self.base.clone(), |path, step| path.join(step))
    }
}

/// Reads a command line.
pub fn read(words: &[OsString]) -> Result<Wanted, String> {
    let given = JAILER_LINE.read(words)?;
    if given.has("help") {
        return Ok(Wanted::Print(JAILER_LINE.help()));
    }
    if given.has("version") {
        return Ok(Wanted::Print(version()));
    }
    let needed = |name: &str| given.value(name).ok_or(format!("--{name} is missing"));
    let number = |name: &str| {
        needed(name)?;
        Ok::<_, String>(given.number::<u32>(name)?.unwrap_or_default())
    };
    let exec_file = PathBuf::from(needed("exec-file")?);
    let name = exec_file.file_name().and_then(|name| name.to_str());
    let name = name.ok_or(format!("--exec-file `{}` has no name", exec_file.display()))?;
    let name = name.to_owned();
    let rest = given.rest.clone();
    // What the program would refuse in its jail is refused before there is one.
    firecracker::check(&rest).map_err(|why| format!("the words behind `--` cannot be: {why}"))?;
    Ok(Wanted::Jail(Box::new(Flags {
        id: firecracker::id(needed("id")?)?,
        uid: user(number("uid")?, "uid")?,
        gid: user(number("gid")?, "gid")?,
        base: given.value("chroot-base-dir").unwrap_or(BASE.into()).into(),
        netns: given.value("netns").map(PathBuf::from),
        daemonize: given.has("daemonize"),
        new_pid_ns: given.has("new-pid-ns"),
        cgroup: cgroup(&given, &name)?,
        limits: limits(&given)?,
        exec_file,
        name,
        rest,
    })))
}

/// One that the kernel does not take for none.
fn user(number: u32, what: &str) -> Result<u32, String> {
    match number {
        u32::MAX => Err(format!("--{what} {number} is nobody's number")),
        number => Ok(number),
    }
}

fn cgroup(given: &Given, name: &str) -> Result<Cgroup, String> {
    let version = match given.value("cgroup-version").as_deref() {
        None | Some("1") => Version::One,
        Some("2") => Version::Two,
        Some(other) => return Err(format!("--cgroup-version `{other}` is not 1 or 2")),
    };
    let parent = given.value("parent-cgroup").unwrap_or(name.into());
    let is_below = |path: &Path| {
        let mut steps = path.components().peekable();
        steps.peek().is_some() && steps.all(|step| matches!(step, Component::Normal(_)))
    };
    // A path drops `.` between two others by itself.
    if !is_below(Path::new(&parent)) || parent.split('/').any(|step| step == ".") {
        return Err(format!(
            "--parent-cgroup `{parent}` has to be a path below the root of the cgroups, without `.` and `..`"
        ));
    }
    let value = |text: String| {
        let fits = |file: &str| {
            let mut letters = file.bytes();
            let known = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'.' | b'_' | b'-');
            file.find('.').is_some_and(|dot| dot > 0) && letters.all(known)
        };
        match text.split_once('=') {
            Some((file, value)) if fits(file) && !value.is_empty() && !value.contains('\n') => {
                Ok((file.to_owned(), value.to_owned()))
            }
            _ => Err(format!(
                "--cgroup `{text}` is not FILE=VALUE, such as cpu.shares=10"
            )),
        }
    };
    let values = given
        .values("cgroup")
        .map(value)
        .collect::<Result<_, _>>()?;
    Ok(Cgroup {
        version,
        parent: parent.into(),
        values,
    })
}

fn limits(given: &Given) -> Result<Limits, String> {
    let mut limits = Limits::default();
    for text in given.values("resource-limit") {
        let wrong = || format!("--resource-limit `{text}` is not fsize=BYTES or no-file=NUMBER");
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        let value = value.parse().map_err(|_| wrong())?;
        match name {
            "fsize" => limits.file_bytes = Some(value),
            "no-file" => limits.open_files = Some(value),
            _ => return Err(wrong()),
        }
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "--id vm-1 --exec-file /opt/firecracker --uid 1000 --gid 1001";

    fn read_text(text: &str) -> Result<Wanted, String> {
        let words: Vec<_> = text.split_whitespace().map(OsString::from).collect();
        read(&words)
    }

    fn flags(more: &str) -> Flags {
        match read_text(&format!("{LEAST} {more}")) {
            Ok(Wanted::Jail(flags)) => *flags,
            other => panic!("{more}: {other:?}"),
        }
    }

    #[test]
    fn flags_are_the_jailer_s() {
        let least = flags("");
        assert_eq!((&*least.id, least.uid, least.gid), ("vm-1", 1000, 1001));
        assert_eq!(
            least.directory(),
            Path::new("/srv/jailer/firecracker/vm-1/root")
        );
        assert_eq!(least.limits.open_files(), (2048, false));
        assert_eq!(least.cgroup.parent, Path::new("firecracker"));
        let all = flags(
            "--chroot-base-dir /b --netns /n --daemonize --new-pid-ns --cgroup cpu.shares=10 --cgroup cpuset.cpus=0-1 \
             --cgroup-version 2 --parent-cgroup a/b --resource-limit fsize=5 --resource-limit no-file=77 \
             -- --api-sock /a.socket --config-file c",
        );
        assert_eq!(all.directory(), Path::new("/b/firecracker/vm-1/root"));
        assert_eq!(all.netns, Some("/n".into()));
        assert!(all.daemonize && all.new_pid_ns);
        let values = [("cpu.shares", "10"), ("cpuset.cpus", "0-1")];
        let values = values.map(|(file, value)| (file.to_owned(), value.to_owned()));
        assert_eq!(all.cgroup.values, values);
        assert_eq!(
            (all.cgroup.version, all.cgroup.parent),
            (Version::Two, "a/b".into())
        );
        assert_eq!(
            (all.limits.file_bytes, all.limits.open_files()),
            (Some(5), (77, true))
        );
        assert_eq!(all.rest.len(), 4);
        for (text, part) in [
            ("--version", "Jailer v1.17.0\n"),
            ("-h", "--exec-file FILE"),
        ] {
            let Ok(Wanted::Print(told)) = read_text(text) else {
                panic!("{text}");
            };
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn what_cannot_be_is_told() {
        for (text, part) in [
            ("--exec-file f --uid 1 --gid 1", "--id is missing"),
            ("--id a --uid 1 --gid 1", "--exec-file is missing"),
            ("--id a --exec-file f --gid 1", "--uid is missing"),
            ("--id a --exec-file f --uid 1", "--gid is missing"),
            (
                "--id a_b --exec-file f --uid 1 --gid 1",
                "letters, digits and hyphens",
            ),
            (
                "--id .. --exec-file f --uid 1 --gid 1",
                "letters, digits and hyphens",
            ),
            ("--id a --exec-file / --uid 1 --gid 1", "has no name"),
            ("--id a --exec-file a/.. --uid 1 --gid 1", "has no name"),
            (
                "--id a --exec-file f --uid root --gid 1",
                "--uid is a whole number",
            ),
            (
                "--id a --exec-file f --uid -1 --gid 1",
                "--uid is a whole number",
            ),
            (
                "--id a --exec-file f --uid 4294967295 --gid 1",
                "nobody's number",
            ),
        ] {
            let error = read_text(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        for (more, part) in [
            ("--cgroup cpu.shares", "is not FILE=VALUE"),
            ("--cgroup cpu.shares=", "is not FILE=VALUE"),
            ("--cgroup ../cpu.shares=1", "is not FILE=VALUE"),
            ("--cgroup .x=1", "is not FILE=VALUE"),
            ("--cgroup shares=1", "is not FILE=VALUE"),
            ("--cgroup-version 3", "not 1 or 2"),
            ("--parent-cgroup /a", "below the root"),
            ("--parent-cgroup a/../b", "below the root"),
            ("--parent-cgroup a/./b", "below the root"),
            ("--parent-cgroup=", "below the root"),
            ("--resource-limit cpu=1", "fsize=BYTES"),
            ("--resource-limit fsize", "fsize=BYTES"),
            ("--resource-limit no-file=-1", "fsize=BYTES"),
            (
                "-- --seccomp-filter f",
                "behind `--` cannot be: --seccomp-filter is not supported",
            ),
            ("-- --id b", "--id is given by the jailer"),
            ("-- --no-such", "unknown argument `--no-such`"),
        ] {
            let error = read_text(&format!("{LEAST} {more}")).unwrap_err();
            assert!(error.contains(part), "{more}: {error}");
        }
    }
}
