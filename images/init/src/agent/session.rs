//! One connection of the host's, and what is done over it.

use alloc::format;

use kvmlet_contract::channel::{Description, Event, Fault, MAX_DESCRIPTION, Request, Role, agree};
use linux_raw_sys::general::{CLOCK_BOOTTIME, CLOCK_REALTIME};

use super::connection::{Connection, Inbound};
use super::machine;
use super::process::Process;
use super::renewal;
use super::service::Service;
use super::start::start;
use crate::Failure;
use crate::sys::{self, Errno, File, Memory};

/// A connection of the host's, and what is done over it.
pub struct Session {
    pub connection: Connection,
    inbound: Inbound,
    course: Course,
}

/// How far a connection has come.
#[derive(Default)]
struct Course {
    greeted: bool,
    draft: Option<Draft>,
    carries: Carries,
}

/// What a connection is there for.
#[derive(Default)]
enum Carries {
    #[default]
    Nothing,
    /// The service, if this is still the connection that has it.
    Service(u32),
    Exec(Process),
}

impl Carries {
    /// The process whose streams go over the connection.
    fn process<'a>(&'a self, service: &'a Service) -> Option<&'a Process> {
        match self {
            Self::Nothing => None,
            Self::Service(number) => service.process_of(*number),
            Self::Exec(process) => Some(process),
        }
    }

    /// The same, to change it.
    fn process_mut<'a>(&'a mut self, service: &'a mut Service) -> Option<&'a mut Process> {
        match self {
            Self::Nothing => None,
            Self::Service(number) => service.process_of_mut(*number),
            Self::Exec(process) => Some(process),
        }
    }
}

/// A description in the making.
struct Draft {
    memory: Memory,
    length: usize,
    filled: usize,
}

/// Why a request cannot be served: the host's mistake.
struct Mistake(&'static str);

impl Session {
    pub fn new(stream: File) -> Result<Self, Errno> {
        Ok(Self {
            connection: Connection::new(stream)?,
            inbound: Inbound::new()?,
            course: Course::default(),
        })
    }

    /// The process whose streams go over this connection.
    pub fn process<'a>(&'a self, service: &'a Service) -> Option<&'a Process> {
        self.course.carries.process(service)
    }

    /// The same, and the connection.
    pub fn parts<'a>(
        &'a mut self,
        service: &'a mut Service,
    ) -> (&'a mut Connection, Option<&'a mut Process>) {
        let process = self.course.carries.process_mut(service);
        (&mut self.connection, process)
    }

    /// Deals with what has come from the host.
    pub fn receive(&mut self, service: &mut Service) {
        self.inbound.receive(&mut self.connection);
        self.serve(service);
    }

    /// Deals with the requests that are there, as long as there is room for answers.
    pub fn serve(&mut self, service: &mut Service) {
        let Self {
            connection,
            inbound,
            course,
        } = self;
        while connection.wants_read() {
            let length = match inbound.first() {
                Ok(None) => return,
                Ok(Some((request, length))) => {
                    if let Err(Mistake(message)) = course.serve(request, connection, service) {
                        connection.fail(Fault::Protocol, message);
                    }
                    length
                }
                Err(error) => {
                    let message = format!("understand the host: {error}");
                    return connection.fail(Fault::Protocol, &message);
                }
            };
            inbound.done(length);
        }
    }

    /// Tells what is to be told of a process that has ended, and ends the connection with it.
    pub fn settle(&mut self, service: &mut Service) {
        if let (connection, Some(process)) = self.parts(service) {
            process.settle(connection);
        }
        match &self.course.carries {
            Carries::Exec(process) => {
                if let Some(ended) = process.over() {
                    self.connection.tell(&Event::Exited { ended });
                    self.connection.end();
                    self.course.carries = Carries::Nothing;
                }
            }
            Carries::Service(number) if !service.is_attached(*number) => self.connection.end(),
            Carries::Service(_) => {
                if let Some(step) = service.next_step() {
                    self.connection.tell(&Event::Stopping { step });
                }
                if let Some(ended) = service.last_word() {
                    self.connection.tell(&Event::Exited { ended });
                }
            }
            Carries::Nothing => {}
        }
    }

    /// The process that is executed over this connection, if it is the one with this number.
    pub fn executed(&mut self, pid: sys::Pid) -> Option<&mut Process> {
        match &mut self.course.carries {
            Carries::Exec(process) if process.pid == pid => Some(process),
            _ => None,
        }
    }

    /// The connection is gone.
    pub fn hang_up(&self) {
        if let Carries::Exec(process) = &self.course.carries {
            process.hang_up();
        }
    }
}

