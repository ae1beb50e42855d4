//! Plans against made-up trees of version 2.

mod v2;

use super::hierarchy::{Home, Tree};
use super::plan::plus;
use super::*;
use crate::config::{Quota, VmConfig};
use crate::walls::jail::tests::{alone, end};
use kvmlet_sys::process::{Ended, Fork, fork};
use std::io::Read;

pub(super) fn quota(json: &str) -> Quota {
    let json = format!(r#"{{"kernel": "k", "vcpus": 4, {json}}}"#);
    VmConfig::from_json(&json).unwrap().quota
}

pub(super) const ALL: &str = r#""cpu_quota": 0.5, "cpuset": "0", "cpu_weight": 300"#;

fn at(mount: &str, own: &str) -> Tree {
    let [mount, own] = [mount, own].map(PathBuf::from);
    Tree { mount, own }
}

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
        Some(at("/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/y/z"))
    );
    assert_eq!(
        found.v1,
        [
            (
                Controller::Cpu,
                at("/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/x")
            ),
            (Controller::Memory, at("/odd place", "/odd place/a:b")),
        ]
    );
    assert_eq!(found.home(Controller::Cpuset), None);
    assert_eq!(
        found.home(Controller::Memory),
        Some(Home::V1(at("/odd place", "/odd place/a:b")))
    );
    assert_eq!(found.version(), 1);
    assert_eq!(found.hybrid(), Some(Path::new("/sys/fs/cgroup/unified")));
    // A mount that begins elsewhere leads nowhere.
    let elsewhere = Hierarchies::parse(mounts, "5:memory:/other\n", Path::new("/"));
    assert!(elsewhere.v1.is_empty() && elsewhere.unified.is_none());
    assert_eq!((elsewhere.version(), elsewhere.hybrid()), (0, None));
}

/// A tree of version 2 in files: cgroups with what they list as controllers and give to children. The first is the
/// root.
fn tree(cgroups: &[(&str, &str, &str)], own: &str) -> (tempfile::TempDir, Hierarchies) {
    let root = tempfile::tempdir().unwrap();
    for (index, (path, controllers, given)) in cgroups.iter().enumerate() {
        let path = root.path().join(path);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("cgroup.controllers"), controllers).unwrap();
        fs::write(path.join("cgroup.subtree_control"), given).unwrap();
        if index > 0 {
            fs::write(path.join("cgroup.type"), "domain\n").unwrap();
        }
    }
    let mounts = "1 0 0:1 / /cg rw - cgroup2 none rw\n";
    let found = Hierarchies::parse(mounts, &format!("0::{own}\n"), root.path());
    (root, found)
}

fn shown(plan: &Plan, root: &Path) -> Vec<String> {
    let name = |path: &Path| {
        let path = path.strip_prefix(root).unwrap();
        path.display().to_string()
    };
    let show = |step: &Step| match step {
        Step::Share(path) => format!("share {}", name(path)),
        Step::Enable {
            directory,
            controllers,
            clear,
        } => {
            let clear = if *clear { "clear and " } else { "" };
            format!("{clear}enable {} in {}", plus(controllers), name(directory))
        }
        Step::Make(path) => format!("make {}", name(path)),
        Step::Write(path, text) | Step::Withhold(path, text) => format!("{} = {text}", name(path)),
    };
    plan.steps.iter().map(show).collect()
}

fn memory_only() -> Limits {
    Limits::new(&Quota::default(), 1 << 24)
}

/// The last steps of a plan with nothing but a memory limit.
fn memory_steps(vm: &str) -> [String; 3] {
    [
        format!("make {vm}"),
        format!("{vm}/memory.max = 16777216"),
        format!("{vm}/memory.swap.max = 0"),
    ]
}

#[test]
fn version_2_holds_the_vm_in_one_domain() {
    let all = "cpuset cpu io memory pids";
    // A session, which belongs to systemd.
    let (root, found) = tree(&[("cg", all, all), ("cg/a", all, "")], "/a");
    let limits = Limits::new(&quota(ALL), 64 << 20);
    let plan = Plan::new(&found, "vm", &limits, None).whole().unwrap();
    assert_eq!(
        shown(&plan, root.path()),
        [
            "enable +cpu +cpuset +memory in cg",
            "share cg/kvmlet",
            "enable +cpu +cpuset +memory in cg/kvmlet",
            "make cg/kvmlet/vm",
            "cg/kvmlet/vm/cpu.weight = 300",
            "cg/kvmlet/vm/cpu.max = 50000 100000",
            "cg/kvmlet/vm/cpuset.cpus = 0",
            "cg/kvmlet/vm/memory.max = 67108864",
            "cg/kvmlet/vm/memory.swap.max = 0",
        ]
    );
    let vm = root.path().join("cg/kvmlet/vm");
    assert_eq!(plan.domain.as_ref(), Some(&vm));
    assert!(plan.processes.is_empty() && plan.vcpus.is_empty());
    assert_eq!(plan.directories(), [vm]);
    assert_eq!(plan.shared(), [root.path().join("cg/kvmlet")]);
}

