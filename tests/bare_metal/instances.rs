//! Instances: services with a name, in the background, of a book of their own.

use crate::harness::{Test, program};
use std::process::{Command, Stdio};

pub const TESTS: &[Test] = &[
    ("an_instance_is_run_followed_stopped_and_removed", life),
    (
        "an_instance_in_the_foreground_ends_with_its_code",
        foreground,
    ),
    (
        "who_is_killed_while_it_starts_an_instance_leaves_none",
        killed,
    ),
    ("an_instance_is_started_again_as_it_was_asked", restarts),
    ("a_start_that_fails_is_told", failure),
    ("a_way_out_is_told_in_flags_of_the_verb", words),
    (
        "streams_and_the_end_of_a_service_come_over_the_channel",
        channel,
    ),
    ("a_guest_that_lies_to_its_supervisor_ends", liars),
    ("commands_are_executed_in_an_instance", exec),
    ("who_is_attached_has_the_streams_and_the_end", attached),
    ("an_instance_stands_still_and_goes_on", pauses),
    ("an_instance_is_killed_restarted_and_counted", control),
    ("a_socket_that_is_left_over_is_in_nobodys_way", left_over),
    ("an_instance_has_nothing_of_who_has_started_it", strays),
    ("an_instance_whose_power_is_cut_is_not_asked", cut),
    ("an_instance_of_another_pid_namespace_is_ended", elsewhere),
];

/// Runs a script in which `K` is kvmlet, and whose book is in a file system that goes with it. What it prints is compared.
pub fn script(text: &str, expected: &str) {
    if !rustix::process::geteuid().is_root() {
        return println!("SKIPPED: only root has a book that can be put elsewhere by a mount");
    }
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("root")).unwrap();
    std::fs::write(place.path().join("root/file"), "text").unwrap();
    // A child that is killed before it executes a program has the trap still.
    let prelude = "set -eu; mount -t tmpfs tmpfs /var/lib; trap '[ $BASHPID != $$ ] || { ids=$($K ps -aq); [ -z \"$ids\" ] || $K rm -f $ids >/dev/null; }' EXIT\n\
                   wait_for() { for _ in $(seq 200); do [ \"$($K inspect --format '{{.State.Status}}' $1)\" != $2 ] || return 0; sleep 0.05; done; echo \"$1 is never $2\"; exit 1; }\n";
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "bash", "-c"])
        .arg(format!("{prelude}{text}"))
        .current_dir(place.path())
        .env("K", env!("CARGO_BIN_EXE_kvmlet"))
        .env("AGENT", program("agent"))
        .env("PANIC", program("panic"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}\n{err}");
    assert_eq!(out, expected, "{err}");
}

fn life() {
    script(
        r#"
        id=$($K run -d --name web --label tier=front --kernel "$AGENT" ./root out=ready stay)
        $K ps --format '{{.Names}} {{.State}} {{.Image}} {{.Labels}} {{.Command}}'
        $K ps --no-trunc --format '{{.Image}} {{.Command}}'
        until $K logs web | grep ready; do sleep 0.05; done
        [ "$($K inspect --format '{{.State.Status}} {{.Id}}' ${id::7})" = "running $id" ]
        ! $K run -d --name web --kernel "$AGENT" root out=ready stay 2>err && grep -o 'the name `web` is taken' err
        $K rename web front
        ! $K rm front 2>err && grep -o '`front` is running' err
        $K stop front
        $K ps -a --filter label=tier --format '{{.Names}} {{.State}}'
        $K wait front
        $K logs front 2>&1 | grep -c kvmlet || true
        $K logs --console front 2>&1 | grep -o 'was sent SIGTERM, and has 10 s'
        $K logs --console front | grep -c 'an agent on its console'
        $K start front
        # As it is asked for, so it is left alone.
        before=$($K inspect --format '{{.State.Pid}}' front); $K start front
        [ "$($K inspect --format '{{.State.Pid}}' front)" = "$before" ]
        ! $K start nobody 2>err && grep -o 'each user has a book of its own' err
        $K ps --format '{{.Names}} {{.State}}'
        # A supervisor that is killed takes its VM along, and that is told.
        kill -9 "$($K inspect --format '{{.State.Pid}}' front)"
        wait_for front dead
        $K rm front
        $K ps -aq
        ls /var/lib/kvmlet/instances /var/lib/kvmlet/names /var/lib/kvmlet/pending | grep -v : | tr -d '\n'
        $K events --since '#0' --until 0s | sed 's/.*"event":"\([a-z]*\)".*/\1/' | tr '\n' ' '
        "#,
        "web running root tier=front \"out=ready stay\"\n./root \"out=ready stay\"\nready\nthe name `web` is taken\n`front` is running\nfront\nfront exited\n143\n\
         0\nwas sent SIGTERM, and has 10 s\n1\nfront\nfront\n\
         each user has a book of its own\nfront running\nfront\ncreate start rename stop die start destroy ",
    );
}

