//! What clients send and are told. The documentation of the API is made of these types.

use super::config::Config;
use kvmlet_manager::events::Event as Told;
use kvmlet_manager::logs::Entry;
use kvmlet_manager::{Asked, End, LogLimits, View};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// What a VM is to be: all of it, at once.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateVm {
    /// The machine.
    pub config: Config,
    /// The service, with its arguments. Empty: what the root says in `etc/kvmlet/service.json`.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub command: Vec<String>,
    /// How the service runs.
    #[serde(default)]
    pub service: ServiceSpec,
    /// When it is started again by itself: `no`, `on-failure`, `on-failure:N`, `always`, `unless-stopped`.
    #[serde(default = "no")]
    #[schemars(regex(pattern = r"^(no|on-failure(:[1-9][0-9]{0,8})?|always|unless-stopped)$"))]
    pub restart: String,
    /// It is suspended when nobody has used it for that long, and goes on when a packet comes for it: `5m`, `1h30m`, `1s` at the
    /// least [default: it is not].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub idle: Option<String>,
    /// It is removed when it has ended.
    #[serde(default)]
    pub remove: bool,
    /// What is noted about it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How much of what it writes is kept.
    #[serde(default)]
    pub log: LogSpec,
}

fn no() -> String {
    "no".into()
}

/// How a service runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceSpec {
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Where it starts, absolute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// Whom it runs as, `USER[:GROUP]`, by names or numbers of the root's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The guest's host name [default: the beginning of the id].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The number of the signal that asks it to end [default: 15].
    #[schemars(range(min = 1, max = 64))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<u8>,
    /// How many seconds it has then, before it is killed [default: 10].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<u32>,
}

impl ServiceSpec {
    /// What was asked of one, so that it can be asked again.
    fn of(asked: &Asked) -> Self {
        let service = &asked.service;
        let text = |text: &kvmlet_manager::Text| text.to_string_lossy().into_owned();
        let env = service.env.iter();
        // Another one is called by its own id.
        let own = |name: &String| name != asked.id.short();
        Self {
            env: env.map(|(name, value)| (text(name), text(value))).collect(),
            workdir: service.workdir.clone(),
            user: service.user.clone(),
            hostname: service.hostname.clone().filter(own),
            stop_signal: service.stop_signal,
            stop_timeout: service.stop_timeout,
        }
    }
}

/// How much of what a VM writes is kept.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogSpec {
    /// The size at which a file is put aside, in bytes.
    #[schemars(range(min = 65536, max = 1_099_511_627_776_u64))]
    pub file_bytes: u64,
    /// How many files there are.
    #[schemars(range(min = 1, max = 100))]
    pub files: u32,
}

impl Default for LogSpec {
    fn default() -> Self {
        let LogLimits { file_bytes, files } = LogLimits::default();
        Self { file_bytes, files }
    }
}

/// A VM, and what is known of it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Vm {
    /// Its id, which never changes.
    pub id: String,
    /// Its name; none while it is being removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is doing: `created`, `running`, `paused`, `suspended`, `restarting`, `exited`, `dead`.
    pub state: String,
    /// What it runs, as its user has named it.
    pub image: String,
    /// The service, with its arguments.
    pub command: Vec<String>,
    /// When it was asked for (RFC 3339).
    pub created: String,
    /// When its VM was started last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// How often it was started again by itself.
    pub restarts: u32,
    /// How its last run has ended; none while it runs, and before it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Whether its service is well, if that is asked for: `starting`, `healthy`, `unhealthy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// When it is started again by itself.
    pub restart: String,
    /// How long nobody uses it until it is suspended, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<String>,
    /// It is removed when it has ended.
    pub remove: bool,
    /// What is noted about it.
    pub labels: BTreeMap<String, String>,
    /// The machine, by what it can be made of again.
    pub config: Value,
    /// How the service runs.
    pub service: ServiceSpec,
    /// How much of what it writes is kept.
    pub log: LogSpec,
}

