//! Real cgroups, where this host lets us make them.

use super::hierarchy::Tree;
use super::tests::{ALL, quota};
use super::*;
use crate::config::{CpuScope, CpuSet, Quota};
use crate::patience::eventually;
use std::collections::BTreeMap;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

/// Cgroups of the tests' own in each tree of version 1, below those of this process. Removed with whoever is
/// in them.
struct Trees(Hierarchies);

impl Trees {
    fn new() -> Option<Self> {
        let mut found = Hierarchies::find().unwrap();
        found.unified = None;
        let mut trees = Self(Hierarchies::default());
        for (controller, Tree { mount, own }) in found.v1 {
            let path = own.join(unique_name());
            if let Err(error) = fs::create_dir(&path) {
                println!(
                    "SKIPPED: no cgroups can be made in {}: {error}",
                    own.display()
                );
                return None;
            }
            let tree = Tree {
                mount,
                own: path.clone(),
            };
            trees.0.v1.push((controller, tree));
            for file in ["cpuset.mems", "cpuset.cpus"] {
                if controller == Controller::Cpuset {
                    let text = fs::read_to_string(own.join(file)).unwrap();
                    write(&path.join(file), text.trim()).unwrap();
                }
            }
        }
        if trees.0.v1.len() < 3 {
            println!("SKIPPED: this host has not all controllers in version 1");
            return None;
        }
        Some(trees)
    }

    fn create(&self, quota: &Quota, memory_bytes: u64) -> Arc<Cgroup> {
        let limits = Limits::new(quota, memory_bytes);
        let plan = Plan::new(&self.0, &unique_name(), &limits, None);
        let mut cgroup = Cgroup::create(plan.whole().unwrap()).unwrap();
        cgroup.withheld().hold().unwrap();
        Arc::new(cgroup)
    }

    fn read(&self, controller: Controller, file: &str) -> String {
        let (_, base) = self
            .0
            .v1
            .iter()
            .find(|(known, _)| *known == controller)
            .unwrap();
        fs::read_to_string(base.own.join(file))
            .unwrap()
            .trim()
            .into()
    }
}

impl Drop for Trees {
    fn drop(&mut self) {
        let paths: Vec<PathBuf> = (self.0.v1.iter())
            .map(|(_, tree)| tree.own.clone())
            .collect();
        let removed = remove_left_over(&paths);
        assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
    }
}

/// A process that joins the cgroup before it becomes `program`.
fn start(cgroup: &Arc<Cgroup>, program: &str, arguments: &[&str]) -> Child {
    let cgroup = Arc::clone(cgroup);
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: between fork and exec small files are read and written.
    unsafe { command.pre_exec(move || cgroup.join().map_err(io::Error::other)) };
    command.spawn().unwrap()
}

/// Which cgroup a process or thread is in, by controller.
fn membership(path: &str) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).unwrap();
    let parts = text.lines().map(|line| line.splitn(3, ':').skip(1));
    parts
        .map(|mut parts| (parts.next().unwrap().into(), parts.next().unwrap().into()))
        .collect()
}

#[test]
fn a_process_joins_before_it_does_anything_and_goes_with_its_cgroup() {
    let Some(trees) = Trees::new() else { return };
    let cgroup = trees.create(&quota(ALL), 256 << 20);
    let name = cgroup.name().to_string();
    let read = |controller, file: &str| trees.read(controller, &format!("{name}/{file}"));
    assert_eq!(read(Controller::Cpu, "cpu.cfs_quota_us"), "50000");
    assert_eq!(read(Controller::Cpu, "cpu.shares"), "3072");
    assert_eq!(read(Controller::Cpuset, "cpuset.cpus"), "0");
    assert_eq!(
        read(Controller::Memory, "memory.limit_in_bytes"),
        "268435456"
    );
    let sum = read(Controller::Memory, "memory.memsw.limit_in_bytes");
    assert_eq!(sum, "268435456", "nothing is swapped out");

    let mut child = start(&cgroup, "cat", &["/dev/zero"]);
    let places = membership(&format!("/proc/{}/cgroup", child.id()));
    for controller in ["cpu", "cpuset", "memory"] {
        assert!(places[controller].ends_with(&name), "{places:?}");
    }
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
    drop(cgroup);
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    for (_, base) in &trees.0.v1 {
        let path = base.own.join(&name);
        assert!(!path.exists(), "{} is left", path.display());
    }
}

