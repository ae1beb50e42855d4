//! What is done with one VM, by its control socket.

use super::call::Call;
use super::changes::{balloon_order, limit_order};
use super::history::{ENDED, state_of};
use super::problem::{CONFLICT, NOT_FOUND, Problem};
use super::route::{MOST_WAIT_S, OPEN_METRICS};
use super::vms::told;
use crate::http::{Answer, JSON};
use kvmlet_control::{Connection, ConnectionError, Order, Report, State};
use kvmlet_manager::Error;
use kvmlet_spec::Outcome;
use schemars::JsonSchema;
use serde::Serialize;
use std::time::{Duration, Instant};

/// How long a VM has for an answer. It answers in a moment, but its host may be busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How long is waited for an end whose time the VM's own configuration says.
const END_S: u64 = 600;
/// How long is waited if nothing is said, in seconds.
const WAIT_S: u64 = 30;
/// What a service may be given to end, in seconds: its milliseconds have to fit into four bytes.
const MOST_TIMEOUT_S: u64 = 4_294_967;

type Done = Result<Answer, Problem>;

/// A VM as it is known by its control socket.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct AloneVm {
    /// What it does: `starting`, `running`, `paused`, `ending`, `suspended`, `ended`.
    pub state: String,
    /// Ports of this host that lead to it: `127.0.0.1:8080:80/tcp`.
    pub published: Vec<String>,
    /// The addresses of its interfaces that kvmlet has chosen: `eth0,10.0.0.2/30,gateway=10.0.0.1`.
    pub interfaces: Vec<String>,
    /// How it has ended, as `kvmlet boot --stats` writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    pub outcome: Option<Outcome>,
}

/// What has come of waiting.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct AloneWaited {
    /// It has ended. Otherwise the time was up: ask again.
    pub ended: bool,
    /// What is known of it now.
    pub vm: AloneVm,
}

/// A connection on which the VM's changes are told, and what it does.
fn watch(call: &Call) -> Result<(Connection, State), Problem> {
    let mut connection = connect(call)?;
    let told = ask(&mut connection, Order::Watch)?;
    let state = match state_of(&told) {
        Some(state) => state,
        // It comes next.
        None => loop {
            match next(&mut connection, Instant::now() + PATIENCE)? {
                Some(Report::State(state)) => break state,
                Some(_) => {}
                None => return Err(problem(ConnectionError::Late(PATIENCE))),
            }
        },
    };
    Ok((connection, state))
}

pub(super) fn connect(call: &Call) -> Result<Connection, Problem> {
    let socket = &call.vm()?.socket;
    Connection::to(socket).map_err(|error| {
        let detail = format!("there is no VM at `{}`", socket.display());
        let mut problem = Problem::new(NOT_FOUND, detail);
        problem.causes.push(error.to_string());
        problem.help("it has ended: this server does, too")
    })
}

fn ask(connection: &mut Connection, order: Order) -> Result<Vec<Report>, Problem> {
    connection.ask(order, PATIENCE).map_err(problem)
}

fn next(connection: &mut Connection, deadline: Instant) -> Result<Option<Report>, Problem> {
    connection.next(Some(deadline)).map_err(problem)
}

pub(super) fn problem(source: ConnectionError) -> Problem {
    match source {
        ConnectionError::Over(_) | ConnectionError::Closed => {
            Problem::new(CONFLICT, "the VM has ended")
        }
        source => {
            let called = "vm".into();
            Error::Control { called, source }.into()
        }
    }
}

/// What is known of it, by a connection that watches it.
fn known(call: &Call, state: State) -> Result<AloneVm, Problem> {
    let mut connection = connect(call)?;
    let ports = ask(&mut connection, Order::Published)?;
    let interfaces = ask(&mut connection, Order::Interfaces)?;
    let texts = ports.into_iter().chain(interfaces);
    let mut vm = AloneVm {
        state: state.name().into(),
        published: Vec::new(),
        interfaces: Vec::new(),
        outcome: None,
    };
    for report in texts {
        match report {
            Report::Published(ports) => vm.published = ports,
            Report::Interfaces(all) => vm.interfaces = all,
            _ => {}
        }
    }
    Ok(vm)
}

fn over(outcome: Option<Outcome>) -> AloneVm {
    AloneVm {
        state: ENDED.into(),
        published: Vec::new(),
        interfaces: Vec::new(),
        outcome,
    }
}

