//! Real cgroups of version 2 with controllers, where the host has them: the second host of the tests.

use super::super::hierarchy::listed;
use super::super::*;
use super::quota;
use crate::walls::jail::tests::{alone, end};
use kvmlet_sys::process::{Child, Ended, Fork, fork};
use rustix::fs::XattrFlags;
use std::io::Read;
use std::os::unix::fs::chown;

const ALL_OF_THEM: &str = "+cpu +cpuset +memory";

/// The root of the tree, or why these tests cannot run here.
fn mount() -> Result<PathBuf, String> {
    let found = Hierarchies::find().map_err(|error| error.to_string())?;
    let mount = found
        .unified
        .ok_or("there are no cgroups of version 2")?
        .mount;
    let lacking = (Controller::ALL.iter())
        .find(|controller| !listed(&mount, "cgroup.controllers", **controller));
    match lacking {
        Some(controller) => Err(format!(
            "version 2 has no controller `{}`",
            controller.name()
        )),
        None if !parent::is_root(&mount) => Err("the root of the tree is not in sight".into()),
        None if parent::is_writable(&mount).is_err() => Err("no cgroups can be made".into()),
        None => Ok(mount),
    }
}

/// Runs a test in a process of its own, if it can run here.
fn on_v2(test: &str, body: impl FnOnce(Ground)) {
    match mount() {
        Ok(_) => alone("shares::cgroup", &format!("v2::{test}"), || {
            body(Ground::new())
        }),
        Err(reason) => println!("SKIPPED: {reason}"),
    }
}

/// A cgroup of the test's own below the root, with a child for each process that is to be somewhere. Removed with
/// whoever is in it.
struct Ground(PathBuf);

impl Ground {
    fn new() -> Self {
        let mount = mount().unwrap();
        let ground = Self(mount.join(unique_name()));
        fs::create_dir(&ground.0).unwrap();
        write(&mount.join("cgroup.subtree_control"), ALL_OF_THEM).unwrap();
        ground
    }

    /// A cgroup in it with the controllers of its parents; all of them if nobody is in between.
    fn make(&self, path: &str) -> PathBuf {
        let mut at = self.0.clone();
        for name in path.split('/') {
            write(&at.join("cgroup.subtree_control"), ALL_OF_THEM).unwrap();
            at.push(name);
            let _ = fs::create_dir(&at);
        }
        at
    }

    /// Marks a cgroup as systemd does one that it hands over.
    fn delegate(&self, path: &str) -> PathBuf {
        let path = self.make(path);
        rustix::fs::setxattr(&path, "user.delegate", b"1", XattrFlags::empty()).unwrap();
        path
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // This process may be in there.
        let root = self.0.parent().unwrap().join("cgroup.procs");
        write(&root, "0").unwrap();
        let mut all = vec![self.0.clone()];
        let mut next = 0;
        while next < all.len() {
            let entries = fs::read_dir(&all[next]).unwrap().flatten();
            let children = entries.map(|entry| entry.path());
            all.extend(children.filter(|path| path.is_dir()));
            next += 1;
        }
        let removed = remove_left_over(&all);
        assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
    }
}

fn join(cgroup: &Path) {
    write(&cgroup.join("cgroup.procs"), "0").unwrap();
}

fn processes(cgroup: &Path) -> Vec<u32> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
    let mut pids: Vec<u32> = text.lines().map(|pid| pid.parse().unwrap()).collect();
    pids.sort_unstable();
    pids
}

fn read(cgroup: &Path, file: &str) -> String {
    fs::read_to_string(cgroup.join(file)).unwrap().trim().into()
}

/// Another process in a cgroup, which does nothing.
fn neighbour(cgroup: &Path) -> std::process::Child {
    let mut command = std::process::Command::new("sleep");
    let child = command.arg("1000").spawn().unwrap();
    write(&cgroup.join("cgroup.procs"), &child.id().to_string()).unwrap();
    child
}

fn try_share(json: &str) -> Result<Cgroup, Error> {
    let limits = Limits::new(&quota(json), 64 << 20);
    let found = Hierarchies::find().unwrap();
    let mut cgroup = Cgroup::create(Plan::new(&found, &unique_name(), &limits, None).whole()?)?;
    let path = cgroup.domain.clone().unwrap();
    assert!(find_quota(&path).is_none(), "the quota is withheld");
    cgroup.withheld().hold()?;
    Ok(cgroup)
}

/// The quota of a cgroup or of a child for vCPUs.
fn find_quota(domain: &Path) -> Option<String> {
    let mut texts = [domain.into(), domain.join("vcpus")].map(|path: PathBuf| {
        let text = fs::read_to_string(path.join("cpu.max")).unwrap_or_default();
        (!text.is_empty() && !text.starts_with("max ")).then_some(text)
    });
    texts.iter_mut().find_map(Option::take)
}

