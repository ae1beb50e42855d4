//! In trees that look like those of cgroups: the kernel's own fill themselves in (tests/firecracker enters real ones).

use super::*;
use std::fs;

fn asked(version: Version, values: &[(&str, &str)]) -> Cgroup {
    let values = values
        .iter()
        .map(|(file, value)| ((*file).to_owned(), (*value).to_owned()));
    Cgroup {
        version,
        parent: "a/b".into(),
        values: values.collect(),
    }
}

fn fill(place: &Path, files: &[(&str, &str)]) {
    fs::create_dir_all(place).unwrap();
    for (file, text) in files {
        fs::write(place.join(file), text).unwrap();
    }
}

#[test]
fn a_cgroup_of_version_1_has_what_its_parent_has_where_it_needs_that() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path();
    let empty = [
        ("cpuset.cpus", "\n"),
        ("cpuset.mems", "\n"),
        ("cgroup.procs", ""),
    ];
    fill(root, &[("cpuset.cpus", "0-3\n"), ("cpuset.mems", "0\n")]);
    for below in ["a", "a/b", "a/b/vm"] {
        fill(&root.join(below), &empty);
    }
    let mounts = Mounts::of(&format!("cgroup {} cgroup rw,cpuset 0 0", root.display()));
    let asked = asked(Version::One, &[("cpuset.cpus", "2")]);
    let mut made = Made::default();
    let seats = Seats::prepare_in(&mounts, &asked, "vm", &mut made).unwrap();
    let text = |file: &str| fs::read_to_string(root.join(file)).unwrap();
    assert_eq!(text("a/b/cpuset.cpus"), "0-3");
    // It is written over the value that it had, as the kernel has it.
    assert!(text("a/b/vm/cpuset.cpus").starts_with('2'));
    assert_eq!(text("a/b/vm/cpuset.mems"), "0");
    assert_eq!(text("a/b/vm/cgroup.procs"), "");
    seats.take().unwrap();
    assert_eq!(text("a/b/vm/cgroup.procs"), "0");
}

#[test]
fn cgroups_of_version_2_give_a_controller_away_down_to_the_last() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path();
    let files = [
        ("cgroup.controllers", "cpu pids\n"),
        ("cgroup.subtree_control", ""),
        ("cgroup.procs", ""),
        ("cpu.weight", "100\n"),
    ];
    for below in ["", "a", "a/b", "a/b/vm"] {
        fill(&root.join(below), &files);
    }
    let mounts = Mounts::of(&format!("c {} cgroup2 rw 0 0", root.display()));
    let good = asked(Version::Two, &[("cpu.weight", "50")]);
    Seats::prepare_in(&mounts, &good, "vm", &mut Made::default()).unwrap();
    let text = |file: &str| fs::read_to_string(root.join(file)).unwrap();
    for above in ["", "a/", "a/b/"] {
        assert_eq!(text(&format!("{above}cgroup.subtree_control")), "+cpu");
    }
    assert_eq!(text("a/b/vm/cgroup.subtree_control"), "");
    assert!(text("a/b/vm/cpu.weight").starts_with("50"));
    for (version, file, part) in [
        (Version::Two, "memory.max", "no controller memory"),
        (Version::Two, "cgroup.freeze", "no controller cgroup"),
        (Version::Two, "cpu.no_such", "No such file"),
        (Version::One, "cpu.shares", "no cgroups of version 1"),
    ] {
        let asked = asked(version, &[(file, "1")]);
        let Refused(why) =
            Seats::prepare_in(&mounts, &asked, "other", &mut Made::default()).unwrap_err();
        assert!(why.contains(part), "{file}: {why}");
        assert!(!root.join("a/b/other").exists());
    }
}

#[test]
fn without_values_a_cgroup_is_entered_that_is_there() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path();
    fill(&root.join("a/b"), &[("cgroup.procs", "")]);
    let mounts = Mounts::of(&format!("c {} cgroup2 rw 0 0", root.display()));
    let mut none = asked(Version::Two, &[]);
    let prepare = |asked: &Cgroup| Seats::prepare_in(&mounts, asked, "vm", &mut Made::default());
    assert_eq!(prepare(&none).unwrap().0.len(), 1);
    assert!(!root.join("a/b/vm").exists());
    none.parent = "nowhere".into();
    assert!(prepare(&none).unwrap().0.is_empty());
    let Refused(why) =
        Seats::prepare_in(&Mounts::default(), &none, "vm", &mut Made::default()).unwrap_err();
    assert!(why.contains("no cgroups of version 2"), "{why}");
}
