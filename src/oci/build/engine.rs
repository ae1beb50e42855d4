//! The program that builds: buildah, or podman, which is the same one inside and takes the same words. Where this user may
//! have it so, it is in namespaces of mounts and processes of its own: nothing that it has mounted or started outlasts it, and
//! it does not outlast this process.

use super::{Error, Wanted};
use kvmlet_image::Digest;
use kvmlet_sys::{environment, signals};
use rustix::process::{Signal, geteuid, set_parent_process_death_signal};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// Those that build, the better ones first.
pub const PROGRAMS: [&str; 2] = ["buildah", "podman"];
/// util-linux's way into namespaces, which end with it.
const ALONE: [&str; 6] = [
    "unshare",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
];
/// What a terminal sends.
const KEYS: [i32; 2] = [Signal::INT.as_raw(), Signal::QUIT.as_raw()];
/// The longest list or error that is read.
const MAX_ANSWER: u64 = 1 << 20;

/// The first one that is installed.
pub fn find() -> Result<&'static str, Error> {
    let path = environment::variable("PATH").unwrap_or_default();
    let is_there =
        |program: &&str| std::env::split_paths(&path).any(|it| it.join(program).is_file());
    PROGRAMS.into_iter().find(is_there).ok_or(Error::NoEngine)
}

/// The program with its storage.
pub struct Engine<'a> {
    program: &'static str,
    cache: PathBuf,
    work: &'a Path,
    is_alone: bool,
}

/// What is to be built, for the program.
pub struct Steps<'a> {
    /// What was asked for.
    pub wanted: &'a Wanted,
    /// By an absolute path.
    pub context: &'a Path,
    /// By an absolute path.
    pub file: &'a Path,
    /// Names in the Containerfile, and what they stand for.
    pub contexts: &'a [(String, String)],
    /// The archive, in the build's directory.
    pub result: &'a str,
}

impl<'a> Engine<'a> {
    /// One with these directories, of which the latter is only for this build.
    pub fn new(program: &'static str, cache: PathBuf, work: &'a Path) -> Self {
        let mut trial = Command::new(ALONE[0]);
        trial.args(&ALONE[1..]).arg("true");
        trial
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Without root the program makes namespaces itself.
        let is_alone = geteuid().is_root() && trial.status().is_ok_and(|it| it.success());
        Self {
            program,
            cache,
            work,
            is_alone,
        }
    }

    fn command(&self) -> Command {
        let mut command = match self.is_alone {
            true => {
                let mut command = Command::new(ALONE[0]);
                command.args(&ALONE[1..]).arg(self.program);
                command
            }
            false => Command::new(self.program),
        };
        command.arg("--root").arg(&self.cache);
        command.arg("--runroot").arg(self.work.join("run"));
        // What it keeps for a moment goes with the build.
        command.env("TMPDIR", self.work).current_dir(self.work);
        let mortal = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
        // SAFETY: a system call, without memory or locks.
        unsafe { command.pre_exec(mortal) };
        command
    }

    /// Has it build. It tells on this process's streams what it does.
    pub fn build(&self, steps: &Steps<'_>) -> Result<(), Error> {
        let wanted = steps.wanted;
        let mut command = self.command();
        // Docker's form has all that a configuration may say, such as a check of the service's health.
        command.args(["build", "--layers", "--format", "docker", "--pull=false"]);
        let archive = match wanted.names.first() {
            Some(name) => format!("docker-archive:{}:{}", steps.result, name.canonical()),
            None => format!("docker-archive:{}", steps.result),
        };
        command
            .arg("--tag")
            .arg(archive)
            .arg("--file")
            .arg(steps.file);
        for (name, whole) in steps.contexts {
            command.arg("--build-context");
            command.arg(format!("{name}=docker-image://{whole}"));
        }
        let mut each = |flag: &str, values: &[String]| {
            for value in values {
                command.arg(flag).arg(value);
            }
        };
        each("--build-arg", &wanted.arguments);
        each("--label", &wanted.labels);
        each("--target", wanted.target.as_slice());
        each("--network", wanted.network.as_slice());
        if wanted.no_cache {
            command.arg("--no-cache");
        }
        if wanted.quiet {
            command.arg("--quiet").stdout(Stdio::null());
        }
        command.arg(steps.context).stdin(Stdio::null());
        let mut child = command.spawn().map_err(|source| self.not_started(source))?;
        // The terminal interrupts both, and who has told the build to end clears up behind it.
        signals::ignore(&KEYS);
        let status = child.wait().map_err(|source| self.not_started(source))?;
        signals::heed(&KEYS);
        match status.success() {
            true => Ok(()),
            false => Err(Error::Build {
                program: self.program,
                how: how(status),
            }),
        }
    }

