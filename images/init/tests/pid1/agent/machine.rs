//! The machine itself, and what an idle agent costs it.

use std::time::{Duration, Instant};

use kvmlet_contract::NetworkSpec;
use kvmlet_contract::channel::{Fault, ProcessSpec, Request};

use super::{end, execute, running};
use crate::guest::PATIENCE;
use crate::host::{Host, Said, script};

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

/// As a guest is after a snapshot: its host's connection is gone, and another one takes over.
#[test]
fn a_machine_that_was_restored_is_another_one() {
    let Some((guest, service)) = running() else {
        return;
    };
    drop(service);
    let hook = guest.root().join("etc/kvmlet/restored");
    std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
    std::fs::write(guest.root().join("etc/machine-id"), "0123\n").unwrap();
    std::fs::write(&hook, "#!/bin/sh\necho $(hostname) >/hooked\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&hook, mode).unwrap();
    let look = "hostname; cat /etc/hostname; grep -c other /etc/hosts; wc -c </etc/machine-id; \
                cat /proc/sys/kernel/random/boot_id /run/kvmlet/generation";
    let mut seen = Vec::new();
    for name in ["first", "second"] {
        let mut host = Host::connect(&guest);
        host.renew(&ProcessSpec {
            hostname: Some(name.into()),
            hosts: vec!["10.0.0.1\tother".into()],
            networks: vec![
                NetworkSpec::from_parameter_value("eth0,10.9.9.9/24,gateway=10.9.9.1").unwrap(),
            ],
            ..ProcessSpec::default()
        });
        assert_eq!(host.next(), Said::Other("Done".into()));
        let (_, out, _) = execute(&guest, &script(look)).finish();
        let lines: Vec<String> = out.lines().map(Into::into).collect();
        assert_eq!(lines[..4], [name, name, "1", "33"], "{out}");
        assert_eq!(lines.len(), 6, "{out}");
        seen.push((lines[4].clone(), lines[5].clone()));
        let start = Instant::now();
        while std::fs::read_to_string(guest.root().join("hooked")).unwrap_or_default()
            != format!("{name}\n")
        {
            assert!(
                start.elapsed() < PATIENCE,
                "the image's program is not told"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        let routes = execute(&guest, &script("cat /proc/net/route")).finish().1;
        assert!(
            routes.contains("eth0\t00000000\t0109090A\t0003"),
            "{routes}"
        );
    }
    assert_ne!(seen[0].0, seen[1].0);
    assert_ne!(seen[0].1, seen[1].1);
    let mut service = Host::connect(&guest).attach();
    assert!(matches!(service.next(), Said::Started(_)));
    end(guest, service);
}
