//! Benchmarks of processes, containers and bare-metal guests, and the ways in which they fail.

use crate::cache::{Cache, contestant, said};
use crate::harness::{self, deadline, patience::eventually};
use crate::{Test, program};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

pub const TESTS: &[Test] = &[
    (
        "without_its_programs_it_names_the_script",
        nothing,
        no_programs,
    ),
    (
        "an_unknown_contestant_is_named",
        nothing,
        unknown_contestant,
    ),
    ("crun_starts_containers", crun, || {
        starts(&["crun", "crun-nocgroup"])
    }),
    ("runc_starts_containers", runc, || starts(&["runc"])),
    ("podman_starts_containers", podman, || starts(&["podman"])),
    ("docker_starts_containers", docker, || starts(&["docker"])),
    ("ctr_starts_containers", ctr, starts_by_ctr),
    ("qemu_starts_the_same_guest", qemu, starts_same_guest),
    (
        "kvmlet_starts_a_guest_and_tells_its_phases",
        harness::kvm,
        starts_guest,
    ),
    (
        "kvmlet_starts_beside_others_with_a_network_and_with_a_share",
        crun_with_kvm,
        starts_under_conditions,
    ),
    (
        "a_linux_guest_without_a_kernel_is_unusable",
        harness::kvm,
        no_kernel,
    ),
    (
        "a_service_that_fails_is_a_failed_sample_everywhere",
        both,
        failing_service,
    ),
    (
        "a_runtime_that_is_not_there_is_absent_with_the_way_to_install_it",
        nothing,
        absent_runtime,
    ),
    ("a_signal_ends_it_and_leaves_nothing", crun, interrupted),
    (
        "what_a_failed_runtime_leaves_is_cleared",
        real_time,
        failing_runtime,
    ),
    (
        "what_a_killed_benchmark_leaves_the_next_one_clears",
        crun,
        killed,
    ),
    ("density_doubles_and_measures", both, density),
    ("a_closed_pipe_is_no_error", nothing, closed_pipe),
];

fn nothing() -> Result<(), String> {
    Ok(())
}

fn root() -> Result<(), String> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err("containers need root".into())
    }
}

fn crun() -> Result<(), String> {
    root().and_then(|()| program("crun"))
}

fn crun_with_kvm() -> Result<(), String> {
    crun().and_then(|()| harness::kvm())
}

fn starts_under_conditions() {
    let asked = [
        "startup",
        "--rounds",
        "2",
        "--only",
        "kvmlet-metal",
        "--beside",
        "2",
        "--net",
        "--cpu-quota",
        "0.5",
    ];
    let result = Cache::new().json(&asked);
    assert_eq!(result["beside"], 2, "{result:#}");
    let names = [
        "process",
        "kvmlet-metal",
        "kvmlet-metal-net",
        "kvmlet-metal-nojail-net",
        "kvmlet-metal-quota",
        "kvmlet-metal-nojail-quota",
        "crun-quota",
    ];
    for name in names {
        let one = contestant(&result, name);
        assert_eq!(one["figures"]["failed"], 0, "{one:#}");
        assert_eq!(one["figures"]["ready_ms"]["n"], 2, "{one:#}");
        let beside = &one["beside"];
        assert_eq!(beside["figures"]["failed"], 0, "{one:#}");
        assert_eq!(beside["figures"]["ready_ms"]["n"], 2, "{one:#}");
        assert!(beside["to_alone"].is_object(), "{one:#}");
        // No round is counted twice.
        let samples = |of: &serde_json::Value| {
            let all = of["samples"].as_array().unwrap().clone();
            all.into_iter().filter(|one| one["warm_up"] == false)
        };
        let rounds: Vec<_> = samples(one)
            .chain(samples(beside))
            .map(|one| one["round"].as_u64())
            .collect();
        assert_eq!(rounds, [Some(0), Some(3), Some(1), Some(2)], "{one:#}");
    }
    let command = contestant(&result, "kvmlet-metal-quota")["command"].to_string();
    assert!(command.contains("0.500"), "{command}");
}