impl Course {
    fn serve(
        &mut self,
        request: Request<'_>,
        connection: &mut Connection,
        service: &mut Service,
    ) -> Result<(), Mistake> {
        if let Request::Hello { version } = request {
            if agree(version).is_none() {
                connection.fail(Fault::Version, "talk to a host that is so much older");
            }
            self.greeted = true;
            return Ok(());
        }
        if let Carries::Service(_) = &self.carries {
            service.renew();
        }
        if !self.greeted {
            return Err(Mistake("serve a host that did not greet"));
        }
        match request {
            Request::Hello { .. } => {}
            Request::Begin { length } => self.begin(length)?,
            Request::Describe { part } => self.describe(part)?,
            Request::Start { role } => return self.start(role, connection, service),
            Request::Attach => self.attach(connection, service)?,
            Request::PowerOff if service.power_off() => {}
            Request::PowerOff => {
                return Err(Mistake("power off a machine whose service has not ended"));
            }
            Request::ReadClock => connection.tell(&Event::Clock {
                realtime_ns: sys::clock_ns(CLOCK_REALTIME),
                boottime_ns: sys::clock_ns(CLOCK_BOOTTIME),
            }),
            Request::SetClock { .. } | Request::AddEntropy { .. } | Request::Network { .. } => {
                match machine::change(&request) {
                    Ok(()) => connection.tell(&Event::Done),
                    Err(message) => connection.fail(Fault::Request, &message),
                }
            }
            Request::Renew => self.renew(connection, service)?,
            Request::Stop { signal, timeout_ms } => service.stop(true, signal, timeout_ms),
            Request::Input { .. }
            | Request::EndInput
            | Request::Credit { .. }
            | Request::Resize { .. }
            | Request::Signal { .. } => return self.control(request, connection, service),
        }
        Ok(())
    }

    /// What is said to the process that the connection carries.
    fn control(
        &mut self,
        request: Request<'_>,
        connection: &mut Connection,
        service: &mut Service,
    ) -> Result<(), Mistake> {
        // It may have ended, or its connection been taken over, while the host was speaking.
        let Some(process) = self.carries.process_mut(service) else {
            return Ok(());
        };
        match request {
            Request::Input { bytes } => {
                if !process.take_input(bytes) {
                    return Err(Mistake("take more input than was granted"));
                }
                process.write_input(connection);
            }
            Request::EndInput => process.end_input(),
            Request::Credit { output, bytes } => process.grant(output, bytes),
            Request::Resize { size } => process.resize(size),
            Request::Signal { signal, group } => process.signal(signal, group),
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, length: u32) -> Result<(), Mistake> {
        if !matches!(self.carries, Carries::Nothing) {
            return Err(Mistake("start a second process over one connection"));
        }
        let length = length as usize;
        if length > MAX_DESCRIPTION {
            return Err(Mistake("take a description of that length"));
        }
        let memory = Memory::new(length);
        self.draft = Some(Draft {
            memory: memory.map_err(|_| Mistake("take a description: out of memory"))?,
            length,
            filled: 0,
        });
        Ok(())
    }

    fn describe(&mut self, part: &[u8]) -> Result<(), Mistake> {
        let draft = self.draft.as_mut();
        let draft = draft.ok_or(Mistake("take a description that did not begin"))?;
        let end = draft.filled + part.len();
        if end > draft.length {
            return Err(Mistake("take more of a description than was announced"));
        }
        draft.memory.bytes_mut()[draft.filled..end].copy_from_slice(part);
        draft.filled = end;
        Ok(())
    }

    fn start(
        &mut self,
        role: Role,
        connection: &mut Connection,
        service: &mut Service,
    ) -> Result<(), Mistake> {
        let draft = self.whole_draft("start a process that is not described")?;
        if role == Role::Service && !service.is_awaited() {
            return Err(Mistake("start a second service"));
        }
        match understand(&draft).and_then(|it| Ok((start(&it, role, service.addresses())?, it))) {
            Ok((mut process, description)) => {
                let pid = process.pid as u32;
                connection.tell(&Event::Started { pid });
                process.attached(connection);
                self.carries = match role {
                    Role::Exec | Role::Tool => Carries::Exec(process),
                    Role::Service => Carries::Service(service.started(process, &description)),
                };
            }
            Err(failure) => {
                let exit_code = failure.code;
                connection.tell(&Event::Failed {
                    fault: Fault::Start { exit_code },
                    message: failure.message.as_bytes(),
                });
                match role {
                    Role::Exec | Role::Tool => connection.end(),
                    Role::Service => {
                        self.carries = Carries::Service(service.failed(&failure));
                    }
                }
            }
        }
        Ok(())
    }

    fn renew(&mut self, connection: &mut Connection, service: &mut Service) -> Result<(), Mistake> {
        let draft = self.whole_draft("renew a machine that is not described")?;
        let renewed = understand(&draft).and_then(|it| Ok(renewal::renew(&it, service)?));
        match renewed {
            Ok(()) => connection.tell(&Event::Done),
            Err(failure) => connection.fail(Fault::Request, &failure.message),
        }
        Ok(())
    }

    /// The description, once all of it is there.
    fn whole_draft(&mut self, mistake: &'static str) -> Result<Draft, Mistake> {
        let draft = self.draft.take();
        let draft = draft.filter(|it| it.filled == it.length);
        draft.ok_or(Mistake(mistake))
    }

    fn attach(
        &mut self,
        connection: &mut Connection,
        service: &mut Service,
    ) -> Result<(), Mistake> {
        if !matches!(self.carries, Carries::Nothing) {
            return Err(Mistake("attach a connection that has a process"));
        }
        let number = service.attach();
        self.carries = Carries::Service(number);
        if let Some(process) = service.process_of_mut(number) {
            let pid = process.pid as u32;
            connection.tell(&Event::Started { pid });
            process.attached(connection);
        }
        Ok(())
    }
}

fn understand(draft: &Draft) -> Result<Description<'_>, Failure> {
    Description::parse(&draft.memory.bytes()[..draft.length])
        .map_err(|e| format!("understand the description of the process: {e}").into())
}