const HALF: &str = r#""cpu_quota": 0.5"#;

/// A child in the VM's cgroup, which `act` happens in before it waits to be killed.
fn vm(cgroup: &Cgroup, act: impl FnOnce()) -> Child {
    let (mut told, tell) = io::pipe().unwrap();
    let child = match fork(0, cgroup.domain()).unwrap() {
        Fork::Parent(child) => child,
        Fork::Child(_) => end(|| {
            cgroup.join().unwrap();
            act();
            (&tell).write_all(b"!").unwrap();
            loop {
                std::thread::park();
            }
        }),
    };
    drop(tell);
    told.read_exact(&mut [0]).unwrap();
    child
}

fn is_gone(vm: Child) {
    assert_eq!(vm.wait().unwrap(), Ended::Killed(libc::SIGKILL));
}

/// As in a login shell: the scope is systemd's, and others are in it.
#[test]
fn root_has_a_share_whoever_else_is_in_its_cgroup() {
    on_v2("root_has_a_share_whoever_else_is_in_its_cgroup", |ground| {
        let session = ground.make("session.scope");
        let mut shell = neighbour(&session);
        join(&session);
        let cgroups = [try_share(HALF).unwrap(), try_share(HALF).unwrap()];
        let mount = ground.0.parent().unwrap();
        for cgroup in &cgroups {
            let domain = cgroup.domain.clone().unwrap();
            assert_eq!(domain.parent().unwrap(), mount.join("kvmlet"));
            assert_eq!(read(&domain, "cpu.max"), "50000 100000");
            assert_eq!(read(&domain, "memory.max"), (64 << 20).to_string());
            let child = vm(cgroup, || ());
            assert_eq!(
                processes(&domain),
                [child.pid().as_raw_nonzero().get() as u32]
            );
        }
        let both = [std::process::id(), shell.id()];
        assert!(both.iter().all(|pid| processes(&session).contains(pid)));
        drop(cgroups);
        assert!(!mount.join("kvmlet").exists());
        shell.kill().unwrap();
        shell.wait().unwrap();
    });
}