fn foreground() {
    script(
        r#"
        code=0; $K run --rm --kernel "$PANIC" root >out 2>err || code=$?
        echo $code; $K ps -aq
        $K run --name web --kernel "$AGENT" root out=ready stay >out & run=$!
        until grep ready out; do sleep 0.05; done
        kill $run; code=0; wait $run || code=$?
        echo $code; $K ps -a --format '{{.Names}} {{.State}}'
        "#,
        "134\nready\n143\nweb exited\n",
    );
}

/// In the foreground, at any time of it: a service that has begun goes on, and ends by itself here.
fn killed() {
    script(
        r#"
        for i in $(seq 60); do
            $K run --rm --kernel "$AGENT" root exit=0 >/dev/null 2>&1 & run=$!
            sleep $(printf 0.%03d $i); kill -9 $run || true; wait $run || true
        done 2>/dev/null
        for _ in $(seq 400); do [ -n "$($K ps -aq)" ] || break; sleep 0.05; done
        $K ps -a --format '{{.Names}} {{.State}}'
        "#,
        "",
    );
}

fn restarts() {
    script(
        r#"
        $K run -d --name again --restart on-failure:1 --kernel "$AGENT" root exit=34 >/dev/null
        $K wait again
        $K inspect --format '{{.RestartCount}} {{.State.Status}} {{.RestartPolicy}}' again
        $K prune --force >/dev/null
        $K ps -aq
        # It runs, whoever is told that.
        for out in '>&-' '>/dev/full'; do
            eval "\$K run -d --name told --kernel \"\$AGENT\" root out=ready stay $out" 2>err
            grep -o "instance runs: $($K inspect --format '{{.Id}}' told), and cannot write" err | sed 's/: [0-9a-f]*//'
            # Nobody is waited for who has nothing to say.
            code=0; eval "\$K logs -f told $out" 2>err || code=$?; echo $code
            code=0; eval "\$K rm -f told $out" 2>err || code=$?; echo $code; cat err
        done
        $K ps -aq
        "#,
        "34\n1 exited on-failure:1\n\
         instance runs, and cannot write\n1\n1\nerror: cannot write to standard output\n  caused by: bad file descriptor\n\
         instance runs, and cannot write\n1\n1\nerror: cannot write to standard output\n  caused by: no space left on device\n",
    );
}

