//! From what a client describes to what the book has.

use super::call::Call;
use super::config::{Config, NOT_IN_CONFIG};
use super::model::{CreateVm, Vm};
use super::problem::{CONFLICT, HOST, Problem};
use super::vms::{note, told};
use crate::http::Answer;
use kvmlet_host::state::built;
use kvmlet_manager::{Asked, Error, InstanceId, LogLimits, Service, Text};
use kvmlet_spec::supervision::{RestartPolicy, Span};
use kvmlet_spec::{ConsoleSize, Remedy, VmConfigBuilder};
use serde_json::Value;
use std::path::Path;

/// The initrd that has kvmlet's init, which starts the service.
const INIT: &str = "init";
/// For a service with a terminal, which those that are made here have not.
const SIZE: ConsoleSize = ConsoleSize {
    columns: 80,
    rows: 24,
};
/// Smaller files of a log are more work than they hold.
const LEAST_LOG_BYTES: u64 = 64 << 10;
const MOST_LOG_BYTES: u64 = 1 << 40;

/// Makes a VM, unless the same is there.
pub fn create(call: &Call) -> Result<Answer, Problem> {
    let name = call.new_name()?;
    let wanted: CreateVm = call.read()?;
    let id = InstanceId::random().map_err(|error| Problem::because(HOST, &error))?;
    let asked = wanted.asked(Asked::new(id, ""))?;
    let image = asked.image.clone();
    match call.book()?.create(Some(&name), asked) {
        Ok((instance, _)) => {
            let view = call.book()?.view(&instance)?;
            note(call, "create", &view, [("image", image)]);
            Ok(told(201, &Vm::from(view))?.with("Location", format!("/v1/vms/{name}")))
        }
        Err(Error::NameTaken { .. }) => {
            let (_, view) = call.look()?;
            // The same id and time: what else differs was described otherwise.
            let mut new = Asked::new(view.id.clone(), "");
            new.created = view.asked.created;
            match wanted.asked(new)? == view.asked {
                true => told(200, &Vm::from(view)),
                false => {
                    let detail = format!("VM `{name}` is there, and was described otherwise");
                    let help = "take another name, or remove that VM";
                    Err(Problem::new(CONFLICT, detail).help(help))
                }
            }
        }
        Err(error) => Err(error.into()),
    }
}

impl CreateVm {
    /// What the book has of it, beside the id and the time.
    fn asked(&self, mut asked: Asked) -> Result<Asked, Problem> {
        let text = |text: &String| Text::Utf8(text.clone());
        asked.command = self.command.iter().map(text).collect();
        asked.restart = self.restart_policy()?;
        asked.idle = self.idle()?;
        asked.remove = self.remove;
        asked.labels = self.labels.clone();
        asked.log = self.log_limits()?;
        if self.remove && asked.restart != RestartPolicy::No {
            let detail = "what is removed when it has ended is not started again";
            return Err(Problem::in_field("restart", detail));
        }
        let service = &self.service;
        if service
            .stop_signal
            .is_some_and(|signal| !(1..=64).contains(&signal))
        {
            let detail = "a signal has a number from 1 to 64";
            return Err(Problem::in_field("service.stop_signal", detail));
        }
        if service
            .workdir
            .as_ref()
            .is_some_and(|dir| !dir.starts_with('/'))
        {
            let detail = "the directory in which a service starts is absolute";
            return Err(Problem::in_field("service.workdir", detail));
        }
        let env = service.env.iter();
        if let Some((name, _)) = env
            .clone()
            .find(|(name, _)| name.is_empty() || name.contains('='))
        {
            let detail = format!("`{}` is not the name of a variable", name.escape_debug());
            return Err(Problem::in_field("service.env", detail));
        }
        let hostname = service.hostname.clone();
        asked.service = Service {
            env: env.map(|(name, value)| (text(name), text(value))).collect(),
            workdir: service.workdir.clone(),
            user: service.user.clone(),
            hostname: Some(hostname.unwrap_or_else(|| asked.id.short().into())),
            stop_signal: service.stop_signal,
            stop_timeout: service.stop_timeout,
            ..Service::default()
        };
        // What the guest would refuse is refused before there is one.
        let described = asked.service.describe(&asked.command, SIZE).encode();
        described.map_err(|error| Problem::in_field("service", error.to_string()))?;
        asked.config = self.config.checked(&asked)?;
        let content = asked.config.get("root").or(asked.config.get("kernel"));
        asked.image = content.and_then(Value::as_str).unwrap_or("").into();
        if asked.idle.is_some() && asked.config.get("nets").is_none() {
            let detail = "it goes on when a packet comes for it, and has no interface";
            return Err(Problem::in_field("idle", detail).help("give it one, by `config.nets`"));
        }
        Ok(asked)
    }

    fn idle(&self) -> Result<Option<Span>, Problem> {
        let span = self.idle.as_deref().map(Asked::idle_time).transpose();
        span.map_err(|error| Problem::in_field("idle", error))
    }

    fn restart_policy(&self) -> Result<RestartPolicy, Problem> {
        let policy = self.restart.parse::<RestartPolicy>();
        policy.map_err(|error| Problem::in_field("restart", error.to_string()))
    }

