//! Where a benchmark makes its bundles and images: a directory and mounts of its own.

use super::error::Error;
use super::leftovers;
use kvmlet_host::shares::cgroup::Hierarchies;
use kvmlet_sys::directory::Directory;
use kvmlet_sys::{environment, lock};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

const PREFIX: &str = "kvmlet-bench-";
const LOCK: &str = "lock";

/// What is started, and where it was built.
#[derive(Clone, Debug)]
pub struct Programs {
    /// kvmlet itself.
    pub kvmlet: PathBuf,
    /// The guest kernel; without one there are no Linux guests.
    pub kernel: Option<PathBuf>,
    /// What `images/build bench` makes: `ready` (the service), `ready.cpio` (an initramfs with it) and `guests/`
    /// (bare-metal guests).
    pub built: PathBuf,
}

impl Programs {
    /// The service, a static program.
    pub fn service(&self) -> PathBuf {
        self.built.join("ready")
    }

    /// An initramfs with init and the service.
    pub fn initramfs(&self) -> PathBuf {
        self.built.join("ready.cpio")
    }

    /// A bare-metal guest.
    pub fn guest(&self, name: &str) -> PathBuf {
        self.built.join("guests").join(name)
    }

    /// Is everything there?
    ///
    /// # Errors
    /// Names the first file that is missing.
    pub fn check(&self) -> Result<(), Error> {
        let files = [
            self.service(),
            self.initramfs(),
            self.guest("ready"),
            self.guest("ready_stay"),
        ];
        match files.into_iter().find(|path| !path.exists()) {
            Some(path) => Err(Error::NotBuilt { path }),
            None => Ok(()),
        }
    }
}

/// A directory that goes when this is dropped, and a lock in it that tells that its owner lives.
#[derive(Debug)]
pub struct Workshop {
    path: PathBuf,
    _lock: File,
}