fn failure() {
    script(
        r#"
        echo no >kernel
        # What never had a VM is not kept, whoever waits for it, and its name is free.
        for how in -d --rm '' '-d --restart always'; do
            ! $K run $how --name web --kernel kernel -v /data root 2>err && grep -c '^error: ' err
            $K ps -aq; $K volume ls -q
        done
        $K run -d --name web --kernel "$AGENT" root stay >/dev/null
        # What was there before is kept when it cannot be started again.
        $K stop web >/dev/null; cp "$AGENT" agent; $K rm web >/dev/null
        $K run -d --name web --kernel agent root stay >/dev/null; $K stop web >/dev/null
        echo no >agent; ! $K start web 2>err && $K ps -a --format '{{.Names}} {{.State}}'
        # What had one is, with what its guest has said.
        ! $K run -d --name panic --kernel "$PANIC" root 2>/dev/null; $K ps -a --filter name=panic --format '{{.State}}'
        $K rm web panic >/dev/null
        $K events --since '#0' --until 0s | sed 's/.*"event":"\([a-z]*\)".*/\1/' | head -n 12 | tr '\n' ' '
        ! $K run -d ./root/none 2>err && grep -o 'use `./root/none` as a root' err
        ! $K run -d --pull never root/none 2>err && grep -o 'root/none:latest' err | head -n 1
        ! $K run -d --name 'a b' root 2>err && grep -o 'is not a name of an instance' err
        $K ps -aq
        "#,
        "1\n1\n1\n1\nweb exited\nexited\ncreate die destroy create die destroy create die destroy create die destroy use `./root/none` as a root\nroot/none:latest\nis not a name of an instance\n",
    );
}

