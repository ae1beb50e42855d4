//! `kvmlet run`: a service in a VM of its own, as an instance with a name, by docker's words.

mod changes;
mod described;
mod env_file;
mod flags;
mod health;
mod idle;
mod image;
mod made;
mod mounts;
mod packing;
mod root;
mod warm;

use super::chosen_id::id;
use super::instances::book;
use super::session::Wanted;
use super::{Failed, Outcome};
use crate::boot::{StartedBy, inheritable, inherited};
use crate::docker;
use crate::keep::waiting;
use clap::{ArgAction, Args};
pub(super) use described::{variable, variable_of};
use flags::Flags;
use kvmlet_command::LongVerbosity;
use kvmlet_manager::InstanceId;
use kvmlet_manager::volumes::{Volumes, forget};
pub(super) use made::{Made, Words};
use mounts::pack;
use root::Root;
pub(super) use root::RootHere;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use warm::Warm;
pub(super) use warm::{KeepTemplate, keep_beside};

/// Run a service in a microVM of its own, with a name by which other commands know it.
///
/// Flags mean what they mean to docker. What a machine is made of (kernel, disks, interfaces) is said to `kvmlet boot`.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(super) struct Run {
    /// Print help. (`-h` is the host name, as docker has it.)
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    #[command(flatten)]
    verbosity: LongVerbosity,
    #[command(flatten)]
    flags: Flags,
    /// Return when the VM runs, and print its id.
    #[arg(short, long)]
    detach: bool,
    /// Write the id to a file, which must not be there.
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// Write a line to this descriptor, which the caller has opened, when the service runs, or is healthy if --health-cmd asks
    /// for that. It is closed without one where it has not come to that.
    #[arg(long, value_name = "FD", value_parser = inheritable)]
    ready_fd: Option<i32>,
    /// Go on where another of the same was ready, if one has run here with this flag, instead of booting; or else boot, and keep a
    /// template for others once the service is healthy, serves a published port, or runs.
    #[arg(long)]
    warm: bool,
    /// Whose words messages are in.
    #[arg(long, value_name = "VERB", hide = true)]
    started_by: Option<String>,
    /// The id of the instance.
    #[arg(long, hide = true, value_parser = id)]
    id: Option<InstanceId>,
    /// Image, by its name or id; or the file of a root file system (erofs or ext4); or a directory, of which one is made.
    /// What stands behind it is the service to run, with its arguments, instead of the image's own.
    // One argument, so that nothing behind the image is taken for a flag of this command.
    #[arg(
        value_names = ["IMAGE", "COMMAND"],
        num_args = 1..,
        required = true,
        trailing_var_arg = true
    )]
    words: Vec<OsString>,
}

impl Run {
    /// The image, as it was named.
    pub fn image(&self) -> PathBuf {
        self.words.first().map_or_else(PathBuf::new, PathBuf::from)
    }

    /// Can there be many of it that nobody has yet? It is what these words say.
    pub fn check_for_pool(&self, words: &[OsString]) -> Result<(), Failed> {
        let flags = words.len().saturating_sub(self.words.len());
        let refused = if self.flags.name.is_some() {
            Some((
                "has a name when it is taken",
                "say --name to `kvmlet pool take`",
            ))
        } else if self.detach
            || self.cidfile.is_some()
            || self.ready_fd.is_some()
            || self.id.is_some()
        {
            Some((
                "runs in the background, and its id is told when it is taken",
                "leave out --detach, --cidfile and --ready-fd",
            ))
        } else if self.flags.goes_on_by_itself() {
            Some((
                "stands still until it is taken",
                "leave out --restart and --idle",
            ))
        } else if self.flags.described.takes_variables(&words[..flags]) {
            Some((
                "may be made when somebody else's variables are set",
                "say their values (--env NAME=VALUE), and leave out --env-file",
            ))
        } else {
            None
        };
        match refused {
            None => Ok(()),
            Some((why, help)) => {
                Err(Failed::new(format!("an instance of a pool {why}")).help(help))
            }
        }
    }

    #[inline(never)] // see `kvmlet_cli::run`
    pub fn run(self) -> Outcome {
        let by = self.started_by.as_deref();
        let by = by.map_or(StartedBy::Run, StartedBy::of);
        by.speak();
        // Before anything is opened that could have its number.
        let ready = self.ready_fd.map(|number| inherited(number, "run"));
        let ready = ready.transpose()?;
        let book = book()?;
        let id = self.id.map_or_else(InstanceId::random, Ok);
        let id = id.map_err(Failed::new)?;
        // It begins while it is found out what is to be started; without a turn it ends.
        let supervisor = waiting(&id, by)?;
        let behind_net = is_behind(&self.words, "--net");
        let mut words = self.words.into_iter();
        let image = PathBuf::from(words.next().unwrap_or_default());
        docker::refuse_networks(&image.to_string_lossy(), &self.flags.net, behind_net)?;
        let root = match by {
            // Its own directory is not that of whoever has named something.
            StartedBy::ApiMade if image.is_relative() => Root::stored(&image, self.flags.pull)?,
            _ => Root::find(&image, self.flags.pull)?,
        };
        let name = self.flags.name.clone();
        // From when they are found, or made, until the book says who has them.
        let volumes = self.flags.mounts.takes_volumes(root.config());
        let volumes = volumes.then(|| Volumes::of(&book)).transpose()?;
        let held = volumes.as_ref().map(|volumes| volumes.lock(&book));
        let held = held.transpose()?;
        let flags = self.flags;
        let mut asked = flags.asked(id, &book, &image, &root, words.collect(), held.as_ref())?;
        let warm = self.warm.then(|| Warm::find(&book, &asked, &root));
        let warm = warm.transpose()?;
        if let Some(warm) = &warm {
            warm.apply(&mut asked);
        }
        // Before anything is made: it says that there was none.
        let wanted = Wanted {
            input: asked.service.input,
            terminal: asked.service.terminal,
            group: false,
        };
        if !self.detach {
            wanted.check()?;
        }
        let idfile = self.cidfile.as_deref().map(|path| {
            let failed =
                |error| Failed::in_vain(format!("cannot make `{}`", path.display()), error);
            File::create_new(path).map_err(failed)
        });
        let idfile = idfile.transpose()?;
        // Nobody else starts or removes it before it runs.
        let made = Made::new(
            &book,
            name.as_ref(),
            asked.clone(),
            supervisor,
            wanted,
            self.detach,
        );
        drop(held);
        if made.is_err() {
            // What was made for it is nobody's.
            forget(&book, &asked)?;
        }
        let made = made?;
        if let Some(mut file) = idfile {
            file.write_all(asked.id.as_str().as_bytes())
                .map_err(Failed::new)?;
        }
        let packed = root.pack(&made.instance);
        let packed = packed.and_then(|()| pack(&made.instance, &asked.service.mounts));
        if let Err(failed) = packed {
            made.forget()?;
            return Err(failed);
        }
        match warm {
            None => made.start(ready),
            Some(warm) => {
                let run = warm::WarmRun {
                    book: &book,
                    warm,
                    name,
                    wanted,
                    detached: self.detach,
                };
                run.start(made, asked, ready)
            }
        }
    }
}

/// Do these words, the last of this process's command line, stand right behind a flag?
fn is_behind(words: &[OsString], flag: &str) -> bool {
    let count = kvmlet_sys::arguments::all().count();
    let before = count.checked_sub(words.len() + 1);
    before
        .and_then(|at| kvmlet_sys::arguments::all().nth(at))
        .is_some_and(|word| word == flag)
}
