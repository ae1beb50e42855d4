//! `kvmlet snapshot import`.

use super::archive::{Limits, MANIFEST_BYTES, Manifest, unpack};
use super::elsewhere::{Described, digest};
use super::save::{Target, publish_noted, publish_unnoted, unwritten};
use crate::instances::book;
use crate::service::RootHere;
use crate::{Failed, Outcome};
use clap::Args;
use kvmlet_host::walls::rights;
use kvmlet_image::feed;
use kvmlet_manager::{Asked, InstanceId, Kept, Moment, Snapshots};
use kvmlet_spec::Memory;
use kvmlet_sys::process::{self, Ended, Fork, fork};
use kvmlet_sys::{regular, standard_error};
use kvmlet_vmm::snapshot::{Saved, annotate, most_bytes};
use rustix::fs::fstatvfs;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// What the process that unpacks may have mapped: what zstd looks back, and room for the rest.
const MAX_MEMORY: u64 = 1 << 30;

/// Make a snapshot of what `kvmlet snapshot export` has written here or elsewhere.
///
/// It takes the place of an older snapshot of that name when it is whole. What it is to have of this host is said here, or found by the
/// id of its image: an archive names no files. Whoever runs it runs what is in its memory: take archives from whom you would
/// take images.
#[derive(Args)]
pub(super) struct Import {
    /// The root of the instance, where that was no image of the store: the same file as there. Or an image that has its id.
    #[arg(long, value_name = "IMAGE")]
    root: Option<PathBuf>,
    /// The instance's kernel, which it boots when it is started again, where it was none of kvmlet's.
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Take the file alone, and note nothing of the instance that it was: `kvmlet restore` is told then what its machine has.
    #[arg(long, conflicts_with_all = ["root", "kernel"])]
    alone: bool,
    /// The archive; `-` is standard input.
    #[arg(value_name = "ARCHIVE")]
    archive: PathBuf,
    /// The snapshot.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Import {
    pub fn run(self) -> Outcome {
        let target = Target::of(&self.file)?;
        target.refuse_foreign()?;
        let mut file = target.begin()?;
        let manifest = self.unpacked(file.file())?;
        let saved = read_again(file.file(), &self.archive)?;
        let instance = manifest.instance.as_ref().filter(|_| !self.alone);
        let asked = instance.map(|instance| self.asked(instance)).transpose()?;
        // No note of another host's is one here.
        let id = InstanceId::random().map_err(Failed::new)?;
        if saved.note.is_some() || asked.is_some() {
            let noted = annotate(file.file(), id.as_str().as_bytes());
            noted.map_err(|error| unwritten(&self.file, error))?;
        }
        let asked = asked.flatten();
        match asked {
            None => publish_unnoted(&target, file)?,
            Some(asked) => {
                let kept = Kept {
                    id,
                    path: target.path().into(),
                    made: manifest.saved.unwrap_or_else(Moment::now),
                    name: instance.and_then(|instance| instance.name.clone()),
                    asked,
                    template: None,
                    base: None,
                };
                publish_noted(&Snapshots::of(&book()?)?, &target, file, &kept, None)?;
            }
        }
        Ok(0)
    }

