//! A place of a test's own for what kvmlet leaves on a host: cgroups and notes of who has what.

use kvmlet_host::shares::cgroup::{
    Cgroup, Hierarchies, Limits, Plan, remove_left_over, unique_name,
};
use kvmlet_host::shares::ledger::Host;
use kvmlet_spec::CpuWeight;
use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Cgroups, one for each controller or in version 2 one for all, and a runtime directory. Removed with whoever is in
/// them.
pub struct Sandbox {
    cgroup: Option<Arc<Cgroup>>,
    directories: Vec<PathBuf>,
    /// Where processes are in version 2: beside the VMs, in a cgroup that is handed over as systemd does that.
    leaf: Option<PathBuf>,
    runtime: tempfile::TempDir,
}

impl Sandbox {
    /// A sandbox with a weight against everything else on this machine, or the reason why there is none.
    pub fn new(weight: u64) -> Result<Self, String> {
        let host = Host::here().map_err(|error| error.to_string())?;
        let limits = Limits {
            weight: Some(CpuWeight::try_from(weight).unwrap()),
            cpus: Some(host.cpus),
            memory_bytes: Some(host.memory_bytes),
            ..Limits::default()
        };
        let plan = Hierarchies::find()
            .and_then(|found| Plan::new(&found, &unique_name(), &limits, None).whole())
            .map_err(|error| error.to_string())?;
        let directories = plan.directories();
        let cgroup = Cgroup::create(plan).map_err(|error| error.to_string())?;
        let leaf = match &*directories {
            [only] => Some(delegate(only).map_err(|error| error.to_string())?),
            _ => None,
        };
        Ok(Self {
            cgroup: Some(Arc::new(cgroup)),
            directories,
            leaf,
            runtime: tempfile::tempdir().map_err(|error| error.to_string())?,
        })
    }

    /// `kvmlet boot` in here, with a guest of the tests.
    pub fn boot(&self, guest: &str) -> Command {
        let mut command = self.command(super::kvmlet());
        command
            .args(["boot", "--kernel"])
            .arg(super::program(guest))
            .stdin(Stdio::null());
        command
    }

    /// Any program in here.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let (cgroup, leaf) = (self.cgroup.clone(), self.leaf.clone());
        let runtime = CString::new(self.runtime.path().as_os_str().as_bytes()).unwrap();
        let enter = move || {
            if let Some(leaf) = &leaf {
                std::fs::write(leaf.join("cgroup.procs"), "0")?;
            } else if let Some(cgroup) = &cgroup {
                cgroup.join().map_err(io::Error::other)?;
            }
            hide_run(&runtime)
        };
        // SAFETY: between fork and exec small files are read and written, and system calls made.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Everybody who was started in here and is there still, or has left others.
    pub fn processes(&self) -> Vec<i32> {
        let inner = self.left_over_cgroups().into_iter();
        let cgroups = self.directories.iter().cloned().chain(inner);
        let leaf = self.leaf.iter().cloned();
        let lists = cgroups.chain(leaf).map(|path| path.join("cgroup.procs"));
        let texts = lists.filter_map(|path| std::fs::read_to_string(path).ok());
        let found: Vec<i32> = texts
            .flat_map(|text| {
                let words = text.split_whitespace().map(str::parse);
                words.map_while(Result::ok).collect::<Vec<_>>()
            })
            .collect();
        BTreeSet::from_iter(found).into_iter().collect()
    }

    /// Cgroups and notes of VMs.
    pub fn left_over(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for directory in &self.directories {
            collect(directory, &mut found, |path| path.is_dir());
        }
        found.retain(|path| Some(path) != self.leaf.as_ref());
        collect(self.runtime.path(), &mut found, |path| {
            // What is nobody's stays: locks, sums of all, what KVM has said of CPUID, the network that jails share.
            let shared = ["lock", "roll", "cpuid", "network"]
                .map(|name| path.file_name() == Some(name.as_ref()));
            path.is_file() && !shared.contains(&true)
        });
        found
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Inner ones come behind those around them, and are removed first.
        let leaf = self.leaf.iter().cloned();
        let all: Vec<PathBuf> = leaf.chain(self.left_over_cgroups()).collect();
        let removed = remove_left_over(&all);
        drop(self.cgroup.take());
        assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
    }
}

impl Sandbox {
    fn left_over_cgroups(&self) -> Vec<PathBuf> {
        let all = self.left_over().into_iter();
        all.filter(|path| !path.starts_with(self.runtime.path()))
            .collect()
    }
}

/// Hands a cgroup of version 2 over to those in a child of it, which is returned.
fn delegate(cgroup: &Path) -> io::Result<PathBuf> {
    let leaf = cgroup.join("tests");
    std::fs::create_dir(&leaf)?;
    let path = CString::new(cgroup.as_os_str().as_bytes())?;
    let (name, value) = (c"user.delegate", c"1".as_ptr().cast());
    // SAFETY: strings that end with a zero, and one byte of a value.
    match unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value, 1, 0) } {
        0 => Ok(leaf),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Everything below a directory that is wanted.
fn collect(directory: &Path, found: &mut Vec<PathBuf>, wanted: fn(&Path) -> bool) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if wanted(&path) {
            found.push(path.clone());
        }
        if path.is_dir() {
            collect(&path, found, wanted);
        }
    }
}

/// Has this process see `directory` where all others see /run.
fn hide_run(directory: &CString) -> io::Result<()> {
    let none = std::ptr::null();
    let check = |result: libc::c_int| match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: all strings end with a zero, and the kernel copies them.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS))?;
        let private = libc::MS_REC | libc::MS_PRIVATE;
        check(libc::mount(none, c"/".as_ptr(), none, private, none.cast()))?;
        let run = c"/run".as_ptr();
        check(libc::mount(
            directory.as_ptr(),
            run,
            none,
            libc::MS_BIND,
            none.cast(),
        ))
    }
}
