//! VMs' lives by requests.

use crate::harness::{Test, deadline};
use crate::served::{Served, agent, is_possible, send};
use serde_json::json;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("a_vm_is_made_started_watched_and_removed", life),
    ("the_same_description_is_the_same_vm", idempotent),
    ("what_is_told_of_a_vm_can_be_asked_again", again),
    ("many_pause_and_resume_at_once", at_once),
    ("vms_go_on_without_their_server", outlives),
    ("who_waits_is_told_the_end", waiting),
    ("a_vm_that_does_not_start_says_why", failing),
    ("limits_and_the_balloon_change_while_a_vm_runs", changes),
];

fn life() {
    if !is_possible() {
        return;
    }
    let served = Served::new();
    let told = served.get("/v1/capabilities");
    assert_eq!((&told["api"], &told["kvm"]), (&json!("v1"), &json!(true)));
    assert!(
        told["operations"]
            .as_array()
            .unwrap()
            .contains(&json!("createVm"))
    );
    assert_eq!(served.get("/v1/vms"), json!({ "vms": [], "damaged": {} }));

    let mut wanted = agent(&["out=ready", "stay"]);
    wanted["labels"] = json!({ "tier": "front" });
    let vm = served.done("PUT", "/v1/vms/web", &wanted);
    assert_eq!(
        (&vm["name"], &vm["state"]),
        (&json!("web"), &json!("created"))
    );
    assert_eq!(vm["labels"], wanted["labels"]);
    assert_eq!(vm["config"]["memory"], "64M");
    served.refused(409, "POST", "/v1/vms/web/pause", "");
    served.refused(409, "GET", "/v1/vms/web/stats", "");

    assert_eq!(served.post("/v1/vms/web/start")["state"], "running");
    assert_eq!(served.post("/v1/vms/web/start")["restarts"], 0);
    served.has_written("web", "ready\n");
    let id = vm["id"].as_str().unwrap();
    assert_eq!(served.state(&id[..8]), "running");
    let taken = served.refused(409, "DELETE", "/v1/vms/web", "");
    assert!(
        taken["help"].as_str().unwrap().contains("force=true"),
        "{taken}"
    );
    assert_eq!(served.post("/v1/vms/web/pause")["state"], "paused");
    assert_eq!(served.post("/v1/vms/web/pause")["state"], "paused");
    let stands = served.refused(409, "POST", "/v1/vms/web/start", "");
    assert_eq!(stands["help"], "resume it");
    assert_eq!(served.post("/v1/vms/web/resume")["state"], "running");
    let stats = served.get("/v1/vms/web/stats");
    assert_eq!(stats["memory"]["bytes"], 64 << 20, "{stats}");

    let stopped = served.post("/v1/vms/web/stop");
    assert_eq!(stopped["state"], "exited");
    assert_eq!(stopped["exit"]["code"], 143, "{stopped}");
    assert_eq!(served.post("/v1/vms/web/stop")["exit"], stopped["exit"]);
    // Once more, and by force.
    assert_eq!(served.post("/v1/vms/web/start")["state"], "running");
    assert_eq!(served.post("/v1/vms/web/kill")["exit"]["code"], 137);
    served.post("/v1/vms/web/start");
    assert_eq!(
        served.done("DELETE", "/v1/vms/web?force=true", &json!(null)),
        json!(null)
    );
    served.refused(404, "GET", "/v1/vms/web", "");
    let told = served.ask("GET", "/v1/events?since=0&follow=false", "");
    let events: Vec<_> = told
        .lines()
        .iter()
        .map(|event| event["event"].clone())
        .collect();
    assert_eq!(
        events[..5],
        ["create", "start", "pause", "unpause", "stop"],
        "{events:?}"
    );
    assert_eq!(events[events.len() - 1], "destroy", "{events:?}");
}

