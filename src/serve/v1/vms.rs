//! What is done with VMs that are there.

use super::call::Call;
use super::model::{Capabilities, Limits, LogEntry, Vm, VmList, Waited};
use super::problem::{CONFLICT, HOST, Problem};
use super::rate::{A_SECOND, AT_ONCE};
use super::route::{LINES, MOST_WAIT_S};
use super::streams::STREAMS;
use super::turns::{InTurn, ask};
use super::{BODY_BYTES, SEATS, WATCHERS, keepers};
use crate::http::{Answer, JSON};
use kvmlet_command::beside::{self, KVMLET};
use kvmlet_control::agent::channel::Request;
use kvmlet_host::net::is_free;
use kvmlet_host::state::runtime::RuntimeDirectory;
use kvmlet_manager::logs::{Reader, Selection, Streams};
use kvmlet_manager::starting::{Keeper, Starting};
use kvmlet_manager::volumes::forget;
use kvmlet_manager::{Asked, Ending, Error, Instance, SUSPENDED, State, Turn, View, Whereabouts};
use kvmlet_vmm::snapshot::noted;
use rustix::fs::{Access, access};
use serde::Serialize;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The verb of `kvmlet` that supervises, whose messages name settings by their keys.
const KEEP: [&str; 3] = ["keep", "--started-by", "api"];
/// Entries of a log if nothing is said, and the most.
const LOG_ENTRIES: u64 = 1000;
const MOST_LOG_ENTRIES: u64 = 10_000;
/// No answer with a log is longer, in bytes.
const LOG_BYTES: usize = 8 << 20;
/// How long is waited if nothing is said, in seconds.
const WAIT_S: u64 = 30;
/// How often somebody who waits looks: at first, and later.
const LOOKS: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(50)];
/// What a service may be given to end, in seconds: its milliseconds have to fit into four bytes.
const MOST_TIMEOUT_S: u64 = 4_294_967;

type Done = Result<Answer, Problem>;

/// What there is to say, as JSON.
pub fn told(status: u16, what: &impl Serialize) -> Done {
    let body = serde_json::to_string(what).map_err(|error| Problem::because(HOST, &error))?;
    Ok(Answer::new(status, Some(body)).of_kind(JSON))
}

/// A VM as it is now.
fn now(call: &Call, instance: &Instance) -> Done {
    told(200, &Vm::from(call.book()?.view(instance)?))
}

pub fn capabilities(call: &Call) -> Done {
    let usable = Access::READ_OK | Access::WRITE_OK;
    told(
        200,
        &Capabilities {
            version: env!("CARGO_PKG_VERSION").into(),
            api: "v1".into(),
            operations: call
                .subject
                .tables()
                .iter()
                .copied()
                .flatten()
                .map(|route| route.id.into())
                .collect(),
            user: rustix::process::geteuid().as_raw(),
            kvm: access("/dev/kvm", usable).is_ok(),
            limits: Limits {
                body_bytes: BODY_BYTES,
                connections: SEATS,
                watchers: WATCHERS,
                requests_per_second: A_SECOND,
                requests_at_once: AT_ONCE,
                streams: STREAMS,
                wait_seconds: MOST_WAIT_S,
            },
        },
    )
}

pub fn list(call: &Call) -> Done {
    let listing = call.book()?.list()?;
    let damaged = listing.damaged.into_iter();
    let all = VmList {
        vms: listing.instances.into_iter().map(Vm::from).collect(),
        damaged: damaged
            .map(|one| (one.id.as_str().into(), one.error.to_string()))
            .collect(),
    };
    told(200, &all)
}

pub fn tell(call: &Call) -> Done {
    now(call, &call.instance()?)
}

/// What is not told is no reason to fail.
pub fn note<const N: usize>(call: &Call, event: &str, view: &View, more: [(&str, String); N]) {
    if let Ok(book) = call.book() {
        let _ = book.tell(event, &view.id, view.name.as_ref(), more);
    }
}

