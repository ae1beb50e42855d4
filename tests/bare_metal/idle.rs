//! Instances that are suspended by themselves when nobody uses them, and go on when somebody does.

use crate::harness::Test;
use crate::instances::script;

pub const TESTS: &[Test] = &[
    ("who_comes_for_an_idle_instance_wakes_it", wakes),
    ("an_idle_instance_ends_as_any_other", ends),
];

/// In a network and with a /run of its own. What the guest gets at its port, it sends back.
fn at_a_port(text: &str, expected: &str) {
    let around = r##"
        unshare --net --mount bash -eu -c '
            mount -t tmpfs tmpfs /run; ip link set lo up
            run() { $K run -d --name web --idle 1s -p 127.0.0.1:8080:80 --kernel "$AGENT" -m 16m "$@" root net out=ready stay >/dev/null; }
            state() { $K inspect --format "{{.State.Status}}" web; }
            until_is() { for _ in $(seq 1200); do [ "$(state)" != $1 ] || return 0; sleep 0.05; done; echo "it is never $1"; $K logs --console web; exit 1; }
            ask() { exec 3<>/dev/tcp/127.0.0.1/8080; echo $1 >&3; head -1 <&3; exec 3>&-; }
            why() { $K events --since "#0" --until 0s | grep -o "\"reason\":\"[a-z]*\"" | cut -d "\"" -f 4 | sort | uniq -c | while read count why; do echo "$why $count"; done; }
            gone() { for _ in $(seq 600); do ip -br link | grep -q kvmlet || return 0; sleep 0.05; done; echo "its interface is there"; exit 1; }
            TEXT'
        "##;
    script(&around.replace("TEXT", text), expected);
}

fn wakes() {
    at_a_port(
        r##"
            run; until_is suspended
            # What it costs is its supervisor, the process that starts it, and the one that serves its ports: no VM.
            pgrep -f "keep $($K inspect --format "{{.Id}}" web)" | wc -l; ls /run/kvmlet/shares 2>/dev/null | grep -c claim || true
            $K ps --format "{{.Names}} {{.Status}}" | sed "s/ [L0-9].*//"
            # Whatever is for all is for nobody.
            ip route add 224.0.0.0/4 dev kvmlet0; before=$(why)
            for _ in 1 2 3; do echo noise >/dev/udp/224.0.0.251/5353; done; sleep 0.3; state; [ "$(why)" = "$before" ]
            ask one
            # A connection outlives it.
            exec 4<>/dev/tcp/127.0.0.1/8080; echo two >&4; head -1 <&4; until_is suspended; echo three >&4; head -1 <&4; exec 4>&-
            exec 4<>/dev/tcp/10.107.0.2/80; echo four >&4; head -1 <&4; until_is suspended; echo five >&4; head -1 <&4; exec 4>&-
            until_is suspended; $K resume web; why | cut -d " " -f 1
            # Who has lost its interface meanwhile goes on, and says so.
            until_is suspended; ip link del kvmlet0; for _ in $(seq 600); do $K logs --console web 2>&1 | grep -m 1 -o "eth0: .*its tap was removed from the host" && break; sleep 0.05; done | sed "s/:.*:/:/"
            $K stop web >/dev/null; until_is exited; gone; for _ in $(seq 600); do [ "$(echo $(ls /run/kvmlet/net))" != "lock roll" ] || break; sleep 0.05; done; ls /run/kvmlet/net
        "##,
        "3\n0\nweb Suspended (idle)\nsuspended\none\ntwo\nthree\nfour\nfive\nweb\nidle\norder\ntraffic\neth0: its tap was removed from the host\nlock\nroll\n",
    );
}

fn ends() {
    at_a_port(
        r##"
            ! $K run -d --idle 1s --kernel "$AGENT" root stay 2>err; grep -o "it has no interface" err
            ! $K run -d --idle 1ms --kernel "$AGENT" root stay 2>err; grep -o "it is 1s at least" err
            run --restart always; until_is suspended
            # What cannot go on is not tried again and again: who comes is told, and so is whoever asks.
            file=$(echo /var/lib/kvmlet/instances/*/suspended); byte=$(od -An -tu1 -j 100 -N 1 $file)
            flip() { printf "\\x$(printf %x $1)" | dd of=$file bs=1 seek=100 conv=notrunc 2>/dev/null; }
            flip $((byte ^ 64)); ask lost 2>/dev/null || true; gone; until_is suspended
            $K inspect --format "{{.State.Error}}" web | grep -o "changed since"; ! (ask nobody) 2>/dev/null
            flip $byte; $K resume web; ask one; until_is suspended
            # Whoever is killed takes along what was held, and no more.
            kill -9 $($K inspect --format "{{.State.Pid}}" web); gone; state; $K resume web; ask two
            # One that is started again is where it was.
            $K exec web off=3 >/dev/null 2>&1 || true
            until [ "$($K inspect --format "{{.RestartCount}}" web)" = 1 ] && ask three 2>/dev/null; do sleep 0.05; done
            until_is suspended; $K restart web; ask four; until_is suspended; $K kill web; state; $K start web; until_is suspended
            $K rm -f web; gone; ls /var/lib/kvmlet/instances
            # Whoever is attached is told, though its supervisor lives on.
            $K run -d --name web --idle 1h -p 127.0.0.1::80 --kernel "$AGENT" -m 16m root net out=ready stay >/dev/null
            $K attach --no-stdin web >/dev/null 2>&1 & attached=$!
            sleep 0.5; $K inspect --format "{{.Idle}}" web; port=$($K port web); $K suspend web; wait $attached; echo "attached: $?"; state
            # The port that the host has chosen is its own still, and who has lost something is told of it.
            [ "$($K port web)" = "$port" ]; $K ps --format "{{.Ports}}" | grep -c "127.0.0.1:[0-9]*->80/tcp"
            here=$(readlink /proc/self/ns/net); for p in $(pgrep net-proxy); do [ "$(readlink /proc/$p/ns/net)" != "$here" ] || kill -9 $p; done; for _ in $(seq 200); do $K logs --console web 2>&1 | grep -o "published ports serve no clients" && break; sleep 0.05; done; $K rm -f web
            # Whatever keeps it from being suspended is told in words.
            mount -t tmpfs -o size=1m,mode=755 tmpfs /var/lib/kvmlet
            $K run -d --name web --idle 1s -p 127.0.0.1::80 --kernel "$AGENT" -m 16m root net out=ready stay >/dev/null; dd if=/dev/zero of=/var/lib/kvmlet/full bs=4k 2>/dev/null || truncate -s -8K /var/lib/kvmlet/full
            for _ in $(seq 400); do $K logs --console web 2>&1 | grep -o "nobody uses the service, and it cannot be suspended: error: cannot write .*; caused by: no space left" && break; sleep 0.05; done | sed "s/: error.*by:/:/"
            rm /var/lib/kvmlet/full; $K rm -f web
        "##,
        "it has no interface\nit is 1s at least\nchanged since\nweb\none\nsuspended\nweb\ntwo\nthree\nweb\nfour\nweb\nexited\nweb\nweb\n1h0m0s\nweb\nattached: 0\nsuspended\n1\npublished ports serve no clients\nweb\n\
         nobody uses the service, and it cannot be suspended: no space left\nweb\n",
    );
}
