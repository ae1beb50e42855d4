//! What takes long: a process of `kvmlet` does it, as if somebody had typed the verb, and whoever has asked for it watches that,
//! or cancels it. It goes on when this server ends; what is known of it does not.

use super::problem::{BUSY, CANCELLED, HOST, NO_ANSWER, NOT_DONE, NOT_FOUND, Problem};
use super::words::in_fields;
use kvmlet_command::beside::not_run;
use kvmlet_manager::{InstanceId, Moment};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid,
};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// As many are done at a time.
pub const MOST_RUNNING: usize = 8;
/// As many are known, the newest, when they have ended.
const MOST_ENDED: usize = 100;
/// No message of a process is longer.
const MESSAGE_BYTES: u64 = 16 << 10;
/// How long one that is cancelled may take to be gone, with what it has made.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often who waits looks whether anybody waits for it.
const LOOK: Duration = Duration::from_millis(200);

/// Something that takes long.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Operation {
    /// Its id.
    pub id: String,
    /// What is done.
    pub kind: Kind,
    /// How far it is.
    pub state: Progress,
    /// What becomes of it when it is done: the name of a VM, or the path of a file.
    pub makes: String,
    /// When it was begun (RFC 3339).
    pub started: String,
    /// When it was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// Why it is not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A VM is saved to a file.
    Snapshot,
    /// A VM becomes a file, from which it is resumed.
    Suspend,
    /// Another VM goes on from where one is.
    Clone,
    /// A VM goes on from a file.
    Restore,
    /// A VM is made of an image, which may be pulled before.
    Run,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Progress {
    /// It is being done.
    Running,
    /// It is done.
    Done,
    /// It is not done. A VM that was running by then is kept, with what it has said.
    Failed,
    /// It was cancelled, and nothing of it is left.
    Cancelled,
}

/// All that are known, the oldest first.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Operations {
    /// They.
    pub operations: Vec<Operation>,
}

/// One that is known.
struct Known {
    told: Operation,
    /// Of its process, which leads a group; none when it is over.
    process: Option<Pid>,
    is_cancelled: bool,
}

static ALL: Mutex<VecDeque<Known>> = Mutex::new(VecDeque::new());
static CHANGED: Condvar = Condvar::new();

fn all() -> MutexGuard<'static, VecDeque<Known>> {
    ALL.lock().unwrap_or_else(|broken| broken.into_inner())
}

/// Begins one, which a command does. What that leaves behind when it is killed is cleared away by `clear`, which returns whether
/// what was asked for has come all the same.
pub fn begin(
    kind: Kind,
    makes: String,
    mut command: Command,
    clear: impl FnOnce() -> bool + Send + 'static,
) -> Result<Operation, Problem> {
    let id = InstanceId::random().map_err(|error| Problem::because(HOST, &error))?;
    let mut known = all();
    let running = known.iter().filter(|it| it.process.is_some());
    if running.count() >= MOST_RUNNING {
        let detail = format!("{MOST_RUNNING} operations are being done, as many as may be");
        return Err(Problem::new(BUSY, detail));
    }
    // What ends this process by a terminal's keys is not meant for it.
    command
        .process_group(0)
        // Where paths begin that are not absolute, is for nobody to choose.
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let spawned = command.spawn();
    let mut child = spawned.map_err(|error| {
        let failed = not_run("kvmlet", &command, &error);
        Problem::new(HOST, failed.first_line())
    })?;
    let told = Operation {
        id: id.short().into(),
        kind,
        state: Progress::Running,
        makes,
        started: Moment::now().to_string(),
        ended: None,
        problem: None,
    };
    let attended = attend(&mut child, told.id.clone(), clear);
    let process = attended.map_err(|error| {
        let _ = child.kill();
        let _ = child.wait();
        Problem::because(BUSY, &error)
    })?;
    known.push_back(Known {
        told: told.clone(),
        process: Some(process),
        is_cancelled: false,
    });
    forget_oldest(&mut known);
    Ok(told)
}

/// Has a thread wait for a process, which it takes if it is there.
fn attend(
    child: &mut Child,
    id: String,
    clear: impl FnOnce() -> bool + Send + 'static,
) -> io::Result<Pid> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::NotFound)?;
    let waited = pidfd_open(pid, PidfdFlags::empty())?;
    let errors = child.stderr.take();
    let thread = std::thread::Builder::new();
    thread.spawn(move || {
        let mut said = Vec::new();
        if let Some(mut errors) = errors {
            let _ = (&mut errors).take(MESSAGE_BYTES).read_to_end(&mut said);
            let _ = io::copy(&mut errors, &mut io::sink());
        }
        let status = wait_for(&waited, WaitIdOptions::NOWAIT);
        let said = String::from_utf8_lossy(&said);
        let is_done = match status.and_then(|status| status.code()) {
            Some(code) => code == 0,
            // It could not do so itself.
            None => clear(),
        };
        finish(&id, is_done, &said);
        // From now on another one may have its number, and nobody ends it by that.
        wait_for(&waited, WaitIdOptions::empty());
    })?;
    Ok(pid)
}

/// Waits until a process has ended, and returns how: by its descriptor, and without freeing its number, unless that is to be.
fn wait_for(process: &OwnedFd, how: WaitIdOptions) -> Option<ExitStatus> {
    loop {
        match waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED | how) {
            Ok(Some(status)) => {
                let code = status.exit_status().map(|code| code << 8);
                let signal = status.terminating_signal();
                return code.or(signal).map(ExitStatus::from_raw);
            }
            Err(Errno::INTR) => {}
            Ok(None) | Err(_) => return None,
        }
    }
}

