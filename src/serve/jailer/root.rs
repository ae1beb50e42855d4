//! The directory that becomes the root, and what is in it.
//!
//! Its owner may have put something in there before: below it no link is followed, and only names are made that are not there.

use super::Refused;
use super::flags::Flags;
use super::made::{DIRECTORY, Made};
use kvmlet_command::beside::{self, KVMLET};
use rustix::fs::{
    AtFlags, CWD, Dev, FileType, Gid, Mode, OFlags, Uid, chownat, fstat, makedev, mknodat, openat,
};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount,
    mount_bind_recursive, mount_change, mount_remount, move_mount, open_tree, unmount,
};
use rustix::process::{chdir, fchdir, pivot_root};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::fs::Metadata;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What the program is in the jail where it cannot have the name of the other one.
const SERVE: &str = "kvmlet-serve";
/// Whose directories are the program's.
const OWN: [&str; 2] = ["dev", "run"];
/// Devices (Linux Documentation/admin-guide/devices.txt), below `/dev`.
const DEVICES: [(&str, u32, u32); 3] = [("kvm", 10, 232), ("urandom", 1, 9), ("null", 1, 3)];
const TUN: (&str, u32, u32) = ("tun", 10, 200);

/// A device whose number is the host's choice, and that not every kernel has: who may open it may have page faults answered.
const FAULTS: &str = "userfaultfd";

/// The programs that are run in the jail, as mounts that are nowhere yet, and that device.
#[derive(Debug)]
pub struct Programs([(String, OwnedFd); 2], Option<Dev>);

impl Flags {
    /// What the program that serves is called in the jail.
    pub fn program(&self) -> &str {
        match self.name == KVMLET {
            true => SERVE,
            false => &self.name,
        }
    }
}

impl Programs {
    /// This program and `kvmlet`, which lies beside it. The jailer runs no other.
    pub fn find(flags: &Flags) -> Result<Self, Refused> {
        let own = beside::own().map_err(|failed| Refused(failed.first_line()))?;
        let kvmlet = beside::find(KVMLET).map_err(|failed| Refused(failed.first_line()))?;
        let kvmlet = PathBuf::from(kvmlet.get_program());
        let look = |path: &Path| {
            path.metadata()
                .map_err(|error| Refused::by_host(format!("`{}`", path.display()), error))
        };
        let exec_file = &flags.exec_file;
        let given = exec_file.metadata().map_err(|error| {
            Refused::by_host(format!("--exec-file `{}`", exec_file.display()), error)
        })?;
        let is_given = |found: Metadata| (found.dev(), found.ino()) == (given.dev(), given.ino());
        if !is_given(look(&own)?) && !is_given(look(&kvmlet)?) {
            return Err(Refused(format!(
                "--exec-file `{}` is not kvmlet, and no other program is run: `ln -s {} {}`",
                exec_file.display(),
                kvmlet.display(),
                exec_file.display()
            )));
        }
        let take = |path: &Path| {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            open_tree(CWD, path, flags).map_err(|error| {
                Refused::by_host(format!("`{}` cannot be mounted", path.display()), error)
            })
        };
        let device = Path::new("/dev").join(FAULTS).symlink_metadata().ok();
        let device = device.filter(|found| found.file_type().is_char_device());
        let programs = [
            (flags.program().into(), take(&own)?),
            (KVMLET.into(), take(&kvmlet)?),
        ];
        Ok(Self(programs, device.map(|found| found.rdev())))
    }
}

