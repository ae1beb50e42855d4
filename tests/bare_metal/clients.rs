//! Whoever asks something of a service: signals, the end, and what becomes of clients that do not get on.

use crate::harness::Test;
use crate::instances::script;

pub const TESTS: &[Test] = &[
    ("a_service_is_sent_any_signal", signals),
    ("a_service_is_stopped_as_is_asked", stops),
    ("a_client_ends_with_the_third_signal", impatience),
    ("who_waits_for_a_service_is_told_when_it_is_well", ready),
    ("a_supervisor_keeps_no_rights", rights),
];

fn signals() {
    script(
        r#"
        run() { $K run -d --name web --kernel "$AGENT" "$@" root stay >/dev/null; }
        code() { $K wait web; $K rm web >/dev/null; }
        run; $K kill -s RTMIN+3 web; code
        run; $K kill -s sigusr1 web; code
        run; $K pause web >/dev/null; $K kill -s 15 web; $K unpause web; code
        run; ! $K kill -s NOPE web 2>err && grep -o '`NOPE` is not a signal' err
        $K kill web >/dev/null; ! $K kill -s TERM web 2>err && grep -o 'is not running' err; code
        # By one that asks for the end it is not started again, by another it is.
        run --restart always; $K kill -s HUP web >/dev/null
        until [ "$($K inspect --format '{{.RestartCount}} {{.State.Status}}' web)" = '1 running' ]; do sleep 0.05; done
        $K kill -s TERM web >/dev/null; wait_for web exited; $K inspect --format '{{.RestartCount}}' web; code
        # Or by the one that it was run with.
        run --restart always --stop-signal HUP; $K kill -s HUP web >/dev/null; wait_for web exited; code
        $K events --since '#0' --until 0s | grep -o '"kill".*"signal":"[0-9]*"' | grep -o '[0-9]*"$' | tr -d '"' | tr '\n' ' '
        "#,
        "web\n165\nweb\n138\nweb\nweb\n143\n`NOPE` is not a signal\nis not running\n137\n1\n143\n129\n37 10 15 9 1 15 1 ",
    );
}

fn stops() {
    script(
        r#"
        $K run -d --name web --restart always --kernel "$AGENT" root stay >/dev/null
        $K stop -s USR1 -t 3 web 2>err; cat err; $K wait web
        $K logs --console web 2>&1 | grep -o 'was sent SIGUSR1, and has 3 s'
        $K start web; $K stop -t 0 web; $K wait web
        $K logs --console web 2>&1 | grep -o 'power is cut: .*'
        $K start web >/dev/null
        script -qec "$K stop -t 7 web" /dev/null </dev/null | tr -d '\r'
        $K start web >/dev/null; $K stop web 2>err; cat err
        $K start web >/dev/null; $K restart -s HUP -t 5 web; $K logs --console web 2>&1 | grep -o 'was sent SIGHUP, and has 5 s'
        $K events --since '#0' --until 0s | grep -c '"event":"stop"'
        "#,
        "web\n138\nwas sent SIGUSR1, and has 3 s\nweb\nweb\n137\npower is cut: its service was given no time\n\
         kvmlet: the service was sent SIGTERM, and has 7 s to end\nweb\nweb\nweb\nwas sent SIGHUP, and has 5 s\n5\n",
    );
}

fn impatience() {
    script(
        r#"
        # A child of the shell that is killed before it executes a program has the shell's trap still, which removes all.
        hurry() { for i in $(seq 500); do [ "$(cat /proc/$1/comm)" != kvmlet ] || break; sleep 0.01; done; for i in 1 2 3; do kill $1 2>/dev/null || true; sleep 0.2; done; code=0; wait $1 || code=$?; echo $code; }
        $K run --name web --kernel "$AGENT" root out=ready deaf >out & run=$!
        until grep -q ready out; do sleep 0.05; done
        hurry $run; $K ps --format '{{.State}}'; $K logs --console web 2>&1 | grep -c 'sent signal 15'
        $K exec web out=ready deaf >out & run=$!
        until grep -q ready out; do sleep 0.05; done
        hurry $run
        # Whoever does not read what it prints keeps it from nothing.
        mkfifo pipe; sleep 1000 <pipe & sleep=$!
        $K exec web many=1000000 deaf >pipe & run=$!
        sleep 0.5; hurry $run
        $K attach web & run=$!
        sleep 0.3; hurry $run; kill $sleep
        "#,
        "143\nrunning\n2\n143\n143\n143\n",
    );
}

fn ready() {
    script(
        r#"
        wait_ready() { timeout 20 cat pipe; echo "$1"; }
        mkfifo pipe
        wait_ready first & cat=$!
        $K run -d --name web --ready-fd 3 --kernel "$AGENT" root stay 3>pipe >/dev/null; wait $cat
        # It has nothing more of who has started it.
        ls -l /proc/$($K inspect --format '{{.State.Pid}}' web)/fd | grep -c pipe$ || true
        wait_ready second & cat=$!
        $K run --name front --ready-fd 3 --kernel "$AGENT" root out=begun stay 3>pipe >out & run=$!
        wait $cat; $K stop front; wait $run || true
        # Where its health is asked for, that is waited for: until the second check, which a slow host has time to look before.
        wait_ready third & cat=$!
        $K run -d --name well --ready-fd 3 --health-cmd turns=10 --health-interval 2s --health-retries 9 --kernel "$AGENT" root stay 3>pipe >/dev/null
        $K inspect --format '{{.State.Health.Status}}' well; wait $cat; $K inspect --format '{{.State.Health.Status}}' well
        # What never runs says nothing.
        wait_ready none & cat=$!
        ! $K run -d --name none --ready-fd 3 --kernel "$AGENT" root fail=127 3>pipe >/dev/null 2>&1; wait $cat
        ! $K run -d --ready-fd 77 --kernel "$AGENT" root stay 2>err && grep -o 'kvmlet run --ready-fd 3' err
        "#,
        "ready\nfirst\n0\nready\nsecond\nfront\nstarting\nready\nthird\nhealthy\nnone\nkvmlet run --ready-fd 3\n",
    );
}

fn rights() {
    script(
        r#"
        of() { cat /proc/$($K inspect --format '{{.State.Pid}}' $1)/task/*/status | grep -E '^(CapPrm|CapEff|NoNewPrivs|Seccomp):' | sort | uniq -c | tr -s ' \t' ' '; }
        $K run -d --name web --kernel "$AGENT" root out=ready stay >/dev/null; of web
        # All that it does later it can do.
        $K exec web out=hi exit=0; $K pause web; $K unpause web; $K stop web; $K logs web
        # Nor does one that has its VM started again: that takes rights, which a process has that hears nobody.
        $K run -d --name again --restart always --kernel "$AGENT" root turns=00 >/dev/null
        until [ "$($K inspect --format '{{.RestartCount}}' again)" -ge 2 ]; do sleep 0.05; done
        of again; $K rm -f again
        $K run -d --rm --name gone --kernel "$AGENT" root stay >/dev/null; $K stop gone; $K ps -aq --filter name=gone
        "#,
        " 2 CapEff: 0000000000000000\n 2 CapPrm: 0000000000000000\n 2 NoNewPrivs: 1\n 2 Seccomp: 2\n\
         hi\nweb\nweb\nweb\nready\n\
         \x202 CapEff: 0000000000000000\n 2 CapPrm: 0000000000000000\n 2 NoNewPrivs: 1\n 2 Seccomp: 2\n\
         again\ngone\n",
    );
}