fn finish(id: &str, is_done: bool, said: &str) {
    let mut known = all();
    let Some(one) = known.iter_mut().find(|it| it.told.id == id) else {
        return;
    };
    one.process = None;
    one.told.ended = Some(Moment::now().to_string());
    (one.told.state, one.told.problem) = match (is_done, one.is_cancelled) {
        (true, _) => (Progress::Done, None),
        (false, true) => {
            let problem = Problem::new(CANCELLED, "it was cancelled, and nothing of it is left");
            (Progress::Cancelled, Some(problem))
        }
        (false, false) => {
            let problem = in_fields(Problem::in_words(NOT_DONE, said));
            (Progress::Failed, Some(problem))
        }
    };
    CHANGED.notify_all();
}

fn forget_oldest(known: &mut VecDeque<Known>) {
    let ended = known.iter().filter(|it| it.process.is_none()).count();
    if ended > MOST_ENDED
        && let Some(oldest) = known.iter().position(|it| it.process.is_none())
    {
        known.remove(oldest);
    }
}

/// All that are known.
pub fn list() -> Operations {
    let operations = all().iter().map(|it| it.told.clone()).collect();
    Operations { operations }
}

/// What is known of one.
pub fn tell(id: &str) -> Result<Operation, Problem> {
    let known = all();
    let found = known.iter().find(|it| it.told.id == id);
    found.map(|it| it.told.clone()).ok_or_else(|| {
        let detail = format!("there is no operation `{}`", id.escape_debug());
        let help = "`GET /v1/operations` lists those that this server has begun";
        Problem::new(NOT_FOUND, detail).help(help)
    })
}

/// Waits until one is over, that long, or until nobody waits for the answer; and tells it.
pub fn wait(id: &str, patience: Duration, gone: &AtomicBool) -> Result<Operation, Problem> {
    let deadline = Instant::now() + patience;
    loop {
        let told = tell(id)?;
        let left = deadline.saturating_duration_since(Instant::now());
        if told.state != Progress::Running || left.is_zero() || gone.load(Ordering::Relaxed) {
            return Ok(told);
        }
        let known = all();
        let is_over = |it: &Known| it.told.id == id && it.process.is_none();
        if !known.iter().any(is_over) {
            let _ = CHANGED.wait_timeout(known, left.min(LOOK));
        }
    }
}

/// Has one end that is being done, and tells what has become of it.
pub fn cancel(id: &str) -> Result<Operation, Problem> {
    if let Some(one) = all().iter_mut().find(|it| it.told.id == id)
        && let Some(process) = one.process
    {
        one.is_cancelled = true;
        // With what it has begun. One that has ended by now has come to something.
        let _ = kill_process_group(process, Signal::KILL);
    }
    let told = wait(id, PATIENCE, &AtomicBool::new(false))?;
    match told.state {
        Progress::Running => {
            let detail = format!("operation `{id}` is not over yet");
            Err(Problem::new(NO_ANSWER, detail))
        }
        _ => Ok(told),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn shell(script: &str, cleared: &Arc<AtomicBool>) -> Operation {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let cleared = Arc::clone(cleared);
        let clear = move || {
            cleared.store(true, Ordering::Relaxed);
            false
        };
        begin(Kind::Clone, "web".into(), command, clear).unwrap()
    }

    fn over(operation: &Operation) -> Operation {
        wait(&operation.id, PATIENCE, &AtomicBool::new(false)).unwrap()
    }

    #[test]
    fn what_takes_long_is_watched_and_cancelled() {
        let cleared = Arc::new(AtomicBool::new(false));
        let is_cleared = || cleared.swap(false, Ordering::Relaxed);
        let done = over(&shell("exit 0", &cleared));
        assert_eq!((done.state, is_cleared()), (Progress::Done, false));
        assert!(done.ended.is_some() && done.problem.is_none());
        let text = "echo 'kvmlet: so far' >&2; printf 'error: no\\n  caused by: why\\n  help: try\\n' >&2; exit 1";
        let failed = over(&shell(text, &cleared));
        let problem = failed.problem.unwrap();
        assert_eq!((failed.state, is_cleared()), (Progress::Failed, false));
        assert_eq!(
            (&*problem.detail, problem.help.as_deref()),
            ("no", Some("try"))
        );
        assert_eq!(problem.causes, ["why"]);
        let killed = over(&shell("kill -9 $$", &cleared));
        assert_eq!((killed.state, is_cleared()), (Progress::Failed, true));
        // What it has begun goes with it.
        let endless = shell("sleep 1000; exit 0", &cleared);
        let none = Duration::ZERO;
        let still = wait(&endless.id, none, &AtomicBool::new(false)).unwrap();
        assert_eq!(still.state, Progress::Running);
        let cancelled = cancel(&endless.id).unwrap();
        assert_eq!((cancelled.state, is_cleared()), (Progress::Cancelled, true));
        // Once more, and too late.
        assert_eq!(cancel(&endless.id).unwrap().state, Progress::Cancelled);
        assert_eq!(cancel(&done.id).unwrap().state, Progress::Done);
        assert_eq!(tell("nothing").unwrap_err().status, 404);
        // No more than that at a time.
        let many: Vec<_> = (0..MOST_RUNNING)
            .map(|_| shell("exec sleep 1000", &cleared))
            .collect();
        let refused = begin(Kind::Clone, String::new(), Command::new("true"), || false);
        assert_eq!(refused.unwrap_err().status, 503);
        for one in many {
            cancel(&one.id).unwrap();
        }
        let unknown = begin(Kind::Clone, String::new(), Command::new("/nowhere"), || {
            false
        });
        assert_eq!(unknown.unwrap_err().status, 500);
    }
}
