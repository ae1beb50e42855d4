//! VMs that are made of images of the store, as `kvmlet run --detach` makes them.

use super::call::Call;
use super::copies::{MOST, Made, program};
use super::operations::Kind;
use super::problem::{BAD_REQUEST, HOST, Problem};
use super::words::in_fields;
use crate::http::Answer;
use kvmlet_command::beside::KVMLET;
use kvmlet_spec::{VcpuCount, VmConfig};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a VM is to run, and how: what is not said is as the image has it. Texts are as the flags of `kvmlet run` take them, which are docker's.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunVm {
    /// An image, by its name or id; or the absolute path of a root file system or of a directory.
    #[schemars(length(min = 1, max = 4096))]
    pub image: String,
    /// The service, with its arguments, instead of the image's own.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub command: Vec<String>,
    /// The program that is run, with `command` as its arguments, instead of the image's own.
    pub entrypoint: Option<String>,
    /// When the image is pulled from its registry: `missing`, `always`, `never` [default: `missing`].
    pub pull: Option<Pull>,
    /// Environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Ports of the host that lead to it: `[ADDRESS:][HOST:]GUEST[/tcp|udp]`.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub publish: Vec<String>,
    /// What is mounted: `[NAME|DIR:]/PATH[:ro|nocopy]`. Directories of the host are absolute, and copied.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub volumes: Vec<String>,
    /// Memory that is mounted: `/PATH[:size=64m,mode=1777]`.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub tmpfs: Vec<String>,
    /// How its health is asked for.
    pub health: Option<Health>,
    /// When it is started again by itself: `no`, `on-failure`, `on-failure:N`, `always`, `unless-stopped`.
    pub restart: Option<String>,
    /// It is suspended when nobody has used it for that long, and goes on when a packet comes for it: `5m`, `1h30m`, `1s` at the
    /// least [default: it is not].
    #[schemars(length(max = 64))]
    pub idle: Option<String>,
    /// It is removed when it has ended.
    #[serde(default)]
    pub remove: bool,
    /// What is noted about it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// CPU time that it may use, in CPUs.
    #[schemars(range(min = 0.001, max = 1024.0))]
    pub cpus: Option<f64>,
    /// Number of vCPUs [default: as many as `cpus` takes, or 1].
    #[schemars(range(min = 1, max = 254))]
    pub vcpus: Option<u32>,
    /// Guest memory: `512m`, `1.5g` [default: 128m].
    pub memory: Option<String>,
    /// The service cannot change its root.
    #[serde(default)]
    pub read_only: bool,
    /// Whom it runs as, `USER[:GROUP]`.
    pub user: Option<String>,
    /// Where it starts.
    pub workdir: Option<String>,
    /// The guest's host name [default: the beginning of the id].
    pub hostname: Option<String>,
    /// Which signal asks the service to end: its number or its name.
    pub stop_signal: Option<String>,
    /// How many seconds it has then.
    pub stop_timeout: Option<u32>,
    /// Guest kernel, by its absolute path.
    pub kernel: Option<String>,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pull {
    /// If it is not here.
    Missing,
    /// Each time: it may have changed there.
    Always,
    /// Not at all.
    Never,
}

/// How its health is asked for. Times are as `30s` or `1m30s`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// What the guest's /bin/sh runs again and again; without it the image's own.
    pub command: Option<String>,
    /// From the end of one check to the start of the next.
    pub interval: Option<String>,
    /// How long a check may take.
    pub timeout: Option<String>,
    /// How many failures in a row make the service unhealthy.
    pub retries: Option<u32>,
    /// Time after the start in which failures do not count.
    pub start_period: Option<String>,
    /// What is done when it is unhealthy: `none`, `restart`, `stop`, `kill`.
    pub on_failure: Option<String>,
}