/// How a run has ended.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Exit {
    /// The exit code of the service, or what stands for one: 137 if it was killed.
    pub code: u8,
    /// When that was, if somebody was there to see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// What went wrong, if something did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Exit {
    fn of(end: &End) -> Option<Self> {
        let untold = |code| {
            Some(Self {
                code,
                ended: None,
                error: Some(end.to_string()),
            })
        };
        match end {
            End::Told(outcome) => Some(Self {
                code: outcome.code,
                ended: Some(outcome.ended.to_string()),
                error: outcome.error.clone(),
            }),
            End::Killed | End::Copied => untold(137),
            End::HostRestarted => untold(255),
            End::NeverRan | End::Suspended => None,
        }
    }
}

impl From<View> for Vm {
    fn from(view: View) -> Self {
        let text = |text: &kvmlet_manager::Text| text.to_string_lossy().into_owned();
        Self {
            id: view.id.as_str().into(),
            name: view.name.as_ref().map(ToString::to_string),
            state: view.state.name().into(),
            image: view.asked.image.clone(),
            command: view.asked.command.iter().map(text).collect(),
            created: view.asked.created.to_string(),
            started: view.record.started.map(|started| started.to_string()),
            restarts: view.record.restarts,
            exit: view.end.as_ref().and_then(Exit::of),
            health: view.record.health,
            restart: view.asked.restart.to_string(),
            idle: view.asked.idle.map(|span| span.to_string()),
            remove: view.asked.remove,
            config: Config::of(&view.asked),
            service: ServiceSpec::of(&view.asked),
            log: LogSpec {
                file_bytes: view.asked.log.file_bytes,
                files: view.asked.log.files,
            },
            labels: view.asked.labels,
        }
    }
}

/// All VMs of this user.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct VmList {
    /// The newest first.
    pub vms: Vec<Vm>,
    /// What cannot be read of the book: ids, and why.
    pub damaged: BTreeMap<String, String>,
}

/// What has come of waiting.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Waited {
    /// It does not run any more, or has never run. Otherwise the time was up: ask again.
    pub ended: bool,
    /// What is known of it now.
    pub vm: Vm,
}

/// Something that has happened: one object a line.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Event {
    /// Its number: each is one more than the one before.
    pub sequence: u64,
    /// When it was written down (RFC 3339).
    pub time: String,
    /// What: `create`, `start`, `die`, `rename` and so on, docker's words.
    pub event: String,
    /// The id of the VM.
    pub id: String,
    /// What that is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// More about it: `exitCode`, `oldName`.
    pub attributes: BTreeMap<String, String>,
}

impl From<Told> for Event {
    fn from(told: Told) -> Self {
        Self {
            sequence: told.sequence,
            time: told.time.to_string(),
            event: told.event,
            id: told.id.as_str().into(),
            name: told.name.map(|name| name.to_string()),
            attributes: told.attributes,
        }
    }
}

/// Something that a VM has written: one object a line.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct LogEntry {
    /// When it was read from the guest (RFC 3339).
    pub time: String,
    /// Where: `stdout`, `stderr`, `console`, `kvmlet`, `dropped`.
    pub stream: String,
    /// A line, or a part of one. What is not UTF-8 is replaced.
    pub text: String,
}

impl From<Entry> for LogEntry {
    fn from(entry: Entry) -> Self {
        Self {
            time: entry.time.to_string(),
            stream: entry.stream.name().into(),
            text: String::from_utf8_lossy(&entry.text).into_owned(),
        }
    }
}

/// What this server can do.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Capabilities {
    /// Of kvmlet.
    pub version: String,
    /// Of this API.
    pub api: String,
    /// What can be asked for, by the ids of the operations.
    pub operations: Vec<String>,
    /// The user whose VMs these are.
    pub user: u32,
    /// Whether this user may use /dev/kvm.
    pub kvm: bool,
    /// How much may be asked.
    pub limits: Limits,
}

/// How much may be asked.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct Limits {
    /// The longest body of a request, in bytes.
    pub body_bytes: usize,
    /// Programs that are served at a time.
    pub connections: usize,
    /// Requests of a user's that are heard in a second.
    pub requests_per_second: u32,
    /// As many at once, after a pause.
    pub requests_at_once: u32,
    /// Programs and archives on their way at a time, beside those.
    pub streams: usize,
    /// Of those who are served, how many may be told events.
    pub watchers: usize,
    /// How long one may wait at a time, in seconds.
    pub wait_seconds: u64,
}