fn idempotent() {
    if !is_possible() {
        return;
    }
    let served = Served::new();
    let wanted = agent(&["stay"]).to_string();
    let first = served.ask("PUT", "/v1/vms/one", &wanted);
    assert_eq!(first.status, 201);
    let again = served.ask("PUT", "/v1/vms/one", &wanted);
    assert_eq!((again.status, again.json()), (200, first.json()));
    let other = agent(&["stay", "exit=1"]).to_string();
    let problem = served.refused(409, "PUT", "/v1/vms/one", &other);
    assert_eq!(problem["type"], "urn:kvmlet:conflict");
    // Many at once: one makes it.
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let ask = || served.ask("PUT", "/v1/vms/two", &wanted).status;
        let threads: Vec<_> = (0..20).map(|_| scope.spawn(ask)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let made = statuses.iter().filter(|status| **status == 201);
    assert_eq!(made.count(), 1, "{statuses:?}");
    assert!(
        statuses.iter().all(|status| matches!(status, 200 | 201)),
        "{statuses:?}"
    );
    assert_eq!(served.get("/v1/vms")["vms"].as_array().unwrap().len(), 2);
}

fn again() {
    if !is_possible() {
        return;
    }
    let served = Served::new();
    let mut wanted = agent(&["stay"]);
    wanted["service"] =
        json!({ "env": { "A": "1" }, "workdir": "/srv", "stop_timeout": 3, "stop_signal": 2 });
    wanted["restart"] = json!("on-failure:2");
    wanted["log"] = json!({ "files": 2 });
    let first = served.done("PUT", "/v1/vms/one", &wanted);
    let mut told = json!({});
    for key in [
        "config", "command", "service", "restart", "remove", "labels", "log",
    ] {
        told[key] = first[key].clone();
    }
    let same = served.ask("PUT", "/v1/vms/one", &told.to_string());
    assert_eq!((same.status, same.json()), (200, first.clone()));
    let mut second = served.done("PUT", "/v1/vms/two", &told);
    for key in ["id", "name", "created"] {
        assert_ne!(second[key], first[key]);
        second[key] = first[key].clone();
    }
    assert_eq!(second, first);
    wanted["service"]["hostname"] = json!("tenant");
    let named = served.done("PUT", "/v1/vms/three", &wanted);
    assert_eq!(named["service"]["hostname"], "tenant");
}

fn at_once() {
    if !is_possible() {
        return;
    }
    let served = Served::new();
    served.done("PUT", "/v1/vms/web", &agent(&["out=ready", "stay"]));
    served.post("/v1/vms/web/start");
    for (verb, state) in [("pause", "paused"), ("resume", "running")].repeat(3) {
        std::thread::scope(|scope| {
            let ask = || served.post(&format!("/v1/vms/web/{verb}"));
            let threads: Vec<_> = (0..20).map(|_| scope.spawn(ask)).collect();
            for thread in threads {
                assert_eq!(thread.join().unwrap()["state"], state);
            }
        });
    }
    // More than a supervisor serves at a time have their turns.
    std::thread::scope(|scope| {
        let ask = || served.get("/v1/vms/web/stats");
        let threads: Vec<_> = (0..40).map(|_| scope.spawn(ask)).collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap()["memory"]["bytes"], 64 << 20);
        }
    });
}

fn outlives() {
    if !is_possible() {
        return;
    }
    let mut served = Served::new();
    served.done("PUT", "/v1/vms/web", &agent(&["out=ready", "stay"]));
    let running = served.post("/v1/vms/web/start");
    for _ in 0..5 {
        served.start_again();
        assert_eq!(served.get("/v1/vms/web"), running);
    }
    served.post("/v1/vms/web/stop");
    served.start_again();
    assert_eq!(served.state("web"), "exited");
}

