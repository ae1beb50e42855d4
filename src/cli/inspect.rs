//! `kvmlet inspect`.

use super::Outcome;
use super::exit_code::ExitCode;
use super::format::Template;
use super::instances::kernel;
use super::instances::row::code;
use super::instances::{book, is_alive, look};
use super::ports::Ports;
use clap::Args;
use kvmlet_command::plain::pretty_json;
use kvmlet_manager::{Instance, State, View};
use serde_json::{Value, json};

/// Print all that is known of instances, as JSON.
#[derive(Args)]
pub(super) struct Inspect {
    /// Print by a template of fields, such as {{.State.Status}}, one line each.
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Names, ids, or beginnings of ids.
    #[arg(value_name = "INSTANCE", required = true)]
    instances: Vec<String>,
}

impl Inspect {
    pub fn run(self) -> Outcome {
        let book = book()?;
        let template = match self.format.as_deref() {
            None | Some("json") => None,
            Some(text) => Some(Template::parse(text)?),
        };
        let (mut found, mut exit) = (Vec::new(), 0);
        for reference in &self.instances {
            match look(&book, reference) {
                Ok((instance, view)) => {
                    let ports = Ports::of(&book).published(&view);
                    found.push(inspected(&instance, &view, ports));
                }
                Err(failed) => {
                    failed.print();
                    exit = ExitCode::NotDone.number();
                }
            }
        }
        let text = match template {
            None => pretty_json(&found)? + "\n",
            Some(template) => template.lines(&found)?,
        };
        kvmlet_command::print(text)?;
        Ok(exit)
    }
}

/// Docker's fields, as far as they mean something here, and the VM's configuration as it was asked for.
fn inspected(instance: &Instance, view: &View, ports: Vec<String>) -> Value {
    let alive = is_alive(view);
    let keeper = view.record.keeper.as_ref().filter(|_| alive);
    let outcome = view.record.outcome.as_ref();
    let error = match &view.end {
        Some(end) if view.state == State::Dead => end.to_string(),
        _ if view.state == State::Suspended => view.record.unresumed.clone().unwrap_or_default(),
        _ => outcome
            .and_then(|outcome| outcome.error.clone())
            .unwrap_or_default(),
    };
    let directory = instance.directory().path();
    json!({
        "Id": view.id,
        "Name": view.name,
        "Created": view.asked.created,
        "State": {
            "Status": view.state,
            "Running": matches!(view.state, State::Running | State::Paused),
            "Paused": view.state == State::Paused,
            "Suspended": view.state == State::Suspended,
            "Restarting": view.state == State::Restarting,
            "Dead": view.state == State::Dead,
            // In another PID namespace its number is somebody else's here.
            "Pid": keeper.filter(|it| it.lives()).map_or(0, |it| it.pid),
            "ExitCode": view.end.as_ref().map_or(0, code),
            "Error": error,
            "StartedAt": view.record.started,
            "KernelOutdated": kernel::is_outdated(view),
            "FinishedAt": outcome.map(|outcome| outcome.ended),
            "Health": view.asked.health.as_ref().map(|_| health(instance, view)),
        },
        "Image": view.asked.image,
        "ImageID": view.asked.image_id,
        "Command": view.asked.command,
        "Service": view.asked.service,
        "RestartCount": view.record.restarts,
        "RestartPolicy": view.asked.restart,
        "Healthcheck": view.asked.health,
        "AutoRemove": view.asked.remove,
        "Idle": view.asked.idle,
        "Labels": view.asked.labels,
        "Ports": ports,
        "LogPath": directory.join("log"),
        "Log": view.asked.log,
        "Config": view.asked.config,
    })
}

/// What is known of its health, and of its last checks. What cannot be read of those is left out.
fn health(instance: &Instance, view: &View) -> Value {
    let checked = instance.checked().ok().flatten().unwrap_or_default();
    let results = checked.results.iter().map(|result| {
        json!({
            "Start": result.start,
            "End": result.end,
            // Docker's word for a check that has not ended in time.
            "ExitCode": result.code.map_or(-1, i32::from),
            "Output": result.output,
        })
    });
    json!({
        "Status": view.record.health.as_deref().unwrap_or("none"),
        "FailingStreak": checked.failures,
        "Log": results.collect::<Vec<_>>(),
    })
}
