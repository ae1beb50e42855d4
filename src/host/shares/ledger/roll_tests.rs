//! The roll against the claims: what it says is never less than what is promised, whoever is killed, and when.

use super::tests::{PLACE, admit, answer, contender, count, promise, told};
use super::*;
use crate::state::roll::Roll;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How many notes there are of VMs.
pub(super) fn claims(runtime: &Path) -> usize {
    let found = std::fs::read_dir(runtime.join("ledger")).unwrap();
    let is_claim = |path: &Path| path.extension().is_some_and(|end| end == "claim");
    found
        .filter(|entry| is_claim(&entry.as_ref().unwrap().path()))
        .count()
}

fn totals(runtime: &Path) -> Option<Totals> {
    let runtime = RuntimeDirectory::at(runtime).unwrap();
    let claims = Claims::<Entry>::lock(&runtime, DIRECTORY).unwrap();
    Roll::<Totals>::open(claims.directory())
        .unwrap()
        .totals()
        .cloned()
}

fn is_calm(runtime: &Path) -> bool {
    let runtime = RuntimeDirectory::at(runtime).unwrap();
    let claims = Claims::<Entry>::lock(&runtime, DIRECTORY).unwrap();
    Roll::<Totals>::open(claims.directory()).unwrap().is_calm()
}

/// What the roll says, and what the claims come to.
fn compare(runtime: &Path) {
    let said = totals(runtime);
    let mut ledger = super::tests::ledger(runtime);
    let counted = Totals::of(ledger.count().unwrap().iter());
    assert_eq!(said, Some(counted));
}

fn small() -> Promise {
    promise(100, None, 16, false)
}

/// As a disk leaves it that was full.
#[test]
fn a_roll_that_is_cut_short_is_made_anew() {
    let runtime = tempfile::tempdir().unwrap();
    let runtime = runtime.path();
    let _first = admit(runtime, small(), "").unwrap();
    for bytes in [0, 1, 4096, 8192, 10_000, 20_479] {
        let roll = File::options()
            .write(true)
            .open(runtime.join("ledger/roll"));
        roll.unwrap().set_len(bytes).unwrap();
        let second = admit(runtime, small(), "").unwrap();
        compare(runtime);
        drop(second);
        compare(runtime);
    }
}

#[test]
fn a_start_reads_the_roll_and_not_the_claims() {
    let runtime = tempfile::tempdir().unwrap();
    let runtime = runtime.path();
    let first = admit(runtime, small(), "").unwrap();
    assert!(is_calm(runtime));
    compare(runtime);
    // What cannot be read would be cleared away by who counts. (Who writes into a file changes no directory.)
    let file = std::fs::read_dir(runtime.join("ledger")).unwrap();
    let mut file = file.map(|entry| entry.unwrap().path());
    let file = file.find(|path| path.extension().is_some()).unwrap();
    let text = std::fs::read(&file).unwrap();
    std::fs::write(&file, "{").unwrap();
    let second = std::thread::scope(|scope| {
        let start = || {
            let ledger = super::tests::ledger(runtime);
            assert!(ledger.live.is_none());
            drop(ledger);
            admit(runtime, small(), "").unwrap()
        };
        scope.spawn(start).join().unwrap()
    });
    std::fs::write(&file, text).unwrap();
    assert_eq!(count(runtime), 2);
    drop(first);
    drop(second);
    compare(runtime);
    assert_eq!(totals(runtime), Some(Totals::default()));
}

#[test]
fn who_is_killed_is_cleared_away_without_a_look_at_the_others() {
    let runtime = tempfile::tempdir().unwrap();
    let runtime = runtime.path();
    let stays = admit(runtime, small(), "").unwrap();
    let file = std::fs::read_dir(runtime.join("ledger")).unwrap();
    let mut file = file.map(|entry| entry.unwrap().path());
    let file = file.find(|path| path.extension().is_some()).unwrap();
    let test = "shares::ledger::roll_tests::killed_anywhere_nothing_is_promised_twice_and_nothing_stays_taken";
    let (mut victim, mut output) = contender(test, runtime);
    victim.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    assert_eq!(answer(&mut output), "true");
    assert_eq!(claims(runtime), 2);
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(!is_calm(runtime));
    // As above: who looks at this one would clear it away.
    let text = std::fs::read(&file).unwrap();
    std::fs::write(&file, "{").unwrap();
    let ledger = super::tests::ledger(runtime);
    assert!(ledger.live.is_none());
    drop(ledger);
    std::fs::write(&file, text).unwrap();
    assert_eq!(claims(runtime), 1);
    assert!(is_calm(runtime));
    compare(runtime);
    // With another's name in its place, all are counted.
    let (mut victim, mut output) = contender(test, runtime);
    victim.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    assert_eq!(answer(&mut output), "true");
    let roll = std::fs::OpenOptions::new()
        .write(true)
        .open(runtime.join("ledger/roll"))
        .unwrap();
    let name = file.file_stem().unwrap().to_str().unwrap();
    let first_name = 4096 + 4096 * 4;
    roll.write_all_at(format!("{name}\0").as_bytes(), first_name + 64)
        .unwrap();
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(super::tests::ledger(runtime).live.is_some());
    assert_eq!(claims(runtime), 1);
    drop(stays);
    compare(runtime);
}