impl Workshop {
    /// Makes the directory in `$TMPDIR` or `/tmp`, and removes those whose owners were killed.
    ///
    /// # Errors
    /// When there is no place to write to.
    pub fn open() -> Result<Self, Error> {
        let parent = environment::variable("TMPDIR").map_or("/tmp".into(), PathBuf::from);
        reap(&parent);
        let mut random = [0; 4];
        // Others may write to the place, too, and a name that they can guess would be theirs first.
        let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
        let (pid, random) = (std::process::id(), u32::from_ne_bytes(random));
        let path = parent.join(format!("{PREFIX}{pid}-{random:08x}"));
        let error = |source| Error::Directory {
            path: path.clone(),
            source,
        };
        fs::create_dir(&path).map_err(error)?;
        // Services may run as other users.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(error)?;
        // Whoever could open it could lock it.
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600);
        let lock = options.open(path.join(LOCK)).map_err(error)?;
        if !lock::try_acquire(&lock).map_err(error)? {
            return Err(error(io::ErrorKind::WouldBlock.into()));
        }
        Ok(Self { path, _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its name, which no other has; also that of the cgroup below which all contestants have theirs.
    pub fn name(&self) -> String {
        name(&self.path)
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        for point in leftovers::mounts(|point, _| point.starts_with(&self.path)) {
            let _ = unmount(point, UnmountFlags::DETACH);
        }
        leftovers::clear(&self.path, &self.name());
        if COVERED.swap(false, Ordering::Relaxed) {
            let _ = unmount(CONTAINERD, UnmountFlags::DETACH);
            // Only if it was made for this: it is not empty where containerd runs.
            let _ = fs::remove_dir(CONTAINERD);
        }
    }
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Removes the directories of this user's benchmarks that were killed: nobody holds their lock.
fn reap(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && is_abandoned(&entry.path()) {
            leftovers::clear(&entry.path(), &name(&entry.path()));
        }
    }
}

fn is_abandoned(path: &Path) -> bool {
    let examine = || -> io::Result<bool> {
        let directory = Directory::open(path)?;
        let ours = directory.stat()?.st_uid == rustix::process::geteuid().as_raw();
        let lock = directory.open_existing(LOCK)?;
        Ok(ours && lock::try_acquire(&lock)?)
    };
    examine().unwrap_or(false)
}

/// Gives this thread, and what it starts, mounts of its own in which container runtimes and tracepoints can be used.
/// Returns what a reader of the result has to know about it.
///
/// Where cgroup v1 holds cpu and memory and a unified tree stands beside it (hybrid mode), crun refuses both, so the
/// tree is covered.
pub(super) fn own_mounts() -> Option<String> {
    let separated = separate();
    if separated.is_ok() && !Path::new(TRACEFS).join("events").exists() {
        // Without it some figures are not available, which then is said.
        let _ = mount("tracefs", TRACEFS, "tracefs", MountFlags::empty(), None);
    }
    // Shims and clients of containerd meet below this path, whatever its settings say; and dockerd would use the
    // containerd that it finds there.
    if separated.is_ok() && fs::create_dir_all(CONTAINERD).is_ok() {
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        let covered = mount("tmpfs", CONTAINERD, "tmpfs", flags, None).is_ok();
        COVERED.store(covered, Ordering::Relaxed);
    }
    let cgroups = Hierarchies::find().ok()?;
    let unified = cgroups.hybrid()?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let covered = separated.and_then(|()| Ok(mount("tmpfs", unified, "tmpfs", flags, None)?));
    let text = match covered {
        Ok(()) => {
            "cgroup v1 holds the controllers and a unified tree stands beside it, which crun refuses: all contestants \
             ran with mounts of their own in which the unified tree is covered."
        }
        Err(_) => {
            "cgroup v1 holds the controllers and a unified tree stands beside it, which crun refuses; only root can \
             cover it for the time of the benchmark."
        }
    };
    Some(text.into())
}

/// Where containerd's shims and clients have their sockets.
const CONTAINERD: &str = "/run/containerd";
/// Is a file system of the benchmark's own mounted there?
static COVERED: AtomicBool = AtomicBool::new(false);
/// Where tracepoints are described.
pub(super) const TRACEFS: &str = "/sys/kernel/tracing";

fn separate() -> io::Result<()> {
    // SAFETY: only mounts become this thread's own; no descriptors are shared or unshared.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }?;
    mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvmlet_command::Remedy;
    use std::os::unix::fs::{chown, symlink};

    #[test]
    fn a_directory_goes_with_its_owner_and_stays_while_it_lives() {
        let parent = tempfile::tempdir().unwrap();
        let abandoned = parent.path().join(format!("{PREFIX}1"));
        let held = parent.path().join(format!("{PREFIX}2"));
        let foreign = parent.path().join(format!("{PREFIX}3"));
        let other = parent.path().join("something else");
        for path in [&abandoned, &held, &other] {
            fs::create_dir(path).unwrap();
            fs::write(path.join(LOCK), "").unwrap();
        }
        let lock = File::open(held.join(LOCK)).unwrap();
        assert!(lock::try_acquire(&lock).unwrap());
        if rustix::process::geteuid().is_root() {
            // Whoever made it wants it to be cleared with root's rights.
            fs::create_dir(&foreign).unwrap();
            fs::write(foreign.join(LOCK), "").unwrap();
            chown(&foreign, Some(4_000_000), None).unwrap();
        }
        let linked = parent.path().join(format!("{PREFIX}4"));
        symlink(&other, &linked).unwrap();
        let there = foreign.exists();
        reap(parent.path());
        assert!(!abandoned.exists());
        assert!(held.exists() && other.exists() && linked.exists());
        assert_eq!(foreign.exists(), there);
    }

    #[test]
    fn the_missing_program_is_named() {
        let built = tempfile::tempdir().unwrap();
        let programs = Programs {
            kvmlet: "kvmlet".into(),
            kernel: None,
            built: built.path().into(),
        };
        let error = programs.check().unwrap_err();
        assert!(error.to_string().ends_with("ready`"), "{error}");
        assert_eq!(error.remedy(), Some("run `images/build bench` once".into()));
    }
}
