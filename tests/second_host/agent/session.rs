//! Each task runs where a login would: in a session, in the leaf of systemd's tree of cgroups that such a
//! session has, as its user.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const TREE: &str = "/sys/fs/cgroup";
/// What systemd turns on for the slices of users (`Delegate=` of `user@.service`).
const USUAL: &str = "+cpu +memory +pids";

/// The tree of a host where systemd is and nobody has logged in.
pub fn controllers() -> Result<(), String> {
    let step = |result: io::Result<()>| result.map_err(|error| format!("{TREE}: {error}"));
    for slice in ["init.scope", "system.slice", "user.slice"] {
        step(fs::create_dir(Path::new(TREE).join(slice)))?;
    }
    step(fs::write(
        Path::new(TREE).join("init.scope/cgroup.procs"),
        "1",
    ))?;
    for group in ["", "user.slice"] {
        step(fs::write(
            Path::new(TREE).join(group).join("cgroup.subtree_control"),
            USUAL,
        ))?;
    }
    Ok(())
}

/// The number of a group of the host, if there is one of that name.
pub fn group_number(name: &str) -> Option<u32> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    let mut lines = groups.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| {
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// A session's cgroup. Whoever is in there when it is dropped is killed.
pub struct Session {
    scope: PathBuf,
    user: u32,
}

impl Session {
    pub fn new(task: u64, user: u32) -> io::Result<Self> {
        let slice = Path::new(TREE).join(format!("user.slice/user-{user}.slice"));
        if !slice.exists() {
            fs::create_dir(&slice)?;
            fs::write(slice.join("cgroup.subtree_control"), USUAL)?;
        }
        let scope = slice.join(format!("session-{task}.scope"));
        fs::create_dir(&scope)?;
        Ok(Self { scope, user })
    }

    /// Has a command begin in here.
    pub fn confine(&self, command: &mut Command) -> io::Result<()> {
        let procs = CString::new(format!("{}/cgroup.procs", self.scope.display()))?;
        let user = self.user;
        let groups: Vec<u32> = group_number("kvm").into_iter().collect();
        if user != 0 {
            let runtime = format!("/run/user/{user}");
            fs::create_dir_all(&runtime)?;
            fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700))?;
            chown(&runtime, Some(user), Some(user))?;
            command.env("XDG_RUNTIME_DIR", runtime);
        }
        let enter = move || {
            let check = |result: libc::c_long| match result {
                -1 => Err(io::Error::last_os_error()),
                value => Ok(value as i32),
            };
            // SAFETY: plain system calls, with a string that ends with a zero and a list of the given length.
            unsafe {
                let file =
                    check(libc::open(procs.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC).into())?;
                check(libc::write(file, c"0".as_ptr().cast(), 1) as libc::c_long)?;
                check(libc::close(file).into())?;
                check(libc::setsid().into())?;
                if user != 0 {
                    check(libc::setgroups(groups.len(), groups.as_ptr()).into())?;
                    check(libc::setresgid(user, user, user).into())?;
                    check(libc::setresuid(user, user, user).into())?;
                }
            }
            Ok(())
        };
        // SAFETY: it makes system calls only.
        unsafe { command.pre_exec(enter) };
        Ok(())
    }

    pub fn kill(&self) {
        let _ = fs::write(self.scope.join("cgroup.kill"), "1");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Those who were killed take a moment to be gone, and children of the scope go first.
        for _ in 0..500 {
            self.kill();
            let children = fs::read_dir(&self.scope).into_iter().flatten().flatten();
            for child in children.filter(|child| child.path().is_dir()) {
                let _ = fs::remove_dir(child.path());
            }
            if fs::remove_dir(&self.scope).is_ok() || !self.scope.exists() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        eprintln!("{} stays", self.scope.display());
    }
}
