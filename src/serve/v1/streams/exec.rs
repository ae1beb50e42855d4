//! Programs beside a VM's service, as `kvmlet exec` has them executed: what clients ask for, and what they are told.

use super::super::call::Call;
use super::super::problem::{NO_ANSWER, Problem};
use super::super::route::LINES;
use super::peer::Peer;
use super::running;
use super::session::{Session, Way};
use super::told::failed;
use crate::http::Answer;
use kvmlet_control::agent::AgentError;
use kvmlet_control::agent::channel::{ProcessSpec, Role};
use kvmlet_manager::View;
use kvmlet_manager::supervision::connect;
use kvmlet_spec::ConsoleSize;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// What clients that have input speak from the answer on: [frames](super::frames).
const PROTOCOL: &str = "kvmlet-exec";
/// How long a guest may take to be connected to, and to start a program.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is to be executed beside a VM's service, and how: what is not said is as its service has it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecVm {
    /// The program, with its arguments. One without a slash is looked for in `PATH`.
    #[schemars(length(min = 1, max = 1024))]
    pub command: Vec<String>,
    /// Environment variables, beside those of the service.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Where it starts.
    pub workdir: Option<String>,
    /// Whom it runs as, `USER[:GROUP]`, by names or numbers of the root's.
    pub user: Option<String>,
    /// It has a terminal of this size.
    pub tty: Option<TtySize>,
    /// Its input is what the client sends, which takes `Upgrade: kvmlet-exec`. Otherwise there is none.
    #[serde(default)]
    pub input: bool,
}

/// How large a terminal is.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TtySize {
    /// Characters in a row.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
}

/// Has a program executed, and passes its streams on until it has ended.
pub fn exec(call: &Call, peer: &mut Peer) -> Result<(), Problem> {
    let wanted: ExecVm = call.read()?;
    let framed = peer.manners.upgrade.as_deref() == Some(PROTOCOL);
    wanted.check(framed)?;
    let (instance, view) = running(call)?;
    let spec = wanted.process(&view);
    let described = spec.encode();
    described.map_err(|error| Problem::in_field("command", error.to_string()))?;
    let connected = connect(instance.directory(), PATIENCE);
    let mut agent = connected.map_err(|error| Problem::because(NO_ANSWER, &error))?;
    let started = agent.client().start(&spec, Role::Exec);
    let started = started.map_err(AgentError::from);
    let started = started.and_then(|()| agent.started(PATIENCE));
    started.map_err(|error| failed(error, view.called()))?;
    let way = match framed {
        true => {
            peer.switch(PROTOCOL);
            Way::frames(spec.input)
        }
        false => {
            peer.begin(Answer::new(200, None).of_kind(LINES));
            Way::lines()
        }
    };
    Session::new(agent, way, view.called()).run(peer);
    Ok(())
}

impl ExecVm {
    fn check(&self, framed: bool) -> Result<(), Problem> {
        let refuse = |field: &str, detail: &str| Err(Problem::in_field(field, detail));
        match self.command.len() {
            0 => return refuse("command", "the program is missing"),
            1..=1024 if self.command[0].is_empty() => {
                return refuse("command[0]", "the program has no name");
            }
            1..=1024 => {}
            _ => return refuse("command", "`command` has 1024 words at most"),
        }
        if let Some(name) = self.env.keys().find(|it| it.is_empty() || it.contains('=')) {
            let detail = format!("`{}` is not the name of a variable", name.escape_debug());
            return refuse("env", &detail);
        }
        match self.input && !framed {
            true => {
                let detail = "input takes a connection that goes both ways";
                let help = format!("say `Connection: Upgrade` and `Upgrade: {PROTOCOL}`");
                Err(Problem::in_field("input", detail).help(help))
            }
            false => Ok(()),
        }
    }

    fn process(&self, view: &View) -> ProcessSpec {
        let words = self.command.iter().map(|word| word.clone().into_bytes());
        let mut spec = view.asked.service.beside(words.collect());
        let workdir = self.workdir.clone();
        spec.workdir = workdir.map(Into::into).or(spec.workdir);
        spec.user = self.user.clone().or(spec.user);
        spec.terminal = self.tty.map(|size| ConsoleSize {
            columns: size.columns,
            rows: size.rows,
        });
        spec.input = self.input;
        // As docker has it: what terminals are taken for, unless the service knows better.
        let has_term = spec.variables.iter().any(|(name, _)| name == b"TERM");
        let terminal = (self.tty.is_some() && !has_term).then_some(("TERM", "xterm"));
        let own = self
            .env
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in terminal.into_iter().chain(own) {
            spec.variables.retain(|(other, _)| other != name.as_bytes());
            spec.variables.push((name.into(), value.into()));
        }
        spec
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_cannot_be_executed_is_refused_at_once() {
        let check = |body: serde_json::Value, framed| {
            serde_json::from_value::<ExecVm>(body)
                .unwrap()
                .check(framed)
        };
        check(json!({ "command": ["true"] }), false).unwrap();
        check(json!({ "command": ["cat"], "input": true }), true).unwrap();
        for (body, field) in [
            (json!({ "command": [] }), "command"),
            (json!({ "command": [""] }), "command[0]"),
            (json!({ "command": vec!["a"; 1025] }), "command"),
            (json!({ "command": ["a"], "env": { "A=B": "" } }), "env"),
            (json!({ "command": ["a"], "env": { "": "" } }), "env"),
            (json!({ "command": ["cat"], "input": true }), "input"),
        ] {
            let problem = check(body, false).unwrap_err();
            assert_eq!(problem.field.as_deref(), Some(field));
            assert_eq!(problem.status, 400);
        }
    }
}