/// Two VMs are promised more than this host has: the second is refused, and told what can be said where it was asked for.
fn words() {
    let prelude = r#"
        size=$(awk '/MemTotal/ {print int($2 * 6 / 10240)}' /proc/meminfo)m
        help() { sed -n 's/^ *help: //p' err | tail -n 1 | sed 's/memory=[0-9.]*/memory=N/'; }
        runs() { $K run -d --name $1 --kernel "$AGENT" -m $size "${@:2}" root stay >/dev/null; }
        runs first
    "#;
    let script = |text: &str, expected: &str| script(&format!("{prelude}{text}"), expected);
    script(
        r#"
        ! runs second 2>err; help
        # Which is what helps.
        runs second --overcommit memory=2
        $K stop second first >/dev/null; runs third
        sed -i 's/"overcommit":[^}]*},\?//' /var/lib/kvmlet/instances/*/asked.json 2>/dev/null || true
        ! $K start first 2>err; help
        code=0; $K boot --kernel "$AGENT" --memory ${size^^} 2>err || code=$?; echo $code; help
        "#,
        "ask for less with --memory, end other VMs, or let memory be promised more than once: --overcommit memory=N\n\
         ask for less with `--memory` of `kvmlet run`, end other VMs, or let memory be promised more than once: \
         `--overcommit memory=N` of `kvmlet run`\n\
         125\n\
         ask for less with --memory, end other VMs, or let memory be promised more than once: --overcommit memory=N\n",
    );
    // Another that goes on from the first has what that has.
    script(
        r#"
        $K snapshot first snap >/dev/null 2>&1
        ! $K restore -d --name second snap 2>err; help
        ! $K clone first second 2>err; help
        $K ps -a --format '{{.Names}}' | grep -c second || true
        "#,
        "ask for less with `--memory` of `kvmlet run`, end other VMs, or let memory be promised more than once: \
         `--overcommit memory=N` of `kvmlet run`\n\
         ask for less with `--memory` of `kvmlet run`, end other VMs, or let memory be promised more than once: \
         `--overcommit memory=N` of `kvmlet run`\n0\n",
    );
}

fn channel() {
    script(
        r#"
        # 128 KiB less what the name takes are the most that Linux takes for a variable.
        export BIG=$(printf '%0131067d' 1) LINES=$'a\nb'
        code=0; $K run --name web --kernel "$AGENT" -u 7:8 -e BIG -e LINES -e ODD=$'\xff\xfe' root \
            env=BIG env=LINES env=ODD user bytes=$'a\xffb' err=oops many=3000000 exit=7 >out 2>err || code=$?
        echo $code; head -n 5 out; tail -n +6 out | tr -d x | wc -c; tail -n +6 out | wc -c; cat err
        $K logs --console web | grep -c 'an agent on its console'
        $K run -d --name none --kernel "$AGENT" root fail=127 2>err || echo $?
        grep -o 'the guest cannot run it: on purpose' err
        $K ps -a --filter name=none --format '{{.State}}'; $K wait none
        # The machine ends, and nothing was told of the service.
        code=0; $K run --rm --kernel "$AGENT" root off=9 || code=$?; echo $code
        # Before the service runs it is the machine that is stopped.
        $K run -d --name mute --kernel "$AGENT" root mute 2>/dev/null & run=$!
        until [ -S /var/lib/kvmlet/instances/$($K inspect --format '{{.Id}}' mute 2>/dev/null || echo none)/vsock ]; do sleep 0.05; done
        $K stop mute
        wait $run || echo $?
        ls /var/lib/kvmlet/instances/* | grep -c vsock || true
        "#,
        "7\nBIG 131067\nLINES 3\nODD 2\n7:8\n3\n0\n3000000\noops\n1\n127\nthe guest cannot run it: on purpose\n\
         exited\n127\n9\nmute\n143\n0\n",
    );
}

fn liars() {
    script(
        r#"
        tell() {
            code=0; $K run --name web --kernel "$AGENT" --stop-timeout 0 root "$@" >out 2>err || code=$?
            echo "$1 $code $($K inspect --format '{{.State.Error}}' web)"; $K rm web >/dev/null
        }
        tell flood exit=3
        tell noise deaf
        tell twice
        tell vanish deaf
        tell hang
        $K run -d --name web --kernel "$AGENT" --stop-timeout 0 root deaf >/dev/null
        $K stop web >/dev/null
        $K wait web
        $K logs --console web 2>&1 | grep -o 'the guest has not stopped its service'
        "#,
        "flood 3 \n\
         noise 125 the guest's agent sent a frame of 4294967295 bytes, more than 16384 (is the other side kvmlet's?)\n\
         twice 0 \nvanish 125 the guest has closed its channel, and goes on\nhang 0 \n\
         143\nthe guest has not stopped its service\n",
    );
}

fn exec() {
    script(
        r#"
        $K run -d --name web --kernel "$AGENT" -e FROM=service -u 5:6 root stay >/dev/null
        code=0; $K exec web out=hi err=no exit=3 >out 2>err || code=$?
        echo $code $(cat out) $(cat err)
        seq 20000 | $K exec -i web echo exit=0 | cmp - <(seq 20000)
        $K exec -e X=123 web env=X env=FROM user exit=0
        $K exec -u 9 web user exit=0
        code=0; $K exec web fail=126 2>err || code=$?
        echo $code $(grep -o 'the guest cannot run it: on purpose' err)
        $K exec -d web stay
        script -qec "stty cols 100 rows 30; $K exec -it web size exit=0" /dev/null </dev/null | tr -d '\r'
        # What is behind the instance is the command's, and only a terminal has keys.
        $K exec -e A=b web env=A exit=0 --rm -v --help 2>&1 | head -n 1
        ! $K exec -it web exit=0 </dev/null 2>err && head -n 1 err
        for i in $(seq 9); do { code=0; $K exec web out=$i exit=$i >out$i || code=$?; echo $code >>out$i; } & done; wait
        cat out[1-9] | tr '\n' ' '
        $K exec web out=up stay >up & run=$!
        until grep -q up up; do sleep 0.05; done
        kill $run; code=0; wait $run || code=$?; echo $code
        $K exec web out=up stay >up2 2>err & run=$!
        until grep -q up up2; do sleep 0.05; done
        $K stop web >/dev/null; code=0; wait $run || code=$?
        echo $code $(grep -o 'has ended before the process has' err)
        ! $K exec web out=no 2>err && grep -o 'it does not run' err
        "#,
        "3 hi no\nX 3\nFROM 7\n5:6\n9\n126 the guest cannot run it: on purpose\nsize=100x30\nA 1\n\
         error: standard input is not a terminal\n1 1 2 2 3 3 4 4 5 5 6 6 7 7 8 8 9 9 143\n137 has ended before the process has\nit does not run\n",
    );
}

fn attached() {
    script(
        r#"
        # Byte for byte, as through a pipe, however slowly it is read.
        code=0; seq 50000 | $K run -i --rm --kernel "$AGENT" root err=oops echo exit=6 2>err >out || code=$?
        echo $code $(cat err); cmp out <(seq 50000); $K ps -aq
        $K run --rm --kernel "$AGENT" root many=1000000 exit=0 | { sleep 0.5; wc -c; }
        script -qec "stty cols 100 rows 30; $K run -it --rm --kernel $AGENT root size exit=3" /dev/null </dev/null | tr -d '\r' || true
        # Signals are the service's.
        $K run --name web --kernel "$AGENT" root out=ready stay >out & run=$!
        until grep -q ready out; do sleep 0.05; done
        kill $run; code=0; wait $run || code=$?; echo $code
        # Left to itself, and attached to again.
        $K rm web >/dev/null; $K run -dit --name web --kernel "$AGENT" root out=ready stay >/dev/null
        sockets() { ls -l /proc/$($K inspect --format '{{.State.Pid}}' web)/fd | grep -c socket; }
        before=$(sockets)
        while printf '\020\021'; do sleep 0.2; done 2>/dev/null | timeout 60 script -qec "$K attach web; echo left \$?" /dev/null | tr -d '\r' | grep -o 'left .*' || true
        until [ $(sockets) -le $before ]; do sleep 0.05; done
        $K attach --no-stdin web >out & run=$!
        $K attach --no-stdin web >out2 & other=$!
        until [ $(sockets) -ge $((before + 2)) ]; do sleep 0.05; done
        $K stop web >/dev/null; code=0; wait $run || code=$?; echo $code; wait $other || echo $?
        code=0; $K run --rm --kernel "$AGENT" root fail=126 2>err || code=$?; echo $code $(cat err)
        echo no >kernel; code=0; $K run --rm --kernel kernel root 2>err || code=$?; echo $code $(grep -c '^error: ' err)
        code=0; $K run --rm --kernel "$AGENT" root noise deaf 2>err || code=$?; echo $code $(grep -o 'cannot go on: .* a frame' err)
        $K ps -a --format '{{.Names}} {{.State}}'
        "#,
        "6 oops\n1000000\nsize=100x30\n143\nleft 0\n143\n143\n126 error: the guest cannot run it: on purpose\n\
         125 1\n125 cannot go on: the guest's agent sent a frame\nweb exited\n",
    );
}

fn pauses() {
    script(
        r#"
        $K run -d --name web --kernel "$AGENT" root out=ready stay >/dev/null
        $K pause web
        ! $K exec web out=no 2>err && grep -o 'it is paused' err
        $K ps --filter status=paused --format '{{.Names}} {{.State}}'
        $K ps --format '{{.Status}}' | grep -o '(Paused)'
        $K inspect --format '{{.State.Paused}} {{.State.Running}}' web
        ! $K pause web 2>err && grep -o 'is paused already' err
        $K unpause web
        ! $K unpause web 2>err && grep -o 'is running already' err
        $K inspect --format '{{.State.Status}}' web
        # One that stands still is ended all the same.
        $K pause web
        $K stop web
        ! $K pause web 2>err && grep -o 'is not running: it has ended' err
        $K events --since '#0' --until 0s | sed 's/.*"event":"\([a-z]*\)".*/\1/' | tr '\n' ' '
        "#,
        "web\nit is paused\nweb paused\n(Paused)\ntrue true\nis paused already\nweb\nis running already\nrunning\nweb\nweb\n\
         is not running: it has ended\ncreate start pause unpause pause stop unpause die ",
    );
}

