//! The second host as tests see it: commands run there, and what came of them.

use crate::machine::Machine;
use crate::task::{Output, Running, Task};
use crate::wire::{Report, Request};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::ChildStdin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Four times what it takes on two cores that others use as well.
const UP: Duration = Duration::from_secs(60);
const ATTEMPTS: u32 = 3;
/// How much of its console a machine that fails shows.
const TAIL: usize = 40;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Waiting = Arc<Mutex<HashMap<u64, Sender<Report>>>>;

/// A machine that is up.
pub struct Host {
    machine: Mutex<Machine>,
    requests: Mutex<ChildStdin>,
    waiting: Waiting,
    next: AtomicU64,
    /// For all tasks.
    environment: Vec<(String, String)>,
}

impl Host {
    /// Brings a machine up. `environment` is what tasks find beside PATH and HOME.
    pub fn bring_up(environment: &[(&str, String)]) -> Result<Self, String> {
        let start = Instant::now();
        let mut attempt = 1;
        // Seen once in thirty times: an emulated machine that hangs.
        let (machine, requests, waiting) = loop {
            match connect() {
                Ok(connected) => break connected,
                Err(reason) if attempt == ATTEMPTS => return Err(reason),
                Err(reason) => println!("attempt {attempt}: {reason}"),
            }
            attempt += 1;
        };
        println!(
            "the second host is up after {:.1} s",
            start.elapsed().as_secs_f64()
        );
        let usual = ["HOME", "XDG_CACHE_HOME"]
            .map(|name| Some((name.to_owned(), std::env::var(name).ok()?)));
        let own = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        Ok(Self {
            machine: Mutex::new(machine),
            requests: Mutex::new(requests),
            waiting,
            next: AtomicU64::new(1),
            environment: usual.into_iter().flatten().chain(own).collect(),
        })
    }

    /// Runs a shell script as root, as a login session would.
    pub fn sh(&self, script: &str) -> Output {
        self.run(Task::sh(script))
    }

    /// Runs a task to its end.
    #[track_caller]
    pub fn run(&self, task: Task) -> Output {
        let running = self.start(task);
        running.end_input();
        running.wait()
    }

    /// Starts a task, and goes on.
    pub fn start(&self, task: Task) -> Running<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (send, reports) = channel();
        lock(&self.waiting).insert(number, send);
        let running = Running::new(self, number, &task, reports);
        let command = task.command(&self.environment);
        self.send(&Request::Start {
            task: number,
            command,
        });
        running
    }

    pub fn send(&self, request: &Request) {
        let mut line = serde_json::to_vec(request).unwrap();
        line.push(b'\n');
        // Who waits for an answer is told that there is no machine.
        let _ = lock(&self.requests).write_all(&line);
    }

    /// The last lines of the console of the machine.
    pub fn console(&self) -> String {
        lock(&self.machine).console.tail(TAIL)
    }
}

fn pass_on(tasks: &Waiting, report: Report) {
    let (task, last) = match &report {
        Report::Up => return,
        Report::Output { task, .. } | Report::Error { task, .. } => (*task, false),
        Report::Ended { task, .. } => (*task, true),
    };
    let mut tasks = lock(tasks);
    if let Some(receiver) = tasks.get(&task) {
        let _ = receiver.send(report);
    }
    if last {
        tasks.remove(&task);
    }
}

/// Starts a machine and waits for its agent.
fn connect() -> Result<(Machine, ChildStdin, Waiting), String> {
    let (send, receive) = channel();
    // A machine ends with the thread that has started it, so that one lives as long as this process.
    std::thread::spawn(move || {
        let _ = send.send(Machine::start());
        loop {
            std::thread::park();
        }
    });
    let mut machine = receive.recv().map_err(|error| error.to_string())??;
    let (requests, reports) = machine.streams();
    let waiting = Waiting::default();
    let (up, is_up) = channel();
    let tasks = waiting.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(reports).lines().map_while(Result::ok) {
            match serde_json::from_str(&line) {
                Ok(Report::Up) => drop(up.send(())),
                Ok(report) => pass_on(&tasks, report),
                Err(error) => eprintln!("the second host said {line:?}: {error}"),
            }
        }
        // Whoever waits is told by the end of the channel that there is no machine any more.
        lock(&tasks).clear();
    });
    match is_up.recv_timeout(UP) {
        Ok(()) => Ok((machine, requests, waiting)),
        Err(_) => Err(format!(
            "the second host did not come up; its console:\n{}",
            machine.console.tail(TAIL)
        )),
    }
}
