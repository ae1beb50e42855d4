//! What the tests on real KVM share: building guests, running them with a deadline, and skipping aloud.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure here is a failed test
#![allow(clippy::missing_panics_doc)] // likewise

pub mod control;
pub mod packets;
pub mod pager;
#[path = "../../src/sys/patience.rs"]
pub mod patience;
pub mod sandbox;

use kvmlet_host::state::runtime::RuntimeDirectory;
use kvmlet_spec::{VmConfig, VmConfigBuilder};
use kvmlet_sys::first_thread;
use kvmlet_sys::wait::{self, Slot, Until};
use kvmlet_vmm::{ExitReason, VmHandle};
use libtest_mimic::{Arguments, Failed, Trial};
use rustix::process::Pid;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// Tests start VMs in jails, as an embedder does.
#[global_allocator]
static ALLOCATOR: kvmlet_sys::heap::Heap = kvmlet_sys::heap::Heap;

/// A bare-metal guest does its work in milliseconds; this is for machines that are busy.
pub fn deadline() -> Duration {
    patience::seconds(20)
}

/// What has not ended by then waits for something that does not come. A boot of Linux takes minutes where all cores are busy.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// A named test.
pub type Test = (&'static str, fn());

/// Whoever starts the tests may have them ignore signals (a script does that to jobs in its background), and `kvmlet` with
/// them, which leaves ignored what was. It would be too late to change that in the new process: a signal that comes
/// between fork and exec would be lost, and a test wait for ever.
fn heed_signals() {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
        // SAFETY: there is no handler to be called.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Runs tests that need KVM. Without it they are ignored, and the run says so and why.
pub fn run(
    mut arguments: Arguments,
    tests: &[Test],
    needs: impl Fn() -> Result<(), String>,
) -> ExitCode {
    heed_signals();
    let reason = needs().err();
    let trials = tests
        .iter()
        .map(|(name, test)| {
            let test = *test;
            let trial = Trial::test(*name, move || -> Result<(), Failed> {
                // On a thread of its own: some enter namespaces, where the next one is not to begin.
                let (running, over) = channel::<()>();
                let thread = std::thread::spawn(move || {
                    let _running = running;
                    test();
                });
                // The others are not to be lost with one that waits for ever.
                if over.recv_timeout(LONGEST) == Err(RecvTimeoutError::Timeout) {
                    return Err(format!("it has not ended within {LONGEST:?}").into());
                }
                match thread.join() {
                    Ok(()) => Ok(()),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            });
            trial.with_ignored_flag(reason.is_some())
        })
        .collect();
    if reason.is_some() {
        // Asking for ignored tests cannot make KVM appear.
        arguments.ignored = false;
        arguments.include_ignored = false;
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Some(reason) = reason {
        println!(
            "SKIPPED: {} tests on real KVM did not run: {reason}",
            tests.len()
        );
    }
    conclusion.exit_code()
}

/// The number behind a flag of a benchmark's command line.
pub fn argument(flag: &str, default: usize) -> usize {
    let words: Vec<String> = std::env::args().collect();
    let value = words.iter().skip_while(|word| *word != flag).nth(1);
    value.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The number behind a key in a line that a guest has printed: `ops=2000 kicks=63`.
pub fn number(line: &str, key: &str) -> f64 {
    let rest = line.split(key).nth(1).expect(line);
    let word = rest.split_whitespace().next();
    word.and_then(|text| text.parse().ok()).expect(line)
}

/// Can VMs run here?
pub fn kvm() -> Result<(), String> {
    kvmlet_sys::kvm::open()
        .map(drop)
        .map_err(|error| error.to_string())
}

/// The command, which cargo puts beside the directory of the tests.
pub fn kvmlet() -> PathBuf {
    let own = std::env::current_exe().expect("a test is a file");
    let around = own.ancestors().nth(2).expect("it lies in `deps`");
    around.join("kvmlet")
}

/// The ELF file of a program in `tests/guests`, built when first asked for.
pub fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let directory =
        BUILT.get_or_init(|| build("guests", "kvmlet-guests", &["--features", "virtio"]));
    directory.join(name)
}

/// The service that start-up benchmarks start, built when first asked for.
pub fn service() -> PathBuf {
    build("guests", "kvmlet-ready", &[]).join("kvmlet-ready")
}

/// The guest of start-up benchmarks in a form that all VMMs load, ending, staying or going on from a snapshot, built when first asked for.
pub fn ready_guest(name: &str) -> PathBuf {
    let features = [
        "--features",
        "pvh",
        "--bin",
        "ready",
        "--bin",
        "ready_stay",
        "--bin",
        "ready_again",
        "--bin",
        "ready_again_stay",
    ];
    build("guests-pvh", "kvmlet-guests", &features).join(name)
}

/// An environment variable that says that all programs have been built: on the second host nobody could.
pub const BUILT: &str = "KVMLET_TEST_PROGRAMS_ARE_BUILT";

/// Builds a package of this workspace in a directory below `target` and returns that of its programs.
fn build(directory: &str, package: &str, features: &[&str]) -> PathBuf {
    let mut around = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let root = around.nth(2).expect("the workspace is around this crate");
    // A directory of its own: cargo may hold the lock of the usual one while it runs us.
    let target = root.join("target").join(directory);
    // Whatever the tests are built for, the guest has no C library.
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let programs = target.join(TARGET).join("release");
    if std::env::var_os(BUILT).is_some() {
        return programs;
    }
    let status = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["build", "--quiet", "--release", "--target", TARGET])
        .args(["--package", package])
        .args(features)
        .arg("--target-dir")
        .arg(&target)
        .status()
        .expect("cargo runs");
    assert!(status.success(), "{package} does not build");
    programs
}

/// Has that process ended, with all of its threads and all that they had open? One that nobody has waited for yet has: an
/// orphan is there until PID 1 comes to it, if ever.
pub fn has_ended(process: u32) -> bool {
    let pid = Pid::from_raw(process as i32).expect("a process has a number");
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else {
        return true;
    };
    threads.count() <= 1 && first_thread::has_ended(pid)
}

/// The CPU time that all threads of a process have used.
pub fn cpu_time(process: i32) -> Duration {
    let mut clock = 0;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: both calls write to variables of their types.
    let results = unsafe {
        let found = libc::clock_getcpuclockid(process, &raw mut clock);
        (found, libc::clock_gettime(clock, &raw mut time))
    };
    assert_eq!(results, (0, 0));
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Everything that a guest has written to its console.
#[derive(Clone, Default)]
pub struct Output(Arc<(Mutex<Vec<u8>>, Condvar)>);

impl Output {
    /// All of it so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.0.lock().unwrap()).into_owned()
    }

    /// How many hold this output, the caller included.
    pub fn writers(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// Waits until the output has `text` in it.
    pub fn expect(&self, text: &str) {
        let deadline = Instant::now() + deadline();
        let mut bytes = self.0.0.lock().unwrap();
        while !String::from_utf8_lossy(&bytes).contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "no {text:?} in {:?}",
                String::from_utf8_lossy(&bytes)
            );
            bytes = self.0.1.wait_timeout(bytes, left).unwrap().0;
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.0.lock().unwrap().extend_from_slice(bytes);
        self.0.1.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A bare-metal guest that runs.
pub struct Guest {
    /// Its VM, in this process.
    pub vm: VmHandle,
    /// Its console.
    pub output: Output,
}

impl Guest {
    /// Boots a program with the defaults.
    pub fn boot(name: &str) -> Self {
        Self::boot_with(name, |config| config)
    }

    /// Boots a program with a configuration of the test's own.
    pub fn boot_with(
        name: &str,
        configure: impl FnOnce(VmConfigBuilder) -> VmConfigBuilder,
    ) -> Self {
        let builder = VmConfig::builder().kernel(program(name)).cmdline("");
        let config = configure(builder).build().expect("a valid configuration");
        let output = Output::default();
        let runtime = RuntimeDirectory::of_user().expect("a runtime directory");
        let vm =
            kvmlet_run::build(config, output.clone(), Some(&runtime)).expect("the VM is built");
        let vm = vm.start().expect("the VM starts");
        Self { vm, output }
    }

    /// Sends console input, as fast as the guest takes it.
    pub fn send(&self, mut bytes: &[u8]) {
        let deadline = Instant::now() + deadline();
        while !bytes.is_empty() {
            bytes = &bytes[self.vm.console().send(bytes)..];
            if !bytes.is_empty() {
                wait_readable(self.vm.console().wanted(), deadline, || self.output.text());
                self.vm.console().wanted().take();
            }
        }
    }

    /// Waits for the end, with a deadline.
    pub fn wait(&self) -> Result<ExitReason, kvmlet_vmm::Error> {
        wait_readable(self.vm.ended(), Instant::now() + deadline(), || {
            self.output.text()
        });
        self.vm.wait()
    }

    /// Waits for the end and returns the reason and all output.
    pub fn finish(self) -> (ExitReason, String) {
        let reason = self.wait().unwrap_or_else(|error| {
            panic!(
                "{error}: {}\noutput: {}",
                std::error::Error::source(&error).unwrap(),
                self.output.text()
            )
        });
        (reason, self.output.text())
    }
}

fn wait_readable(event: impl std::os::fd::AsFd, deadline: Instant, output: impl Fn() -> String) {
    let ready = wait::one(Slot::readable(event.as_fd()), Until::Deadline(deadline));
    assert!(
        ready.unwrap(),
        "nothing happened in time; output so far: {:?}",
        output()
    );
}
