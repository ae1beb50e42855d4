//! VMs that are saved and copied, by operations.

use crate::harness::{Test, deadline, program};
use crate::served::{Served, agent, is_possible, receive, send};
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("a_vm_is_saved_restored_and_cloned_by_operations", copied),
    ("what_cannot_be_copied_is_refused_at_once", refused),
    ("a_cancelled_operation_leaves_nothing", cancelled),
    ("a_vm_is_made_of_a_root_as_run_does", run),
    ("a_vm_is_suspended_and_resumed", suspended),
    (
        "a_cancelled_suspension_is_done_or_leaves_nothing",
        unsuspended,
    ),
];

/// Begins an operation, and returns what it has come to.
fn over(served: &Served, path: &str, body: &Value) -> Value {
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let begun = served.ask("POST", path, &body);
    assert_eq!(begun.status, 202, "{begun:?}");
    let place = begun.field("Location").unwrap();
    let since = Instant::now();
    loop {
        let told = served.get(&format!("{place}/wait?timeout=20"));
        if told["state"] != "running" {
            assert_eq!(served.get(place), told);
            return told;
        }
        assert!(since.elapsed() < deadline(), "{told}");
    }
}

fn done(served: &Served, path: &str, body: &Value) -> Value {
    let told = over(served, path, body);
    assert_eq!(told["state"], "done", "{told}");
    told
}

/// No more is saved than what has changed, where the host's kernel tells that. Returns how many operations that takes.
fn changed(served: &Served, base: &Path) -> usize {
    if kvmlet_sys::written::Written::new().is_err() {
        println!("SKIPPED: a kernel before Linux 6.7");
        return 0;
    }
    let file = base.with_extension("more");
    let wanted = json!({ "file": file, "base": base });
    done(served, "/v1/vms/web/snapshot", &wanted);
    let [all, more] = [base, &file].map(|path| path.metadata().unwrap().blocks());
    assert!(more < all / 2, "{more} of {all}");
    unreplaced(served, base);
    let goes_on = json!({ "file": file });
    done(served, "/v1/vms/more/restore", &goes_on);
    assert_eq!(served.get("/v1/vms/more")["state"], "running");
    served.post("/v1/vms/more/kill");
    2
}

/// A server of the VM alone does not take away what other snapshots need, either.
fn unreplaced(served: &Served, base: &Path) {
    let vm = served.get("/v1/vms/web");
    let instance = served
        .book()
        .join("instances")
        .join(vm["id"].as_str().unwrap());
    let socket = base.with_extension("alone");
    // Where the book is the server's.
    let mut server = Command::new("nsenter");
    server.args(["--mount", "--target", &served.process.id().to_string()]);
    server
        .arg(env!("CARGO_BIN_EXE_kvmlet-serve"))
        .args(["serve", "--vm"]);
    server
        .arg(instance.join("control.sock"))
        .arg("--socket")
        .arg(&socket);
    let mut server = server.spawn().unwrap();
    let since = Instant::now();
    while UnixStream::connect(&socket).is_err() {
        assert!(since.elapsed() < deadline(), "nobody listens");
        std::thread::sleep(Duration::from_millis(5));
    }
    let save = |file: &Path| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(deadline())).unwrap();
        send(
            &mut stream,
            "POST",
            "/v1/vm/snapshot",
            &json!({ "file": file }).to_string(),
        );
        receive(stream)
    };
    let before = base.metadata().unwrap().ino();
    let refused = save(base);
    assert_eq!(refused.status, 409, "{refused:?}");
    assert!(
        refused.body.contains("is the base of snapshot"),
        "{refused:?}"
    );
    assert_eq!(refused.json()["field"], "file");
    assert_eq!(base.metadata().unwrap().ino(), before);
    server.kill().unwrap();
    server.wait().unwrap();
}

fn copied() {
    if !is_possible() {
        return;
    }
    let served = Served::new();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("web.snap");
    let mut wanted = agent(&["out=ready", "stay"]);
    wanted["labels"] = json!({ "tier": "front" });
    served.done("PUT", "/v1/vms/web", &wanted);
    served.post("/v1/vms/web/start");
    served.has_written("web", "ready\n");
    let saved = done(&served, "/v1/vms/web/snapshot", &json!({ "file": file }));
    assert_eq!(
        (&saved["kind"], &saved["makes"]),
        (&json!("snapshot"), &json!(file))
    );
    let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let more = changed(&served, &file);
    done(&served, "/v1/vms/web/clone", &json!({ "name": "copy" }));
    done(
        &served,
        "/v1/vms/back/restore",
        &json!({ "file": file, "remove": true }),
    );
    let first = served.get("/v1/vms/web");
    for name in ["copy", "back"] {
        let vm = served.get(&format!("/v1/vms/{name}"));
        assert_eq!(vm["state"], "running");
        assert_eq!(
            (&vm["labels"], &vm["command"]),
            (&first["labels"], &first["command"])
        );
        assert_ne!(vm["id"], first["id"]);
        assert_eq!(vm["remove"], json!(name == "back"));
    }
    assert_eq!(first["state"], "running");
    // What fails says why, in the words of who has asked, and leaves nothing.
    std::fs::write(&file, "nothing").unwrap();
    let failed = over(&served, "/v1/vms/never/restore", &json!({ "file": file }));
    assert_eq!(failed["state"], "failed", "{failed}");
    assert!(
        failed["problem"]["detail"]
            .as_str()
            .unwrap()
            .contains("web.snap"),
        "{failed}"
    );
    served.refused(404, "GET", "/v1/vms/never", "");
    let all = served.get("/v1/operations");
    assert_eq!(all["operations"].as_array().unwrap().len(), 4 + more);
    let id = saved["id"].as_str().unwrap();
    let late = served.post(&format!("/v1/operations/{id}/cancel"));
    assert_eq!(late, saved);
}