fn runc() -> Result<(), String> {
    root().and_then(|()| program("runc"))
}

fn podman() -> Result<(), String> {
    root().and_then(|()| program("podman"))
}

fn docker() -> Result<(), String> {
    root()
        .and_then(|()| program("dockerd"))
        .and_then(|()| program("docker"))
}

fn ctr() -> Result<(), String> {
    root()
        .and_then(|()| program("containerd"))
        .and_then(|()| program("ctr"))
}

fn qemu() -> Result<(), String> {
    harness::kvm().and_then(|()| program("qemu-system-x86_64"))
}

fn both() -> Result<(), String> {
    crun().and_then(|()| runc())
}

fn no_programs() {
    let empty = tempfile::tempdir().unwrap();
    for what in ["startup", "density"] {
        let output = Command::new(env!("CARGO_BIN_EXE_kvmlet"))
            .args(["bench", what])
            .env("XDG_CACHE_HOME", empty.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(125));
        let message = said(&output);
        assert!(message.contains("bench.dir/ready`"), "{message}");
        assert!(
            message.contains("help: run `images/build bench` once"),
            "{message}"
        );
    }
}

fn unknown_contestant() {
    let output = Cache::new()
        .bench(&["startup", "--only", "crum"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(
        said(&output).contains("there is no contestant `crum`; there are process, "),
        "{}",
        said(&output)
    );
}

/// Three rounds of each, without a failure, and the bare process beside them.
fn starts(names: &[&str]) {
    let result = Cache::new().json(&["startup", "--rounds", "3", "--only", &names.join(",")]);
    assert_eq!(
        result["contestants"].as_array().unwrap().len(),
        names.len() + 1
    );
    for name in names.iter().chain(&["process"]) {
        let one = contestant(&result, name);
        assert_eq!(one["presence"]["state"], "present", "{one:#}");
        assert_eq!(one["figures"]["failed"], 0, "{one:#}");
        assert_eq!(one["figures"]["ready_ms"]["n"], 3, "{one:#}");
        assert_eq!(one["figures"]["gone_ms"]["n"], 3, "{one:#}");
    }
    let command = contestant(&result, names[0])["command"].as_array().unwrap();
    assert!(command.iter().any(|word| word == "run"), "{command:?}");
}

/// containerd's client may lose what a container wrote that ends at once, which then is a failed sample.
fn starts_by_ctr() {
    let result = Cache::new().json(&["startup", "--rounds", "3", "--only", "ctr"]);
    let one = contestant(&result, "ctr");
    assert_eq!(one["presence"]["state"], "present", "{one:#}");
    assert!(
        one["figures"]["ready_ms"]["n"].as_u64() >= Some(1),
        "{one:#}"
    );
    for sample in one["samples"].as_array().unwrap() {
        let error = sample["error"].as_str();
        let known = "it ended without being ready: exit status: 0";
        assert!(
            error.is_none_or(|error| error.starts_with(known)),
            "{sample:#}"
        );
    }
}

fn starts_same_guest() {
    let result = Cache::new().json(&["startup", "--rounds", "2", "--only", "qemu-metal"]);
    let one = contestant(&result, "qemu-metal");
    assert_eq!(one["figures"]["ready_ms"]["n"], 2, "{one:#}");
    assert_eq!(one["figures"]["failed"], 0, "{one:#}");
    // It is killed once it is ready.
    assert!(one["figures"]["gone_ms"].is_null(), "{one:#}");
}

fn starts_guest() {
    let names = "kvmlet-metal,kvmlet-metal-nojail,kvmlet-restore,kvmlet-restore-nojail,kvmlet-pool,kvmlet-pool-nojail,kvmlet-clone";
    let result = Cache::new().json(&["startup", "--rounds", "3", "--only", names]);
    let one = contestant(&result, "kvmlet-metal");
    for name in names.split(',') {
        let one = contestant(&result, name);
        assert_eq!(one["figures"]["ready_ms"]["n"], 3, "{one:#}");
        assert_eq!(one["figures"]["failed"], 0, "{one:#}");
    }
    // Tracepoints take root. The guest writes six bytes up to the end of the line, each an exit.
    let effort = &one["effort"];
    if rustix::process::geteuid().is_root() {
        assert_eq!(effort["exits"], 6.0, "{effort:#}");
        for time in ["vmm_cpu_ms", "guest_cpu_ms"] {
            assert!(effort[time].as_f64().unwrap() > 0.0, "{effort:#}");
        }
    }
    // One that goes on from a snapshot has all it reads in the file, and writes nothing but what it has to.
    if rustix::process::geteuid().is_root() {
        let effort = &contestant(&result, "kvmlet-restore")["effort"];
        let [all, own] =
            ["guest_pages", "guest_own_pages"].map(|key| effort[key].as_f64().unwrap());
        assert!(all > own && own < 16.0, "{effort:#}");
    }
    assert!(contestant(&result, "process")["effort"].is_null());
    let phases: Vec<&str> = result["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|phase| phase["name"].as_str().unwrap())
        .collect();
    assert_eq!(phases.first(), Some(&"spawn"));
    assert_eq!(phases.last(), Some(&"end"));
    assert!(
        phases.contains(&"create VM") && phases.contains(&"first exit"),
        "{phases:?}"
    );
}

fn no_kernel() {
    let result = Cache::new().json(&["startup", "--rounds", "1", "--only", "kvmlet-linux"]);
    let one = contestant(&result, "kvmlet-linux");
    assert_eq!(one["presence"]["state"], "unusable");
    let message = one["presence"]["message"].as_str().unwrap();
    assert!(message.contains("run `kernels/build` once"), "{message}");
    assert!(one["samples"].as_array().unwrap().is_empty());
}

/// kvmlet without arguments in the service's place: it says how it is used, and ends with 125.
fn failing_service() {
    // A static program, which runs in a container's empty root.
    let directory = tempfile::tempdir().unwrap();
    let service = directory.path().join("fails");
    fs::copy(env!("CARGO_BIN_EXE_kvmlet"), &service).unwrap();
    let result =
        Cache::with_service(&service).json(&["startup", "--rounds", "2", "--only", "crun,runc"]);
    for name in ["process", "crun", "runc"] {
        let one = contestant(&result, name);
        assert_eq!(one["presence"]["state"], "present");
        let samples = one["samples"].as_array().unwrap();
        assert!(samples.len() >= 2);
        for sample in samples {
            let error = sample["error"].as_str().unwrap();
            assert!(
                error.contains("exit status: 125") && error.contains("it said: "),
                "{name}: {error}"
            );
        }
        assert!(one["figures"]["ready_ms"].is_null());
    }
}

fn absent_runtime() {
    let empty = tempfile::tempdir().unwrap();
    let cache = Cache::new();
    let output = cache
        .bench(&["startup", "--rounds", "1"])
        .env("PATH", empty.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for (name, install) in [
        ("crun", "apt-get install crun"),
        ("runc", "apt-get install runc"),
        ("ctr", "apt-get install containerd"),
        ("podman", "apt-get install podman"),
        ("docker", "apt-get install docker.io"),
        ("qemu-linux", "apt-get install qemu-system-x86"),
        ("firecracker-linux", "a release of"),
        ("cloud-hypervisor-linux", "a release of"),
        ("crosvm-linux", "crosvm built from source"),
    ] {
        let line = format!("absent: {name}; to install it: {install}");
        assert!(text.contains(&line), "no {line:?} in {text}");
    }
}

fn interrupted() {
    let cache = Cache::new();
    let mut child = endless(&cache, "crun");
    // Once there are bundles, containers come and go.
    let begun = Instant::now();
    while !bundles(&cache.temporary()) {
        assert!(begun.elapsed() < deadline(), "it never began");
        std::thread::yield_now();
    }
    // SAFETY: the child has not been waited for, so the number is its own.
    unsafe { libc::kill(child.0.id() as i32, libc::SIGINT) };
    assert_eq!(child.0.wait().unwrap().code(), Some(130));
    cache.expect_nothing_left();
}

fn endless(cache: &Cache, only: &str) -> Killed {
    let arguments = [
        "startup", "--rounds", "100000", "--budget", "3600", "--only", only,
    ];
    let mut command = cache.bench(&arguments);
    Killed(cache.spawn(command.stdout(Stdio::null()).stderr(Stdio::null())))
}

/// A runtime that fails half-way leaves cgroups. A real-time process cannot join one of `cpu` in version 1 without a
/// budget for such processes, so crun fails there; where it does not, nothing may be left either.
fn failing_runtime() {
    let cache = Cache::new();
    let bench = cache.bench(&[
        "startup", "--rounds", "2", "--only", "crun", "--format", "json",
    ]);
    let mut command = Command::new("chrt");
    command
        .args(["-r", "5"])
        .arg(bench.get_program())
        .args(bench.get_args());
    command.envs(
        bench
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let child = cache.spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    cache.expect_nothing_left();
}

fn real_time() -> Result<(), String> {
    crun()?;
    program("chrt")?;
    match Command::new("chrt").args(["-r", "5", "true"]).output() {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err("real-time scheduling is not allowed here".into()),
    }
}

/// What a killed benchmark leaves is gone with the next one, and nobody else's.
fn killed() {
    let (cache, other) = (Cache::new(), Cache::new());
    let mut child = endless(&cache, "crun");
    let mut elsewhere = endless(&other, "crun");
    eventually("containers come and go", || {
        !cache.cgroups().is_empty() && !other.cgroups().is_empty()
    });
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    assert!(!cache.cgroups().is_empty());
    cache.json(&["startup", "--rounds", "1", "--only", "process"]);
    cache.expect_nothing_left();
    assert!(!other.cgroups().is_empty());
    assert!(elsewhere.0.try_wait().unwrap().is_none());
    // SAFETY: the child has not been waited for, so the number is its own.
    unsafe { libc::kill(elsewhere.0.id() as i32, libc::SIGTERM) };
    elsewhere.0.wait().unwrap();
    other.expect_nothing_left();
}

/// A child that does not outlive a test that fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn bundles(temporary: &Path) -> bool {
    let benches = fs::read_dir(temporary).into_iter().flatten().flatten();
    benches.into_iter().any(|bench| {
        let files = fs::read_dir(bench.path().join("crun"))
            .into_iter()
            .flatten()
            .flatten();
        files
            .into_iter()
            .any(|file| file.file_name().to_string_lossy().starts_with("bundle-"))
    })
}

fn density() {
    let cache = Cache::new();
    let with_kvm = harness::kvm().is_ok();
    let names = if with_kvm {
        "crun,runc,kvmlet-metal,kvmlet-restore"
    } else {
        "crun,runc"
    };
    let result = cache.json(&[
        "density",
        "--limit",
        "3",
        "--parallel",
        "2",
        "--only",
        names,
    ]);
    for name in names.split(',').chain(["process"]) {
        let one = contestant(&result, name);
        let levels = one["levels"].as_array().unwrap();
        let instances: Vec<_> = levels
            .iter()
            .map(|level| level["instances"].as_u64().unwrap())
            .collect();
        assert_eq!(instances, [1, 2, 3], "{one:#}");
        let last = &levels[2]["each"];
        assert!(last["private"].as_f64().unwrap() > 0.0, "{one:#}");
        // A guest touches little of its 128 MiB; no other process has any.
        let guest = last["guest_ram"].as_f64().unwrap();
        assert_eq!(guest > 0.0, name.starts_with("kvmlet"), "{one:#}");
        assert!(guest < 8.0, "{one:#}");
        // What is in a file all have it once.
        let own = last["guest_own"].as_f64().unwrap();
        assert_eq!(own < guest, name == "kvmlet-restore", "{one:#}");
    }
}

fn closed_pipe() {
    let cache = Cache::new();
    let mut child = cache
        .bench(&["startup", "--rounds", "1", "--only", "process"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