    /// Has the archive unpacked into an empty file.
    fn unpacked(&self, file: &File) -> Result<Manifest, Failed> {
        let found = fstatvfs(file).map_err(|error| unwritten(&self.file, error.into()))?;
        let limits = Limits {
            size: most_bytes(Memory::MAX),
            free: found.f_bavail.saturating_mul(found.f_frsize),
        };
        let name = self.archive.display();
        let opened = match self.archive.as_os_str() == "-" {
            true => rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)
                .map(File::from)
                .map_err(Into::into),
            false => regular::stream(&self.archive),
        };
        let unread = |error: io::Error| Failed::in_vain(format!("cannot read `{name}`"), error);
        let archive = opened.map_err(unread)?;
        match apart(archive, file, limits).map_err(unread)? {
            Ok(manifest) => Ok(manifest),
            Err(why) => Err(Failed::in_vain(format!("cannot use archive `{name}`"), why)),
        }
    }

    /// What is asked of the instance on this host; none where it cannot be one.
    fn asked(&self, instance: &Described) -> Result<Option<Asked>, Failed> {
        let Some(portable) = &instance.asked else {
            let bound = instance.bound_by.as_deref().unwrap_or_default();
            let bound = bound.escape_debug();
            standard_error::say(format_args!(
                "kvmlet: it was an instance that cannot be one here, for {bound}: `kvmlet restore` is told what its machine has"
            ));
            return Ok(None);
        };
        if instance.own_kernel && self.kernel.is_none() {
            return Err(
                Failed::new("the instance has a kernel that is not kvmlet's")
                    .help("say which file that is here: --kernel FILE"),
            );
        }
        let id = instance.image_id.as_deref();
        let root = match (&self.root, id) {
            (Some(root), _) => RootHere::find(root)?,
            (None, Some(id)) => RootHere::find(Path::new(id)).map_err(|_| {
                let name = instance.image.escape_debug();
                Failed::new(format!("image `{name}` of the instance is not here, by its id {id}"))
                    .help(format!("`kvmlet pull {name}` or `kvmlet load` brings it; or --alone takes the snapshot without the instance"))
            })?,
            (None, None) => {
                return Err(Failed::new("the root of the instance is a file")
                    .help("say where that is here: --root FILE; or --alone takes the snapshot without the instance"));
            }
        };
        let same = match (id, &instance.root, root.source.path()) {
            (Some(id), _, _) => root.image_id.as_deref() == Some(id),
            (None, Some(expected), Some(path)) => digest(path)? == *expected,
            (None, _, _) => false,
        };
        if !same {
            return Err(Failed::new("the root is another than the instance has had")
                .help("bring the image, or the file, that it was run with"));
        }
        let asked = portable
            .clone()
            .here(instance, self.kernel.clone(), &root)?;
        Ok(Some(asked))
    }
}

/// What was unpacked, checked as any snapshot; it has no name yet.
fn read_again(file: &File, archive: &Path) -> Result<Saved, Failed> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let saved = Saved::open(&path);
    saved.map_err(|error| {
        let name = archive.display();
        Failed::in_vain(
            format!("cannot use the snapshot in archive `{name}`"),
            error.fault,
        )
    })
}

/// Unpacks in a process of its own, which has nothing but the archive on a pipe and the file: it decompresses and reads what may be anybody's.
fn apart(archive: File, file: &File, limits: Limits) -> io::Result<Result<Manifest, String>> {
    let (input, to_it) = pipe_with(PipeFlags::CLOEXEC)?;
    let (answer, output) = pipe_with(PipeFlags::CLOEXEC)?;
    match fork(0, None)? {
        Fork::Child(_lifeline) => {
            drop((to_it, answer, archive));
            let done = take_apart(File::from(input), file, limits);
            let told = serde_json::to_vec(&done).unwrap_or_default();
            // Nobody else is there to be told.
            let _ = File::from(output).write_all(&told);
            process::end(0)
        }
        Fork::Parent(child) => {
            drop((input, output));
            let fed = feed(&mut { archive }, &mut File::from(to_it));
            let mut told = Vec::new();
            let most = 2 * MANIFEST_BYTES;
            File::from(answer).take(most).read_to_end(&mut told)?;
            let ended = child.wait()?;
            fed?;
            Ok(match (serde_json::from_slice(&told), ended) {
                (Ok(done), Ended::Exited(_)) => done,
                (_, Ended::Killed(signal)) => Err(format!(
                    "the process that unpacks it was ended by signal {signal}"
                )),
                (Err(_), Ended::Exited(code)) => {
                    Err(format!("the process that unpacks it has ended with {code}"))
                }
            })
        }
    }
}

fn take_apart(archive: File, file: &File, limits: Limits) -> Result<Manifest, String> {
    let bound = Rlimit {
        current: Some(MAX_MEMORY),
        maximum: Some(MAX_MEMORY),
    };
    let walls = setrlimit(Resource::As, bound).map_err(Into::into);
    let walls = walls.and_then(|()| rights::take_apart());
    walls.map_err(|error: io::Error| format!("who unpacks it cannot be walled in: {error}"))?;
    unpack(archive, file, limits)
}
