//! A server with a book of its own, and requests to it.

use crate::document::{Document, Told};
use crate::harness::{deadline, kvmlet, program};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A server, whose book goes with it.
pub struct Served {
    pub process: Child,
    pub socket: PathBuf,
    place: TempDir,
    pub document: Document,
}

/// True where there can be one: only root has a book that can be put elsewhere by a mount.
pub fn is_possible() -> bool {
    let possible = rustix::process::geteuid().is_root();
    if !possible {
        println!("SKIPPED: only root has a book that can be put elsewhere by a mount");
    }
    possible
}

impl Served {
    pub fn new() -> Self {
        assert!(kvmlet().exists(), "build kvmlet first: cargo build");
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir(place.path().join("lib")).unwrap();
        let socket = place.path().join("api");
        let process = start(place.path(), &socket);
        let mut served = Self {
            process,
            socket,
            place,
            document: Document(json!({ "paths": {} })),
        };
        served.wait_for_it();
        served.document = Document(served.raw("GET", "/v1/openapi.json", "").json());
        served
    }

    fn wait_for_it(&mut self) {
        let since = Instant::now();
        while UnixStream::connect(&self.socket).is_err() {
            assert!(since.elapsed() < deadline(), "nobody listens");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Where the book is.
    pub fn book(&self) -> PathBuf {
        self.place.path().join("lib/kvmlet")
    }

    /// Kills the server, and starts another one of the same book.
    pub fn start_again(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = start(self.place.path(), &self.socket);
        self.wait_for_it();
    }

    /// A request on a connection of its own.
    pub fn raw(&self, method: &str, path: &str, body: &str) -> Told {
        let mut stream = self.connect();
        send(&mut stream, method, path, body);
        receive(stream)
    }

    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(deadline())).unwrap();
        stream
    }

    /// A request whose answer is one that the document has.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Told {
        let told = self.raw(method, path, body);
        self.document.check(method, path, &told);
        told
    }

    /// Something that is done.
    pub fn done(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let told = self.ask(method, path, &body);
        assert!(
            (200..300).contains(&told.status),
            "{method} {path}: {told:?}"
        );
        match told.status {
            204 => Value::Null,
            _ => told.json(),
        }
    }

    pub fn post(&self, path: &str) -> Value {
        self.done("POST", path, &Value::Null)
    }

    pub fn get(&self, path: &str) -> Value {
        self.done("GET", path, &Value::Null)
    }

    /// Something that is refused with that status.
    pub fn refused(&self, status: u16, method: &str, path: &str, body: &str) -> Value {
        let told = self.ask(method, path, body);
        assert_eq!(told.status, status, "{method} {path} {body}: {told:?}");
        let problem = told.json();
        assert_eq!(problem["status"], status);
        assert_eq!(problem["fault_message"], problem["detail"]);
        assert_eq!(problem["request_id"].as_str(), told.field("Request-Id"));
        problem
    }

    pub fn state(&self, name: &str) -> String {
        let vm = self.get(&format!("/v1/vms/{name}"));
        vm["state"].as_str().unwrap().into()
    }

    /// Waits until the guest has written that.
    pub fn has_written(&self, name: &str, text: &str) {
        let since = Instant::now();
        loop {
            let told = self.ask("GET", &format!("/v1/vms/{name}/logs"), "");
            if told.lines().iter().any(|line| line["text"] == text) {
                return;
            }
            assert!(since.elapsed() < deadline(), "{told:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// In a mount namespace in which nothing but this test has a book.
fn start(place: &Path, socket: &Path) -> Child {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg("mount --bind \"$1\" /var/lib && exec \"$2\" serve --socket \"$3\"");
    command.arg("sh").arg(place.join("lib"));
    command.arg(env!("CARGO_BIN_EXE_kvmlet-serve")).arg(socket);
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    let mut line = String::new();
    let mut errors = BufReader::new(process.stderr.take().unwrap());
    errors.read_line(&mut line).unwrap();
    assert!(line.starts_with("kvmlet: serves at "), "{line}");
    // What else it has to say is for whoever reads the test's output.
    std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::stderr()));
    process
}

impl Drop for Served {
    fn drop(&mut self) {
        let told = self.raw("GET", "/v1/vms", "").json();
        for vm in told["vms"].as_array().into_iter().flatten() {
            let path = format!("/v1/vms/{}?force=true", vm["id"].as_str().unwrap());
            let told = self.raw("DELETE", &path, "");
            // Its test may have failed, and tells why itself.
            assert!(told.status == 204 || std::thread::panicking(), "{told:?}");
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a VM is that runs a guest of ours with these words.
pub fn agent(words: &[&str]) -> Value {
    json!({
        "config": { "kernel": program("agent"), "memory": "64M" },
        "command": words,
    })
}

pub fn send(stream: &mut UnixStream, method: &str, path: &str, body: &str) {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
}

/// All of an answer, up to the end of the connection.
pub fn receive(mut stream: UnixStream) -> Told {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect(&text);
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut told = Told {
        status,
        head: head.into(),
        body: body.into(),
    };
    if told.field("Transfer-Encoding").is_some() {
        told.body = whole(body);
    }
    told
}

/// A body that has come in chunks, to its last one.
fn whole(mut rest: &str) -> String {
    let mut body = String::new();
    loop {
        let (length, behind) = rest.split_once("\r\n").expect(rest);
        let length = usize::from_str_radix(length, 16).expect(length);
        body += &behind[..length];
        rest = behind[length..].strip_prefix("\r\n").expect(behind);
        if length == 0 {
            assert_eq!(rest, "");
            return body;
        }
    }
}
