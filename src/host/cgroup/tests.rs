//! Plans against made-up trees of version 2.

use super::hierarchy::{Place, Unified};
use super::*;
use crate::config::{Quota, VmConfig};
use crate::host::jail::tests::{alone, end};
use crate::host::process::{Ended, Fork, fork};
use std::io::Read;

pub(super) fn quota(json: &str) -> Quota {
    let json = format!(r#"{{"kernel": "k", "vcpus": 4, {json}}}"#);
    VmConfig::from_json(&json).unwrap().quota
}

pub(super) const ALL: &str = r#""cpu_quota": 0.5, "cpuset": "0", "cpu_weight": 300"#;

#[test]
fn trees_are_found_by_their_mounts() {
    let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        34 31 0:31 /box /odd\\040place rw - cgroup none rw,memory\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
    let groups = "5:memory:/box/a:b\n3:cpu,cpuacct:/x\n1:name=systemd:/y\n0::/y/z\n";
    let found = Hierarchies::parse(mounts, groups, Path::new("/"));
    assert_eq!(
        found.unified,
        Some(Unified {
            mount: "/sys/fs/cgroup/unified".into(),
            own: "/sys/fs/cgroup/unified/y/z".into()
        })
    );
    assert_eq!(
        found.v1,
        [
            (Controller::Cpu, "/sys/fs/cgroup/cpu,cpuacct/x".into()),
            (Controller::Memory, "/odd place/a:b".into()),
        ]
    );
    assert_eq!(found.place(Controller::Cpuset), None);
    assert_eq!(
        found.place(Controller::Memory),
        Some(Place::V1("/odd place/a:b".into()))
    );
    assert_eq!(found.version(), 1);
    assert_eq!(found.hybrid(), Some(Path::new("/sys/fs/cgroup/unified")));
    // A mount that begins elsewhere leads nowhere.
    let elsewhere = Hierarchies::parse(mounts, "5:memory:/other\n", Path::new("/"));
    assert!(elsewhere.v1.is_empty() && elsewhere.unified.is_none());
    assert_eq!((elsewhere.version(), elsewhere.hybrid()), (0, None));
}

/// A tree of version 2 in files: cgroups with what they list as controllers and give to children.
fn tree(cgroups: &[(&str, &str, &str)], own: &str) -> (tempfile::TempDir, Hierarchies) {
    let root = tempfile::tempdir().unwrap();
    for (path, controllers, given) in cgroups {
        let path = root.path().join(path);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("cgroup.controllers"), controllers).unwrap();
        fs::write(path.join("cgroup.subtree_control"), given).unwrap();
    }
    let mounts = "1 0 0:1 / /cg rw - cgroup2 none rw\n";
    let found = Hierarchies::parse(mounts, &format!("0::{own}\n"), root.path());
    (root, found)
}

fn shown(plan: &Plan, root: &Path) -> Vec<String> {
    let root = format!("{}/", root.join("cg").display());
    let show = |step: &Step| match step {
        Step::Enable {
            directory,
            controllers,
        } => format!("enable {controllers} in {}", directory.display()),
        Step::Make(path) => format!("make {}", path.display()),
        Step::Write(path, text) => format!("{} = {text}", path.display()),
    };
    plan.steps
        .iter()
        .map(|step| show(step).replace(&root, ""))
        .collect()
}

#[test]
fn version_2_holds_the_vm_in_one_domain() {
    let all = "cpuset cpu io memory pids";
    let (root, found) = tree(&[("cg", all, all), ("cg/a", all, "")], "/a");
    let limits = Limits::new(&quota(ALL), 64 << 20);
    let plan = Plan::new(&found, "vm", &limits).whole().unwrap();
    assert_eq!(
        shown(&plan, root.path()),
        [
            "enable +cpu +cpuset +memory in a",
            "make a/vm",
            "a/vm/cpu.weight = 300",
            "a/vm/cpu.max = 50000 100000",
            "a/vm/cpuset.cpus = 0",
            "a/vm/memory.max = 67108864",
            "a/vm/memory.swap.max = 0",
        ]
    );
    assert_eq!(plan.domain, Some(root.path().join("cg/a/vm")));
    assert!(plan.processes.is_empty() && plan.vcpus.is_empty());
    assert_eq!(
        plan.directories(),
        [
            root.path().join("cg/a/vm-supervisor"),
            root.path().join("cg/a/vm")
        ]
    );
}