/// Makes a VM of an image, and starts it.
pub fn run(call: &Call) -> Result<Answer, Problem> {
    let wanted: RunVm = call.read()?;
    wanted.check()?;
    let made = Made::new(call, call.new_name()?)?;
    let describe = |command: &mut Command| {
        command.args(["run", "--detach"]);
        made.name(command);
        made.describe(command, &wanted.publish, wanted.remove)?;
        let flags = wanted.flags().into_iter();
        command.args(flags.map(|(flag, value)| format!("--{flag}={value}")));
        command.args(wanted.read_only.then_some("--read-only"));
        Ok::<(), Problem>(())
    };
    // What is not understood is refused at once: whoever asks for help is told of it first.
    let mut command = program(KVMLET)?;
    describe(&mut command)?;
    understood(command.arg("--help"))?;
    let mut command = program(KVMLET)?;
    describe(&mut command)?;
    command.arg("--").arg(&wanted.image).args(&wanted.command);
    made.begin(Kind::Run, command)
}

/// Does a verb understand that?
fn understood(command: &mut Command) -> Result<(), Problem> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let output = command.current_dir("/").stderr(Stdio::piped()).output();
    let output = output.map_err(|error| Problem::because(HOST, &error))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(in_fields(Problem::in_words(BAD_REQUEST, &said)))
        }
    }
}

impl RunVm {
    /// What the verb would not refuse, or by the words of somebody who types.
    fn check(&self) -> Result<(), Problem> {
        let absolute = |field: &str, path: &str, help: &str| match Path::new(path).is_absolute() {
            true => Ok(()),
            false => {
                let detail = format!("`{}` is not an absolute path", path.escape_debug());
                Err(Problem::in_field(field, detail).help(help))
            }
        };
        if let Some(kernel) = &self.kernel {
            absolute("kernel", kernel, "say where it is from the root on")?;
        }
        // As for the command line: a path is what has a dot first.
        if self.image.starts_with('.') {
            let help = "name an image, or say where it is from the root on";
            absolute("image", &self.image, help)?;
        }
        for (place, volume) in self.volumes.iter().enumerate() {
            if volume.starts_with('.') {
                let help = "name a volume, or say where the directory is from the root on";
                absolute(&format!("volumes[{place}]"), volume, help)?;
            }
        }
        for (field, names) in [("env", &self.env), ("labels", &self.labels)] {
            let is_none = |name: &&String| name.is_empty() || name.contains('=');
            if let Some(name) = names.keys().find(is_none) {
                let detail = format!("`{}` is not the name of anything", name.escape_debug());
                return Err(Problem::in_field(field, detail));
            }
        }
        self.check_bounds()?;
        self.check_service()?;
        let mut all = self.flags().into_iter().map(|(_, value)| value);
        let words = self
            .command
            .iter()
            .chain([&self.image])
            .chain(&self.publish);
        match all.any(|value| value.contains('\0')) || { words }.any(|it| it.contains('\0')) {
            true => Err(Problem::in_field(
                "command",
                "no text has a zero byte in it",
            )),
            false => Ok(()),
        }
    }

    fn check_bounds(&self) -> Result<(), Problem> {
        let vcpus = self.vcpus.unwrap_or(1);
        let cpus = self.cpus.unwrap_or(1.0);
        for (field, is_within, bounds) in [
            (
                "image",
                (1..=4096).contains(&self.image.len()),
                "has 1 to 4096 bytes",
            ),
            (
                "command",
                self.command.len() <= 1024,
                "has 1024 words at most",
            ),
            ("volumes", self.volumes.len() <= MOST, "are 64 at most"),
            ("tmpfs", self.tmpfs.len() <= MOST, "are 64 at most"),
            (
                "vcpus",
                (1..=u32::from(VcpuCount::MAX)).contains(&vcpus),
                "are 1 to 254",
            ),
            (
                "cpus",
                (0.001..=1024.0).contains(&cpus),
                "are 0.001 to 1024",
            ),
        ] {
            if !is_within {
                return Err(Problem::in_field(field, format!("`{field}` {bounds}")));
            }
        }
        Ok(())
    }