pub fn tell(call: &Call) -> Done {
    let (_, state) = watch(call)?;
    told(200, &known(call, state)?)
}

pub fn pause(call: &Call) -> Done {
    move_to(call, State::Paused, Order::Pause)
}

pub fn resume(call: &Call) -> Done {
    move_to(call, State::Running, Order::Resume)
}

fn move_to(call: &Call, wanted: State, order: Order) -> Done {
    let (mut connection, state) = watch(call)?;
    if state != wanted {
        ask(&mut connection, order)?;
    }
    told(200, &known(call, wanted)?)
}

pub fn stop(call: &Call) -> Done {
    let seconds = call.number("timeout", 0..=MOST_TIMEOUT_S)?;
    let (mut connection, _) = watch(call)?;
    let patience_ms = seconds.map(|seconds| seconds as u32 * 1000);
    let asked = connection.ask(Order::Stop { patience_ms }, PATIENCE);
    let outcome = match asked {
        Err(ConnectionError::Over(outcome)) => Some(Some(*outcome)),
        asked => {
            asked.map_err(problem)?;
            let patience = Duration::from_secs(seconds.unwrap_or(END_S)) + PATIENCE;
            ended(&mut connection, Instant::now() + patience)?
        }
    };
    match outcome {
        Some(outcome) => told(200, &over(outcome)),
        None => Err(problem(ConnectionError::Late(PATIENCE))),
    }
}

/// Waits for the end; none if it has not come by then.
fn ended(
    connection: &mut Connection,
    deadline: Instant,
) -> Result<Option<Option<Outcome>>, Problem> {
    loop {
        match connection.next(Some(deadline)) {
            Ok(Some(Report::Ended(outcome))) => return Ok(Some(Some(*outcome))),
            Ok(Some(_)) => {}
            Ok(None) => return Ok(None),
            // Its supervisor was killed, and it with that.
            Err(ConnectionError::Closed) => return Ok(Some(None)),
            Err(error) => return Err(problem(error)),
        }
    }
}

pub fn kill(call: &Call) -> Done {
    let signal = call.number("signal", 1..=64)?;
    let signal = signal.map_or(libc::SIGKILL as u8, |signal| signal as u8);
    let (mut connection, state) = watch(call)?;
    match connection.ask(Order::Signal { signal }, PATIENCE) {
        Err(ConnectionError::Over(outcome)) => return told(200, &over(Some(*outcome))),
        asked => asked.map_err(problem)?,
    };
    if i32::from(signal) != libc::SIGKILL {
        return told(200, &known(call, state)?);
    }
    match ended(&mut connection, Instant::now() + PATIENCE)? {
        Some(outcome) => told(200, &over(outcome)),
        None => Err(problem(ConnectionError::Late(PATIENCE))),
    }
}

pub fn wait(call: &Call) -> Done {
    let seconds = call.number("timeout", 0..=MOST_WAIT_S)?.unwrap_or(WAIT_S);
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let (mut connection, _) = watch(call)?;
    let waited = match ended(&mut connection, deadline)? {
        Some(outcome) => AloneWaited {
            ended: true,
            vm: over(outcome),
        },
        None => AloneWaited {
            ended: false,
            vm: watch(call).and_then(|(_, state)| known(call, state))?,
        },
    };
    told(200, &waited)
}

pub fn stats(call: &Call) -> Done {
    let reports = ask(&mut connect(call)?, Order::Stats)?;
    let stats = reports.into_iter().rev().find_map(|report| match report {
        Report::Stats(json) => String::from_utf8(json).ok(),
        _ => None,
    });
    match stats {
        Some(stats) => Ok(Answer::told(stats).of_kind(JSON)),
        None => Err(Problem::new(CONFLICT, "the VM has told no statistics")),
    }
}

pub fn metrics(call: &Call) -> Done {
    let text = connect(call)?.scrape(PATIENCE).map_err(problem)?;
    Ok(Answer::told(text).of_kind(OPEN_METRICS))
}

pub fn limit(call: &Call) -> Done {
    let order = limit_order(call)?;
    ask(&mut connect(call)?, order)?;
    Ok(Answer::done())
}

pub fn balloon(call: &Call) -> Done {
    let order = balloon_order(call)?;
    ask(&mut connect(call)?, order)?;
    Ok(Answer::done())
}