#[test]
fn who_is_in_a_delegated_cgroup_steps_aside_and_comes_back() {
    on_v2(
        "who_is_in_a_delegated_cgroup_steps_aside_and_comes_back",
        |ground| {
            let service = ground.delegate("agent.service");
            let mut agent = neighbour(&service);
            join(&service);
            let all = {
                let mut all = [std::process::id(), agent.id()];
                all.sort_unstable();
                all
            };
            let first = try_share(HALF).unwrap();
            assert_eq!(
                first.domain.as_ref().unwrap().parent().unwrap(),
                service.join("kvmlet")
            );
            let aside = service.join("kvmlet-supervisor");
            assert_eq!(processes(&aside), all);
            let first_vm = vm(&first, || ());
            // The second begins aside, where the first has left it.
            let second = try_share(r#""cpu_quota": 0.25, "cpuset": "0""#).unwrap();
            let second_vm = vm(&second, || ());
            assert_eq!(read(second.domain.as_ref().unwrap(), "cpuset.cpus"), "0");
            drop(first);
            is_gone(first_vm);
            assert_eq!(processes(&aside), all);
            drop(second);
            is_gone(second_vm);
            assert_eq!(processes(&service), all);
            assert_eq!(read(&service, "cgroup.subtree_control"), "");
            assert!(!aside.exists() && !service.join("kvmlet").exists());
            // What others have made there meanwhile would lose its limits.
            let third = try_share(HALF).unwrap();
            fs::create_dir(service.join("worker")).unwrap();
            drop(third);
            assert_eq!(processes(&aside), all);
            assert_eq!(read(&service, "cgroup.subtree_control"), "cpu memory");
            agent.kill().unwrap();
            agent.wait().unwrap();
        },
    );
}

/// VMs of one place that come and go at the same time: each takes away what another is about to use.
#[test]
fn vms_come_and_go_at_once() {
    on_v2("vms_come_and_go_at_once", |ground| {
        let service = ground.delegate("agent.service");
        join(&service);
        let children: Vec<Child> = (0..4)
            .map(|_| match fork(0, None).unwrap() {
                Fork::Parent(child) => child,
                Fork::Child(_) => end(|| {
                    for _ in 0..25 {
                        drop(try_share(HALF).unwrap());
                    }
                }),
            })
            .collect();
        for child in children {
            assert_eq!(child.wait().unwrap(), Ended::Exited(0));
        }
        drop(try_share(HALF).unwrap());
        assert_eq!(processes(&service), [std::process::id()]);
        assert_eq!(read(&service, "cgroup.subtree_control"), "");
    });
}

#[test]
fn threads_of_vcpus_are_held_and_others_are_not() {
    on_v2("threads_of_vcpus_are_held_and_others_are_not", |_ground| {
        let mut cgroup =
            try_share(r#""cpu_quota": 0.5, "cpuset": "0", "cpu_scope": "vcpus""#).unwrap();
        let domain = cgroup.domain.clone().unwrap();
        assert_eq!(read(&domain, "cpu.max"), "max 100000");
        let held = domain.join("vcpus");
        assert_eq!(read(&held, "cpu.max"), "50000 100000");
        assert_eq!(read(&held, "cpuset.cpus"), "0");
        assert_eq!(read(&domain, "memory.max"), (64 << 20).to_string());
        let child = match fork(0, cgroup.domain()).unwrap() {
            Fork::Parent(child) => child,
            Fork::Child(_) => end(|| {
                cgroup.abandon();
                cgroup.join().unwrap();
                let place = || fs::read_to_string("/proc/thread-self/cgroup").unwrap();
                std::thread::scope(|scope| {
                    let vcpu = scope.spawn(|| {
                        cgroup.join_vcpu().unwrap();
                        place()
                    });
                    assert!(vcpu.join().unwrap().ends_with("/vcpus\n"));
                });
                assert!(place().trim().ends_with(cgroup.name()), "{}", place());
                let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
                let open = open.filter_map(|entry| fs::read_link(entry.path()).ok());
                let open: Vec<PathBuf> = open.filter(|path| path.starts_with(&domain)).collect();
                assert_eq!(open, [held.join("cgroup.threads")]);
            }),
        };
        assert_eq!(child.wait().unwrap(), Ended::Exited(0));
        drop(cgroup);
        assert!(!domain.exists());
    });
}

/// A user without privileges, who has logged in twice: to a desktop, which runs in the user's own service, and to a
/// session, which is systemd's.
#[test]
fn an_ordinary_user_uses_what_is_delegated() {
    on_v2("an_ordinary_user_uses_what_is_delegated", |ground| {
        const USER: u32 = 4711;
        let session = ground.make("user.slice/session-1.scope");
        let service = ground.delegate("user.slice/user@4711.service");
        let app = ground.make("user.slice/user@4711.service/app.slice/app.scope");
        for directory in [&service, app.parent().unwrap(), &app] {
            for file in [
                "",
                "cgroup.procs",
                "cgroup.threads",
                "cgroup.subtree_control",
            ] {
                chown(directory.join(file), Some(USER), Some(USER)).unwrap();
            }
        }
        let as_user = |place: &Path, act: &dyn Fn()| {
            let child = match fork(0, None).unwrap() {
                Fork::Parent(child) => child,
                Fork::Child(_) => end(|| {
                    join(place);
                    // SAFETY: numbers; this process has one thread.
                    let changed = unsafe {
                        (
                            libc::setgroups(0, std::ptr::null()),
                            libc::setresgid(USER, USER, USER),
                            libc::setresuid(USER, USER, USER),
                        )
                    };
                    assert_eq!(changed, (0, 0, 0));
                    act();
                }),
            };
            assert_eq!(child.wait().unwrap(), Ended::Exited(0));
        };
        as_user(&app, &|| {
            let cgroup = try_share(r#""cpu_quota": 0.5, "cpu_scope": "vcpus""#).unwrap();
            let domain = cgroup.domain.clone().unwrap();
            assert_eq!(domain.parent().unwrap(), service.join("kvmlet"));
            let child = vm(&cgroup, || cgroup.join_vcpu().unwrap());
            assert_eq!(processes(&domain).len(), 1);
            drop(cgroup);
            is_gone(child);
            assert!(!service.join("kvmlet").exists());
        });
        as_user(&session, &|| {
            let error = try_share(HALF).unwrap_err();
            assert!(matches!(error, Error::Denied { .. }), "{error:?}");
            let help = error.help().unwrap().to_string();
            assert!(
                help.contains("systemd-run --user --scope -p Delegate=yes"),
                "{help}"
            );
        });
        // Even where it is named, nobody can move there from the session.
        let path = Path::new("/").join(service.strip_prefix(ground.0.parent().unwrap()).unwrap());
        as_user(&session, &|| {
            let limits = Limits::new(&quota(HALF), 64 << 20);
            let found = Hierarchies::find().unwrap();
            let plan = Plan::new(&found, "vm", &limits, Some(&path));
            assert!(
                matches!(plan.missing(), [Error::OutOfReach { .. }]),
                "{:?}",
                plan.missing()
            );
        });
    });
}
