//! What the process of a VM gives up once it has opened all that it needs: a jail in which descriptors are the
//! only things of the host that are left.
//!
//! Whoever starts the VM [forks](Jail::fork) a process into a PID namespace. That process is
//! [cut off](Jail::cut_off) from the host's names while a thread of it opens files and devices, and then
//! [enters](CutOff::enter) for good, before it starts other threads. In the jail it has namespaces of its own, an
//! empty root that cannot be written, a user and a group that nobody else has, no capability, and no way to get any
//! of this back. What its threads may still ask of the kernel is for [`seccomp`](kvmlet_sys::seccomp) to say.
//!
//! A process with the capability for it makes the namespaces as it is, and they belong to the host's
//! administrator. Any other makes a user namespace first, which owns them. The last one maps no user at all: a
//! process needs no name to use what it has open, and whose user has no name inside can make no further user
//! namespace (`create_user_ns` in Linux's kernel/user_namespace.c).
//!
//! Each wall is built for itself: where a host or a container refuses some, all others stand.

#[cfg(test)]
#[allow(dead_code)] // part of it is for lists of system calls
mod attempts;
mod descriptors;
mod identity;
mod landlock;
mod limits;
mod namespaces;
mod prepared;
mod root;
mod survey;
#[cfg(test)]
pub(crate) mod tests;
mod wall;

pub use landlock::Allowed;
pub use limits::Needs;
pub use prepared::forget;
pub use survey::survey;
pub use wall::{Missing, Wall};

use descriptors::Proc;
use kvmlet_sys::directory::Directory;
use kvmlet_sys::facts::kernel_version;
use kvmlet_sys::process::{self, Fork, Lifeline};
use kvmlet_sys::thread;
use rustix::pipe::{PipeFlags, pipe_with};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Instant;

/// A user that nobody else has, for a thread that serves strangers in the process of that number.
pub fn user_of_server(process: u32) -> libc::uid_t {
    identity::user_of_server(process)
}

/// Forbids this thread, and all that it starts, whatever Landlock knows, where the kernel has it. It has given up new
/// privileges.
///
/// # Errors
/// What the kernel says, if not that it has none.
pub fn name_no_paths() -> io::Result<()> {
    match landlock::version() {
        Ok(_) => landlock::enter(),
        Err(_) => Ok(()),
    }
}

/// The same, but for some paths, and for connections.
///
/// # Errors
/// As [`name_no_paths`].
pub fn name_few_paths(paths: &[(&Path, Allowed)]) -> io::Result<()> {
    match landlock::version() {
        Ok(_) => landlock::enter_with(paths),
        Err(_) => Ok(()),
    }
}

/// The jail of one VM, as planned by whoever starts it.
#[derive(Clone, Copy, Debug)]
pub struct Jail {
    /// Whether the process has a user namespace around its other ones, because it cannot make them otherwise.
    around: bool,
    user: User,
}

/// Who a process in the jail is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum User {
    /// A user that nobody else has.
    Own(libc::uid_t),
    /// Who started the VM, being nobody special.
    Starter,
    /// Root, as which it started and has to stay.
    Root,
}

impl Jail {
    /// A jail for a VM that is attended by this process: `number` is that of its user, and no two VMs that run
    /// at once may have the same one. The number of the process that attends it will do.
    pub fn new(number: u32) -> Self {
        let own = identity::user(number);
        let user = match identity::can_become(own) {
            true => User::Own(own),
            false if identity::is_root() => User::Root,
            false => User::Starter,
        };
        Self {
            around: !identity::makes_namespaces(),
            user,
        }
    }