fn waiting() {
    if !is_possible() {
        return;
    }
    let served = Served::new();
    served.done("PUT", "/v1/vms/web", &agent(&["out=ready", "stay"]));
    assert_eq!(served.get("/v1/vms/web/wait")["ended"], true);
    served.post("/v1/vms/web/start");
    let told = served.get("/v1/vms/web/wait?timeout=0");
    assert_eq!(
        (&told["ended"], &told["vm"]["state"]),
        (&json!(false), &json!("running"))
    );
    let since = Instant::now();
    assert_eq!(served.get("/v1/vms/web/wait?timeout=1")["ended"], false);
    assert!(since.elapsed() >= Duration::from_secs(1));
    // Those who have gone while they waited keep nobody waiting.
    for _ in 0..2 {
        let gone: Vec<_> = (0..64)
            .map(|_| {
                let mut stream = served.connect();
                send(&mut stream, "GET", "/v1/vms/web/wait?timeout=300", "");
                stream
            })
            .collect();
        std::thread::sleep(Duration::from_millis(100));
        drop(gone);
        let since = Instant::now();
        while served.raw("GET", "/v1/vms/web", "").status == 503 {
            assert!(since.elapsed() < deadline(), "they have their seats still");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    // Many wait, and keep nobody from ending it.
    std::thread::scope(|scope| {
        let wait = || served.get("/v1/vms/web/wait?timeout=120");
        let threads: Vec<_> = (0..30).map(|_| scope.spawn(wait)).collect();
        std::thread::sleep(Duration::from_millis(100));
        served.post("/v1/vms/web/stop?timeout=0");
        for thread in threads {
            let told = thread.join().unwrap();
            assert_eq!(
                (&told["ended"], &told["vm"]["state"]),
                (&json!(true), &json!("exited"))
            );
        }
    });
    served.refused(400, "GET", "/v1/vms/web/wait?timeout=301", "");
}

fn failing() {
    if !is_possible() {
        return;
    }
    let served = Served::new();
    let mut wanted = agent(&["stay"]);
    wanted["config"]["kernel"] = json!("/nowhere/vmlinux");
    served.done("PUT", "/v1/vms/web", &wanted);
    let problem = served.refused(422, "POST", "/v1/vms/web/start", "");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("/nowhere/vmlinux"),
        "{problem}"
    );
    assert_eq!(problem["type"], "urn:kvmlet:not-started");
    let vm = served.get("/v1/vms/web");
    assert_eq!(vm["state"], "exited", "{vm}");
}

fn changes() {
    if !is_possible() {
        return;
    }
    let served = Served::new();
    let disk = tempfile::NamedTempFile::new().unwrap();
    disk.as_file().set_len(8 << 20).unwrap();
    let mut wanted = agent(&["out=ready", "stay"]);
    wanted["config"]["disks"] = json!([{ "path": disk.path() }]);
    served.done("PUT", "/v1/vms/web", &wanted);
    let limit = json!({ "device": "disk", "index": 0, "bandwidth": { "per_second": 1 << 20, "burst": 4096 } });
    served.refused(409, "PUT", "/v1/vms/web/limits", &limit.to_string());
    served.post("/v1/vms/web/start");
    served.done("PUT", "/v1/vms/web/limits", &limit);
    served.done(
        "PUT",
        "/v1/vms/web/limits",
        &json!({ "device": "disk", "index": 0 }),
    );
    let other = json!({ "device": "disk", "index": 7 }).to_string();
    let problem = served.refused(409, "PUT", "/v1/vms/web/limits", &other);
    assert!(
        problem["detail"].as_str().unwrap().contains("no disk"),
        "{problem}"
    );
    let none = json!({ "device": "transmit", "index": 0, "operations": { "per_second": 0 } });
    let problem = served.refused(400, "PUT", "/v1/vms/web/limits", &none.to_string());
    assert_eq!(problem["field"], "operations.per_second");
    let problem = served.refused(409, "PUT", "/v1/vms/web/balloon", r#"{ "mib": 16 }"#);
    assert!(
        problem["detail"].as_str().unwrap().contains("balloon"),
        "{problem}"
    );
    let text = served.ask("GET", "/v1/vms/web/metrics", "");
    assert!(text.body.contains("kvmlet_vcpu_exits_total{"), "{text:?}");
    assert!(text.body.ends_with("# EOF\n"), "{text:?}");
}