    /// What the guest would refuse.
    fn check_service(&self) -> Result<(), Problem> {
        let has = |text: &Option<String>, good: fn(&str) -> bool| text.as_deref().is_none_or(good);
        for (field, is_good, detail) in [
            (
                "user",
                has(&self.user, |user| {
                    user.split(':').count() <= 2 && !user.split(':').any(str::is_empty)
                }),
                "a user is `USER` or `USER:GROUP`, by names or numbers",
            ),
            (
                "workdir",
                has(&self.workdir, |path| path.starts_with('/')),
                "the directory in which a service starts is absolute",
            ),
        ] {
            if !is_good {
                return Err(Problem::in_field(field, detail));
            }
        }
        if let Some(name) = &self.hostname {
            // A VM is described by it as it will be.
            let described = VmConfig::builder().kernel("vmlinux").hostname(name).build();
            described.map_err(|error| Problem::in_field("hostname", error.to_string()))?;
        }
        let is_started_again = self.restart.as_deref().is_some_and(|policy| policy != "no");
        let health = self.health.as_ref();
        let restarts = health.is_some_and(|it| it.on_failure.as_deref() == Some("restart"));
        if restarts && !is_started_again {
            let detail = "a service that is unhealthy would be stopped and stay so";
            let help = "say when it is started again, by `restart`";
            return Err(Problem::in_field("health.on_failure", detail).help(help));
        }
        if self.remove && is_started_again {
            let detail = "what is removed when it has ended is not started again";
            return Err(Problem::in_field("restart", detail));
        }
        Ok(())
    }

    /// What is said of it, as the verb takes it.
    fn flags(&self) -> Vec<(&'static str, String)> {
        let mut flags = Vec::new();
        let pull = self.pull.map(|pull| match pull {
            Pull::Missing => "missing",
            Pull::Always => "always",
            Pull::Never => "never",
        });
        let pairs = |pairs: &BTreeMap<String, String>| {
            let pairs = pairs.iter();
            pairs
                .map(|(name, value)| format!("{name}={value}"))
                .collect()
        };
        let all: [(_, Vec<String>); 4] = [
            ("env", pairs(&self.env)),
            ("label", pairs(&self.labels)),
            ("volume", self.volumes.clone()),
            ("tmpfs", self.tmpfs.clone()),
        ];
        for (flag, values) in all {
            flags.extend(values.into_iter().map(|value| (flag, value)));
        }
        let health = self.health.as_ref();
        let one = [
            ("entrypoint", self.entrypoint.clone()),
            ("pull", pull.map(Into::into)),
            ("restart", self.restart.clone()),
            ("idle", self.idle.clone()),
            ("cpus", self.cpus.map(|it| it.to_string())),
            ("vcpus", self.vcpus.map(|it| it.to_string())),
            ("memory", self.memory.clone()),
            ("user", self.user.clone()),
            ("workdir", self.workdir.clone()),
            ("hostname", self.hostname.clone()),
            ("stop-signal", self.stop_signal.clone()),
            ("stop-timeout", self.stop_timeout.map(|it| it.to_string())),
            ("kernel", self.kernel.clone()),
            ("health-cmd", health.and_then(|it| it.command.clone())),
            ("health-interval", health.and_then(|it| it.interval.clone())),
            ("health-timeout", health.and_then(|it| it.timeout.clone())),
            (
                "health-retries",
                health.and_then(|it| it.retries).map(|it| it.to_string()),
            ),
            (
                "health-start-period",
                health.and_then(|it| it.start_period.clone()),
            ),
            (
                "health-on-failure",
                health.and_then(|it| it.on_failure.clone()),
            ),
        ];
        let said = one.into_iter();
        flags.extend(said.filter_map(|(flag, value)| Some((flag, value?))));
        flags
    }
}

#[cfg(test)]
#[path = "runs_tests.rs"]
mod tests;