/// The directory, made where it is not there.
pub fn open(flags: &Flags, made: &mut Made) -> Result<OwnedFd, Refused> {
    let base = &flags.base;
    let opened = openat(
        CWD,
        base,
        OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    let mut directory = opened.map_err(|error| {
        Refused::by_host(format!("--chroot-base-dir `{}`", base.display()), error)
    })?;
    let failed = |path: &Path| {
        let named = format!("`{}`", path.display());
        move |error: io::Error| Refused::by_host(named, error)
    };
    let owner = fstat(&directory).map_err(|error| failed(base)(error.into()))?;
    let mut path = base.clone();
    for step in flags.steps() {
        path.push(step);
        directory = made
            .directory(&directory, step, 0o755)
            .map_err(failed(&path))?;
        let found = fstat(&directory).map_err(|error| failed(&path)(error.into()))?;
        let trusted = [0, flags.uid, owner.st_uid];
        refuse_foreign(&path, found.st_uid, found.st_mode, trusted)?;
    }
    Ok(directory)
}

/// Who owns a directory on the way, or may write to it, can put another one in the place of what is made in there.
fn refuse_foreign(path: &Path, user: u32, mode: u32, trusted: [u32; 3]) -> Result<(), Refused> {
    let path = path.display();
    if !trusted.contains(&user) {
        return Err(Refused(format!(
            "`{path}` belongs to user {user}, who is not root, nor of --uid, nor the owner of --chroot-base-dir: give it to root (`chown 0 {path}`), or remove it"
        )));
    }
    let (writable, sticky) = (mode & 0o002 != 0, mode & 0o1000 != 0);
    match writable && !sticky {
        true => Err(Refused(format!(
            "everybody may write to `{path}`: take that away (`chmod o-w {path}`)"
        ))),
        false => Ok(()),
    }
}

/// What this process mounts from now on is no business of the host's.
pub fn part_from_host() -> Result<(), Refused> {
    // SAFETY: there is one thread, and no descriptors are parted from any.
    let parted = unsafe { unshare_unsafe(UnshareFlags::NEWNS) };
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    parted
        .and_then(|()| mount_change("/", private))
        .map_err(|error| Refused::by_host("the host gives no mount namespace", error))
}

/// Makes a directory the root of this process, and opens it there. It was opened in this process's mount namespace.
pub fn enter(root: &OwnedFd) -> Result<OwnedFd, Refused> {
    let entered = || {
        // A root is a mount. What is mounted in there comes along.
        fchdir(root)?;
        mount_bind_recursive(".", ".")?;
        // What was opened by now is below that mount.
        fchdir(openat(root, "..", DIRECTORY, Mode::empty())?)?;
        chdir("root")?;
        pivot_root(".", ".")?;
        // The old root is stacked upon the new one (pivot_root(2), NOTES).
        unmount(".", UnmountFlags::DETACH)?;
        chdir("/")?;
        openat(CWD, "/", DIRECTORY, Mode::empty())
    };
    entered().map_err(|error| Refused::by_host("the directory cannot become the root", error))
}

/// Has in the root what the program needs.
pub fn furnish(
    root: &OwnedFd,
    flags: &Flags,
    programs: Programs,
    made: &mut Made,
) -> Result<(), Refused> {
    let refused = |name: &str| {
        let path = flags.directory().join(name);
        move |error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists => Refused(format!(
                "`{}` is there already: a VM of this --id has it, or has left it over (remove the directory then)",
                path.display()
            )),
            _ => Refused::by_host(format!("`{}`", path.display()), error),
        }
    };
    give(root, flags, made).map_err(refused(""))?;
    let [dev, _] = OWN.map(|name| -> Result<OwnedFd, Refused> {
        let directory = made.directory(root, name, 0o700).map_err(refused(name))?;
        give(&directory, flags, made).map_err(refused(name))?;
        Ok(directory)
    });
    let dev = dev?;
    let net = made
        .directory(&dev, "net", 0o700)
        .map_err(refused("dev/net"))?;
    give(&net, flags, made).map_err(refused("dev/net"))?;
    for (place, (name, major, minor)) in DEVICES
        .map(|device| (&dev, device))
        .into_iter()
        .chain([(&net, TUN)])
    {
        make_device(place, name, makedev(major, minor), flags, made)
            .map_err(refused(&format!("dev/{name}")))?;
    }
    if let Some(number) = programs.1 {
        make_device(&dev, FAULTS, number, flags, made).map_err(refused("dev/userfaultfd"))?;
    }
    for (name, program) in programs.0 {
        place(root, &name, &program, made).map_err(refused(&name))?;
    }
    Ok(())
}

/// Belongs to the program from now on, and to nobody else.
fn give(directory: &OwnedFd, flags: &Flags, made: &mut Made) -> io::Result<()> {
    let (user, group) = (Uid::from_raw(flags.uid), Gid::from_raw(flags.gid));
    made.give(directory, user, group)
}

fn own(directory: &OwnedFd, name: &str, flags: &Flags) -> io::Result<()> {
    let (user, group) = (Uid::from_raw(flags.uid), Gid::from_raw(flags.gid));
    Ok(chownat(
        directory,
        name,
        Some(user),
        Some(group),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

fn make_device(
    place: &OwnedFd,
    name: &str,
    number: Dev,
    flags: &Flags,
    made: &mut Made,
) -> io::Result<()> {
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(place, name, FileType::CharacterDevice, mode, number)?;
    made.file(place, name)?;
    own(place, name, flags)
}

/// Puts a program where nobody can write to it. No rights come with it.
fn place(root: &OwnedFd, name: &str, program: &OwnedFd, made: &mut Made) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let new = flags | OFlags::CREATE | OFlags::EXCL;
    match openat(root, name, new, Mode::RUSR | Mode::XUSR) {
        Ok(_) => made.file(root, name)?,
        // Somebody has copied it there, as Firecracker's own does.
        Err(Errno::EXIST) => drop(openat(root, name, flags, Mode::empty())?),
        Err(error) => return Err(error.into()),
    }
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(program, "", root, name, flags)?;
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID;
    Ok(mount_remount(format!("/{name}"), flags, c"")?)
}

/// Mounts what the kernel tells of this process, and of no other user's.
pub fn mount_processes(root: &OwnedFd, made: &mut Made) -> Result<(), Refused> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mounted = made.directory(root, "proc", 0o555).and_then(|_| {
        // Since Linux 5.8 it has a name. Before, it is a number.
        let quiet = mount("proc", "/proc", "proc", flags, c"hidepid=invisible")
            .or_else(|_| mount("proc", "/proc", "proc", flags, c"hidepid=2"));
        Ok(quiet?)
    });
    mounted.map_err(|error| Refused::by_host("/proc cannot be mounted in the jail", error))
}

/// Has nothing mounted in the root any more, where nothing comes of it.
pub fn clear(flags: &Flags) {
    for name in ["proc", KVMLET, flags.program()] {
        // It may not have come to that.
        let _ = unmount(format!("/{name}"), UnmountFlags::DETACH);
    }
}
