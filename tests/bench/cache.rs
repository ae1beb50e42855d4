//! A cache with what benchmarks start, so that tests need no `images/build bench`.

use crate::harness::{self, patience::eventually};
use serde_json::Value;
use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A cache of the test's own; gone when dropped.
pub struct Cache {
    directory: tempfile::TempDir,
    started: RefCell<Vec<u32>>,
}

impl Cache {
    /// With the real service and the bare-metal guests. There is no kernel, so no Linux guest.
    pub fn new() -> Self {
        Self::with_service(&harness::service())
    }

    /// With another program in the service's place.
    pub fn with_service(service: &Path) -> Self {
        // A short name: podman takes paths of 50 bytes only.
        let directory = tempfile::Builder::new().prefix("k").rand_bytes(3).tempdir();
        let directory = directory.unwrap();
        let built = directory.path().join("kvmlet/images/bench.dir");
        fs::create_dir_all(built.join("guests")).unwrap();
        fs::copy(service, built.join("ready")).unwrap();
        fs::write(built.join("ready.cpio"), "").unwrap();
        fs::copy(harness::program("agent"), built.join("guests/agent")).unwrap();
        for guest in ["ready", "ready_stay", "ready_again", "ready_again_stay"] {
            fs::copy(
                harness::ready_guest(guest),
                built.join("guests").join(guest),
            )
            .unwrap();
        }
        Self {
            directory,
            started: RefCell::default(),
        }
    }

    /// With a file in the guest kernel's place.
    pub fn with_kernel(self) -> Self {
        let directory = self.directory.path().join("kvmlet/kernels/software-kvm");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("vmlinux"), "").unwrap();
        self
    }

    /// `kvmlet bench` on this cache, with its temporary files in a directory of the test's own.
    pub fn bench(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/env");
        let temporary = self.temporary();
        fs::create_dir_all(&temporary).unwrap();
        command
            // Whoever runs the tests may ignore signals, which kvmlet then does, too.
            .args(["--default-signal", env!("CARGO_BIN_EXE_kvmlet"), "bench"])
            .args(arguments)
            .env("XDG_CACHE_HOME", self.directory.path())
            .env("TMPDIR", temporary)
            .stdin(Stdio::null());
        command
    }

    /// The path of a bare-metal guest.
    pub fn guest(&self, name: &str) -> std::path::PathBuf {
        let built = self.directory.path().join("kvmlet/images/bench.dir");
        built.join("guests").join(name)
    }

    /// The directory for temporary files.
    pub fn temporary(&self) -> std::path::PathBuf {
        self.directory.path().join("t")
    }

    /// The result as JSON, which follows the schema.
    pub fn json(&self, arguments: &[&str]) -> Value {
        self.json_of(self.bench(arguments))
    }

    /// The same with the programs of a directory in front of what is in PATH.
    pub fn json_with(&self, first: &Path, arguments: &[&str]) -> Value {
        let mut command = self.bench(arguments);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", first.display()));
        self.json_of(command)
    }

    fn json_of(&self, mut command: Command) -> Value {
        command.args(["--format", "json"]);
        let child = self.spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        let schema: Value =
            serde_json::from_str(include_str!("../../src/bench/schema.json")).unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let errors: Vec<String> = validator
            .iter_errors(&value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{errors:#?}");
        self.expect_nothing_left();
        value
    }

    /// Starts a benchmark whose leftovers are [looked for](Self::expect_nothing_left).
    pub fn spawn(&self, command: &mut Command) -> Child {
        let child = command.spawn().unwrap();
        self.started.borrow_mut().push(child.id());
        child
    }

    /// The cgroups of the benchmarks that were started here, in all hierarchies.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let below = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
        let hierarchies = below(Path::new("/sys/fs/cgroup")).flat_map(|tree| below(&tree.path()));
        let all = hierarchies.chain(below(Path::new("/sys/fs/cgroup")));
        let is_ours = |name: &str| {
            let started = self.started.borrow();
            started
                .iter()
                .any(|pid| name.starts_with(&format!("kvmlet-bench-{pid}-")))
        };
        let ours = all.filter(|group| is_ours(&group.file_name().to_string_lossy()));
        ours.map(|group| group.path()).collect()
    }

    /// Benchmarks remove all that they make; the kernel may take its time with cgroups.
    pub fn expect_nothing_left(&self) {
        eventually("the containers' cgroups are gone", || {
            self.cgroups().is_empty()
        });
        let left: Vec<_> = fs::read_dir(self.temporary())
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The contestant of this name.
pub fn contestant<'a>(result: &'a Value, name: &str) -> &'a Value {
    let all = result["contestants"].as_array().unwrap();
    all.iter()
        .find(|one| one["name"] == name)
        .unwrap_or_else(|| panic!("no {name} in {result:#}"))
}