#[test]
fn version_2_holds_vcpus_in_a_threaded_child() {
    let all = "cpuset cpu memory";
    let (root, found) = tree(&[("cg", all, all)], "/");
    let quota = quota(&format!(r#"{ALL}, "cpu_scope": "vcpus""#));
    let plan = Plan::new(&found, "vm", &Limits::new(&quota, 1 << 24), None)
        .whole()
        .unwrap();
    let steps: Vec<String> = shown(&plan, root.path());
    let steps: Vec<String> = (steps[3..].iter())
        .map(|step| step.replace("cg/kvmlet/", ""))
        .collect();
    assert_eq!(
        steps,
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
    let threads = root.path().join("cg/kvmlet/vm/vcpus/cgroup.threads");
    assert_eq!(plan.vcpus, [threads]);
}

#[test]
fn what_systemd_has_handed_over_comes_first() {
    let all = "cpu memory";
    let cgroups = [("cg", all, all), ("cg/u", all, ""), ("cg/u/a", "", "")];
    let (root, found) = tree(&cgroups, "/u/a");
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
    let plan = Plan::new(&found, "vm", &memory_only(), None)
        .whole()
        .unwrap();
    assert_eq!(
        shown(&plan, root.path())[..3],
        [
            "clear and enable +memory in cg/u",
            "share cg/u/kvmlet",
            "enable +memory in cg/u/kvmlet",
        ]
    );
    assert_eq!(
        shown(&plan, root.path())[3..],
        memory_steps("cg/u/kvmlet/vm")
    );
    // It does not have all that is wanted, but root does not depend on it.
    fs::write(root.path().join("cg/u/cgroup.controllers"), "cpu").unwrap();
    let plan = Plan::new(&found, "vm", &memory_only(), None)
        .whole()
        .unwrap();
    assert_eq!(plan.domain, Some(root.path().join("cg/kvmlet/vm")));
}

#[test]
fn the_parent_that_is_asked_for_is_made() {
    let (root, found) = tree(&[("cg", "memory", ""), ("cg/a", "", "")], "/a");
    let plan = |parent: &str, others: &[PathBuf]| {
        let mut plan = Plan::new(&found, "vm", &memory_only(), Some(Path::new(parent)));
        plan.share_with(others.iter());
        plan.whole()
    };
    let made = plan("/t/u", &[]).unwrap();
    assert_eq!(
        shown(&made, root.path())[..6],
        [
            "enable +memory in cg",
            "share cg/t",
            "enable +memory in cg/t",
            "share cg/t/u",
            "enable +memory in cg/t/u",
            "share cg/t/u/kvmlet",
        ]
    );
    assert_eq!(made.domain, Some(root.path().join("cg/t/u/kvmlet/vm")));
    // One that is there is given what it lacks, and stays; but not if another VM has made it.
    let there = root.path().join("cg/a");
    let shared = [there.join("kvmlet")];
    assert_eq!(plan("/a", &[]).unwrap().shared(), shared);
    let others = [there.clone(), there.join("x"), there.join("kvmlet")];
    let [shared] = shared;
    assert_eq!(
        plan("/a", &others).unwrap().shared(),
        [there.clone(), shared]
    );
    // Who is in one that is named stays there.
    fs::write(there.join("cgroup.procs"), "1\n").unwrap();
    let occupied = plan("/a", &[]).unwrap_err();
    assert!(matches!(&occupied, Error::Occupied { directory } if *directory == there));
    assert!(
        occupied
            .help()
            .unwrap()
            .to_string()
            .contains("`cgroup_parent`")
    );
    fs::write(there.join("cgroup.controllers"), "memory").unwrap();
    fs::write(there.join("cgroup.subtree_control"), "memory").unwrap();
    assert!(plan("/a", &[]).is_ok(), "it has threads only");
}

#[test]
fn what_is_not_available_is_told_and_left_out() {
    // Seen from a container.
    let (root, found) = tree(&[("cg", "memory", "")], "/");
    fs::write(root.path().join("cg/cgroup.type"), "domain\n").unwrap();
    let plan = Plan::new(&found, "vm", &Limits::new(&quota(ALL), 1 << 24), None);
    let missing: Vec<String> = plan.missing().iter().map(ToString::to_string).collect();
    let place = root.path().join("cg");
    assert_eq!(
        missing,
        [
            format!(
                "the cgroup controller `cpu`, which CPU quotas and weights need, is not delegated to `{}`",
                place.display()
            ),
            format!(
                "the cgroup controller `cpuset`, which CPU sets need, is not delegated to `{}`",
                place.display()
            ),
        ]
    );
    assert!(plan.missing().iter().all(|error| error.help().is_some()));
    let steps = shown(&plan, root.path());
    assert_eq!(steps[0], "clear and enable +memory in cg");
    assert_eq!(steps[3..], memory_steps("cg/kvmlet/vm"));
    assert!(plan.whole().is_err());
    // On the host itself nobody else has it.
    fs::remove_file(root.path().join("cg/cgroup.type")).unwrap();
    let plan = Plan::new(&found, "vm", &Limits::new(&quota(ALL), 1 << 24), None);
    let text = plan.missing()[1].to_string();
    assert_eq!(
        text,
        "this host has no cgroup controller `cpuset`, which CPU sets need"
    );
}

#[test]
fn what_fails_halfway_leaves_nothing() {
    let all = "cpu memory";
    let (root, found) = tree(&[("cg", all, all)], "/");
    let plan = Plan::new(&found, "vm", &memory_only(), None);
    // Only a kernel puts files into new cgroups.
    let error = Cgroup::create(plan).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("/kvmlet/cgroup.subtree_control`"),
        "{error}"
    );
    assert!(!root.path().join("cg/kvmlet").exists());
}

/// Version 2 as far as it needs no controllers, which may all be elsewhere.
#[test]
fn a_process_is_born_where_it_belongs() {
    alone(
        "shares::cgroup",
        "a_process_is_born_where_it_belongs",
        || {
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
        },
    );
}
