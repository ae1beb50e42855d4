//! The agent: starts what it is asked to start, and reports what that writes and how it ends.

use super::session::Session;
use crate::wire::{Command, Report, Request, Status};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{self, ChildStdin, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// The way back to the test, shared by all tasks.
#[derive(Clone)]
struct Reports(Arc<Mutex<File>>);

impl Reports {
    fn send(&self, report: &Report) {
        let mut line = serde_json::to_vec(report).unwrap_or_default();
        line.push(b'\n');
        // Without a test there is nobody to tell.
        let _ = lock(&self.0).write_all(&line);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What can be done to a task that runs.
struct Handle {
    input: Option<ChildStdin>,
    process: u32,
    session: Arc<Session>,
}

type Tasks = Arc<Mutex<HashMap<u64, Handle>>>;

pub fn serve() -> ExitCode {
    match port().and_then(|port| serve_on(&port)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the agent of the second host: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The machine's only virtio port.
fn port() -> io::Result<File> {
    let mut ports = fs::read_dir("/sys/class/virtio-ports")?;
    let name = ports.next().ok_or(io::ErrorKind::NotFound)??.file_name();
    let path = std::path::Path::new("/dev").join(name);
    OpenOptions::new().read(true).write(true).open(path)
}

fn serve_on(port: &File) -> io::Result<()> {
    let reports = Reports(Arc::new(Mutex::new(port.try_clone()?)));
    let tasks = Tasks::default();
    reports.send(&Report::Up);
    for line in BufReader::new(port).lines() {
        match serde_json::from_str(&line?).map_err(io::Error::other)? {
            Request::Start { task, command } => start(task, &command, &tasks, &reports),
            Request::Input { task, text } => {
                if let Some(handle) = lock(&tasks).get_mut(&task)
                    && let Some(input) = &mut handle.input
                {
                    // It may have closed its end.
                    let _ = input.write_all(text.as_bytes());
                }
            }
            Request::EndOfInput { task } => {
                if let Some(handle) = lock(&tasks).get_mut(&task) {
                    handle.input = None;
                }
            }
            Request::Signal { task, signal } => {
                if let Some(handle) = lock(&tasks).get(&task) {
                    // SAFETY: takes numbers only. The process is waited for after its handle is gone.
                    unsafe { libc::kill(handle.process as i32, signal) };
                }
            }
            Request::Kill { task } => {
                if let Some(handle) = lock(&tasks).get(&task) {
                    handle.session.kill();
                }
            }
        }
    }
    Ok(())
}

fn start(task: u64, command: &Command, tasks: &Tasks, reports: &Reports) {
    if let Err(error) = try_start(task, command, tasks, reports) {
        let status = Status::NotRun(error.to_string());
        reports.send(&Report::Ended { task, status });
    }
}

fn try_start(task: u64, what: &Command, tasks: &Tasks, reports: &Reports) -> io::Result<()> {
    let session = Arc::new(Session::new(task, what.user)?);
    let program = what.arguments.first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = process::Command::new(program);
    command
        .args(&what.arguments[1..])
        .env_clear()
        .envs(what.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(&what.directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    session.confine(&mut command)?;
    let mut child = command.spawn()?;
    let handle = Handle {
        input: child.stdin.take(),
        process: child.id(),
        session: session.clone(),
    };
    lock(tasks).insert(task, handle);
    let output = child.stdout.take().map(|stream| {
        let reports = reports.clone();
        let tell = move |text| reports.send(&Report::Output { task, text });
        thread::spawn(move || pass_on(stream, tell))
    });
    let errors = child.stderr.take().map(|stream| {
        let reports = reports.clone();
        let tell = move |text| reports.send(&Report::Error { task, text });
        thread::spawn(move || pass_on(stream, tell))
    });
    let (tasks, reports) = (tasks.clone(), reports.clone());
    thread::spawn(move || {
        // Its number stays its own while a signal may be sent to it.
        let ended = wait_without_reaping(child.id());
        lock(&tasks).remove(&task);
        let status = ended.and_then(|()| child.wait());
        // What it has left in the background ends now, and with that both streams.
        session.kill();
        for stream in [output, errors].into_iter().flatten() {
            let _ = stream.join();
        }
        drop(session);
        let status = match status {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => Status::Code(code),
                (_, signal) => Status::Signal(signal.unwrap_or(0)),
            },
            Err(error) => Status::NotRun(error.to_string()),
        };
        reports.send(&Report::Ended { task, status });
    });
    Ok(())
}

fn wait_without_reaping(process: u32) -> io::Result<()> {
    // SAFETY: the kernel stores one structure of the size that it knows.
    let result = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        libc::waitid(
            libc::P_PID,
            process,
            &raw mut info,
            libc::WEXITED | libc::WNOWAIT,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Tells all that comes out of a stream, in pieces that end between characters.
fn pass_on(mut stream: impl Read, tell: impl Fn(String)) {
    let mut buffer = vec![0; 32 << 10];
    let mut kept = 0;
    while let Ok(count @ 1..) = stream.read(&mut buffer[kept..]) {
        let filled = kept + count;
        let whole = match std::str::from_utf8(&buffer[..filled]) {
            // Only the end of a character is missing.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => filled,
        };
        if whole > 0 {
            tell(String::from_utf8_lossy(&buffer[..whole]).into_owned());
        }
        buffer.copy_within(whole..filled, 0);
        kept = filled - whole;
    }
    if kept > 0 {
        tell(String::from_utf8_lossy(&buffer[..kept]).into_owned());
    }
}