#[test]
fn a_quota_holds_once_it_is_told_to_and_nobody_can_change_it_then() {
    let Some(trees) = Trees::new() else { return };
    let limits = Limits::new(&quota(r#""cpu_quota": 0.5, "cpu_weight": 300"#), 64 << 20);
    let plan = Plan::new(&trees.0, &unique_name(), &limits, None);
    let mut cgroup = Cgroup::create(plan.whole().unwrap()).unwrap();
    let read = |file: &str| trees.read(Controller::Cpu, &format!("{}/{file}", cgroup.name()));
    assert_eq!(read("cpu.cfs_quota_us"), "-1");
    assert_eq!(read("cpu.shares"), "3072");
    let open = || fs::read_dir("/proc/self/fd").unwrap().flatten();
    let quotas = || {
        let links = open().filter_map(|entry| fs::read_link(entry.path()).ok());
        let name = cgroup.name();
        links
            .filter(|to| to.to_string_lossy().contains(name))
            .count()
    };
    assert_eq!(quotas(), 1);
    // What a VM's process keeps of it is no more.
    let name = cgroup.name().to_owned();
    let withheld = cgroup.withheld();
    withheld.hold().unwrap();
    let quota = trees.read(Controller::Cpu, &format!("{name}/cpu.cfs_quota_us"));
    assert_eq!(quota, "50000");
    let links = open().filter_map(|entry| fs::read_link(entry.path()).ok());
    assert_eq!(
        links
            .filter(|to| to.to_string_lossy().contains(&name))
            .count(),
        0
    );
}

#[test]
fn a_busy_process_is_throttled() {
    let Some(trees) = Trees::new() else { return };
    let cgroup = trees.create(&quota(r#""cpu_quota": 0.1"#), 256 << 20);
    let mut child = start(&cgroup, "sh", &["-c", "while :; do :; done"]);
    let stat = format!("{}/cpu.stat", cgroup.name());
    eventually("the quota is used up", || {
        !trees
            .read(Controller::Cpu, &stat)
            .contains("nr_throttled 0\n")
    });
    drop(cgroup);
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
}

#[test]
fn a_process_that_leaks_is_killed_alone() {
    let Some(trees) = Trees::new() else { return };
    let leaky = trees.create(&Quota::default(), 16 << 20);
    let good = trees.create(&Quota::default(), 16 << 20);
    let mut neighbour = start(&good, "cat", &["/dev/zero"]);
    // Keeps the whole last line, and there never is another.
    let mut child = start(&leaky, "tail", &["/dev/zero"]);
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    let limit = OutOfMemory::Limit(crate::config::Memory::from_bytes(16 << 20));
    assert_eq!(leaky.out_of_memory(), Some(limit));
    assert_eq!(good.out_of_memory(), None);
    assert!(
        neighbour.try_wait().unwrap().is_none(),
        "the neighbour lives"
    );
    drop(good);
    neighbour.wait().unwrap();
}

#[test]
fn vcpu_threads_are_held_and_others_are_not() {
    let Some(trees) = Trees::new() else { return };
    let quota = quota(&format!(r#"{ALL}, "cpu_scope": "vcpus""#));
    let cgroup = trees.create(&quota, 256 << 20);
    let mut child = start(&cgroup, "cat", &["/dev/zero"]);
    let places = membership(&format!("/proc/{}/cgroup", child.id()));
    assert!(
        places["cpu"].ends_with(cgroup.name()),
        "weight holds all: {places:?}"
    );
    assert!(!places["cpuset"].ends_with(cgroup.name()), "{places:?}");
    assert_eq!(
        trees.read(
            Controller::Cpu,
            &format!("{}/cpu.cfs_quota_us", cgroup.name())
        ),
        "-1"
    );
    let vcpus = format!("{}/vcpus", cgroup.name());
    assert_eq!(
        trees.read(Controller::Cpu, &format!("{vcpus}/cpu.cfs_quota_us")),
        "50000"
    );

    let thread = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            cgroup.join_vcpu().unwrap();
            membership("/proc/thread-self/cgroup")
        });
        thread.join().unwrap()
    });
    assert!(thread["cpu"].ends_with(&vcpus), "{thread:?}");
    assert!(thread["cpuset"].ends_with(cgroup.name()), "{thread:?}");
    let rest = membership("/proc/thread-self/cgroup");
    assert!(!rest["cpu"].contains(cgroup.name()), "{rest:?}");
    drop(cgroup);
    child.wait().unwrap();
}

#[test]
fn a_cpu_that_the_cgroup_above_lacks_is_refused() {
    let Some(trees) = Trees::new() else { return };
    let limits = Limits {
        cpus: CpuSet::from_cpus([CpuSet::MAX_CPU]),
        scope: CpuScope::Vm,
        ..Limits::default()
    };
    let name = unique_name();
    let error = Cgroup::create(Plan::new(&trees.0, &name, &limits, None)).unwrap_err();
    assert!(
        error.to_string().contains("cannot write `8191` to"),
        "{error}"
    );
    for (_, base) in &trees.0.v1 {
        assert!(!base.own.join(&name).exists());
    }
}

#[test]
fn the_parent_that_is_asked_for_holds_in_each_tree_and_goes_with_the_last_vm() {
    let Some(trees) = Trees::new() else { return };
    let names: Vec<PathBuf> = (trees.0.v1.iter())
        .map(|(_, tree)| Path::new("/").join(tree.own.strip_prefix(&tree.mount).unwrap()))
        .collect();
    // Each tree has a cgroup of the same name as the first, which is this test's own.
    let parent = names[0].join("tenants/a");
    let limits = Limits {
        memory_bytes: Some(64 << 20),
        ..Limits::default()
    };
    let create = || {
        let plan = Plan::new(&trees.0, &unique_name(), &limits, Some(&parent));
        let shared = plan.shared();
        (Cgroup::create(plan.whole().unwrap()).unwrap(), shared)
    };
    let (first, shared) = create();
    let first = Arc::new(first);
    let mut child = start(&first, "cat", &["/dev/zero"]);
    let places = membership(&format!("/proc/{}/cgroup", child.id()));
    for controller in ["cpu", "cpuset", "memory"] {
        let place = Path::new(&places[controller]);
        assert!(place.parent().unwrap().ends_with("tenants/a"), "{places:?}");
    }
    let (mut second, _) = create();
    second.shared.clone_from(&shared);
    drop(first);
    child.wait().unwrap();
    assert!(
        shared.iter().all(|path| path.is_dir()),
        "the second is there"
    );
    drop(second);
    assert!(shared.iter().all(|path| !path.exists()), "{shared:?}");
}

#[test]
fn names_are_unique() {
    assert_ne!(unique_name(), unique_name());
}
