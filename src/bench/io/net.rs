//! A virtio interface against a tap that is used by a thread of the host, and against those of other VMMs.

use super::host_net::FRAMES;
use super::peer::{Device, Entrant};
use super::{Bench, Work, failed, host_net, parse};
use crate::error::Halt;
use crate::running::Running;
use kvmlet_sys::vhost::VhostNet;
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::sync::atomic::{AtomicBool, Ordering};

/// Name, frame size, whether the guest sends, and its interface.
type Kind = (&'static str, usize, bool, &'static str);
const KINDS: [Kind; 4] = [
    ("send 60 bytes", 60, true, OWN),
    ("send 1514 bytes", 1514, true, OWN),
    ("receive 60 bytes", 60, false, OWN),
    ("receive 1514 bytes", 1514, false, OWN),
];
/// The same, where the host's kernel can serve.
const KINDS_OF_KERNEL: [Kind; 4] = [
    ("send 60 bytes, vhost", 60, true, KERNEL),
    ("send 1514 bytes, vhost", 1514, true, KERNEL),
    ("receive 60 bytes, vhost", 60, false, KERNEL),
    ("receive 1514 bytes, vhost", 1514, false, KERNEL),
];
const GUEST: &str = "virtio_net_bench";
const OWN: &str = "--net";
const KERNEL: &str = "--net=vhost";

pub(super) fn measure(
    bench: &Bench<'_>,
    rounds: usize,
    step: &mut dyn FnMut(usize),
) -> Result<Vec<Work>, Halt> {
    // SAFETY: only this thread's network changes, and that of what it starts; no descriptors are shared or unshared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
        .map_err(|error| Halt::Failed(format!("no network namespace of one's own: {error}")))?;
    let more = match VhostNet::open() {
        Ok(_) => &KINDS_OF_KERNEL[..],
        Err(_) => &[],
    };
    let mut entrants = Entrant::with_interface(bench.peers);
    let tap = match entrants.is_empty() {
        true => None,
        false => Some(host_net::lasting_tap().map_err(failed("a tap for others"))?),
    };
    let kinds = [&KINDS[..], more].concat();
    let work = kinds.iter().map(|&(name, bytes, _, net)| Work {
        rivals: match net {
            OWN => entrants.iter().map(Entrant::rival).collect(),
            _ => Vec::new(),
        },
        ..Work::new(name, bytes)
    });
    let mut all: Vec<Work> = work.collect();
    for round in 1..=rounds {
        step(round);
        for (work, &kind) in all.iter_mut().zip(&kinds) {
            for turn in super::turns(&entrants, round) {
                match (turn, &tap) {
                    (None, _) => in_turn(bench, kind, work)?,
                    (Some(entrant), Some(tap)) if kind.3 == OWN => {
                        let done = rival(bench, kind, entrant, tap, work);
                        bench.go_on_without(done, entrant, &mut entrants)?;
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(all)
}

/// kvmlet's guest, and the host.
fn in_turn(bench: &Bench<'_>, kind: Kind, work: &mut Work) -> Result<(), Halt> {
    let (_, bytes, sends, net) = kind;
    let mut guest = bench.boot(GUEST, &[net.into()], &cmdline(kind))?;
    let name = || host_net::find("kvmlet").map_err(failed("the guest's tap"));
    let output = guest_moves(
        &mut guest,
        kind,
        name,
        |guest| guest.wait_output(bench.signals),
        bench,
    )?;
    let counted = parse(&output, begin(sends), "frames")?;
    bench.khz.set(counted.khz);
    work.in_guest.push(counted.per_second(counted.khz)?);
    work.per_notification = sends.then_some(counted.per_notification);
    let host = match sends {
        true => host_net::send(bytes),
        false => host_net::receive(bytes),
    };
    work.on_host
        .push(host.map_err(failed("a tap on the host"))?);
    Ok(())
}

fn rival(
    bench: &Bench<'_>,
    kind: Kind,
    entrant: Entrant<'_>,
    tap: &str,
    work: &mut Work,
) -> Result<(), Halt> {
    let (.., sends, _) = kind;
    let mut guest = entrant.start(bench, GUEST, Device::Tap(tap), &cmdline(kind))?;
    let name = || Ok(tap.to_owned());
    let output = guest_moves(
        &mut guest,
        kind,
        name,
        |guest| guest.wait_line(bench.signals, begin(sends)),
        bench,
    )?;
    work.note(entrant, bench.rate(&output, begin(sends), "frames")?);
    Ok(())
}

/// What a guest says that sends frames by itself, or takes those that come to its tap once it is ready.
fn guest_moves(
    guest: &mut Running,
    (_, bytes, sends, _): Kind,
    tap: impl FnOnce() -> Result<String, Halt>,
    end: impl FnOnce(&mut Running) -> Result<String, Halt>,
    bench: &Bench<'_>,
) -> Result<String, Halt> {
    if sends {
        return end(guest);
    }
    guest.wait_ready(bench.signals)?;
    let flood = host_net::Flood::new(&tap()?, bytes).map_err(failed("the guest's tap"))?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| flood.run(&stop));
        let output = end(guest);
        stop.store(true, Ordering::Relaxed);
        output
    })
}

fn cmdline((_, bytes, sends, _): Kind) -> String {
    let mode = begin(sends).trim_end();
    format!("mode={mode} frames={FRAMES} size={bytes}")
}

/// How the line of a guest's begins that has sent, or received.
fn begin(sends: bool) -> &'static str {
    if sends { "send " } else { "receive " }
}
