//! `kvmlet clone`.

use super::boot::StartedBy;
use super::chosen_id::id;
use super::instances::{book, look};
use super::ports::leave_to_host;
use super::restore::{Another, refuse_changed};
use super::snapshot::{fill, tell_pause};
use super::{Failed, Outcome};
use clap::Args;
use kvmlet_manager::{Error, InstanceId, Name};
use kvmlet_spec::PortMappings;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

/// Have another instance go on from where one is now, which goes on, too.
///
/// The one that runs stands still while its memory is copied, and how long is told. The other has a name, an id, addresses and a host
/// name of its own, and ports of the host's choice where the first has some, unless --publish says which. Its disks are not
/// copied: one that writes to any is refused.
#[derive(Args)]
pub(super) struct Clone {
    /// Make these ports of the host lead to it: [ADDRESS:][HOST:]GUEST[/tcp|udp].
    #[arg(short, long, value_name = "PORTS")]
    publish: Vec<PortMappings>,
    /// Remove it when it has ended.
    #[arg(long)]
    rm: bool,
    /// Whose words messages are in.
    #[arg(long, value_name = "VERB", hide = true)]
    started_by: Option<String>,
    /// The id of the other.
    #[arg(long, hide = true, value_parser = id)]
    id: Option<InstanceId>,
    /// The one that runs, by its name, its id, or a beginning of that.
    #[arg(value_name = "INSTANCE")]
    instance: String,
    /// What the other is called [default: two words at random].
    #[arg(value_name = "NAME")]
    name: Option<Name>,
}

impl Clone {
    pub fn run(self) -> Outcome {
        let by = self.started_by.as_deref();
        let by = by.map_or(StartedBy::Copy, StartedBy::of);
        by.speak();
        let book = book()?;
        let (instance, view) = look(&book, &self.instance)?;
        refuse_changed(&view.asked)?;
        // It is asked again when the other is made. Nothing stands still for one that cannot be.
        if let Some(name) = &self.name
            && let Ok(holder) = book.find(name.as_str())
            && book.name_of(holder.id())?.as_ref() == Some(name)
        {
            let (name, holder) = (name.clone(), holder.id().clone());
            return Err(Error::NameTaken { name, holder }.into());
        }
        let mut control = instance.control(view.called())?;
        let memory = unnamed(view.called()).map_err(Failed::new)?;
        let path = PathBuf::from("its copy in memory");
        let pause = fill(&memory, control.connection(), view.called(), &path)?;
        // Nobody changes it under the one that goes on from it.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
        fcntl_add_seals(&memory, seals).map_err(|error| Failed::new(io::Error::from(error)))?;
        tell_pause(view.called(), pause);
        let mut asked = view.asked.clone();
        leave_to_host(&mut asked.config);
        let other = Another {
            name: self.name,
            remove: self.rm,
            id: self.id,
            by,
            publish: self.publish.into_iter().flatten().collect(),
        };
        // As long as this process lives, which waits until the other runs, and boots whenever that is started again.
        let file = format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd());
        other.make(&book, asked, file.into(), None, true)
    }
}

/// A file that is in memory only, and goes with the last who has it.
fn unnamed(called: &str) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    Ok(memfd_create(format!("kvmlet-clone-{called}"), flags)?.into())
}
