//! The `kvmlet.` parameters of the kernel command line.

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;
use core::net::IpAddr;
use core::str::FromStr;

use crate::spec::set_variable;
use crate::{
    AgentSpec, ConsoleSize, Error, FileSystem, GuestSpec, NetworkSpec, Overlay, RootSpec, User,
    percent,
};

const PREFIX: &str = "kvmlet.";
const KNOWN: &str = "kvmlet.arg, kvmlet.env, kvmlet.workdir, kvmlet.user, kvmlet.hostname, \
                     kvmlet.net, kvmlet.root, kvmlet.overlay, kvmlet.stop_timeout, kvmlet.console, \
                     kvmlet.agent";

impl GuestSpec {
    /// The parameters, separated by spaces, that make init read `self` back; empty for the
    /// default. They are printable ASCII without `"`.
    pub fn to_cmdline(&self) -> String {
        let mut out = String::new();
        for arg in &self.service.command {
            parameter(&mut out, "arg", arg);
        }
        for (name, value) in &self.service.env {
            parameter(&mut out, "env", name);
            out.push('=');
            percent::encode(&mut out, value, false);
        }
        if let Some(workdir) = &self.service.workdir {
            parameter(&mut out, "workdir", workdir);
        }
        if let Some(user) = &self.service.user {
            parameter(&mut out, "user", &user.to_string());
        }
        if let Some(hostname) = &self.hostname {
            parameter(&mut out, "hostname", hostname);
        }
        for network in &self.networks {
            parameter(&mut out, "net", "");
            out.push_str(&network.parameter_value());
        }
        if let Some(root) = &self.root {
            root.write(&mut out);
        }
        // Writing to a String cannot fail.
        if let Some(seconds) = self.stop_timeout_s {
            parameter(&mut out, "stop_timeout", "");
            let _ = write!(out, "{seconds}");
        }
        if let Some(ConsoleSize { columns, rows }) = self.console {
            parameter(&mut out, "console", "");
            let _ = write!(out, "{columns}x{rows}");
        }
        if let Some(agent) = &self.agent {
            parameter(&mut out, "agent", &agent.to_string());
        }
        out
    }

    /// Reads the `kvmlet.` parameters of a kernel command line and leaves the others alone.
    ///
    /// # Errors
    ///
    /// When a parameter is unknown, has a value it cannot have, or is repeated and must not be.
    pub fn from_cmdline(cmdline: &str) -> Result<Self, Error> {
        let mut guest = Self::default();
        let mut overlay = None;
        for parameter in cmdline.split_ascii_whitespace() {
            let Some(parameter) = parameter.strip_prefix(PREFIX) else {
                continue;
            };
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let key = &(PREFIX.to_owned() + name);
            match name {
                "arg" => guest.service.command.push(decoded(key, value)?),
                "env" => {
                    let (name, value) = variable(key, &decoded(key, value)?)?;
                    set_variable(&mut guest.service.env, name, value);
                }
                "workdir" => once(key, &mut guest.service.workdir, decoded(key, value)?)?,
                "user" => once(
                    key,
                    &mut guest.service.user,
                    User::parse(key, &decoded(key, value)?)?,
                )?,
                "hostname" => once(key, &mut guest.hostname, decoded(key, value)?)?,
                "net" => guest.networks.push(NetworkSpec::parse(key, value)?),
                "root" => once(key, &mut guest.root, RootSpec::parse(key, value)?)?,
                "overlay" => once(key, &mut overlay, Overlay::parse(key, value)?)?,
                "stop_timeout" => {
                    let seconds = number(key, value, "is not a number of seconds")?;
                    once(key, &mut guest.stop_timeout_s, seconds)?;
                }
                "console" => once(key, &mut guest.console, ConsoleSize::parse(key, value)?)?,
                "agent" => once(key, &mut guest.agent, AgentSpec::parse(key, value)?)?,
                _ => {
                    return Err(Error::UnknownKey {
                        key: key.clone(),
                        known: KNOWN,
                    });
                }
            }
        }
        match (&mut guest.root, overlay) {
            (Some(root), overlay) => root.overlay = overlay,
            (None, None) => {}
            (None, Some(_)) => {
                return Err(Error::value(
                    "kvmlet.overlay",
                    "",
                    "needs kvmlet.root as well",
                ));
            }
        }
        Ok(guest)
    }
}

/// Starts the parameter `name` with its first, or only, field.
fn parameter(out: &mut String, name: &str, value: &str) {
    if !out.is_empty() {
        out.push(' ');
    }
    out.push_str(PREFIX);
    out.push_str(name);
    out.push('=');
    percent::encode(out, value, name == "root");
}

fn decoded(key: &str, value: &str) -> Result<String, Error> {
    percent::decode(value).map_err(|reason| Error::value(key, value, reason))
}

fn once<T>(key: &str, slot: &mut Option<T>, value: T) -> Result<(), Error> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Error::Repeated { key: key.into() }),
    }
}

fn number<T: FromStr>(key: &str, value: &str, reason: &'static str) -> Result<T, Error> {
    value.parse().map_err(|_| Error::value(key, value, reason))
}

/// Splits `NAME=VALUE`.
pub(crate) fn variable(key: &str, text: &str) -> Result<(String, String), Error> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err(Error::value(key, text, "should be NAME=VALUE")),
    }
}

impl AgentSpec {
    fn parse(key: &str, text: &str) -> Result<Self, Error> {
        match decoded(key, text)? {
            text if text == "vsock" => Ok(Self::Vsock),
            text if text.starts_with('/') => Ok(Self::Directory(text)),
            text => Err(Error::value(key, &text, "should be vsock or a directory")),
        }
    }
}