fn control() {
    script(
        r#"
        $K run -d --name web --restart always --kernel "$AGENT" root out=ready stay >/dev/null
        $K stats --no-stream --format '{{.Name}} {{.MemUsage}}' | grep -o 'web .* / 128MiB' | sed 's/ .* / ... /'
        $K stats --no-stream --format json web | grep -o '"Name":"web"'
        $K stats --no-stream | sed 's/  .*//;q'
        $K port web
        ! $K port web 80 2>err && grep -o 'no port of the host leads to 80/tcp' err
        $K restart web
        $K inspect --format '{{.State.Status}} {{.RestartCount}}' web
        # Who is killed by somebody stays so.
        $K kill web
        $K ps -a --format '{{.Names}} {{.State}}'
        $K wait web
        $K start web
        $K stop --time 0 web
        $K wait web
        ! $K kill web 2>err && grep -o 'is not running' err
        ! $K stats --no-stream web 2>err && grep -o 'is not running' err
        $K stats --no-stream --all --format '{{.Name}} {{.CPUPerc}}'
        $K events --since '#0' --until 0s | sed 's/.*"event":"\([a-z]*\)".*/\1/' | tr '\n' ' '
        "#,
        "web ... 128MiB\n\"Name\":\"web\"\nINSTANCE ID\nno port of the host leads to 80/tcp\nweb\nrunning 0\n\
         web\nweb exited\n137\nweb\nweb\n137\nis not running\nis not running\nweb --\n\
         create start stop die start restart kill die start stop die ",
    );
}