#[test]
fn version_2_holds_vcpus_in_a_threaded_child() {
    let all = "cpuset cpu memory";
    let (root, found) = tree(&[("cg", all, all)], "/");
    let quota = quota(&format!(r#"{ALL}, "cpu_scope": "vcpus""#));
    let plan = Plan::new(&found, "vm", &Limits::new(&quota, 1 << 24))
        .whole()
        .unwrap();
    assert_eq!(
        shown(&plan, root.path()),
        [
            "make vm",
            "make vm/vcpus",
            "vm/vcpus/cgroup.type = threaded",
            "vm/cgroup.subtree_control = +cpu +cpuset",
            "vm/cpu.weight = 300",
            "vm/vcpus/cpu.max = 50000 100000",
            "vm/vcpus/cpuset.cpus = 0",
            "vm/memory.max = 16777216",
            "vm/memory.swap.max = 0",
        ]
    );
    assert_eq!(plan.vcpus, [root.path().join("cg/vm/vcpus/cgroup.threads")]);
}

#[test]
fn a_cgroup_above_serves_if_it_was_delegated() {
    let all = "cpu memory";
    let cgroups = [("cg", all, all), ("cg/u", all, all), ("cg/u/a", all, "")];
    let (root, found) = tree(&cgroups, "/u/a");
    let limits = Limits::new(&Quota::default(), 1 << 24);
    let own = Plan::new(&found, "vm", &limits);
    assert_eq!(own.domain, Some(root.path().join("cg/u/a/vm")));
    let set = rustix::fs::setxattr(
        root.path().join("cg/u"),
        "user.delegate",
        b"1",
        rustix::fs::XattrFlags::empty(),
    );
    if set.is_err() {
        println!("SKIPPED: the directory for temporary files has no extended attributes");
        return;
    }
    let above = Plan::new(&found, "vm", &limits);
    assert_eq!(above.domain, Some(root.path().join("cg/u/vm")));
    assert!(
        matches!(above.steps[0], Step::Make(_)),
        "there is nothing to enable"
    );
}

#[test]
fn what_cannot_be_had_is_told_and_left_out() {
    let (root, found) = tree(
        &[("cg", "cpu memory", "memory"), ("cg/a", "memory", "memory")],
        "/a",
    );
    let plan = Plan::new(&found, "vm", &Limits::new(&quota(ALL), 1 << 24));
    let missing: Vec<String> = plan.missing().iter().map(ToString::to_string).collect();
    assert_eq!(
        missing,
        [
            format!(
                "the cgroup controller `cpu`, which CPU quotas and weights need, is not delegated to `{}`",
                root.path().join("cg/a").display()
            ),
            "this host has no cgroup controller `cpuset`, which CPU sets need".into(),
        ]
    );
    assert!(plan.missing().iter().all(|error| error.help().is_some()));
    assert_eq!(
        shown(&plan, root.path()),
        [
            "make a/vm",
            "a/vm/memory.max = 16777216",
            "a/vm/memory.swap.max = 0"
        ]
    );
    assert!(plan.whole().is_err());
}

#[test]
fn others_in_this_cgroup_are_in_the_way_in_version_2() {
    let (root, found) = tree(&[("cg", "memory", "memory"), ("cg/a", "memory", "")], "/a");
    let own = root.path().join("cg/a");
    fs::write(own.join("cgroup.type"), "domain\n").unwrap();
    let limits = Limits::new(&Quota::default(), 1 << 24);
    let plan = |procs: String| {
        fs::write(own.join("cgroup.procs"), procs).unwrap();
        Plan::new(&found, "vm", &limits)
    };
    let ours = std::process::id();
    assert!(plan(format!("{ours}\n")).missing().is_empty());
    let occupied = plan(format!("1\n{ours}\n"));
    assert!(matches!(occupied.missing(), [Error::Occupied { directory }] if *directory == own));
    assert!(occupied.directories().is_empty());
    assert!(matches!(
        found.offer(Controller::Memory),
        Err(Error::Occupied { .. })
    ));
    fs::remove_file(own.join("cgroup.type")).unwrap();
    assert!(
        plan("1\n".into()).missing().is_empty(),
        "the root has no such rule"
    );
}

#[test]
fn what_fails_halfway_leaves_nothing() {
    let all = "cpu memory";
    let (root, found) = tree(&[("cg", all, all)], "/");
    let plan = Plan::new(&found, "vm", &Limits::new(&Quota::default(), 1 << 24));
    // Only a kernel puts files into new cgroups.
    let error = Cgroup::create(plan).unwrap_err();
    assert!(error.to_string().contains("/vm/memory.max`"), "{error}");
    assert!(!root.path().join("cg/vm").exists());
}

/// Version 2 as far as it needs no controllers, which may all be elsewhere.
#[test]
fn a_process_is_born_where_it_belongs() {
    alone("cgroup", "a_process_is_born_where_it_belongs", || {
        let Some(tree) = Hierarchies::find().unwrap().unified else {
            println!("SKIPPED: this host has no tree of version 2");
            return;
        };
        let name = unique_name();
        let (base, held) = (tree.own.join(&name), tree.own.join(&name).join("vcpus"));
        let cgroup = Cgroup::create(Plan {
            name: name.clone(),
            steps: vec![
                Step::Make(base.clone()),
                Step::Make(held.clone()),
                Step::Write(held.join("cgroup.type"), "threaded".into()),
            ],
            domain: Some(base.clone()),
            vcpus: vec![held.join("cgroup.threads")],
            ..Plan::default()
        });
        let cgroup = match cgroup {
            Err(Error::Make { path, source }) => {
                println!("SKIPPED: {} cannot be made: {source}", path.display());
                return;
            }
            other => other.unwrap(),
        };
        let place = || fs::read_to_string("/proc/thread-self/cgroup").unwrap();
        let (mut told, tell) = io::pipe().unwrap();
        let child = match fork(0, cgroup.domain()).unwrap() {
            Fork::Parent(child) => child,
            Fork::Child(_) => end(|| {
                assert!(
                    place().lines().any(|line| line.ends_with(&name)),
                    "{}",
                    place()
                );
                cgroup.join().unwrap();
                cgroup.join_vcpu().unwrap();
                assert!(place().contains(&format!("{name}/vcpus\n")), "{}", place());
                (&tell).write_all(b"!").unwrap();
                // Until it is killed.
                std::thread::park();
            }),
        };
        drop(tell);
        told.read_exact(&mut [0]).unwrap();
        drop(cgroup);
        assert_eq!(child.wait().unwrap(), Ended::Killed(libc::SIGKILL));
        assert!(!base.exists());
    });
}