    /// Forks a process into a PID namespace of its own, as its first process. One without privileges gets a
    /// user namespace with it; it is born in `cgroup`, if one is given. With `best_effort` the process comes
    /// without the namespace where it must.
    ///
    /// As the first of its namespace, the process ignores signals that it neither handles nor blocks.
    ///
    /// # Errors
    /// [`Wall::Pids`] when the host gives no such namespace, [`Wall::Process`] when it gives no process.
    pub fn fork(
        &self,
        cgroup: Option<BorrowedFd<'_>>,
        best_effort: bool,
    ) -> Result<(Fork, Option<Missing>), Missing> {
        if !self.around {
            return fork(libc::CLONE_NEWPID, cgroup, best_effort);
        }
        let namespaces = libc::CLONE_NEWPID | libc::CLONE_NEWUSER;
        let User::Own(user) = self.user else {
            return fork(namespaces, cgroup, best_effort);
        };
        // A user that its namespace does not know cannot be changed, so the child waits until it is known.
        let (known, knows) = pipe_with(PipeFlags::CLOEXEC).map_err(no_process)?;
        let forked = fork(namespaces, cgroup, best_effort)?;
        match &forked.0 {
            Fork::Parent(child) if forked.1.is_none() => {
                let process = child.pid().as_raw_nonzero().get().unsigned_abs();
                if let Err(error) = identity::map(process, user) {
                    log::debug!("jail: process {process} cannot become user {user}: {error}");
                }
            }
            Fork::Parent(_) => {}
            Fork::Child(_) => {
                drop(knows);
                // Whatever has become of it: `enter` finds out.
                let _ = rustix::io::read(&known, &mut [0]);
            }
        }
        Ok(forked)
    }

    /// In the process that was forked: does no other process count as its user's, for limits?
    fn counts_alone(&self) -> bool {
        // It is the first of a PID namespace only with the user namespace around that.
        let around = self.around && std::process::id() == 1;
        // Until Linux 5.14 a user's processes count for all of the host, and not for each user namespace.
        matches!(self.user, User::Own(_)) || around && kernel_version() >= (5, 14)
    }

    /// Moves this thread, and all that it starts later, into namespaces of its own with an empty root. Making them
    /// takes the kernel as long as a VM does, so another thread does `open` meanwhile: it is still outside, opens
    /// whatever the process is to have, and has ended when this returns. No other thread may exist.
    ///
    /// Root's processes enter the empty network namespace that is kept in `shared`, a directory of this user's alone, and
    /// with others if one is given. None may be where not all threads of the process will be held to lists of
    /// system calls that make no socket: the processes in there could talk to each other.
    ///
    /// What this host refuses is an error, unless it is [optional](Wall::is_optional) or `best_effort` is set.
    ///
    /// # Errors
    /// The first wall that cannot be built, beside what `open` has returned. The process is then neither free nor
    /// confined, and should end.
    pub fn cut_off<T: Send>(
        self,
        best_effort: bool,
        shared: Option<&Directory>,
        open: impl FnOnce() -> T + Send,
    ) -> (T, Result<CutOff, Missing>) {
        let mut walls = Walls {
            missing: Vec::new(),
            best_effort,
        };
        let (opened, cut_off) = thread::beside("open", open, || {
            // The last look at it, before it is out of reach.
            let proc = walls.build(Wall::Descriptors, Proc::open)?;
            walls.build_namespaces(shared.filter(|_| !self.around))?;
            Ok(proc)
        });
        let cut_off = cut_off.map(|proc| CutOff {
            jail: self,
            proc,
            walls,
        });
        (opened, cut_off)
    }
}

/// A process that has namespaces of its own and no file within reach, and is still who it was.
#[must_use = "a process is not confined before it has entered"]
#[derive(Debug)]
pub struct CutOff {
    jail: Jail,
    /// None where there is no /proc, which is one of the walls that are missing then.
    proc: Option<Proc>,
    walls: Walls,
}

impl CutOff {
    /// Gives up everything but what is open. There is no way back, and no other thread may exist: the kernel
    /// moves no process of several threads into a user namespace.
    ///
    /// The process gets little more of the host than it `needs`. All walls that this host does not give, and that
    /// can be done without, are returned.
    ///
    /// # Errors
    /// The first wall that cannot be built. The process should end then.
    pub fn enter(self, lifeline: &Lifeline, needs: Needs) -> Result<Vec<Missing>, Missing> {
        let Self {
            jail,
            proc,
            mut walls,
        } = self;
        let open = match proc {
            Some(proc) => walls.build(Wall::Descriptors, || {
                proc.is_single()?;
                proc.descriptors()
            })?,
            None => None,
        };
        let counts_alone = jail.counts_alone();
        walls.build(Wall::Limits, || {
            limits::set(open.as_ref(), needs, counts_alone)
        })?;
        forget_environment();
        // A session of its own: a terminal sends its signals to whoever attends the VM.
        let _ = rustix::process::setsid();
        match jail.user {
            User::Own(user) => {
                walls.build(Wall::User, || identity::become_user(user))?;
            }
            User::Root => {
                let refused = || Err(io::Error::from_raw_os_error(libc::EPERM));
                walls.build::<()>(Wall::User, refused)?;
            }
            User::Starter => {}
        }
        if !jail.around || matches!(jail.user, User::Own(_)) {
            walls.build(Wall::UserNamespace, || {
                namespaces::unshare(libc::CLONE_NEWUSER)
            })?;
        }
        walls.build(Wall::Keyring, identity::join_new_keyring)?;
        walls.build(Wall::Capabilities, identity::drop_capabilities)?;
        walls.build(Wall::Landlock, landlock::enter)?;
        // The kernel forgets it when a process changes its user.
        walls.build(Wall::Lifeline, || lifeline.hold())?;
        Ok(walls.missing)
    }
}

