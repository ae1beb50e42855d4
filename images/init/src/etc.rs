//! Files in `/etc` that say which machine this is. They take the places of the image's, whatever those are: no link is
//! followed, and what is missing is made.

use alloc::format;
use alloc::string::String;
use core::ffi::CStr;
use core::net::IpAddr;

use linux_raw_sys::general::{O_CREAT, O_EXCL};

use crate::sys::{self, Errno, tree};
use crate::{console, layer, place};

/// Puts a file into `/etc`. A root that has no place for it goes without, and that is told.
pub fn put(name: &CStr, text: &str) -> Result<(), String> {
    match layer::change(|| write(name, text)) {
        Ok(()) => Ok(()),
        Err(error) => {
            let failed = format!("write /etc/{}: {error}", name.to_string_lossy());
            match error {
                Errno::EROFS => console::say(format_args!("cannot {failed}")),
                _ => return Err(failed),
            }
            Ok(())
        }
    }
}

fn write(name: &CStr, text: &str) -> Result<(), Errno> {
    let directory = place::open_made(c"/etc")?;
    match tree::unlink_in(directory.number(), name) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(error) => return Err(error),
    }
    let file = directory.open_in(name, sys::O_WRONLY | O_CREAT | O_EXCL, 0o644)?;
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let count = file.write(rest)?;
        rest = &rest[count..];
    }
    Ok(())
}

/// Writes down what the machine is called, by whom it finds itself and others.
pub fn name_machine<'a>(
    name: &str,
    addresses: &[IpAddr],
    others: impl Iterator<Item = &'a str>,
) -> Result<(), String> {
    put(c"hostname", &format!("{name}\n"))?;
    let mut hosts = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n",
    );
    for address in addresses {
        hosts += &format!("{address}\t{name}\n");
    }
    if addresses.is_empty() {
        // As Debian has it for machines without an address of their own.
        hosts += &format!("127.0.1.1\t{name}\n");
    }
    for other in others {
        hosts += other;
        hosts.push('\n');
    }
    put(c"hosts", &hosts)
}
