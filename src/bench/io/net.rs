//! A virtio interface against a tap that is used by a thread of the host.

use super::host_net::FRAMES;
use super::{Bench, Counted, Work, failed, host_net, parse};
use crate::error::Halt;
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::sync::atomic::{AtomicBool, Ordering};

/// Name, frame size, whether the guest sends.
const KINDS: [(&str, usize, bool); 4] = [
    ("send 60 bytes", 60, true),
    ("send 1514 bytes", 1514, true),
    ("receive 60 bytes", 60, false),
    ("receive 1514 bytes", 1514, false),
];

pub(super) fn measure(
    bench: &Bench<'_>,
    rounds: usize,
    step: &mut dyn FnMut(usize),
) -> Result<Vec<Work>, Halt> {
    // SAFETY: only this thread's network changes, and that of what it starts; no descriptors are shared or unshared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
        .map_err(|error| Halt::Failed(format!("no network namespace of one's own: {error}")))?;
    let mut all = KINDS.map(|(name, bytes, _)| Work::new(name, bytes));
    for round in 1..=rounds {
        step(round);
        for (work, (_, bytes, sends)) in all.iter_mut().zip(KINDS) {
            let (counted, host) = match sends {
                true => (guest_sends(bench, bytes)?, host_net::send(bytes)),
                false => (guest_receives(bench, bytes)?, host_net::receive(bytes)),
            };
            work.in_guest.push(counted.per_second);
            work.per_notification = sends.then_some(counted.per_notification);
            work.on_host
                .push(host.map_err(failed("a tap on the host"))?);
        }
    }
    Ok(all.into())
}

fn cmdline(mode: &str, bytes: usize) -> String {
    format!("mode={mode} frames={FRAMES} size={bytes}")
}

fn guest_sends(bench: &Bench<'_>, bytes: usize) -> Result<Counted, Halt> {
    let mut guest = bench.boot(
        "virtio_net_bench",
        &["--net".into()],
        &cmdline("send", bytes),
    )?;
    let output = guest.wait_output(bench.signals)?;
    parse(&output, "send ", "frames")
}

fn guest_receives(bench: &Bench<'_>, bytes: usize) -> Result<Counted, Halt> {
    let device = ["--net".into()];
    let mut guest = bench.boot("virtio_net_bench", &device, &cmdline("receive", bytes))?;
    guest.wait_ready(bench.signals)?;
    let tap = host_net::find("kvmlet").map_err(failed("the guest's tap"))?;
    let flood = host_net::Flood::new(&tap, bytes).map_err(failed("the guest's tap"))?;
    let stop = AtomicBool::new(false);
    let output = std::thread::scope(|scope| {
        scope.spawn(|| flood.run(&stop));
        let output = guest.wait_output(bench.signals);
        stop.store(true, Ordering::Relaxed);
        output
    })?;
    parse(&output, "receive ", "frames")
}