/// The walls that could not be built.
#[derive(Debug)]
struct Walls {
    missing: Vec<Missing>,
    best_effort: bool,
}

impl Walls {
    /// What comes of it; none if it is missing and can be done without.
    fn build<T>(
        &mut self,
        wall: Wall,
        build: impl FnOnce() -> io::Result<T>,
    ) -> Result<Option<T>, Missing> {
        let source = match timed(wall, build) {
            Ok(built) => return Ok(Some(built)),
            Err(source) => source,
        };
        let missing = Missing { wall, source };
        if !wall.is_optional() && !self.best_effort {
            return Err(missing);
        }
        self.missing.push(missing);
        Ok(None)
    }

    fn build_namespaces(&mut self, shared: Option<&Directory>) -> Result<(), Missing> {
        let enter = |place| timed("a shared network namespace", || prepared::enter(place));
        let has_network = match shared.map(enter) {
            Some(Err(error)) => {
                log::debug!("jail: the shared network namespace is not used: {error}");
                false
            }
            entered => entered.is_some(),
        };
        let kinds = namespaces::KINDS;
        let kinds = kinds
            .into_iter()
            .filter(|(wall, _)| !has_network || *wall != Wall::Network);
        // All at once, or else it shows which of them are not available.
        let flags = kinds.clone().fold(0, |flags, (_, flag)| flags | flag);
        if timed("the other namespaces", || namespaces::unshare(flags)).is_err() {
            for (wall, flag) in kinds {
                self.build(wall, || namespaces::unshare(flag))?;
            }
        }
        // Elsewhere it would be the host's root that is taken away.
        if !self.is_missing(Wall::Mounts) {
            self.build(Wall::Root, root::leave)?;
        }
        Ok(())
    }

    fn is_missing(&self, wall: Wall) -> bool {
        self.missing.iter().any(|missing| missing.wall == wall)
    }
}

/// Says in the log what a step has taken.
fn timed<T>(step: impl std::fmt::Display, act: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = act();
    let time = start.elapsed().as_secs_f64() * 1e3;
    log::debug!("jail: {time:.3} ms for {step}");
    result
}

/// Forks into these namespaces; without them, with `best_effort`, where the host does not give them.
fn fork(
    namespaces: libc::c_int,
    cgroup: Option<BorrowedFd<'_>>,
    best_effort: bool,
) -> Result<(Fork, Option<Missing>), Missing> {
    let source = match process::fork(namespaces, cgroup) {
        Ok(fork) => return Ok((fork, None)),
        Err(source) => source,
    };
    // What every process takes, in namespaces or not, or what is none of the kernel's errors.
    let common = matches!(
        source.raw_os_error(),
        None | Some(libc::EAGAIN | libc::ENOMEM | libc::ENOSYS)
    );
    if common {
        return Err(no_process(source));
    }
    let missing = Missing {
        wall: Wall::Pids,
        source,
    };
    if !best_effort {
        return Err(missing);
    }
    let fork = process::fork(0, cgroup).map_err(no_process)?;
    Ok((fork, Some(missing)))
}

fn no_process(source: impl Into<io::Error>) -> Missing {
    Missing {
        wall: Wall::Process,
        source: source.into(),
    }
}

/// Overwrites the environment, where keys of all kinds tend to lie.
fn forget_environment() {
    unsafe extern "C" {
        static mut environ: *mut *mut libc::c_char;
    }
    // SAFETY: there is one thread, so nobody reads the environment meanwhile. Each entry is a string that ends
    // with a zero and may be written to (environ(7)), and the list ends with a null.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            libc::memset((*entry).cast(), 0, libc::strlen(*entry));
            entry = entry.add(1);
        }
        libc::clearenv();
    }
}

/// The result of a system call that says -1.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        other => Ok(other),
    }
}
