//! Drives VMs of kvmlet's by firecracker-rs-sdk, unchanged: one that it starts itself, and one that it starts through the jailer.
//!
//! By hand and as root, since it takes packages from crates.io: `cargo run -- KVMLET-SERVE KERNEL`, where the kernel is the
//! bare-metal guest `saved`, and `kvmlet` lies beside the first.

use firecracker_rs_sdk::firecracker::FirecrackerOption;
use firecracker_rs_sdk::instance::Instance;
use firecracker_rs_sdk::jailer::JailerOption;
use firecracker_rs_sdk::models::boot_source::BootSource;
use firecracker_rs_sdk::models::instance_info::State;
use firecracker_rs_sdk::models::machine_configuration::MachineConfiguration;
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

fn live(mut vm: Instance, kernel: &Path, console: &Path) {
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
    live(option.build().expect("an instance"), kernel, &output);

    // Its links to files have to be in one file system with them.
    let kernel_here = place.join("kernel");
    std::fs::copy(kernel, &kernel_here).expect("a kernel");
    let output = place.join("jailed");
    let mut option = JailerOption::new(&jailer, &firecracker, "jailed", USER, USER);
    option.chroot_base_dir(Some(&base)).new_pid_ns(Some(true));
    option.stdout(&output).remove_jailer_workspace_dir();
    live(option.build().expect("an instance"), &kernel_here, &output);
    std::fs::remove_dir_all(&place).expect("nothing is in use");
    println!("firecracker-rs-sdk: ok");
}