#[test]
fn a_fifth_vm_of_a_thread_is_counted_each_time() {
    let runtime = tempfile::tempdir().unwrap();
    let runtime = runtime.path();
    let first = [(); 4].map(|()| admit(runtime, small(), "").unwrap());
    assert!(is_calm(runtime));
    let fifth = admit(runtime, small(), "").unwrap();
    assert!(!is_calm(runtime), "the kernel would not tell of its end");
    assert_eq!(count(runtime), 5);
    drop(fifth);
    assert!(is_calm(runtime));
    drop(first);
    compare(runtime);
}

#[test]
fn what_another_version_notes_is_counted() {
    let runtime = tempfile::tempdir().unwrap();
    let runtime = runtime.path();
    let ours = admit(runtime, small(), "").unwrap();
    // A claim as they were before there was a roll.
    let directory = RuntimeDirectory::at(runtime).unwrap();
    let claims = Claims::<serde_json::Value>::lock(&directory, DIRECTORY).unwrap();
    let memory = 16 << 20;
    let record = serde_json::json!({"pid": 1, "cgroups": [], "promise":
        {"cpu_milli": 1900, "cpus": null, "memory_bytes": memory, "reserved": false}});
    let theirs = claims.claim("kvmlet-1-0", record).unwrap();
    drop(claims);
    assert_eq!(totals(runtime), None);
    let refused = admit(runtime, small(), "").err().unwrap();
    assert!(
        matches!(
            refused,
            Error::Cpu {
                vms: 2,
                promised: 2000,
                ..
            }
        ),
        "{refused}"
    );
    // It goes as they went: nobody is told.
    theirs.release();
    drop(theirs);
    let more = admit(runtime, promise(1900, None, 16, false), "").unwrap();
    drop((ours, more));
    compare(runtime);
}

#[test]
fn a_roll_that_is_no_roll_is_written_anew() {
    let runtime = tempfile::tempdir().unwrap();
    let runtime = runtime.path();
    let share = admit(runtime, small(), "").unwrap();
    let roll = runtime.join("ledger/roll");
    let whole = std::fs::read(&roll).unwrap();
    let mut spoilt = whole.clone();
    spoilt[..4].fill(0);
    let later = String::from_utf8_lossy(&whole).replace("\"format\":2", "\"format\":3");
    for bytes in [
        &b""[..],
        b"{",
        &whole[..100],
        &spoilt,
        later.as_bytes(),
        &[0xff; 20480],
    ] {
        std::fs::write(&roll, bytes).unwrap();
        assert_eq!(totals(runtime), None);
        assert_eq!(count(runtime), 1);
        compare(runtime);
    }
    drop(share);
    compare(runtime);
}

/// Takes a share again and again, and keeps it until it is told to go on; or is killed somewhere in between.
fn come_and_go(runtime: &Path) {
    println!("kvmlet-test:ready");
    loop {
        told();
        let share = admit(runtime, promise(500, None, 16, false), "");
        println!("kvmlet-test:{}", share.is_ok());
        told();
        drop(share);
        println!("kvmlet-test:gone");
    }
}

#[test]
fn killed_anywhere_nothing_is_promised_twice_and_nothing_stays_taken() {
    if let Some(directory) = std::env::var_os(PLACE) {
        return come_and_go(Path::new(&directory));
    }
    let runtime = tempfile::tempdir().unwrap();
    let runtime = runtime.path();
    let test = "shares::ledger::roll_tests::killed_anywhere_nothing_is_promised_twice_and_nothing_stays_taken";
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |limit: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % limit
    };
    let go = |child: &mut std::process::Child| {
        let _ = child.stdin.as_mut().unwrap().write_all(b"\n");
    };
    for _ in 0..12 {
        let mut all: Vec<_> = (0..5).map(|_| contender(test, runtime)).collect();
        all.iter_mut().for_each(|(child, _)| go(child));
        // One of them is killed while it asks, or waits, or has got what it asked for.
        let (mut victim, _output) = all.swap_remove(below(5) as usize);
        std::thread::sleep(std::time::Duration::from_micros(below(3000)));
        victim.kill().unwrap();
        victim.wait().unwrap();
        let mut has: Vec<bool> = all
            .iter_mut()
            .map(|(_, out)| answer(out) == "true")
            .collect();
        let sum = has.iter().filter(|has| **has).count();
        assert!(
            sum >= 3,
            "four asked for a quarter while a fifth may have had one: {sum}"
        );
        // What is left is to be had by who had none, at once, and no more.
        while let Some(at) = has.iter().position(|has| !has) {
            let (child, output) = &mut all[at];
            go(child);
            assert_eq!(answer(output), "gone");
            go(child);
            assert_eq!(answer(output), "true");
            has[at] = true;
        }
        assert!(admit(runtime, promise(500, None, 16, false), "").is_err());
        // One is killed while it gives its share back, and one while it has it; the others leave.
        for (at, (child, output)) in all.iter_mut().enumerate() {
            if at > 0 {
                go(child);
            }
            if at == 1 {
                std::thread::sleep(std::time::Duration::from_micros(below(500)));
            }
            if at > 1 {
                assert_eq!(answer(output), "gone");
            }
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let everything = admit(runtime, promise(2000, None, 1024, false), "").unwrap();
        assert_eq!(claims(runtime), 1);
        drop(everything);
        compare(runtime);
    }
}