pub fn delete(call: &Call) -> Done {
    let (force, volumes) = (call.flag("force")?, call.flag("volumes")?);
    let (instance, view) = call.look()?;
    match force {
        true => match call.book()?.end_and_remove(&instance) {
            // It was to be removed when it has ended, or somebody was faster.
            Err(_) if is_gone(call, &instance) => return Ok(Answer::done()),
            removed => removed?,
        },
        false => call
            .book()?
            .remove_ended(&instance, &view)
            .map_err(|error| match error {
                Error::InUse { .. } => {
                    Problem::from(error).help("stop it first, or say `force=true`")
                }
                error => error.into(),
            })?,
    }
    note(call, "destroy", &view, []);
    if volumes {
        forget(call.book()?, &view.asked)?;
    }
    Ok(Answer::done())
}

fn is_gone(call: &Call, instance: &Instance) -> bool {
    let found = call.book().map(|book| book.find(instance.id().as_str()));
    matches!(found, Ok(Err(Error::NotFound { .. })))
}

pub fn start(call: &Call) -> Done {
    let instance = call.instance()?;
    // Somebody may be starting it.
    let turn = instance.turn()?;
    let view = call.book()?.view(&instance)?;
    match view.state {
        State::Paused => {
            let detail = format!("VM `{}` stands still", view.called());
            return Err(Problem::new(CONFLICT, detail).help("resume it"));
        }
        State::Suspended => {
            let detail = format!("VM `{}` is suspended", view.called());
            return Err(Problem::new(CONFLICT, detail).help("resume it"));
        }
        _ if view.is_alive() => {}
        _ => have_kept(&instance, turn, &[])?,
    }
    now(call, &instance)
}

/// Says where the interfaces of a suspended one were, if they can be there again.
fn again(instance: &Instance, asked: &Asked) -> Vec<String> {
    let place = || {
        let runtime = RuntimeDirectory::of_user().ok()?;
        let note = noted(&instance.directory().path().join(SUSPENDED)).ok()?;
        Whereabouts::of(note.as_deref()).as_flag(asked, &|subnet| is_free(subnet, &runtime))
    };
    place().into_iter().flatten().collect()
}

/// Starts its supervisor, and waits until its service runs.
fn have_kept(instance: &Instance, turn: Turn, more: &[String]) -> Result<(), Problem> {
    let kvmlet = beside::find(KVMLET);
    let mut kvmlet = kvmlet.map_err(|failed| Problem::new(HOST, failed.first_line()))?;
    kvmlet.args(KEEP).args(more);
    let starting = Starting::begin(Keeper::Program(kvmlet), instance.id(), turn)?;
    keepers::keep(starting.wait()?);
    Ok(())
}

pub fn stop(call: &Call) -> Done {
    let seconds = call.number("timeout", 0..=MOST_TIMEOUT_S)?;
    let instance = call.instance()?;
    let ending = Ending {
        cut: seconds == Some(0),
        seconds: seconds.map(|seconds| seconds as u32),
        signal: None,
    };
    call.book()?
        .end(&instance, ending, || Ok::<(), Error>(()))?;
    match now(call, &instance) {
        // It was to be removed when it has ended.
        Err(problem) if problem.status == 404 => gone(call),
        done => done,
    }
}

/// It was ended, and is removed by that.
fn gone(call: &Call) -> Done {
    let detail = format!("VM `{}` has ended, and is removed by that", call.name);
    Err(Problem::new(super::problem::NOT_FOUND, detail))
}

pub fn kill(call: &Call) -> Done {
    let signal = call.number("signal", 1..=64)?;
    let signal = signal.map_or(libc::SIGKILL as u8, |signal| signal as u8);
    let (instance, view) = call.look()?;
    let noted = || note(call, "kill", &view, [("signal", signal.to_string())]);
    if i32::from(signal) != libc::SIGKILL {
        let group = false;
        instance.ask_supervisor(&view, &Request::Signal { signal, group })?;
        noted();
        return now(call, &instance);
    }
    if view.state == State::Suspended {
        noted();
        let cut = Ending {
            cut: true,
            ..Ending::default()
        };
        call.book()?.end(&instance, cut, || Ok::<(), Error>(()))?;
        return now(call, &instance);
    }
    let mut asking = ask(&instance, &view)?;
    // Before the end is told that comes of it.
    noted();
    asking.control.signal(signal)?;
    drop(asking);
    instance.wait_for_run()?;
    match now(call, &instance) {
        Err(problem) if problem.status == 404 => gone(call),
        done => done,
    }
}

