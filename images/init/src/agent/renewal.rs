//! What makes a machine that goes on from a snapshot one of its own. All that others have that went on from the same one is
//! replaced: addresses, names, identifiers. Its kernel's random numbers are by now.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::CStr;

use kvmlet_contract::channel::Description;
use kvmlet_contract::{NetworkSpec, User};
use linux_raw_sys::general::{MS_BIND, O_CREAT, O_NONBLOCK, O_PATH};

use super::service::Service;
use crate::launch::{Launch, Stdio};
use crate::sys::{self, Errno, File};
use crate::{console, etc, network, place};

/// Where the service finds what it may want to know of its machine.
const OWN: &CStr = c"/run/kvmlet";
/// Another one each time that the machine goes on from a snapshot; there is none before that.
const GENERATION: &CStr = c"/run/kvmlet/generation";
/// In the place of the kernel's.
const BOOT_ID: &CStr = c"/run/kvmlet/boot-id";
const KERNELS_BOOT_ID: &CStr = c"/proc/sys/kernel/random/boot_id";
const MACHINE_ID: &CStr = c"/etc/machine-id";
/// The image's program that is to know of it.
const HOOK: &CStr = c"/etc/kvmlet/restored";

/// Makes a machine another one, of which the description says the networks, the name and the hosts.
pub fn renew(description: &Description<'_>, service: &mut Service) -> Result<(), String> {
    let mut addresses = Vec::new();
    for text in description.networks() {
        let spec = NetworkSpec::from_parameter_value(text);
        let spec = spec.map_err(|e| format!("configure the network: {e}"))?;
        network::replace(&spec)?;
        addresses.push(spec.address);
    }
    if !addresses.is_empty() {
        service.set_addresses(addresses);
    }
    if let Some(name) = description.hostname {
        sys::sethostname(name).map_err(|e| format!("set the host name \"{name}\": {e}"))?;
        etc::name_machine(name, service.addresses(), description.hosts())?;
    }
    let failed = |e: Errno| format!("give the machine an identity of its own: {e}");
    identify().map_err(failed)?;
    run_hook();
    Ok(())
}

/// Replaces what only one machine has.
fn identify() -> Result<(), Errno> {
    let [boot, machine, generation] = [sys::random()?, sys::random()?, sys::random::<16>()?];
    place::open_made(OWN)?;
    // A root without one has programs that need none, and nothing is said of an empty one.
    if has_content(MACHINE_ID) {
        let text = format!("{}\n", hexadecimal(&machine));
        if let Err(error) = etc::put(c"machine-id", &text) {
            console::say(format_args!("cannot {error}"));
        }
    }
    write(BOOT_ID, &format!("{}\n", uuid(boot)))?;
    if !sys::is_mount_point(KERNELS_BOOT_ID) {
        sys::mount(BOOT_ID, KERNELS_BOOT_ID, c"", MS_BIND, c"")?;
    }
    // Last: who sees it finds all else as it is to be.
    write(GENERATION, &format!("{}\n", uuid(generation)))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A random one (RFC 9562, version 4).
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = hexadecimal(&bytes);
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32];
    parts.map(|part| &digits[part]).join("-")
}

fn has_content(path: &CStr) -> bool {
    let flags = sys::O_RDONLY | sys::O_NOCTTY | O_NONBLOCK;
    let file = File::open(path, flags);
    file.is_ok_and(|file| file.is_regular() && file.read(&mut [0]) == Ok(1))
}

/// Replaces a file's content at once, as far as readers of so little can see.
fn write(path: &CStr, text: &str) -> Result<(), Errno> {
    let flags = sys::O_WRONLY | sys::O_NOCTTY | O_CREAT;
    let file = File::create(path, flags, 0o444)?;
    // Texts of one length.
    file.write_at(text.as_bytes(), 0).map(drop)
}

/// Starts the image's program, if there is one, which is not waited for.
fn run_hook() {
    if File::open(HOOK, O_PATH).is_err() {
        return;
    }
    let null = File::open(c"/dev/null", sys::O_RDWR | sys::O_NOCTTY);
    let started = null
        .map_err(|e| format!("open /dev/null: {e}"))
        .and_then(|null| {
            let launch = Launch {
                program: None,
                arguments: [HOOK].into(),
                variables: Vec::new(),
                workdir: c"/",
                make_workdir: false,
                user: Some(User::ROOT),
                groups: Vec::new(),
                stdio: Stdio::Streams([null.number(); 3]),
            };
            launch.start().map_err(|failure| failure.message)
        });
    if let Err(error) = started {
        console::say(format_args!("cannot {error}"));
    }
}
