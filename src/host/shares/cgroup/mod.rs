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
mod occupancy;
mod parent;
mod plan;
mod removal;
mod step;

pub use credible::{is_cgroup_around, is_cgroup_of};
pub use error::Error;
pub use hierarchy::{Controller, Hierarchies};
pub use memory::OutOfMemory;
pub use plan::{Limits, Plan};
pub use removal::{remove_left_over, remove_unused};

use kvmlet_sys::process::has_one_thread;
use memory::MemoryLimit;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use step::Step;

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
    name: String,
    made: Vec<PathBuf>,
    /// Those around it that are not its alone.
    shared: Vec<PathBuf>,
    /// Where the process goes in version 2, and a descriptor of that.
    domain: Option<PathBuf>,
    birthplace: Option<File>,
    /// Where the process goes in version 1.
    processes: Vec<PathBuf>,
    vcpus: Vec<File>,
    memory: Option<MemoryLimit>,
    withheld: Withheld,
}

/// Limits that hold nobody yet.
#[derive(Debug, Default)]
pub struct Withheld(Vec<(PathBuf, File, String)>);

impl Withheld {
    /// Has them hold, and keeps no way to change them. Works in a jail, too: what it writes to was opened before.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn hold(self) -> Result<(), Error> {
        let mut all = self.0.into_iter();
        all.try_for_each(|(path, mut file, text)| {
            let written = file.write_all(text.as_bytes());
            written.map_err(|source| Error::Write { path, text, source })
        })
    }
}

impl Cgroup {
    /// Makes what was planned.
    ///
    /// # Errors
    /// When the kernel refuses; nothing is left then.
    pub fn create(plan: Plan) -> Result<Self, Error> {
        // Nobody waits for whoever clears away what the last VM of a place has left.
        const TRIES: usize = 10;
        let mut tries = (1..TRIES).map(|_| Self::try_create(&plan));
        let passing = |result: &Result<Self, Error>| result.as_ref().is_err_and(Error::is_passing);
        tries
            .find(|result| !passing(result))
            .unwrap_or_else(|| Self::try_create(&plan))
    }

    fn try_create(plan: &Plan) -> Result<Self, Error> {
        let mut cgroup = Self {
            name: plan.name.clone(),
            made: Vec::new(),
            shared: plan.shared(),
            domain: plan.domain.clone(),
            birthplace: None,
            processes: plan.processes.clone(),
            vcpus: Vec::new(),
            memory: plan.memory.clone(),
            withheld: Withheld::default(),
        };
        // From here on dropping `cgroup` undoes what was done.
        for step in &plan.steps {
            cgroup.apply(step)?;
        }
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            |source| Error::Join { path, source }
        };
        if let Some(path) = &plan.domain {
            cgroup.birthplace = Some(File::open(path).map_err(failed(path))?);
        }
        for path in &plan.vcpus {
            let file = File::options().write(true).open(path);
            cgroup.vcpus.push(file.map_err(failed(path))?);
        }
        Ok(cgroup)
    }

    fn apply(&mut self, step: &Step) -> Result<(), Error> {
        let made = |path: &PathBuf| {
            let path = path.clone();
            |source| Error::Make { path, source }
        };
        match step {
            Step::Share(path) => match make(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                result => result.map_err(made(path)),
            },
            Step::Make(path) => {
                make(path).map_err(made(path))?;
                self.made.push(path.clone());
                Ok(())
            }
            Step::Write(path, text) => match write(path, text) {
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound && path.ends_with(plan::SWAP) =>
                {
                    Ok(())
                }
                result => result.map_err(|source| Error::Write {
                    path: path.clone(),
                    text: text.clone(),
                    source,
                }),
            },
            Step::Withhold(path, text) => {
                let opened = File::options().write(true).open(path);
                let file = opened.map_err(|source| Error::Write {
                    path: path.clone(),
                    text: text.clone(),
                    source,
                })?;
                self.withheld.0.push((path.clone(), file, text.clone()));
                Ok(())
            }
            Step::Enable {
                directory,
                controllers,
                clear,
            } => occupancy::enable(directory, controllers, *clear),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory in version 2, for a [fork](kvmlet_sys::process::fork): the cheapest way in.
    pub fn domain(&self) -> Option<BorrowedFd<'_>> {
        self.birthplace.as_ref().map(AsFd::as_fd)
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
        if let Some(path) = &self.domain
            && !self.is_born_here()
        {
            enter(path, "cgroup.procs")?;
        }
        let file = match has_one_thread() {
            Ok(true) => "tasks",
            _ => "cgroup.procs",
        };
        let mut places = self.processes.iter();
        places.try_for_each(|path| enter(path, file))
    }

    fn is_born_here(&self) -> bool {
        let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = text.lines().find_map(|line| line.strip_prefix("0::"));
        own.is_some_and(|path| Path::new(path).ends_with(&self.name))
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

    /// The quota of CPU time, which holds nobody before it is told to: what the VM's start takes is not paid from its
    /// share.
    pub fn withheld(&mut self) -> Withheld {
        std::mem::take(&mut self.withheld)
    }

    /// Is there anything for [`join_vcpu`](Self::join_vcpu) to do?
    pub fn holds_vcpus(&self) -> bool {
        !self.vcpus.is_empty()
    }

    /// Why the kernel has killed a process in it for want of memory, if it has.
    pub fn out_of_memory(&self) -> Option<OutOfMemory> {
        self.memory.as_ref()?.out_of_memory()
    }

    /// Leaves its removal to the process that this one was forked from, and keeps no way to the cgroup but that of
    /// [`join_vcpu`](Self::join_vcpu).
    pub fn abandon(&mut self) {
        self.made.clear();
        self.shared.clear();
        self.birthplace = None;
    }

    /// Kills whoever is in it and removes it.
    ///
    /// # Errors
    /// When it stays, which [`remove_left_over`] may change later.
    pub fn remove(&mut self) -> Result<(), Error> {
        remove_left_over(&std::mem::take(&mut self.made))?;
        remove_unused(&std::mem::take(&mut self.shared));
        Ok(())
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
/// Makes a cgroup that this user can use, whatever the umask.
fn make(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    let mode = fs::metadata(path)?.mode();
    match mode & 0o700 {
        0o700 => Ok(()),
        _ => fs::set_permissions(path, Permissions::from_mode(mode | 0o700)),
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod host_tests;
#[cfg(test)]
mod tests;