pub fn pause(call: &Call) -> Done {
    move_to(call, State::Paused)
}

pub fn resume(call: &Call) -> Done {
    let instance = call.instance()?;
    if instance.state()? != State::Suspended {
        return move_to(call, State::Running);
    }
    let turn = instance.turn()?;
    // Whoever had the turn before may have done it. And its supervisor may hold what it had.
    if instance.state()? == State::Suspended && !instance.rouse()? {
        let asked = instance.asked()?;
        have_kept(&instance, turn, &again(&instance, &asked))?;
    }
    now(call, &instance)
}

fn move_to(call: &Call, wanted: State) -> Done {
    let (instance, view) = call.look()?;
    let _turn = InTurn::of(&instance, view.called())?;
    // Whoever had the turn before may have done it.
    if instance.state()? != wanted {
        let mut control = instance.control(view.called())?;
        let moved = match wanted {
            State::Paused => control.pause(),
            _ => control.unpause(),
        };
        match moved {
            // Somebody else was faster.
            Ok(()) | Err(Error::Already { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    now(call, &instance)
}

pub fn wait(call: &Call) -> Done {
    let seconds = call.number("timeout", 0..=MOST_WAIT_S)?.unwrap_or(WAIT_S);
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let instance = call.instance()?;
    let first = call.book()?.view(&instance)?;
    let mut last = first.clone();
    let [mut look, seldom] = LOOKS;
    // One that was started again meanwhile has ended, too.
    let is_another = |view: &View| view.record.run != first.record.run && !view.record.resumed;
    let has_ended = |view: &View| view.end.is_some() && view.state != State::Suspended;
    let ended = |view: &View| has_ended(view) || is_another(view);
    while !ended(&last) && Instant::now() < deadline && !call.gone.load(Ordering::Relaxed) {
        std::thread::sleep(look.min(deadline.saturating_duration_since(Instant::now())));
        look = seldom.min(look * 2);
        last = match call.book()?.view(&instance) {
            Ok(view) => view,
            // It was to be removed when it has ended: this is the last that was known of it.
            Err(Error::NotFound { .. }) => {
                return told(
                    200,
                    &Waited {
                        ended: true,
                        vm: last.into(),
                    },
                );
            }
            Err(error) => return Err(error.into()),
        };
    }
    let ended = ended(&last);
    told(
        200,
        &Waited {
            ended,
            vm: last.into(),
        },
    )
}

pub fn logs(call: &Call) -> Done {
    let tail = call
        .number("tail", 0..=MOST_LOG_ENTRIES)?
        .unwrap_or(LOG_ENTRIES);
    let streams = match call.flag("console")? {
        true => Streams::All,
        false => Streams::Service,
    };
    let instance = call.instance()?;
    let selection = Selection {
        tail: Some(tail),
        streams,
        ..Selection::default()
    };
    let unread = |error: std::io::Error| Problem::because(HOST, &error);
    let mut reader = Reader::open(instance.directory(), &selection).map_err(unread)?;
    let mut lines = String::new();
    while lines.len() < LOG_BYTES
        && let Some(entry) = reader.next().map_err(unread)?
    {
        let line = serde_json::to_string(&LogEntry::from(entry));
        lines.push_str(&line.map_err(|error| Problem::because(HOST, &error))?);
        lines.push('\n');
    }
    Ok(Answer::told(lines).of_kind(LINES))
}

pub fn stats(call: &Call) -> Done {
    let (instance, view) = call.look()?;
    told(200, &ask(&instance, &view)?.control.stats()?)
}
