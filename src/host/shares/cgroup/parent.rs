//! Where the cgroups of VMs are in the tree of version 2: in one of kvmlet's own, `kvmlet`, which all VMs of a
//! place share.
//!
//! The place is one that was handed to us: the nearest cgroup around this process that systemd marks as delegated
//! (systemd's "Control Group APIs and Delegation"), or the highest one that this user may write to. For root,
//! unless its service is delegated, it is the root of the tree: sessions and services belong to systemd.
//!
//! systemd takes controllers away from the children of its cgroups when none of its units needs them, and limits
//! go with them; the kernel refuses that as long as one of the children passes the controllers on. So `kvmlet` does.

use super::hierarchy::{Tree, listed};
use super::step::Step;
use super::{Controller, Error};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The name of the cgroup that holds those of VMs.
pub(super) const PARENT: &str = "kvmlet";

/// A cgroup in which that of kvmlet can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    path: PathBuf,
    /// Whether who is in it may be moved into a child of it: nobody is in a cgroup that gives controllers to its
    /// children (cgroup-v2.rst, "No Internal Process Constraint").
    is_delegated: bool,
}

impl Place {
    /// The first place that gives all controllers; or the first that gives some, and why it does not give the
    /// others; or why there is none.
    pub fn find(
        tree: &Tree,
        asked: Option<&Path>,
        controllers: &[Controller],
    ) -> (Option<Self>, Vec<Error>) {
        let places = match asked {
            Some(path) => vec![Self::at(tree, path)],
            None => Self::around(tree),
        };
        let mut first = None;
        for place in places {
            match place.check(tree, controllers) {
                Ok(missing) if missing.is_empty() => return (Some(place), missing),
                Ok(missing) => first = first.or(Some((Some(place), missing))),
                Err(error) => first = first.or(Some((None, vec![error]))),
            }
        }
        first.unwrap_or_else(|| (None, vec![out_of_reach(tree, controllers)]))
    }

    /// The one that was asked for, by its path from the root of the tree.
    fn at(tree: &Tree, path: &Path) -> Self {
        Self {
            path: below(&tree.mount, path),
            is_delegated: false,
        }
    }

    /// Those around this process, the nearest first.
    fn around(tree: &Tree) -> Vec<Self> {
        let around = || {
            let ancestors = tree.own.ancestors();
            ancestors.take_while(|path| path.starts_with(&tree.mount))
        };
        let marked = around().find(|path| is_marked(path));
        let writable = around().take_while(|path| is_writable(path).is_ok());
        let places = marked.into_iter().chain(writable.last()).map(|path| Self {
            is_delegated: !is_root(path),
            path: path.into(),
        });
        let mut places: Vec<Self> = places.collect();
        places.dedup();
        places
    }

    /// The controllers that it does not give, and why.
    ///
    /// # Errors
    /// Why no cgroup can be made in it at all.
    fn check(&self, tree: &Tree, controllers: &[Controller]) -> Result<Vec<Error>, Error> {
        // Of one that is yet to be made, what is around it counts.
        let existing = self.path.ancestors().find(|path| path.is_dir());
        let existing = existing.unwrap_or(&tree.mount);
        let directory = || existing.to_path_buf();
        let controller = controllers.first().copied().unwrap_or(Controller::Memory);
        is_writable(existing).map_err(|error| match error {
            Errno::ROFS => Error::ReadOnly {
                directory: directory(),
            },
            _ => Error::Denied {
                controller,
                directory: directory(),
                version: 2,
            },
        })?;
        let common = tree.own.ancestors().find(|path| existing.starts_with(path));
        if let Some(common) = common
            && !may_write(&common.join("cgroup.procs"))
        {
            return Err(Error::OutOfReach {
                from: tree.own.clone(),
                to: self.path.clone(),
            });
        }
        let gives = |controller: &&Controller| {
            let mut chain = self.chain(tree);
            listed(existing, "cgroup.controllers", **controller)
                || chain.any(|path| {
                    listed(path, "cgroup.controllers", **controller)
                        && may_write(&path.join("cgroup.subtree_control"))
                })
        };
        let (given, withheld): (Vec<&Controller>, Vec<_>) = controllers.iter().partition(gives);
        let passed_on = |c: &&Controller| listed(existing, "cgroup.subtree_control", **c);
        if !self.is_delegated
            && existing == self.path
            && !is_root(existing)
            && has_processes(existing)
            && !given.iter().all(passed_on)
        {
            return Err(Error::Occupied {
                directory: directory(),
            });
        }
        let withheld = withheld.into_iter().map(|controller| Error::Withheld {
            controller: *controller,
            directory: self.path.clone(),
        });
        Ok(withheld.collect())
    }

