//! A network namespace with nothing in it, which root's jails share: making one takes the kernel longer than all the
//! other namespaces together, and 0.2 MiB. Whoever comes first makes it, and leaves it mounted in the runtime directory,
//! where it stays for the next.
//!
//! Who shares one could talk to others there, by sockets. A process may enter it only if no thread of it will be able
//! to make one: if all are going to be held to lists of system calls.

use super::{check, namespaces};
use kvmlet_sys::directory::Directory;
use kvmlet_sys::lock;
use rustix::fs::{CWD, fstat, fstatfs};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

const NAME: &str = "network";
/// NSFS_MAGIC (linux/magic.h).
const NAMESPACES: u64 = 0x6e73_6673;
/// linux/nsfs.h
const NS_GET_USERNS: libc::Ioctl = 0xb701;
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// Moves this thread into the namespace that is kept in `place`, a directory of this user's alone; into a new one where
/// there is none yet.
///
/// # Errors
/// When the kernel gives none, or the one that is there is not as it has to be. The thread is somewhere then, and needs a
/// namespace of its own.
pub(super) fn enter(place: &Directory) -> io::Result<()> {
    if let Some(kept) = find(place)? {
        return join(&kept);
    }
    let spot = place.open_or_make(NAME)?;
    if !lock::try_acquire(&spot)? {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    // Somebody may have been quicker, and has covered the file that is locked.
    if let Some(kept) = find(place)? {
        return join(&kept);
    }
    namespaces::unshare(libc::CLONE_NEWNET)?;
    if let Err(error) = keep(place) {
        log::debug!("jail: no other jail can have its network namespace: {error}");
    }
    Ok(())
}

/// The namespace in a place, if a fit one is mounted there.
fn find(place: &Directory) -> io::Result<Option<File>> {
    let file = match place.open_existing(NAME) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if fstatfs(&file)?.f_type as u64 != NAMESPACES {
        return Ok(None);
    }
    let unfit = |what: &str| Err(io::Error::other(what.to_owned()));
    if ask(&file, NS_GET_NSTYPE)? != libc::CLONE_NEWNET {
        return unfit("it is no network namespace");
    }
    let here = |kind| std::fs::metadata(format!("/proc/thread-self/ns/{kind}"));
    // SAFETY: the kernel has just made the descriptor, for us alone.
    let owner = unsafe { OwnedFd::from_raw_fd(ask(&file, NS_GET_USERNS)?) };
    if fstat(&owner)?.st_ino != here("user")?.ino() {
        return unfit("it belongs to another user namespace");
    }
    match file.metadata()?.ino() == here("net")?.ino() {
        true => unfit("it is the host's own"),
        false => Ok(Some(file)),
    }
}

fn ask(namespace: &File, question: libc::Ioctl) -> io::Result<libc::c_int> {
    // SAFETY: it takes no argument.
    let answer = unsafe { libc::ioctl(namespace.as_raw_fd(), question) };
    check(answer.into()).map(|answer| answer as libc::c_int)
}

fn join(namespace: &File) -> io::Result<()> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    match is_up()? {
        None => Ok(()),
        Some(name) => Err(io::Error::other(format!("its interface {name} is up"))),
    }
}

/// An interface here that is up, loopback or another one. (Some tunnels have one in each namespace, which is down.)
fn is_up() -> io::Result<Option<String>> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    let kind = (AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC);
    let socket = socket_with(kind.0, kind.1, kind.2, None)?;
    for name in text.lines().filter_map(|line| line.split_once(':')) {
        let name = name.0.trim();
        // SAFETY: all-zero is a valid value of this structure of numbers.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        let known = request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1);
        for (to, from) in known.zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        // SAFETY: the structure outlives the call, which stores flags in it, and they are numbers.
        let flags = unsafe {
            check(
                libc::ioctl(
                    socket.as_raw_fd(),
                    libc::SIOCGIFFLAGS as libc::Ioctl,
                    &raw mut request,
                )
                .into(),
            )?;
            request.ifr_ifru.ifru_flags
        };
        if i32::from(flags) & libc::IFF_UP != 0 {
            return Ok(Some(name.into()));
        }
    }
    Ok(None)
}

/// Mounts the namespace that this thread is in.
fn keep(place: &Directory) -> io::Result<()> {
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, "/proc/thread-self/ns/net", clone)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(&mount, "", place, NAME, flags)?)
}

/// Unmounts what is kept in a place. Whoever is in there stays.
///
/// # Errors
/// What the kernel says.
pub fn forget(place: &Directory) -> io::Result<()> {
    while find(place).is_ok_and(|kept| kept.is_some()) {
        let path = place.path().join(NAME);
        let flags = rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::NOFOLLOW;
        rustix::mount::unmount(path, flags)?;
    }
    place.remove(NAME)
}
