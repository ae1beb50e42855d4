//! The machine itself, and what an idle agent costs it.

use std::time::{Duration, Instant};

use kvmlet_contract::channel::{Fault, Request};

use super::{end, execute, running};
use crate::guest::PATIENCE;
use crate::host::{Said, script};

#[test]
fn an_idle_agent_does_nothing_and_is_small() {
    let Some((guest, service)) = running() else {
        return;
    };
    assert_eq!(execute(&guest, &script("exit 3")).finish().0, 3);
    let start = Instant::now();
    // What has just ended is still being reaped.
    loop {
        let before = guest.switches();
        std::thread::sleep(Duration::from_secs(2));
        if guest.switches() == before {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "it wakes up again and again");
    }
    let kib = guest.memory_kib();
    // Beside the program's own pages, of which a test build has many.
    assert!(kib <= 150, "{kib} KiB");
    end(guest, service);
}

#[test]
fn the_machine_is_changed() {
    let Some((guest, mut service)) = running() else {
        return;
    };
    service.request(&Request::Network {
        spec: "eth0,10.7.7.7/24,gateway=10.7.7.1",
    });
    assert_eq!(service.next(), Said::Other("Done".into()));
    service.request(&Request::Network {
        spec: "eth0,10.8.8.8/24,gateway=10.8.8.1",
    });
    assert_eq!(service.next(), Said::Other("Done".into()));
    let script = script(
        "grep -c 10.7.7 /proc/net/fib_trie; grep -c 10.8.8.8 /proc/net/fib_trie; cat /proc/net/route",
    );
    let (_, out, _) = execute(&guest, &script).finish();
    assert!(out.starts_with("0\n"), "{out}");
    // Destination, gateway, flags (up and gateway): one default route, and that the new one.
    assert_eq!(out.matches("eth0\t00000000").count(), 1, "{out}");
    assert!(out.contains("eth0\t00000000\t0108080A\t0003"), "{out}");
    service.request(&Request::ReadClock);
    let Said::Other(clock) = service.next() else {
        panic!("no time");
    };
    assert!(clock.starts_with("Clock { realtime_ns: 1"), "{clock}");
    // Not in a container: that the answer says so is what is tested here.
    service.request(&Request::SetClock { realtime_ns: 1 });
    let failed = Said::Failed(Fault::Request, "set the clock: not permitted".into());
    assert_eq!(service.next(), failed);
    end(guest, service);
}