    fn log_limits(&self) -> Result<LogLimits, Problem> {
        let (file_bytes, files) = (self.log.file_bytes, self.log.files);
        if !(LEAST_LOG_BYTES..=MOST_LOG_BYTES).contains(&file_bytes) {
            let detail = format!("a file has {LEAST_LOG_BYTES} to {MOST_LOG_BYTES} bytes");
            return Err(Problem::in_field("log.file_bytes", detail));
        }
        if !(1..=100).contains(&files) {
            return Err(Problem::in_field("log.files", "there are 1 to 100 files"));
        }
        Ok(LogLimits { file_bytes, files })
    }
}

impl Config {
    /// The configuration that a supervisor reads, which can be.
    fn checked(&self, asked: &Asked) -> Result<Value, Problem> {
        let mut keys = self.0.clone();
        for (key, elsewhere) in NOT_IN_CONFIG {
            if keys.contains_key(key) {
                let detail = format!("`{key}` is not said here");
                return Err(Problem::in_field(format!("config.{key}"), detail).help(elsewhere));
            }
        }
        refuse_relative(&keys)?;
        let service = &asked.service;
        if let Some(hostname) = &service.hostname {
            keys.insert("hostname".into(), hostname.as_str().into());
        }
        if let Some(timeout) = service.stop_timeout {
            keys.insert("stop_timeout".into(), timeout.into());
        }
        let init = built::initrd(INIT);
        if keys.contains_key("kernel") && !keys.contains_key("initrd") && init.exists() {
            // A Linux that has another one of its own says so.
            keys.insert("initrd".into(), init.to_string_lossy().into());
        }
        let json = Value::from(keys);
        let wrong = |error: kvmlet_spec::Error| {
            let mut problem = Problem::in_field("config", error.to_string());
            problem.help = Some(match error.remedy() {
                Some(advice) => advice.to_string(),
                None => "docs/reference.md lists all keys".into(),
            });
            problem
        };
        let mut builder = VmConfigBuilder::from_json(&json.to_string()).map_err(wrong)?;
        if !builder.has_kernel() {
            builder = builder.kernel(built::kernel());
        }
        builder.build().map_err(wrong)?;
        Ok(json)
    }
}

/// Where a relative path begins, a client does not know.
fn refuse_relative(keys: &serde_json::Map<String, Value>) -> Result<(), Problem> {
    let refuse = |field: String, value: Option<&Value>| match value.and_then(Value::as_str) {
        Some(path) if !Path::new(path).is_absolute() => {
            let detail = format!("`{}` is not an absolute path", path.escape_debug());
            Err(Problem::in_field(field, detail))
        }
        _ => Ok(()),
    };
    for key in ["kernel", "initrd", "root", "scratch"] {
        refuse(format!("config.{key}"), keys.get(key))?;
    }
    let disks = keys.get("disks").and_then(Value::as_array);
    for (place, disk) in disks.into_iter().flatten().enumerate() {
        refuse(format!("config.disks[{place}].path"), disk.get("path"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked(body: Value) -> Result<Asked, Problem> {
        let wanted: CreateVm = serde_json::from_value(body).unwrap();
        wanted.asked(Asked::new(InstanceId::random().unwrap(), ""))
    }

    #[test]
    fn what_cannot_be_is_told_by_its_field() {
        for (body, field) in [
            (json!({ "config": { "memroy": "1G" } }), "config"),
            (json!({ "config": { "memory": "1 X" } }), "config"),
            (
                json!({ "config": { "kernel": "vmlinux" } }),
                "config.kernel",
            ),
            (
                json!({ "config": { "disks": [{ "path": "a" }] } }),
                "config.disks[0].path",
            ),
            (json!({ "config": { "vsock": {} } }), "config.vsock"),
            (json!({ "config": {}, "restart": "sometimes" }), "restart"),
            (json!({ "config": {}, "idle": "1ms" }), "idle"),
            (json!({ "config": {}, "idle": "5m" }), "idle"),
            (
                json!({ "config": {}, "restart": "always", "remove": true }),
                "restart",
            ),
            (json!({ "config": {}, "log": { "files": 0 } }), "log.files"),
            (
                json!({ "config": {}, "service": { "stop_signal": 65 } }),
                "service.stop_signal",
            ),
            (
                json!({ "config": {}, "service": { "workdir": "srv" } }),
                "service.workdir",
            ),
            (
                json!({ "config": {}, "service": { "env": { "A=B": "" } } }),
                "service.env",
            ),
            (json!({ "config": {}, "command": ["a\u{0}b"] }), "service"),
        ] {
            let problem = asked(body.clone()).expect_err(&body.to_string());
            assert_eq!(
                (problem.status, problem.field.as_deref()),
                (400, Some(field)),
                "{body}"
            );
        }
    }

    #[test]
    fn the_same_description_is_the_same_instance() {
        let body = json!({
            "config": { "memory": "64M", "kernel": "/k" }, "command": ["a"], "service": { "env": { "A": "1" }, "stop_timeout": 3 },
            "labels": { "tier": "front" }, "restart": "on-failure:2"
        });
        let wanted: CreateVm = serde_json::from_value(body).unwrap();
        let id = InstanceId::random().unwrap();
        let first = wanted.asked(Asked::new(id.clone(), "")).unwrap();
        let mut second = Asked::new(id, "");
        second.created = first.created;
        assert_eq!(wanted.asked(second).unwrap(), first);
        assert_eq!(first.image, "/k");
        assert_eq!(first.config["stop_timeout"], 3);
        // What is written and read again is the same, too.
        let text = serde_json::to_string(&first).unwrap();
        assert_eq!(serde_json::from_str::<Asked>(&text).unwrap(), first);
    }
}
