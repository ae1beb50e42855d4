//! Drives VMs of kvmlet's by firecracker-rs-sdk, unchanged: one that it starts itself, and one that it starts through the jailer.
//!
//! By hand and as root, since it takes packages from crates.io: `cargo run -- KVMLET-SERVE KERNEL`, where the kernel is the
//! bare-metal guest `saved`, and `kvmlet` lies beside the first.

use firecracker_rs_sdk::firecracker::FirecrackerOption;
use firecracker_rs_sdk::instance::Instance;
use firecracker_rs_sdk::jailer::JailerOption;
use firecracker_rs_sdk::models::balloon::Balloon;
use firecracker_rs_sdk::models::balloon_update::BalloonUpdate;
use firecracker_rs_sdk::models::boot_source::BootSource;
use firecracker_rs_sdk::models::instance_info::State;
use firecracker_rs_sdk::models::machine_configuration::MachineConfiguration;
use firecracker_rs_sdk::models::memory_backend::{BackendType, MemoryBackend};
use firecracker_rs_sdk::models::snapshot_create_params::{SnapshotCreateParams, SnapshotType};
use firecracker_rs_sdk::models::snapshot_load_params::SnapshotLoadParams;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const USER: usize = 43_210;

/// The last round that a guest has told of in a file, once it is behind another one.
fn round(console: &Path, behind: u64) -> u64 {
    let since = Instant::now();
    loop {
        let text = std::fs::read_to_string(console).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let mut rounds = whole.lines().rev().filter_map(|line| {
            let number = line.strip_prefix("round=")?.split(' ').next()?;
            number.parse().ok()
        });
        match rounds.next() {
            Some(round) if round > behind => return round,
            _ => assert!(
                since.elapsed() < Duration::from_secs(60),
                "nothing new: {text}"
            ),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn live(vm: &mut Instance, kernel: &Path, console: &Path) {
    vm.start_vmm().expect("it starts");
    let version = vm.get_firecracker_version().expect("a version");
    assert_eq!(version.firecracker_version, "1.17.0");
    vm.put_machine_configuration(&MachineConfiguration {
        cpu_template: None,
        smt: None,
        mem_size_mib: 32,
        track_dirty_pages: None,
        vcpu_count: 1,
        huge_pages: None,
    })
    .expect("a machine");
    vm.put_guest_boot_source(&BootSource {
        boot_args: Some(String::new()),
        initrd_path: None,
        kernel_image_path: kernel.into(),
    })
    .expect("a kernel");
    vm.put_balloon(&Balloon {
        amount_mib: 0,
        deflate_on_oom: true,
        stats_polling_interval_s: None,
    })
    .expect("a balloon");
    assert_eq!(
        vm.describe_instance().expect("told").state,
        State::NotStarted
    );
    vm.start().expect("the guest runs");
    let first = round(console, 0);
    vm.pause().expect("it pauses");
    assert_eq!(vm.describe_instance().expect("told").state, State::Paused);
    vm.resume().expect("it goes on");
    round(console, first + 1);
    assert_eq!(vm.describe_instance().expect("told").state, State::Running);
    // Its limits of disks and interfaces have a field that nobody knows (`banwidth`).
    vm.patch_balloon(&BalloonUpdate { amount_mib: 4 })
        .expect("another size");
    let balloon = vm.describe_balloon_config().expect("told");
    assert_eq!(balloon.amount_mib, 4);
}

/// It is saved, ends, and goes on in another process.
fn saved(mut vm: Instance, mut other: Instance, place: &Path, console: &Path) {
    let last = round(console, 0);
    vm.pause().expect("it pauses");
    let (memory, state) = (place.join("memory"), place.join("state"));
    vm.create_snapshot(&SnapshotCreateParams {
        mem_file_path: memory.clone(),
        snapshot_path: state.clone(),
        snapshot_type: Some(SnapshotType::Full),
        version: None,
    })
    .expect("it is saved");
    drop(vm);
    other.start_vmm().expect("it starts");
    other
        .load_snapshot(&SnapshotLoadParams {
            enable_diff_snapshots: None,
            mem_file_path: None,
            mem_backend: Some(MemoryBackend {
                backend_type: BackendType::File,
                backend_path: memory,
            }),
            resume_vm: Some(true),
            snapshot_path: state,
        })
        .expect("it is loaded");
    assert_eq!(
        other.describe_instance().expect("told").state,
        State::Running
    );
    round(&console.with_extension("other"), last);
}

fn main() {
    let words: Vec<PathBuf> = std::env::args_os().skip(1).map(Into::into).collect();
    let [serve, kernel] = &words[..] else {
        panic!("client KVMLET-SERVE KERNEL");
    };
    let place = std::env::temp_dir().join(format!("firecracker-rs-sdk-{}", std::process::id()));
    let base = place.join("base");
    std::fs::create_dir_all(&base).expect("a place");
    let link = |name: &str| {
        let path = place.join(name);
        symlink(serve, &path).expect("a link");
        path
    };
    let (firecracker, jailer) = (link("firecracker"), link("jailer"));

    let output = place.join("own");
    let mut option = FirecrackerOption::new(&firecracker);
    option.api_sock(place.join("api")).id("own").stdout(&output);
    let mut vm = option.build().expect("an instance");
    live(&mut vm, kernel, &output);
    let mut option = FirecrackerOption::new(&firecracker);
    option.api_sock(place.join("api2")).id("other");
    option.stdout(output.with_extension("other"));
    let other = option.build().expect("an instance");
    saved(vm, other, &place, &output);

    // Its links to files have to be in one file system with them.
    let kernel_here = place.join("kernel");
    std::fs::copy(kernel, &kernel_here).expect("a kernel");
    let output = place.join("jailed");
    let mut option = JailerOption::new(&jailer, &firecracker, "jailed", USER, USER);
    option.chroot_base_dir(Some(&base)).new_pid_ns(Some(true));
    option.stdout(&output).remove_jailer_workspace_dir();
    let mut vm = option.build().expect("an instance");
    live(&mut vm, &kernel_here, &output);
    drop(vm);
    std::fs::remove_dir_all(&place).expect("nothing is in use");
    println!("firecracker-rs-sdk: ok");
}
