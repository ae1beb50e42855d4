//! Cgroups: what holds a VM to its share of CPU time, CPUs and memory.
//!
//! One noun, [`Cgroup`], stands for a directory in the tree of version 2, for one in each tree of version 1,
//! or for a mixture, as the host has it. A process joins before it makes its VM and has threads: then all that
//! is made for the VM is counted, and joining is cheap. Moving a process with all its threads
//! (`cgroup.procs`) waits for an RCU grace period, 4 to 15 ms; what takes 0.1 ms is moving the one calling
//! thread (`tasks` of version 1), and what takes nothing is being born there (version 2).

mod credible;
mod error;
mod hierarchy;
mod memory;
mod plan;
mod removal;

pub use credible::is_cgroup_of;
pub use error::Error;
pub use hierarchy::{Controller, Hierarchies};
pub use memory::OutOfMemory;
pub use plan::{Limits, Plan};
pub use removal::remove_left_over;

use super::process::has_one_thread;
use plan::Step;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// What the names of kvmlet's cgroups begin with.
const PREFIX: &str = "kvmlet-";

/// A name that no other cgroup has: with the number of this process, for people, and a random one.
pub fn unique_name() -> String {
    let mut random = [0; 4];
    // Without randomness the process's number must do.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    let random = u32::from_ne_bytes(random);
    format!("{PREFIX}{}-{random:08x}", std::process::id())
}

/// The cgroup of one VM. Dropping it kills whoever is in it and removes it.
#[derive(Debug)]
pub struct Cgroup {
    plan: Plan,
    made: Vec<PathBuf>,
    /// Where this process was before it stepped aside, and what that now gives its children.
    before: Option<(PathBuf, String)>,
    domain: Option<File>,
    vcpus: Vec<File>,
}

impl Cgroup {
    /// Makes what was planned.
    ///
    /// # Errors
    /// When the kernel refuses; nothing is left then.
    pub fn create(plan: Plan) -> Result<Self, Error> {
        let mut cgroup = Self {
            made: Vec::new(),
            before: None,
            domain: None,
            vcpus: Vec::new(),
            plan,
        };
        // From here on dropping `cgroup` undoes what was done.
        for step in cgroup.plan.steps.clone() {
            cgroup.apply(step)?;
        }
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            |source| Error::Join { path, source }
        };
        if let Some(path) = &cgroup.plan.domain {
            cgroup.domain = Some(File::open(path).map_err(failed(path))?);
        }
        for path in &cgroup.plan.vcpus {
            let file = File::options().write(true).open(path);
            cgroup.vcpus.push(file.map_err(failed(path))?);
        }
        Ok(cgroup)
    }

    fn apply(&mut self, step: Step) -> Result<(), Error> {
        match step {
            Step::Make(path) => self.make(path),
            Step::Write(path, text) => match write(&path, &text) {
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound && path.ends_with(plan::SWAP) =>
                {
                    Ok(())
                }
                result => result.map_err(|source| Error::Write { path, text, source }),
            },
            Step::Enable {
                directory,
                controllers,
            } => self.enable(&directory, controllers),
        }
    }

    fn make(&mut self, path: PathBuf) -> Result<(), Error> {
        match fs::create_dir(&path) {
            Ok(()) => {
                self.made.push(path);
                Ok(())
            }
            Err(source) => Err(Error::Make { path, source }),
        }
    }

    /// No cgroup of version 2 gives controllers to its children while it has processes itself. If this is the
    /// only one, it can step aside.
    fn enable(&mut self, directory: &Path, controllers: String) -> Result<(), Error> {
        let path = directory.join("cgroup.subtree_control");
        let enable = || write(&path, &controllers);
        let busy = |result: &io::Result<()>| {
            let error = result.as_ref().err().map(io::Error::kind);
            error == Some(io::ErrorKind::ResourceBusy)
        };
        let mut result = enable();
        if busy(&result) && plan::is_ours(directory) {
            let aside = self.plan.aside(directory);
            fs::create_dir(&aside).map_err(|source| Error::Make {
                path: aside.clone(),
                source,
            })?;
            self.before = Some((directory.into(), controllers.replace('+', "-")));
            let moved = write(&aside.join("cgroup.procs"), "0");
            moved.map_err(|source| Error::Join {
                path: aside,
                source,
            })?;
            result = enable();
        }
        if busy(&result) {
            let directory = directory.into();
            return Err(Error::Occupied { directory });
        }
        result.map_err(|source| Error::Write {
            path: path.clone(),
            text: controllers,
            source,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// Its directory in version 2, for a [fork](super::process::fork): the cheapest way in.
    pub fn domain(&self) -> Option<BorrowedFd<'_>> {
        self.domain.as_ref().map(AsFd::as_fd)
    }

    /// Puts the calling process into it. It is a matter of 0.1 ms as long as the process has one thread only,
    /// and, in version 2, was made in the [domain](Self::domain).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn join(&self) -> Result<(), Error> {
        let enter = |path: &Path, file: &str| {
            let written = write(&path.join(file), "0");
            written.map_err(|source| Error::Join {
                path: path.into(),
                source,
            })
        };
        if let Some(path) = &self.plan.domain
            && !self.is_born_here()
        {
            enter(path, "cgroup.procs")?;
        }
        let file = match has_one_thread() {
            Ok(true) => "tasks",
            _ => "cgroup.procs",
        };
        let mut places = self.plan.processes.iter();
        places.try_for_each(|path| enter(path, file))
    }

    fn is_born_here(&self) -> bool {
        let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = text.lines().find_map(|line| line.strip_prefix("0::"));
        own.is_some_and(|path| Path::new(path).ends_with(&self.plan.name))
    }

    /// Puts the calling thread, one that runs a vCPU, under CPU quota and CPU set, if those are for vCPUs only.
    /// Works in a jail, too: what it writes to was opened before.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn join_vcpu(&self) -> io::Result<()> {
        let mut files = self.vcpus.iter();
        files.try_for_each(|mut file| file.write_all(b"0"))
    }

    /// Is there anything for [`join_vcpu`](Self::join_vcpu) to do?
    pub fn holds_vcpus(&self) -> bool {
        !self.vcpus.is_empty()
    }

    /// Why the kernel has killed a process in it for want of memory, if it has.
    pub fn out_of_memory(&self) -> Option<OutOfMemory> {
        self.plan.memory.as_ref()?.out_of_memory()
    }

    /// Leaves its removal to the process that this one was forked from.
    pub fn abandon(&mut self) {
        self.made.clear();
        self.before = None;
    }

    /// Kills whoever is in it and removes it.
    ///
    /// # Errors
    /// When it stays, which [`remove_left_over`] may change later.
    pub fn remove(&mut self) -> Result<(), Error> {
        remove_left_over(&std::mem::take(&mut self.made))?;
        let Some((directory, disable)) = self.before.take() else {
            return Ok(());
        };
        let aside = self.plan.aside(&directory);
        let back = || {
            write(&directory.join("cgroup.subtree_control"), &disable)?;
            write(&directory.join("cgroup.procs"), "0")?;
            fs::remove_dir(&aside)
        };
        back().map_err(|source| Error::Remove {
            path: aside.clone(),
            source,
        })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            log::warn!("{error}: {}", cause.unwrap_or_default());
        }
    }
}

/// Never makes a file, as `fs::write` would.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod host_tests;
#[cfg(test)]
mod tests;