fn suspended() {
    if !is_possible() {
        return;
    }
    let served = Served::new();
    served.done("PUT", "/v1/vms/web", &agent(&["out=ready", "stay"]));
    served.refused(409, "POST", "/v1/vms/web/suspend", "");
    served.post("/v1/vms/web/start");
    let state = || served.get("/v1/vms/web")["state"].clone();
    for stands_still in [false, true] {
        if stands_still {
            assert_eq!(served.post("/v1/vms/web/pause")["state"], "paused");
        }
        let told = done(&served, "/v1/vms/web/suspend", &Value::Null);
        assert_eq!(
            (&told["kind"], &told["makes"]),
            (&json!("suspend"), &json!("web"))
        );
        assert_eq!(state(), "suspended");
        // It has not ended, and is not started.
        let waited = served.get("/v1/vms/web/wait?timeout=0");
        assert_eq!(waited["ended"], false, "{waited}");
        served.refused(409, "POST", "/v1/vms/web/start", "");
        served.refused(409, "POST", "/v1/vms/web/suspend", "");
        served.refused(409, "DELETE", "/v1/vms/web", "");
        assert_eq!(served.post("/v1/vms/web/resume")["state"], "running");
        assert_eq!(served.post("/v1/vms/web/resume")["state"], "running");
    }
    done(&served, "/v1/vms/web/suspend", &Value::Null);
    assert_eq!(served.post("/v1/vms/web/kill")["state"], "exited");
    assert_eq!(served.post("/v1/vms/web/start")["state"], "running");
    // Each start has an end, and each suspension but the last one a resumption.
    let told = served.ask("GET", "/v1/events?since=0&follow=false", "");
    let told: Vec<_> = told.lines().iter().map(|it| it["event"].clone()).collect();
    let expected = [
        "create", "start", "suspend", "resume", "pause", "suspend", "resume", "suspend", "kill",
        "stop", "die", "start",
    ];
    assert_eq!(told, expected);
}

/// At whatever moment it is cancelled: it tells what the VM does.
fn unsuspended() {
    if !is_possible() {
        return;
    }
    let served = Served::new();
    served.done("PUT", "/v1/vms/web", &agent(&["out=ready", "stay"]));
    served.post("/v1/vms/web/start");
    let file = || {
        let instances = std::fs::read_dir(served.book().join("instances")).unwrap();
        let mut files = instances.map(|it| it.unwrap().path().join("suspended"));
        files.any(|file| file.exists())
    };
    for round in 0..12 {
        let begun = served.ask("POST", "/v1/vms/web/suspend", "");
        assert_eq!(begun.status, 202, "{begun:?}");
        let place = begun.field("Location").unwrap();
        let since = Instant::now();
        // When it has its name, and a little later, it matters most.
        while round % 4 > 0 && !file() && since.elapsed() < Duration::from_secs(5) {
            std::hint::spin_loop();
        }
        std::thread::sleep(Duration::from_micros(300) * (round / 4));
        let told = served.post(&format!("{place}/cancel"));
        let state = served.get("/v1/vms/web")["state"].clone();
        match told["state"].as_str() {
            Some("cancelled") => assert_eq!((state, file()), (json!("running"), false), "{told}"),
            Some("done") => {
                assert_eq!((state, file()), (json!("suspended"), true), "{told}");
                assert_eq!(served.post("/v1/vms/web/resume")["state"], "running");
            }
            _ => panic!("{told}"),
        }
    }
}