    /// The cgroups above it from which it may have to be given controllers: where it was handed to us, that is
    /// for others to do.
    fn chain<'a>(&'a self, tree: &'a Tree) -> impl Iterator<Item = &'a Path> {
        let above = self.path.ancestors().skip(1);
        above.take_while(|path| !self.is_delegated && path.starts_with(&tree.mount))
    }

    /// What it takes to have the cgroup of kvmlet in it, and that cgroup.
    pub fn steps(&self, tree: &Tree, controllers: &[Controller]) -> (Vec<Step>, PathBuf) {
        let parent = self.path.join(PARENT);
        let mut chain: Vec<&Path> = self.chain(tree).collect();
        chain.reverse();
        chain.extend([&*self.path, &*parent]);
        let mut steps = Vec::new();
        for path in chain {
            if path == parent || !path.is_dir() {
                steps.push(Step::Share(path.into()));
            }
            steps.push(Step::Enable {
                directory: path.into(),
                controllers: controllers.to_vec(),
                clear: self.is_delegated && path == self.path,
            });
        }
        (steps, parent)
    }
}

/// A path from the root of a tree.
pub(super) fn below(mount: &Path, path: &Path) -> PathBuf {
    let relative = path.strip_prefix("/").unwrap_or(path);
    mount.components().chain(relative.components()).collect()
}

/// Is it the root of the whole tree, to which most rules do not apply? (Not that of a cgroup namespace.)
pub(super) fn is_root(cgroup: &Path) -> bool {
    !cgroup.join("cgroup.type").exists()
}

fn has_processes(cgroup: &Path) -> bool {
    let text = fs::read_to_string(cgroup.join("cgroup.procs"));
    text.is_ok_and(|text| !text.is_empty())
}

/// Has systemd handed it over, with all that comes below it?
fn is_marked(cgroup: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].iter().any(|name| {
        let mut value = [0; 8];
        matches!(rustix::fs::getxattr(cgroup, *name, &mut value[..]), Ok(1) if value[0] == b'1')
    })
}

/// May this process make cgroups in it?
pub(super) fn is_writable(directory: &Path) -> Result<(), Errno> {
    let access = Access::WRITE_OK | Access::EXEC_OK;
    accessat(CWD, directory, access, AtFlags::EACCESS)
}

fn may_write(file: &Path) -> bool {
    let access = accessat(CWD, file, Access::WRITE_OK, AtFlags::EACCESS);
    !matches!(access, Err(Errno::ACCESS | Errno::PERM | Errno::ROFS))
}

/// Nothing around this process can be written to. Is it at least something elsewhere, as for who has logged in:
/// the session is systemd's, and beside it there is the user's own service?
fn out_of_reach(tree: &Tree, controllers: &[Controller]) -> Error {
    let controller = controllers.first().copied().unwrap_or(Controller::Memory);
    let user = rustix::process::geteuid().as_raw();
    let service = format!("user.slice/user-{user}.slice/user@{user}.service");
    let service = tree.mount.join(service);
    match fs::metadata(&service) {
        Ok(metadata) if metadata.uid() == user => Error::OutOfReach {
            from: tree.own.clone(),
            to: service,
        },
        _ => match is_writable(&tree.own) {
            Err(Errno::ROFS) => Error::ReadOnly {
                directory: tree.mount.clone(),
            },
            _ => Error::Denied {
                controller,
                directory: tree.own.clone(),
                version: 2,
            },
        },
    }
}