impl ConsoleSize {
    fn parse(key: &str, text: &str) -> Result<Self, Error> {
        const SHAPE: &str = "should be COLUMNSxROWS";
        let (columns, rows) = text.split_once('x').ok_or(Error::value(key, text, SHAPE))?;
        Ok(Self {
            columns: number(key, columns, SHAPE)?,
            rows: number(key, rows, SHAPE)?,
        })
    }
}

impl NetworkSpec {
    /// `IFACE,ADDRESS/PREFIX[,gateway=IP][,dns=IP]…[,mtu=N]`: what `kvmlet.net=` says on the kernel command line.
    pub fn parameter_value(&self) -> String {
        let mut out = String::new();
        percent::encode(&mut out, &self.interface, true);
        // Writing to a String cannot fail.
        let _ = write!(out, ",{}/{}", self.address, self.prefix);
        if let Some(gateway) = self.gateway {
            let _ = write!(out, ",gateway={gateway}");
        }
        for dns in &self.dns {
            let _ = write!(out, ",dns={dns}");
        }
        if let Some(mtu) = self.mtu {
            let _ = write!(out, ",mtu={mtu}");
        }
        out
    }

    /// Reads what [`Self::parameter_value`] writes.
    ///
    /// # Errors
    ///
    /// When it is something else; `kvmlet.net` is named as the key.
    pub fn from_parameter_value(value: &str) -> Result<Self, Error> {
        Self::parse("kvmlet.net", value)
    }

    fn parse(key: &str, value: &str) -> Result<Self, Error> {
        const SHAPE: &str =
            "should be IFACE,ADDRESS/PREFIX and then gateway=IP, dns=IP or mtu=BYTES";
        let mut fields = value.split(',');
        let (Some(interface), Some(address)) = (fields.next(), fields.next()) else {
            return Err(Error::value(key, value, SHAPE));
        };
        let interface = decoded(key, interface)?;
        // IFNAMSIZ is 16 with the terminating NUL.
        if interface.is_empty() || interface.len() > 15 {
            return Err(Error::value(
                key,
                &interface,
                "an interface has a name of 1 to 15 bytes",
            ));
        }
        let (address, prefix) = address
            .split_once('/')
            .ok_or(Error::value(key, address, SHAPE))?;
        let ip = |text: &str| number::<IpAddr>(key, text, "is not an IP address");
        let address = ip(address)?;
        let prefix: u8 = number(key, prefix, "is not a prefix length")?;
        if prefix > if address.is_ipv4() { 32 } else { 128 } {
            return Err(Error::value(
                key,
                value,
                "the prefix is longer than the address",
            ));
        }
        let mut network = Self {
            interface,
            address,
            prefix,
            gateway: None,
            dns: Vec::new(),
            mtu: None,
        };
        for field in fields {
            match field.split_once('=') {
                Some(("gateway", text)) => once("gateway", &mut network.gateway, ip(text)?)?,
                Some(("dns", text)) => network.dns.push(ip(text)?),
                Some(("mtu", text)) => {
                    once(
                        "mtu",
                        &mut network.mtu,
                        number(key, text, "is not a number of bytes")?,
                    )?;
                }
                _ => return Err(Error::value(key, field, SHAPE)),
            }
        }
        if network
            .gateway
            .is_some_and(|gateway| gateway.is_ipv4() != address.is_ipv4())
        {
            return Err(Error::value(
                key,
                value,
                "gateway and address differ in IP version",
            ));
        }
        Ok(network)
    }
}

impl RootSpec {
    /// Appends `kvmlet.root=DEVICE[,fstype=erofs|ext4][,ro]` and, if there is one,
    /// `kvmlet.overlay=tmpfs|DEVICE`.
    fn write(&self, out: &mut String) {
        parameter(out, "root", &self.device);
        if let Some(fstype) = self.fstype {
            out.push_str(",fstype=");
            out.push_str(fstype.name());
        }
        if self.read_only {
            out.push_str(",ro");
        }
        match &self.overlay {
            None => {}
            Some(Overlay::Tmpfs) => parameter(out, "overlay", "tmpfs"),
            Some(Overlay::Device(device)) => parameter(out, "overlay", device),
        }
    }

    fn parse(key: &str, value: &str) -> Result<Self, Error> {
        let mut fields = value.split(',');
        let device = device(key, fields.next().unwrap_or_default())?;
        let mut root = Self {
            device,
            fstype: None,
            read_only: false,
            overlay: None,
        };
        for field in fields {
            match field {
                "fstype=erofs" => once("fstype", &mut root.fstype, FileSystem::Erofs)?,
                "fstype=ext4" => once("fstype", &mut root.fstype, FileSystem::Ext4)?,
                "ro" => root.read_only = true,
                _ => {
                    let reason = "should be fstype=erofs, fstype=ext4 or ro";
                    return Err(Error::value(key, field, reason));
                }
            }
        }
        Ok(root)
    }
}

impl Overlay {
    fn parse(key: &str, value: &str) -> Result<Self, Error> {
        match value {
            "tmpfs" => Ok(Self::Tmpfs),
            _ => Ok(Self::Device(device(key, value)?)),
        }
    }
}

fn device(key: &str, value: &str) -> Result<String, Error> {
    let device = decoded(key, value)?;
    if device.starts_with("/dev/") {
        return Ok(device);
    }
    Err(Error::value(
        key,
        value,
        "should be a device under /dev, such as /dev/vda",
    ))
}

#[cfg(test)]
mod tests;