fn refused() {
    if !is_possible() {
        return;
    }
    let served = Served::new();
    served.done("PUT", "/v1/vms/web", &agent(&["stay"]));
    let clone = json!({ "name": "other" }).to_string();
    served.refused(404, "POST", "/v1/vms/nobody/clone", &clone);
    served.refused(409, "POST", "/v1/vms/web/clone", &clone);
    served.refused(409, "POST", "/v1/vms/web/snapshot", r#"{"file": "/tmp/x"}"#);
    served.refused(409, "POST", "/v1/vms/web/restore", r#"{"file": "/tmp/x"}"#);
    served.refused(409, "POST", "/v1/vms/web/run", r#"{"image": "nginx"}"#);
    served.post("/v1/vms/web/start");
    let taken = served.refused(409, "POST", "/v1/vms/web/clone", r#"{"name": "web"}"#);
    assert!(
        taken["detail"].as_str().unwrap().contains("taken"),
        "{taken}"
    );
    for (path, body, field) in [
        ("web/snapshot", r#"{"file": "x"}"#, "file"),
        ("web/snapshot", r#"{"file": "/tmp/"}"#, "file"),
        ("web/snapshot", r#"{"path": "/x"}"#, "path"),
        ("web/snapshot", r#"{"file": "/tmp/x", "base": "x"}"#, "base"),
        ("web/clone", r#"{"name": "-x"}"#, "name"),
        (
            "web/clone",
            r#"{"name": "xy", "publish": ["80:x"]}"#,
            "publish[0]",
        ),
        ("new/run", r#"{"image": "./root"}"#, "image"),
        (
            "new/run",
            r#"{"image": "i", "volumes": ["./x:/y"]}"#,
            "volumes[0]",
        ),
    ] {
        let problem = served.refused(400, "POST", &format!("/v1/vms/{path}"), body);
        assert_eq!(problem["field"], field, "{problem}");
    }
    for (method, path) in [("GET", ""), ("GET", "/wait"), ("POST", "/cancel")] {
        served.refused(404, method, &format!("/v1/operations/abc{path}"), "");
    }
    assert_eq!(served.get("/v1/operations"), json!({ "operations": [] }));
}

fn cancelled() {
    if !is_possible() {
        return;
    }
    let served = Served::new();
    let place = tempfile::tempdir().unwrap();
    let left = || std::fs::read_dir(place.path()).unwrap().count();
    served.done("PUT", "/v1/vms/web", &agent(&["out=ready", "stay"]));
    served.post("/v1/vms/web/start");
    let body = json!({ "name": "copy" });
    let file = place.path().join("web.snap");
    // Wherever it is then: from before it has begun to when it is done.
    for round in 0..12 {
        for (path, body) in [("clone", &body), ("snapshot", &json!({ "file": file }))] {
            let begun = served.done("POST", &format!("/v1/vms/web/{path}"), body);
            std::thread::sleep(Duration::from_millis(3 * round));
            let id = begun["id"].as_str().unwrap();
            let told = served.post(&format!("/v1/operations/{id}/cancel"));
            let vms = served.get("/v1/vms")["vms"].as_array().unwrap().len();
            match (told["state"].as_str().unwrap(), path) {
                ("cancelled", _) => assert_eq!((vms, left()), (1, 0), "{told}"),
                ("done", "clone") => {
                    served.done("DELETE", "/v1/vms/copy?force=true", &Value::Null);
                }
                ("done", _) => std::fs::remove_file(&file).unwrap(),
                // It takes a moment until a VM knows that nobody reads what it tells.
                ("failed", _) if is_saved_still(&told["problem"]["causes"][0]) => {}
                _ => panic!("{told}"),
            }
        }
    }
    // The one that was to be copied goes on, and is of use.
    let since = Instant::now();
    loop {
        let told = served.ask("POST", "/v1/vms/web/pause", "");
        if told.status == 200 {
            break;
        }
        let is_still = is_saved_still(&told.json()["detail"]);
        assert!(is_still && since.elapsed() < deadline(), "{told:?}");
    }
    assert_eq!(served.post("/v1/vms/web/resume")["state"], "running");
}

fn is_saved_still(said: &Value) -> bool {
    said == "the VM is being saved"
}

fn run() {
    if !is_possible() {
        return;
    }
    let served = Served::new();
    let root = tempfile::tempdir().unwrap();
    let wanted = json!({
        "image": root.path(), "kernel": program("agent"), "memory": "64m", "command": ["out=ready", "stay"],
        "env": { "A": "-b" }, "labels": { "tier": "front" }, "restart": "on-failure:2", "stop_timeout": 7,
    });
    let told = done(&served, "/v1/vms/web/run", &wanted);
    assert_eq!(
        (&told["kind"], &told["makes"]),
        (&json!("run"), &json!("web"))
    );
    let vm = served.get("/v1/vms/web");
    assert_eq!(
        (&vm["state"], &vm["restart"]),
        (&json!("running"), &json!("on-failure:2"))
    );
    assert_eq!(
        (&vm["labels"], &vm["command"]),
        (&wanted["labels"], &wanted["command"])
    );
    assert_eq!(vm["service"]["env"], wanted["env"]);
    assert_eq!(vm["config"]["memory"], "64M", "{vm}");
    served.has_written("web", "ready\n");
    // Settings are named as clients say them, and what is not there is not looked for among files.
    let mut more = wanted.clone();
    more["memory"] = json!("900g");
    let failed = over(&served, "/v1/vms/more/run", &more);
    let problem = &failed["problem"];
    assert!(
        !problem["help"].as_str().unwrap_or_default().contains("--"),
        "{failed}"
    );
    let none = json!({ "image": "tmp", "pull": "never" });
    let failed = over(&served, "/v1/vms/more/run", &none);
    assert!(
        failed["problem"]["detail"]
            .as_str()
            .unwrap()
            .contains("is not here"),
        "{failed}"
    );
    served.refused(404, "GET", "/v1/vms/more", "");
}