    /// The ids of all images that it has.
    pub fn images(&self) -> Result<Vec<Digest>, Error> {
        let words = ["images", "--all", "--quiet", "--no-trunc"];
        let text = self.ask("list its images", &words, Stdio::null())?;
        Ok(text.lines().filter_map(Digest::parse).collect())
    }

    /// Gives it an image: an archive as docker writes it.
    pub fn pull(&self, archive: File, name: &str) -> Result<(), Error> {
        let what = format!("take the image `{}`", name.escape_debug());
        let words = ["pull", "--quiet", "docker-archive:/dev/stdin"];
        self.ask(&what, &words, archive.into()).map(drop)
    }

    /// Gives an image that it has a name.
    pub fn tag(&self, id: &Digest, name: &str) -> Result<(), Error> {
        let what = format!("name the image `{name}`");
        self.ask(&what, &["tag", &id.hex(), name], Stdio::null())
            .map(drop)
    }

    /// Removes containers that builds which were killed have left.
    pub fn drop_containers(&self) -> Result<(), Error> {
        let words: &[&str] = match self.program {
            "podman" => &["system", "prune", "--external", "--force"],
            _ => &["rm", "--all"],
        };
        self.ask("clear up behind other builds", words, Stdio::null())
            .map(drop)
    }

    /// Removes all that it has.
    pub fn drop_images(&self) -> Result<(), Error> {
        self.drop_containers()?;
        let words = ["rmi", "--all", "--force"];
        self.ask("remove its images", &words, Stdio::null())
            .map(drop)
    }

    /// What it answers.
    fn ask(&self, what: &str, words: &[&str], input: Stdio) -> Result<String, Error> {
        let mut command = self.command();
        let words: Vec<OsString> = words.iter().map(Into::into).collect();
        command.args(words).stdin(input);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|source| self.not_started(source))?;
        let errors = child.stderr.take();
        let (answer, said) = std::thread::scope(|scope| {
            let errors = scope.spawn(|| all(errors));
            (all(child.stdout.take()), errors.join().unwrap_or_default())
        });
        let status = child.wait().map_err(|source| self.not_started(source))?;
        if status.success() {
            return Ok(answer);
        }
        let last = said.lines().rfind(|line| !line.trim().is_empty());
        Err(Error::Engine {
            program: self.program,
            what: what.into(),
            said: last.map_or_else(|| how(status), |line| line.escape_debug().to_string()),
        })
    }

    fn not_started(&self, source: io::Error) -> Error {
        Error::Start {
            program: self.program,
            source,
        }
    }
}

/// All that comes, of which the beginning is kept.
fn all(stream: Option<impl Read>) -> String {
    let mut text = Vec::new();
    if let Some(mut stream) = stream {
        // What cannot be read is as if it had not been said.
        let _ = stream.by_ref().take(MAX_ANSWER).read_to_end(&mut text);
        let _ = io::copy(&mut stream, &mut io::sink());
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it has ended with exit code {code}"),
        (_, Some(signal)) => format!("it was ended by {}", signals::name(signal as u8)),
        _ => status.to_string(),
    }
}
