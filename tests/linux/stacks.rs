//! Generated stacks of layers, as a guest's kernel shows them and as this host's does. (What podman makes of such stacks is
//! compared with the latter, in `tests/images/stacks`.) `KVMLET_STACKS=N` has as many from `KVMLET_SEED` on, eight a boot.

use crate::harness::Test;
use crate::{boot, ours, seen};
use kvmlet_image::Digest;
use kvmlet_image::pack::{self, Owners};
use rustix::mount::{MountFlags, mount};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{SystemTime, UNIX_EPOCH};

pub const TESTS: &[Test] = &[("stacks_of_layers_are_the_same_in_a_guest", same)];

/// The first argument by which this executable is the service, which tells of its disks.
const SERVICE: &str = "--tell-stacks";
const COUNT: usize = 8;

/// As a program. `None` if it was not called so.
pub fn program() -> Option<ExitCode> {
    if std::env::args().nth(1)? != SERVICE {
        return None;
    }
    for number in 0..COUNT {
        // The root is vda.
        let disk = format!("/dev/vd{}", char::from(b'b' + number as u8));
        let place = format!("/stack{number}");
        mount(&disk, &place, "erofs", MountFlags::RDONLY, None).unwrap();
        println!("stack {number} {}", sum(Path::new(&place)));
    }
    Some(ExitCode::SUCCESS)
}

/// How much is in a tree, and a sum of all that can be seen of it.
fn sum(root: &Path) -> String {
    let seen = seen::tree(root);
    let digest = Digest::of(format!("{seen:?}").as_bytes());
    format!("{} files {digest}", seen.len())
}

/// What this host's kernel shows, in a namespace of its own.
fn mounted_here(disks: &[String]) -> Vec<String> {
    let place = tempfile::tempdir().unwrap();
    let sums = || {
        // SAFETY: this thread was made for it, and nothing else is shared that it would miss.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.unwrap();
        ours::run(Command::new("mount").args(["--make-rprivate", "/"]));
        let sum_of = |disk: &String| {
            let mut mount = Command::new("mount");
            ours::run(
                mount
                    .args(["-t", "erofs", "-o", "loop,ro", disk])
                    .arg(place.path()),
            );
            let sum = sum(place.path());
            ours::run(Command::new("umount").arg(place.path()));
            sum
        };
        disks.iter().map(sum_of).collect()
    };
    std::thread::scope(|scope| scope.spawn(sums).join().unwrap())
}

fn same() {
    if !rustix::process::geteuid().is_root() {
        return println!("SKIPPED: only root mounts");
    }
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let first = number("KVMLET_SEED").unwrap_or_else(|| now().as_secs());
    let count = number("KVMLET_STACKS").unwrap_or(1);
    (first..first + count).step_by(COUNT).for_each(same_from);
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect(variable))
}

fn same_from(seed: u64) {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let mut disks = Vec::new();
    let mut arguments = Vec::new();
    for number in 0..COUNT {
        let stack = crate::made::stack(seed + number as u64);
        let disk = ours::disk(&at(&format!("store{number}")), &stack);
        arguments.extend(["--disk".to_owned(), format!("{},ro", disk.display())]);
        disks.push(disk.display().to_string());
        fs::create_dir_all(at(&format!("root/stack{number}"))).unwrap();
    }
    fs::copy(std::env::current_exe().unwrap(), at("root/tell")).unwrap();
    let root = File::create(at("root.erofs")).unwrap();
    pack::image(&at("root"), Owners::Root, &root, |_, _| {}).unwrap();
    let (image, program) = (
        at("root.erofs").display().to_string(),
        ["--", "/tell", SERVICE],
    );
    let mut words = vec!["--root", &image];
    words.extend(arguments.iter().map(|word| &word[..]));
    words.extend(program);
    let ended = boot(&words);
    let told = ended
        .console
        .lines()
        .filter(|line| line.starts_with("stack "));
    let told: Vec<_> = told.map(str::trim_end).collect();
    let sums = mounted_here(&disks);
    let expected: Vec<_> = sums
        .iter()
        .enumerate()
        .map(|(number, sum)| format!("stack {number} {sum}"))
        .collect();
    assert_eq!(told, expected, "stacks {seed} and on: {}", ended.console);
    assert_eq!(ended.code, Some(0));
}
