//! An instance goes on where another was saved, as another machine.

use crate::harness::Test;
use crate::script::{Script, put_root};
use std::process::ExitCode;

pub const TESTS: &[Test] = &[("an_instance_goes_on_as_others_from_its_snapshot", run)];

/// The first argument by which this executable is the program in the guest.
const PROGRAM: &str = "--in-a-restored-instance";

/// As a program: `serve` says how often it has done so; `look` tells what machine it is in. `None` if it was not called so.
pub fn program() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next()? != PROGRAM {
        return None;
    }
    let read = |path: &str| {
        let text = std::fs::read_to_string(path);
        text.map_or("none".into(), |text| text.trim().to_owned())
    };
    if arguments.next()? == "look" {
        let mut random = [0; 16];
        let asked = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
        assert_eq!(asked, Ok(16));
        println!("name {}", read("/proc/sys/kernel/hostname"));
        println!("boot {}", read("/proc/sys/kernel/random/boot_id"));
        println!("generation {}", read("/run/kvmlet/generation"));
        println!("random {random:?}");
        let now = std::time::SystemTime::now();
        let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
        println!("time {}", since.as_secs());
        return Some(ExitCode::SUCCESS);
    }
    for number in 0u64.. {
        println!("{number}");
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    None
}

fn run() {
    if !rustix::process::geteuid().is_root() {
        return println!("SKIPPED: only root has a book that can be put elsewhere by a mount");
    }
    let place = tempfile::tempdir().unwrap();
    put_root(place.path());
    std::fs::create_dir(place.path().join("root/run")).unwrap();
    let script = r#"
        set -eu; mount -t tmpfs tmpfs /var/lib; trap '$K rm -f web one two >/dev/null 2>&1' EXIT
        $K run -d --name web root /test --in-a-restored-instance serve >id
        until $K logs web | grep -q '^1$'; do sleep 0.2; done
        $K snapshot web saved
        for name in one two; do $K restore saved --name $name -d >>id; done
        $K ps --format '{{.Names}} {{.State}}'
        for name in one two; do
            date +'before %s'; $K exec $name /test --in-a-restored-instance look; date +'after %s'
            until [ $($K logs $name | wc -l) -ge 2 ]; do sleep 0.2; done
            $K logs $name | head -n 1 | grep -c '^0$' || true
            $K stop -t 0 $name
        done
        $K wait one; ! $K restore saved --name one -d 2>err; grep -q one err
        $K rm -f web; ! $K restore saved --name three -d 2>err; grep -o 'a part of its root is missing' err
    "#;
    let (out, err) = Script::new(script, place.path(), 2).run();
    let lines: Vec<&str> = out.lines().collect();
    let running = ["two running", "one running", "web running"];
    assert_eq!(lines[..3], running, "{out}{err}");
    assert_eq!(
        lines.last(),
        Some(&"a part of its root is missing"),
        "{out}"
    );
    let value = |key: &str| -> Vec<&str> {
        let found = lines.iter().filter_map(|line| line.strip_prefix(key));
        found.map(str::trim).collect()
    };
    for key in ["name ", "boot ", "generation ", "random "] {
        let [one, two] = value(key)[..] else {
            panic!("{key}: {out}{err}");
        };
        assert_ne!(one, two, "{key}: {out}");
        assert_ne!(one, "none", "{key}: {out}");
    }
    let times = |key| -> Vec<u64> {
        value(key)
            .iter()
            .map(|text| text.parse().unwrap())
            .collect()
    };
    for ((before, time), after) in times("before ")
        .iter()
        .zip(times("time "))
        .zip(times("after "))
    {
        assert!((*before..=after + 1).contains(&time), "{out}");
    }
    // Neither begins anew.
    assert_eq!(
        lines.iter().filter(|line| **line == "0").count(),
        2,
        "{out}"
    );
}
