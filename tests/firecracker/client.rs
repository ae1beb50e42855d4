//! A process that answers Firecracker's API, and a client of it.

use crate::harness::{deadline, program};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The command, which finds `kvmlet` beside itself.
pub fn firecracker() -> Command {
    assert!(
        crate::harness::kvmlet().exists(),
        "build kvmlet first: cargo build"
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvmlet-serve"));
    command.arg("firecracker");
    command
}

/// A process with its socket, its guest's console, and a place for files.
pub struct Served {
    pub process: Child,
    pub socket: PathBuf,
    pub input: ChildStdin,
    lines: Receiver<String>,
    pub place: TempDir,
}

impl Served {
    pub fn new() -> Self {
        Self::with(|_, _| ())
    }

    /// One with more words, which may name files in its place.
    pub fn with(add: impl FnOnce(&mut Command, &Path)) -> Self {
        let place = tempfile::tempdir().unwrap();
        let socket = place.path().join("api");
        let mut command = firecracker();
        command.arg("--api-sock").arg(&socket);
        add(&mut command, place.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let (input, output) = (
            process.stdin.take().unwrap(),
            process.stdout.take().unwrap(),
        );
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.map_while(|line| tell.send(line).ok()).for_each(drop);
        });
        let since = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            assert!(since.elapsed() < deadline(), "nobody listens");
            std::thread::sleep(Duration::from_millis(1));
        }
        Self {
            process,
            socket,
            input,
            lines,
            place,
        }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Asks for something, and returns the status and the body.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        ask(&self.socket, method, path, body)
    }

    /// Asks for something that is done.
    pub fn done(&self, method: &str, path: &str, body: &Value) {
        let answer = self.ask(method, path, &body.to_string());
        assert_eq!(answer, (204, String::new()), "{method} {path} {body}");
    }

    /// Asks for something that is not done, and returns why.
    pub fn refused(&self, method: &str, path: &str, body: &Value) -> String {
        let (status, body) = self.ask(method, path, &body.to_string());
        assert_eq!(status, 400, "{method} {path}: {body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        body["fault_message"].as_str().unwrap().into()
    }

    pub fn told(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path, "");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    pub fn state(&self) -> String {
        self.told("/")["state"].as_str().unwrap().into()
    }

    /// Describes a machine with a guest of ours.
    pub fn describe(&self, guest: &str, boot_args: &str) {
        let machine = serde_json::json!({ "vcpu_count": 1, "mem_size_mib": 32 });
        self.done("PUT", "/machine-config", &machine);
        let boot =
            serde_json::json!({ "kernel_image_path": program(guest), "boot_args": boot_args });
        self.done("PUT", "/boot-source", &boot);
    }

    pub fn act(&self, what: &str) {
        self.done(
            "PUT",
            "/actions",
            &serde_json::json!({ "action_type": what }),
        );
    }

    pub fn go(&self, state: &str) {
        self.done("PATCH", "/vm", &serde_json::json!({ "state": state }));
    }

    /// The next line of the guest's.
    pub fn line(&self) -> String {
        self.lines
            .recv_timeout(deadline())
            .expect("the guest says nothing")
    }

    /// Nothing comes of a guest for a while, once what it had said is read.
    pub fn is_silent(&self) -> bool {
        while self.lines.recv_timeout(Duration::from_millis(200)).is_ok() {}
        self.lines.recv_timeout(Duration::from_millis(200)).is_err()
    }

    /// The next round that the guest tells of.
    pub fn round(&self) -> u64 {
        loop {
            let line = self.line();
            assert!(!line.contains("failed"), "{line}");
            let round = line
                .strip_prefix("round=")
                .and_then(|rest| rest.split(' ').next());
            // What one had begun to say when it was saved, the other ends.
            if let Some(Ok(round)) = round.map(str::parse) {
                return round;
            }
        }
    }

    /// Waits until the process has ended.
    pub fn wait(&mut self) -> ExitStatus {
        ended(&mut self.process)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a command says that ends by itself, with nothing to read.
pub fn output(command: &mut Command) -> Output {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    ended(&mut process);
    process.wait_with_output().unwrap()
}

pub fn ended(process: &mut Child) -> ExitStatus {
    let since = Instant::now();
    loop {
        if let Some(status) = process.try_wait().unwrap() {
            return status;
        }
        assert!(since.elapsed() < deadline(), "it has not ended");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// One request on a connection of its own.
pub fn ask(socket: &Path, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(deadline())).unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect(&text);
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.into())
}

/// Processes that were started by one, and by those.
pub fn children(of: u32) -> Vec<u32> {
    let path = format!("/proc/{of}/task/{of}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let direct: Vec<u32> = text
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect();
    let below = direct
        .iter()
        .flat_map(|pid| children(*pid))
        .collect::<Vec<_>>();
    direct.into_iter().chain(below).collect()
}
