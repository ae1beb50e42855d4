//! `kvmlet suspend`.

use super::instances::{book, each, look_again};
use super::snapshot::{fill_from, unwritten};
use super::{Failed, Outcome};
use clap::Args;
use kvmlet_control::{Connection, ConnectionError, Order, Report};
use kvmlet_manager::{Book, Error, Instance, SUSPENDED, State, Whereabouts};
use kvmlet_sys::directory::Directory;
use kvmlet_sys::temporary::Temporary;
use kvmlet_vmm::snapshot::annotate;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a supervisor may take to begin, and to say that all is told.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long it may take until it has noted that, and its VM is gone.
const NOTING: Duration = Duration::from_secs(30);

/// Put instances that run into files, and give back what they have of the host, until `resume`.
///
/// The file is in the instance's directory, and has all of its guest's memory in it. It has not ended: it keeps its name, disks and
/// volumes. One that cannot be saved runs on.
#[derive(Args)]
pub(super) struct Suspend {
    /// Names, ids, or beginnings of ids.
    #[arg(value_name = "INSTANCE", required = true)]
    instances: Vec<String>,
}

impl Suspend {
    pub fn run(self) -> Outcome {
        let book = book()?;
        each(&self.instances, |reference| {
            suspend(&book, &book.find(reference)?)?;
            Ok(reference.into())
        })
    }
}

fn suspend(book: &Book, instance: &Instance) -> Result<(), Failed> {
    // Nobody else starts or suspends it meanwhile; whoever cuts its power does not wait for that.
    let _turn = instance.turn()?;
    let view = look_again(book, instance)?;
    let called = view.called();
    if view.state == State::Suspended {
        let (called, state) = (called.into(), view.state);
        return Err(Error::Already { called, state }.into());
    }
    let mut control = instance.control(called)?;
    let directory = instance.directory();
    let path = directory.path().join(SUSPENDED);
    let unwritten = |error| unwritten(&path, error);
    let place = place(control.connection());
    // It has no name until it is whole.
    let mut file = Temporary::private(directory).map_err(unwritten)?;
    let vm = control.connection();
    let unsaved = |error| Failed::in_vain(format!("cannot suspend instance `{called}`"), error);
    let saving = vm.suspend(PATIENCE).map_err(unsaved)?;
    fill_from(file.file(), vm, &saving, called, &path)?;
    // What there is no room for is not known when it is resumed.
    let _ = serde_json::to_vec(&place).map(|note| annotate(file.file(), &note));
    file.file().sync_all().map_err(unwritten)?;
    publish(file, directory).map_err(unwritten)?;
    // It stands still as long as this process has the other end of what was told, and from here on for good.
    if let Err(error) = vm.ask(Order::Suspended, PATIENCE) {
        let _ = directory.remove(SUSPENDED);
        return Err(unsaved(error));
    }
    let noted = is_suspended(instance, view.record.suspensions)?;
    drop(saving);
    match noted {
        true => Ok(()),
        false => Err(unsaved(ConnectionError::Late(NOTING))
            .help(format!("`kvmlet logs --console {called}` says why"))),
    }
}

/// Where it is in the network. What it does not tell, it does not come back to.
fn place(vm: &mut Connection) -> Whereabouts {
    let mut ask = |order| vm.ask(order, PATIENCE).unwrap_or_default();
    let told = [ask(Order::Interfaces), ask(Order::Published)];
    let mut place = Whereabouts::default();
    for report in told.into_iter().flatten() {
        match report {
            Report::Interfaces(interfaces) => place.interfaces = interfaces,
            Report::Published(published) => place.published = published,
            _ => {}
        }
    }
    place
}

fn publish(file: Temporary<'_>, directory: &Directory) -> io::Result<()> {
    file.publish(Path::new(SUSPENDED))?;
    Ok(rustix::fs::fsync(directory)?)
}

/// Waits until that is noted, which it was so often `before`, and its VM is gone. False if it goes on.
fn is_suspended(instance: &Instance, before: u64) -> Result<bool, Failed> {
    let deadline = Instant::now() + NOTING;
    loop {
        // One that goes on by itself may do so by now.
        if instance.record()?.suspensions > before {
            instance.wait_for_rest()?;
            return Ok(true);
        }
        match instance.state()? {
            State::Running | State::Paused if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            State::Suspended => {}
            _ => return Ok(false),
        }
    }
}
