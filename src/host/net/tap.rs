//! Taps: virtual interfaces whose other end is a file (Linux Documentation/networking/tuntap.rst).

use super::{Error, link};
use crate::config::Given;
use kvmlet_sys::tap::{TapQueue, Unattached};
use std::io;
use std::sync::Arc;

/// A tap with the queues that this process has opened. One that it made goes away with the last of them.
#[derive(Debug)]
pub struct Tap {
    name: String,
    queues: Vec<Arc<TapQueue>>,
}

impl Tap {
    /// Makes a tap. `%d` in the name becomes the first free number.
    ///
    /// # Errors
    /// Without CAP_NET_ADMIN or a kernel with taps.
    pub fn create(name: &str, queues: usize) -> Result<Self, Error> {
        Self::create_as(name, None, queues)
    }

    /// The same, but with this number, if no interface has that name: to find the first free one the kernel looks at all
    /// interfaces.
    pub(super) fn create_numbered(
        prefix: &str,
        number: Option<u32>,
        queues: usize,
    ) -> Result<Self, Error> {
        let numbered = number.map(|number| format!("{prefix}{number}"));
        Self::create_as(&format!("{prefix}%d"), numbered.as_deref(), queues)
    }

    fn create_as(name: &str, first: Option<&str>, queues: usize) -> Result<Self, Error> {
        let multi_queue = queues > 1;
        if let Some(first) = first {
            let file = Unattached::open().map_err(|source| Error::Tun { source })?;
            if let Ok((queue, name)) = file.make(first, multi_queue) {
                return Self::with_first(queue, name, queues);
            }
        }
        let (first, name) = queue(name, multi_queue)?.map_err(|source| match errno(&source) {
            libc::EPERM => Error::Capability {
                to: "make a network interface",
            },
            _ => Error::Tap {
                name: name.into(),
                source,
            },
        })?;
        Self::with_first(first, name, queues)
    }

    /// Opens an interface that exists.
    ///
    /// # Errors
    /// When there is none, it is no tap, it is another user's or in use, or it cannot have this many queues.
    pub fn open(name: &str, queues: usize) -> Result<Self, Error> {
        if !link::exists(name) {
            // The kernel would make it, which is not what was asked for.
            return Err(Error::TapMissing { name: name.into() });
        }
        let multi_queue = queues > 1;
        let result = match queue(name, multi_queue)? {
            // A tap has several queues or one from when it is made, and the kernel says EINVAL, as it does
            // for what is not a tap, unless it is opened as what it is.
            Err(error) if errno(&error) == libc::EINVAL => {
                match (multi_queue, queue(name, !multi_queue)?) {
                    (true, Ok(_)) => {
                        return Err(Error::TapSingleQueue {
                            name: name.into(),
                            queues,
                        });
                    }
                    (_, other) => other,
                }
            }
            other => other,
        };
        let (first, name) = result.map_err(|source| {
            let name = name.into();
            match errno(&source) {
                libc::EINVAL => Error::NotATap { name },
                libc::EBUSY => Error::TapBusy { name },
                libc::EPERM => Error::TapForbidden { name },
                _ => Error::Tap { name, source },
            }
        })?;
        Self::with_first(first, name, queues)
    }

    /// Takes the queues that somebody has opened.
    ///
    /// # Errors
    /// When one is none, of another tap than the first, or was taken before.
    pub fn given(queues: &[Given]) -> Result<Self, Error> {
        let refused = |why| Error::TapGiven(why, None);
        let mut tap: Option<Self> = None;
        for queue in queues {
            let queue = queue
                .take()
                .ok_or_else(|| refused("was taken by another VM"))?;
            let none = |source| Error::TapGiven("is no queue of a tap", Some(source));
            let known = TapQueue::given(queue).map_err(none)?;
            let form = "has frames of another form: its tap has to have IFF_VNET_HDR and IFF_NO_PI";
            let (queue, name) = known.ok_or_else(|| refused(form))?;
            let Some(tap) = &mut tap else {
                let queues = vec![Arc::new(queue)];
                tap = Some(Self { name, queues });
                continue;
            };
            if tap.name != name {
                return Err(refused("is a queue of another tap than the first"));
            }
            detach(&queue, &name)?;
            tap.queues.push(Arc::new(queue));
        }
        tap.ok_or_else(|| refused("is not there"))
    }

    fn with_first(first: TapQueue, name: String, count: usize) -> Result<Self, Error> {
        let mut queues = vec![Arc::new(first)];
        while queues.len() < count {
            let (next, _) = queue(&name, true)?.map_err(|source| Error::Tap {
                name: name.clone(),
                source,
            })?;
            detach(&next, &name)?;
            queues.push(Arc::new(next));
        }
        Ok(Self { name, queues })
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Closes the queues of this value. One that is not [held](Self::is_held), and was made by this process, is gone then,
    /// which the kernel takes tens of milliseconds for.
    pub(super) fn close(&mut self) {
        self.queues.clear();
    }

    /// Has anybody else queues of this value?
    pub(super) fn is_held(&self) -> bool {
        self.queues.iter().any(|queue| Arc::strong_count(queue) > 1)
    }

    /// The queues; all but the first are detached.
    pub fn queues(&self) -> &[Arc<TapQueue>] {
        &self.queues
    }
}

/// Has a queue beside the first get no frames: the guest asks for more than one when it wants them.
fn detach(queue: &TapQueue, name: &str) -> Result<(), Error> {
    queue.attach(false).map_err(|source| Error::Tap {
        name: name.into(),
        source,
    })
}

/// Opens one queue of the named tap, and returns its name as the kernel has it.
fn queue(name: &str, multi_queue: bool) -> Result<io::Result<(TapQueue, String)>, Error> {
    let file = Unattached::open().map_err(|source| Error::Tun { source })?;
    Ok(file.attach(name, multi_queue))
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}
