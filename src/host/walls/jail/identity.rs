//! Who a process in the jail is, and what it may do by rank: nobody, and nothing.

use super::check;
use kvmlet_sys::facts::has_capability;
use std::io;

/// Users of jails are numbered from here. Up to 2^31 nobody else gives out numbers: systemd's containers end
/// before (<https://systemd.io/UIDS-GIDS/>), and there are no more than 2^22 processes.
const FIRST_USER: libc::uid_t = 0x7000_0000;
const USERS: u32 = 1 << 22;

/// What making namespaces takes without a user namespace around them (linux/capability.h).
const CAP_SYS_ADMIN: u32 = 21;
/// What changing the user takes, and attending a process of another user: KILL, SETGID, SETUID.
const CHANGING_USERS: [u32; 3] = [5, 6, 7];

/// Securebits with their locks (linux/securebits.h): root is nobody special, and no set of capabilities is
/// kept or regained by any means.
const SECUREBITS: libc::c_ulong = 0b1110_1111;
/// Changing the user leaves capabilities alone, which are needed a little longer.
const NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;

const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;

/// Can this process make namespaces as it is?
pub(super) fn makes_namespaces() -> bool {
    has_capability(CAP_SYS_ADMIN)
}

/// Can this process become that user, and attend one that has?
pub(super) fn can_become(user: libc::uid_t) -> bool {
    CHANGING_USERS
        .iter()
        .all(|capability| has_capability(*capability))
        && ["uid_map", "gid_map"].iter().all(|map| {
            let map = std::fs::read_to_string(format!("/proc/self/{map}"));
            // Where there is no /proc, an attempt will show.
            map.map_or(true, |map| is_mapped(&map, user))
        })
}

/// Is this root, and not only the one of a container?
pub(super) fn is_root() -> bool {
    // SAFETY: returns a number.
    let user = unsafe { libc::geteuid() };
    user == 0 && root_is_root(&std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default())
}

/// Is the root of a namespace with this map that of the one around it? Without a map there is none around it.
fn root_is_root(map: &str) -> bool {
    let mut lines = map.lines().map(|line| {
        let mut words = line.split_whitespace();
        (words.next(), words.next())
    });
    map.is_empty() || lines.any(|words| words == (Some("0"), Some("0")))
}

/// Is there such a user in a namespace with this map (user_namespaces(7))? In a container there may be few.
fn is_mapped(map: &str, user: libc::uid_t) -> bool {
    map.lines().any(|line| {
        let mut words = line.split_whitespace().map(str::parse::<u64>);
        match (words.next(), words.nth(1)) {
            (Some(Ok(first)), Some(Ok(count))) => (first..first + count).contains(&user.into()),
            _ => false,
        }
    })
}

/// The user of the jail with this number.
pub(super) fn user(number: u32) -> libc::uid_t {
    FIRST_USER + number % USERS
}

/// The user of a thread of the supervisor with this number that serves strangers: not that of its VM either.
pub(super) fn user_of_server(number: u32) -> libc::uid_t {
    FIRST_USER + USERS + number % USERS
}

/// Lets a process that was forked into a user namespace become this user there.
pub(super) fn map(process: u32, user: libc::uid_t) -> io::Result<()> {
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{process}/{map}"), format!("{user} {user} 1"))?;
    }
    Ok(())
}

/// Becomes a user and a group of the same number, in no other group. Capabilities stay for now, if that can be.
pub(super) fn become_user(user: libc::uid_t) -> io::Result<()> {
    // System calls, because the C library's functions ask all threads, and there is one.
    // SAFETY: numbers, and an empty list of groups.
    unsafe {
        // Takes a capability that is not needed otherwise.
        libc::prctl(libc::PR_SET_SECUREBITS, NO_SETUID_FIXUP);
        check(libc::syscall(libc::SYS_setgroups, 0, 0))?;
        check(libc::syscall(libc::SYS_setresgid, user, user, user))?;
        check(libc::syscall(libc::SYS_setresuid, user, user, user))?;
    }
    Ok(())
}

/// A new and empty session keyring, instead of that of the user who started the VM.
pub(super) fn join_new_keyring() -> io::Result<()> {
    // SAFETY: without a name a new keyring is made.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0) };
    match check(result) {
        // A kernel without keys.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        result => result.map(drop),
    }
}

/// Drops all capabilities, closes the ways to get some, and closes the process to other processes of its user.
///
/// No program gives any from the first step on. Where the steps behind it take a capability that this process never
/// had, they would only close the same ways again.
pub(super) fn drop_capabilities() -> io::Result<()> {
    let header = [0x2008_0522_u32, 0]; // _LINUX_CAPABILITY_VERSION_3, this thread
    let none = [0u32; 6];
    // SAFETY: numbers.
    unsafe {
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())?;
        check(libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0).into())?;
    }
    allowed(drop_bounding_set())?;
    // SAFETY: numbers, and structures of the sizes that capset(2) reads.
    unsafe {
        allowed(check(libc::prctl(libc::PR_SET_SECUREBITS, SECUREBITS).into()).map(drop))?;
        // Ambient capabilities go with the permitted ones.
        check(libc::syscall(
            libc::SYS_capset,
            header.as_ptr(),
            none.as_ptr(),
        ))?;
    }
    Ok(())
}

/// What takes a capability is well without it.
fn allowed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(()),
        result => result,
    }
}

/// Drops one capability after the other from the bounding set, up to the last that the kernel has.
fn drop_bounding_set() -> io::Result<()> {
    for number in 0..64 as libc::c_ulong {
        // SAFETY: takes a number.
        match check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number) }.into()) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && number > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jails_have_users_where_there_are_any() {
        assert!(is_mapped("         0          0 4294967295\n", user(1)));
        assert!(!is_mapped("0 100000 65536\n", user(1)));
        assert!(is_mapped("0 100000 65536\n1879048192 200000 9\n", user(8)));
        assert!(!is_mapped("0 100000 65536\n1879048192 200000 9\n", user(9)));
        assert!(!is_mapped("", user(0)));
        assert_eq!(user(0), 1_879_048_192);
        assert_ne!(user(1), user(2));
    }

    #[test]
    fn root_of_a_container_may_be_anybody() {
        assert!(root_is_root("         0          0 4294967295\n"));
        assert!(root_is_root("0 0 1\n"));
        assert!(!root_is_root("         0       1000          1\n"));
        assert!(!root_is_root("0 100000 65536\n"));
        assert!(root_is_root(""));
    }
}