fn left_over() {
    script(
        r#"
        id=$($K run -d --name web --kernel "$AGENT" root out=ready stay)
        socket=/var/lib/kvmlet/instances/$id/control.sock
        stat -c '%a %u' $socket
        kill -9 "$($K inspect --format '{{.State.Pid}}' web)"
        wait_for web dead
        ls $socket | grep -o 'control.sock'
        ! $K pause web 2>err && grep -o 'is not running: it has died' err
        ! $K stats --no-stream web 2>err && grep -o 'is not running' err
        $K start web
        $K pause web
        $K unpause web
        $K stop web
        [ -e $socket ] || echo gone
        "#,
        "600 0\ncontrol.sock\nis not running: it has died\nis not running\nweb\nweb\nweb\nweb\ngone\n",
    );
}

fn strays() {
    script(
        r#"
        ( flock 9; $K run -d --name web --kernel "$AGENT" root out=ready stay >/dev/null ) 9>lock
        $K ps --format '{{.Names}} {{.State}}'
        flock --nonblock lock echo free
        "#,
        "web running\nfree\n",
    );
}

fn cut() {
    script(
        r#"
        $K run -d --name web --kernel "$AGENT" root out=ready stay >/dev/null
        kill -QUIT "$($K inspect --format '{{.State.Pid}}' web)"
        $K wait web >/dev/null
        $K logs --console web 2>&1 | grep -o 'power is cut: .*'
        ! $K logs --console web 2>&1 | grep 'was sent SIG'
        "#,
        "power is cut: it was asked for (SIGQUIT)\n",
    );
}

/// There the number of its supervisor is somebody else's here, or nobody's.
fn elsewhere() {
    script(
        r#"
        unshare --pid --fork --kill-child --mount-proc sh -c '
            for name in stopped removed; do "$K" run -d --name $name --kernel "$AGENT" ./root out=ready stay; done
            exec sleep 1000' >/dev/null 2>&1 &
        there=$!
        trap 'kill -KILL $there' EXIT
        for name in stopped removed; do
            until [ -n "$($K ps -q --filter name=$name)" ]; do sleep 0.05; done
            wait_for $name running
        done
        $K inspect --format '{{.State.Pid}}' stopped
        timeout 60 $K stop stopped
        $K inspect --format '{{.State.Status}} {{.State.ExitCode}}' stopped
        timeout 60 $K rm -f removed
        $K ps -a --format '{{.Names}}'
        "#,
        "0\nstopped\nexited 143\nremoved\nstopped\n",
    );
}
