//! A server of one VM, which is in no book: by the control socket of `kvmlet boot`.

use crate::document::{Document, Told};
use crate::harness::{Test, deadline, kvmlet, program};
use crate::served::{receive, send};
use kvmlet_control::send_with;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::SendFlags;
use serde_json::{Value, json};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[("a_vm_that_is_in_no_book_is_served_alone", alone)];

/// A VM and its server, both of which end with this.
struct Served {
    vm: Child,
    server: Child,
    socket: PathBuf,
    document: Document,
}

fn boot(place: &Path) -> Child {
    let disk = place.join("disk");
    std::fs::write(&disk, [7; 4096]).unwrap();
    let listener = UnixListener::bind(place.join("control")).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" boot \"$@\" 3<&0 </dev/null"]);
    command
        .arg(kvmlet())
        .args(["--control-fd", "3", "--no-rng"]);
    command.args(["-m", "64M", "--balloon", "--kernel"]);
    command.arg(program("spin")).arg("--disk").arg(disk);
    command.stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)));
    command.stdout(Stdio::null()).spawn().unwrap()
}

fn serve(control: &Path, socket: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvmlet-serve"));
    command.args(["serve", "--vm"]).arg(control);
    command.arg("--socket").arg(socket);
    command
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is() {
        assert!(since.elapsed() < deadline(), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Served {
    fn new(place: &Path) -> Self {
        let socket = place.join("api");
        let vm = boot(place);
        let server = serve(&place.join("control"), &socket).spawn().unwrap();
        let served = Self {
            vm,
            server,
            socket,
            document: Document(json!({ "paths": {} })),
        };
        until("nobody listens", || {
            UnixStream::connect(&served.socket).is_ok()
        });
        let document = Document(served.raw("GET", "/v1/openapi.json", "").json());
        Self::with(served, document)
    }

    fn with(mut served: Self, document: Document) -> Self {
        served.document = document;
        served
    }

    fn begin(&self, method: &str, path: &str, body: &str) -> UnixStream {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(deadline())).unwrap();
        send(&mut stream, method, path, body);
        stream
    }

    fn raw(&self, method: &str, path: &str, body: &str) -> Told {
        receive(self.begin(method, path, body))
    }

    /// An answer of that status, which is one that the document has.
    fn ask(&self, status: u16, method: &str, path: &str, body: &Value) -> Told {
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let told = self.raw(method, path, &body);
        self.document.check(method, path, &told);
        assert_eq!(told.status, status, "{method} {path}: {told:?}");
        told
    }

    fn told(&self, method: &str, path: &str) -> Value {
        self.ask(200, method, path, &Value::Null).json()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        for process in [&mut self.vm, &mut self.server] {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// A snapshot goes into a file that comes along with the request, and into nothing else.
fn into_descriptors(served: &Served, place: &Path) {
    let save = |status: u16, body: Value, along: &[BorrowedFd<'_>]| {
        let (path, body) = ("/v1/vm/snapshot", body.to_string());
        let mut stream = UnixStream::connect(&served.socket).unwrap();
        stream.set_read_timeout(Some(deadline())).unwrap();
        // With the first byte of its request.
        send_with(&stream, b"P", along, SendFlags::empty()).unwrap();
        send(&mut stream, "OST", path, &body);
        let told = receive(stream);
        served.document.check("POST", path, &told);
        assert_eq!(told.status, status, "{body}: {told:?}");
        told.json()
    };
    let memory = File::from(memfd_create("saved", MemfdFlags::CLOEXEC).unwrap());
    let saved = save(200, json!({ "fd": 0 }), &[memory.as_fd()]);
    assert!(saved["stood_still_us"].as_u64().is_some(), "{saved}");
    let path = PathBuf::from(format!("/proc/self/fd/{}", memory.as_raw_fd()));
    let saved = kvmlet_vmm::snapshot::Saved::open(&path).unwrap();
    saved.verify().unwrap();

    let file = place.join("given");
    std::fs::write(&file, "mine").unwrap();
    let own = File::options().read(true).write(true).open(&file).unwrap();
    let reads = File::open(&file).unwrap();
    let (own, reads) = (own.as_fd(), reads.as_fd());
    for (status, along, part) in [
        (422, vec![own], "not empty"),
        (422, vec![reads], "not open for reading and writing"),
        (422, vec![memory.as_fd()], "not empty"),
        (400, vec![], "no descriptor came along"),
        (400, vec![own, own], "more descriptors"),
    ] {
        let refused = save(status, json!({ "fd": 0 }), &along);
        assert!(refused.to_string().contains(part), "{part}: {refused}");
    }
    for body in [
        json!({ "fd": 1 }),
        json!({ "fd": 0, "file": file }),
        json!({ "fd": null }),
        json!({}),
    ] {
        save(400, body, &[own]);
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
}

fn alone() {
    let place = tempfile::tempdir().unwrap();
    let mut served = Served::new(place.path());
    until("it runs", || {
        served.told("GET", "/v1/vm")["state"] == "running"
    });
    let all = served.told("GET", "/v1/capabilities")["operations"].clone();
    assert!(
        all.as_array().unwrap().contains(&json!("snapshotVm")),
        "{all}"
    );
    assert!(
        !all.as_array().unwrap().contains(&json!("createVm")),
        "{all}"
    );
    served.ask(404, "GET", "/v1/vms", &Value::Null);
    served.ask(405, "DELETE", "/v1/vm", &Value::Null);

    for (act, state) in [
        ("pause", "paused"),
        ("pause", "paused"),
        ("resume", "running"),
    ] {
        assert_eq!(
            served.told("POST", &format!("/v1/vm/{act}"))["state"],
            state
        );
        assert_eq!(served.told("GET", "/v1/vm")["state"], state);
    }
    assert!(served.told("GET", "/v1/vm/stats")["vcpus"].is_array());
    let metrics = served.ask(200, "GET", "/v1/vm/metrics", &Value::Null);
    assert!(metrics.body.ends_with("# EOF\n"), "{metrics:?}");

    let limit =
        |index: u8| json!({ "device": "disk", "index": index, "operations": { "per_second": 9 } });
    served.ask(204, "PUT", "/v1/vm/limits", &limit(0));
    served.ask(409, "PUT", "/v1/vm/limits", &limit(1));
    served.ask(204, "PUT", "/v1/vm/balloon", &json!({ "mib": 1 }));
    served.ask(409, "PUT", "/v1/vm/balloon", &json!({ "mib": 64 }));
    served.ask(
        400,
        "PUT",
        "/v1/vm/balloon",
        &json!({ "mib": 1, "more": 1 }),
    );

    let file = place.path().join("saved");
    let saved = served.ask(200, "POST", "/v1/vm/snapshot", &json!({ "file": file }));
    assert_eq!(saved.json()["file"], json!(file));
    kvmlet_vmm::snapshot::Saved::open(&file)
        .unwrap()
        .verify()
        .unwrap();
    let foreign = place.path().join("foreign");
    std::fs::write(&foreign, "mine").unwrap();
    let there = foreign.to_str().unwrap();
    for (status, file) in [(422, "/nowhere/at/all"), (400, "saved"), (422, there)] {
        let refused = served.ask(status, "POST", "/v1/vm/snapshot", &json!({ "file": file }));
        assert_eq!(refused.json()["field"], "file");
    }
    assert_eq!(std::fs::read(&foreign).unwrap(), b"mine");

    into_descriptors(&served, place.path());
    let states = [json!("running"), json!("paused"), json!("running")];
    let past = served.ask(200, "GET", "/v1/events?since=0&follow=false", &Value::Null);
    let all: Vec<_> = past.lines().iter().map(|it| it["state"].clone()).collect();
    assert!(all.ends_with(&states), "{past:?}");
    let last = past.lines().last().unwrap()["sequence"].as_u64().unwrap();
    let follows = served.begin("GET", &format!("/v1/events?since={last}"), "");
    assert_eq!(served.told("GET", "/v1/vm/wait?timeout=0")["ended"], false);
    let waits = served.begin("GET", "/v1/vm/wait?timeout=300", "");

    let ended = served.told("POST", "/v1/vm/stop?timeout=0");
    assert_eq!(
        (&ended["state"], &ended["outcome"]["reason"]),
        (&json!("ended"), &json!("stopped"))
    );
    let waited = receive(waits).json();
    assert_eq!(
        (&waited["ended"], &waited["vm"]["state"]),
        (&json!(true), &json!("ended"))
    );
    let followed = receive(follows).lines();
    let end = followed.last().unwrap();
    assert_eq!(
        (&end["state"], &end["outcome"]),
        (&json!("ended"), &ended["outcome"])
    );
    // It ends with its VM.
    let mut code = None;
    until("it goes on", || {
        code = served.server.try_wait().unwrap();
        code.is_some()
    });
    assert_eq!(code.unwrap().code(), Some(0));
    assert!(!served.socket.exists());

    let output = serve(&place.path().join("control"), &served.socket)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("tells nothing") && said.contains("help: name the control socket"));
    let output = serve(&place.path().join("saved"), &served.socket).output();
    let said = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(
        said.contains("it is no socket") && !said.contains("events"),
        "{said}"
    );
    assert!(!served.socket.exists());
}
