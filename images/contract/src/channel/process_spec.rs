use alloc::string::String;
use alloc::vec::Vec;

use super::description::{
    ARGUMENT, DETACHED, Description, DescriptionError, FILLED_MOUNT, GROUP, HOST, HOSTNAME, INPUT,
    MADE_WORKDIR, MAX_DESCRIPTION, MAX_FIELDS, MOUNT, NETWORK, STOP_SIGNAL, STOP_TIMEOUT, TERMINAL,
    USER, VARIABLE, WORKDIR,
};
use crate::{ConsoleSize, NetworkSpec};

/// A process in a guest, as the host describes it: the service, or one that is executed beside it.
///
/// ```
/// use kvmlet_contract::channel::ProcessSpec;
///
/// // The rest is as it is by default, also what a later version adds.
/// let spec = ProcessSpec { arguments: vec![b"/bin/true".to_vec()], ..Default::default() };
/// assert!(spec.encode().is_ok());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessSpec {
    /// The program and its arguments, any bytes but NUL. A program without a slash is looked for in `PATH`.
    /// A service without any is the image's.
    pub arguments: Vec<Vec<u8>>,
    /// Environment variables, in order, any bytes but NUL; a name holds no `=`.
    pub variables: Vec<(Vec<u8>, Vec<u8>)>,
    /// Directory to start in; the image's, or `/`, if none.
    pub workdir: Option<Vec<u8>>,
    /// Whether the working directory is made if it is missing: the image wants it, nobody has mistyped it.
    pub make_workdir: bool,
    /// Whom to run as, `USER[:GROUP]` by names or numbers; the image's, or root, if nobody.
    pub user: Option<String>,
    /// Further groups, by name or number.
    pub groups: Vec<String>,
    /// The machine's name, if it is to have one. Only of the service.
    pub hostname: Option<String>,
    /// What to mount. Only of the service.
    pub mounts: Vec<MountSpec>,
    /// What the guest's `/etc/hosts` has beside itself: an address and its names each. Only of the service.
    pub hosts: Vec<String>,
    /// Networks to configure. Only of the service.
    pub networks: Vec<NetworkSpec>,
    /// The signal that asks it to end; SIGTERM if none. Only of the service.
    pub stop_signal: Option<u8>,
    /// How long it may take then, in milliseconds. Only of the service.
    pub stop_timeout_ms: Option<u32>,
    /// It has a terminal of this size.
    pub terminal: Option<ConsoleSize>,
    /// Its input comes from the host; without, it reads none.
    pub input: bool,
    /// It goes on without its connection, and has no streams.
    pub detached: bool,
}

/// A mount that a service wants; as [`super::Mount`], but with its own strings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountSpec {
    /// As mount(2) has them.
    pub flags: u32,
    /// A device, a tag or, for a bind mount, a path; behind [`super::SERIAL`] the serial number of a disk.
    pub source: Vec<u8>,
    /// Where, absolute. Directories that are missing are made.
    pub target: Vec<u8>,
    /// The kernel's name of the file system.
    pub fstype: Vec<u8>,
    /// The file system's own options.
    pub options: Vec<u8>,
    /// What the image has at the target is copied into it if there is nothing in it yet.
    pub filled: bool,
}

impl ProcessSpec {
    /// The description that [`Description::parse`] understands.
    ///
    /// # Errors
    ///
    /// When the guest would refuse it, for the same reason.
    pub fn encode(&self) -> Result<Vec<u8>, DescriptionError> {
        let mut out = Encoder::default();
        for argument in &self.arguments {
            out.field(ARGUMENT, argument);
        }
        for (index, (name, value)) in self.variables.iter().enumerate() {
            if name.contains(&b'=') {
                return Err(DescriptionError::Variable { index: index + 1 });
            }
            out.field(VARIABLE, &[name, value].map(Vec::as_slice).join(&b'='));
        }
        let workdir = [WORKDIR, MADE_WORKDIR][usize::from(self.make_workdir)];
        out.optional(workdir, self.workdir.as_deref());
        out.optional(USER, self.user.as_deref().map(str::as_bytes));
        for group in &self.groups {
            out.field(GROUP, group.as_bytes());
        }
        out.optional(HOSTNAME, self.hostname.as_deref().map(str::as_bytes));
        for mount in &self.mounts {
            let tag = [MOUNT, FILLED_MOUNT][usize::from(mount.filled)];
            out.field(tag, &mount.encode()?);
        }
        for host in &self.hosts {
            out.field(HOST, host.as_bytes());
        }
        for network in &self.networks {
            out.field(NETWORK, network.parameter_value().as_bytes());
        }
        out.optional(
            STOP_SIGNAL,
            self.stop_signal.as_ref().map(core::slice::from_ref),
        );
        let timeout = self.stop_timeout_ms.map(u32::to_le_bytes);
        out.optional(STOP_TIMEOUT, timeout.as_ref().map(|it| &it[..]));
        if let Some(ConsoleSize { columns, rows }) = self.terminal {
            out.field(
                TERMINAL,
                [columns, rows].map(u16::to_le_bytes).as_flattened(),
            );
        }
        for (tag, asked) in [(INPUT, self.input), (DETACHED, self.detached)] {
            if asked {
                out.field(tag, &[]);
            }
        }
        out.finish()
    }
}

impl MountSpec {
    fn encode(&self) -> Result<Vec<u8>, DescriptionError> {
        let strings = [&self.source, &self.target, &self.fstype, &self.options];
        let mut value = self.flags.to_le_bytes().to_vec();
        for (index, string) in strings.into_iter().enumerate() {
            if string.contains(&0) {
                return Err(DescriptionError::Value { what: "mount" });
            }
            value.extend(string);
            // The last one has the field's.
            if index < 3 {
                value.push(0);
            }
        }
        Ok(value)
    }
}

#[derive(Default)]
struct Encoder {
    bytes: Vec<u8>,
    fields: usize,
    too_long: bool,
}

impl Encoder {
    fn field(&mut self, tag: u8, value: &[u8]) {
        self.fields += 1;
        // What cannot be sent is not gathered, either.
        if self.fields > MAX_FIELDS || self.bytes.len() + value.len() + 6 > MAX_DESCRIPTION {
            self.too_long |= self.fields <= MAX_FIELDS;
            return;
        }
        self.bytes.push(tag);
        self.bytes.extend((value.len() as u32).to_le_bytes());
        self.bytes.extend(value);
        self.bytes.push(0);
    }

    fn optional(&mut self, tag: u8, value: Option<&[u8]>) {
        if let Some(value) = value {
            self.field(tag, value);
        }
    }

    fn finish(self) -> Result<Vec<u8>, DescriptionError> {
        if self.too_long {
            return Err(DescriptionError::TooLong);
        }
        if self.fields > MAX_FIELDS {
            return Err(DescriptionError::TooManyFields);
        }
        Description::parse(&self.bytes)?;
        Ok(self.bytes)
    }
}
