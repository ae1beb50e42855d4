//! Instances that are suspended to their files, and resumed.

use crate::harness::Test;
use crate::instances::script;

pub const TESTS: &[Test] = &[
    ("a_suspended_instance_goes_on_where_it_was", life),
    ("a_suspended_instance_can_be_ended_and_removed", ends),
    ("what_a_suspended_instance_has_is_kept_for_it", reserved),
    ("an_instance_that_cannot_be_saved_runs_on", unsaved),
    ("what_cannot_be_resumed_stays_suspended", unresumed),
    ("two_at_once_suspend_or_resume_one", at_once),
    ("who_is_attached_is_told_of_a_suspension", attached),
    (
        "a_hundred_suspensions_beside_kills_leave_the_book_true",
        killed,
    ),
];

/// The file's owner may read it, its memory goes on, and it has not ended.
fn life() {
    script(
        r#"
        state() { $K inspect --format '{{.State.Status}} {{.State.Running}} {{.State.Suspended}} {{.State.Pid}}' web; }
        own=$(echo /var/lib/kvmlet/instances)
        $K run -d --name web --restart always --kernel "$AGENT" --health-cmd exit=0 --health-interval 50ms root out=ready stay >/dev/null
        turn() { $K exec web turns=0123456789 || echo "turn $?"; }
        turn; turn
        keeper=$($K inspect --format '{{.State.Pid}}' web); vm=$(pgrep -P $keeper)
        $K suspend web; state; stat -c '%a %F' $own/*/suspended
        # Nothing of it is left on the host but that file.
        for pid in $keeper $vm; do
            for _ in $(seq 500); do [ -e /proc/$pid ] && ! grep -q '^State:.*Z' /proc/$pid/status || break; sleep 0.02; done
            [ ! -e /proc/$pid ] || grep -q '^State:.*Z' /proc/$pid/status
        done
        ! ls -R /run/kvmlet 2>/dev/null | grep -q -e "-$vm-"
        $K ps --format '{{.Names}} {{.State}} {{.Status}}' | sed 's/Suspended .* ago/Suspended now/'
        $K ps -f status=suspended --format '{{.Names}}'; $K ps -f status=running -f exited=0 -q
        # Who waits for its end waits on, through any of that.
        $K wait web >waited & wait=$!
        $K resume web; state | sed 's/[0-9]*$/N/'; [ ! -e $own/*/suspended ]
        turn; $K suspend web >/dev/null; $K resume web >/dev/null; turn
        wait_healthy() { until [ "$($K inspect --format '{{.State.Health.Status}}' web)" = healthy ]; do sleep 0.05; done; echo healthy; }
        wait_healthy
        # Its end is an end, as its policy says.
        $K exec web off=3 >/dev/null 2>&1 || true
        until [ "$($K inspect --format '{{.RestartCount}} {{.State.Status}}' web)" = '1 running' ]; do sleep 0.05; done
        turn; $K stop web >/dev/null; wait $wait; cat waited
        $K events --since '#0' --until 0s | grep -o '"event":"[a-z]*"' | cut -d '"' -f 4 | tr '\n' ' '; echo
        "#,
        "turn 1\nweb\nsuspended false true 0\n600 regular file\nweb suspended Suspended now\nweb\nweb\nrunning true false N\nturn 2\nturn 3\nhealthy\n143\n\
         create start suspend resume suspend resume die restart start stop die \n",
    );
}

fn ends() {
    script(
        r#"
        run() { $K run -d --name web "$@" --kernel "$AGENT" -m 16m root out=ready stay >/dev/null; $K suspend web >/dev/null; }
        seen() { $K ps -a --format '{{.Names}} {{.State}}'; ls /var/lib/kvmlet/instances/*/ 2>/dev/null | grep -c suspended || true; }
        run; $K stop web >/dev/null; seen; $K inspect --format '{{.State.ExitCode}}' web
        ! $K resume web 2>err; cat err
        $K start web >/dev/null; $K suspend web >/dev/null; ! $K start web 2>err; cat err
        $K kill web >/dev/null; seen; $K rm web >/dev/null
        run; $K restart web >/dev/null; seen; $K logs --console web | grep -c 'an agent on its console'; $K rm -f web >/dev/null
        run; ! $K rm web 2>err; cat err; $K prune -f; seen; $K rm -f web >/dev/null; seen
        run --rm; seen; $K stop web >/dev/null; seen
        run; ! $K suspend web 2>err; cat err; ! $K exec web exit=0 2>err; cat err; ! $K pause web 2>err; cat err
        $K resume web >/dev/null; ! $K resume web 2>err; cat err
        # One that stands still can be suspended, too, and goes on then.
        $K pause web >/dev/null; ! $K resume web 2>err; cat err; $K suspend web >/dev/null; $K resume web >/dev/null; $K exec web out=on exit=0
        "#,
        "web exited\n0\n137\nerror: instance `web` is not suspended: it has ended\n  help: `kvmlet start web` starts it\n\
         error: instance `web` is suspended\n  help: `kvmlet resume web` has it go on, `kvmlet restart web` boots it anew\nweb exited\n0\nweb running\n0\n2\n\
         error: instance `web` is suspended\n  help: stop it first (`kvmlet stop web`), or --force\nweb suspended\n1\n0\nweb suspended\n1\n0\n\
         error: instance `web` is suspended already\nerror: nothing can be executed in instance `web`\n  caused by: it is suspended\n  help: `kvmlet resume web` has it go on\n\
         error: instance `web` is not running: it is suspended\n  help: resume it first\nerror: instance `web` is running already\n\
         error: instance `web` is paused\n  help: `kvmlet unpause web` has it go on\non\n",
    );
}

/// Its volumes, and where its network was; a disk that it writes to has what it wrote.
fn reserved() {
    script(
        r#"
        $K run -d --name web -v data:/data --scratch 64m --kernel "$AGENT" -m 16m root stay >/dev/null
        $K suspend web >/dev/null
        ! $K run -d --name two -v data:/data --kernel "$AGENT" -m 16m root stay 2>err; grep -o 'volume `data` is in use by instance `web`' err
        ! $K run -d --name web --kernel "$AGENT" root stay 2>err; grep -o 'name `web` is taken' err
        $K resume web >/dev/null; $K exec web out=on exit=0; $K rm -f web >/dev/null
        # In a network and with a /run of its own: it comes back to its addresses and ports, unless others have them.
        unshare --net --mount bash -eu -c '
            mount -t tmpfs tmpfs /run; ip link set lo up
            run() { $K run -d --name $1 -p 127.0.0.1::80 --kernel "$AGENT" -m 16m root stay >/dev/null; }
            seen() { $K port web; ip -4 -br addr | grep -o "10\.107[0-9./]*" | tr "\n" " "; }
            run web; before=$(seen); $K suspend web >/dev/null
            $K resume web >/dev/null; [ "$(seen)" = "$before" ] && echo the same
            $K suspend web >/dev/null; run other; $K resume web >/dev/null
            ip -4 -br addr | grep -c "10\.107"; $K rm -f web other >/dev/null'
        "#,
        "volume `data` is in use by instance `web`\nname `web` is taken\non\nthe same\n2\n",
    );
}

/// No room, and a client that is killed.
fn unsaved() {
    script(
        r#"
        $K run -d --name web --kernel "$AGENT" -m 16m root stay >/dev/null
        $K exec web turns=01 || true
        mount -o remount,size=2M /var/lib; dd if=/dev/zero of=/var/lib/fill bs=4k 2>/dev/null || true
        ! $K suspend web 2>err; grep -o 'no space left' err; grep -o 'help: make room' err
        $K ps --format '{{.Names}} {{.State}}'; ls -A /var/lib/kvmlet/instances/*/ | grep -c -e suspended -e '^\.' || true
        rm /var/lib/fill; mount -o remount,size=1G /var/lib
        $K exec web turns=01 || echo "turn $?"
        # Whoever saves it stops, and is gone: it has stood still, and goes on.
        $K suspend web & who=$!; kill -STOP $who; kill -KILL $who; wait $who 2>/dev/null || true
        $K exec web out=on exit=0; $K suspend web; $K resume web
        "#,
        "no space left\nhelp: make room\nweb running\n0\nturn 1\non\nweb\nweb\n",
    );
}

/// Its file stays, and is good again when it is whole.
fn unresumed() {
    script(
        r#"
        $K run -d --name web --kernel "$AGENT" -m 16m root stay >/dev/null
        $K exec web turns=01 || true
        $K suspend web >/dev/null; file=$(echo /var/lib/kvmlet/instances/*/suspended)
        no() { ! $K resume web 2>err >/dev/null; grep -o "$1" err; grep -c 'kvmlet restart' err; $K inspect --format '{{.State.Status}} {{.State.Error}}' web | tr '\n' ' ' | grep -c "^suspended.*$1"; ls $file >/dev/null; }
        flip() { byte=$(od -An -tu1 -j $1 -N 1 $file); printf "\\x$(printf %x $((byte ^ 64)))" | dd of=$file bs=1 seek=$1 conv=notrunc 2>/dev/null; }
        flip 9; no version; flip 9
        flip 100; no 'changed since'; flip 100
        mv $file away; ! $K resume web 2>err; grep -o 'no such file' err; cp --sparse=always away $file; truncate -s -1 $file; no 'cut short'; mv away $file
        # No memory is promised to it meanwhile, and there must be some again.
        $K resume web; $K exec web turns=01 || echo "turn $?"; $K inspect --format '{{.State.Status}}{{.State.Error}}' web
        "#,
        "version\nversion\n1\n1\nchanged since\n1\n1\nno such file\ncut short\n1\n1\nweb\nturn 1\nrunning\n",
    );
}

fn at_once() {
    script(
        r#"
        $K run -d --name web --kernel "$AGENT" -m 16m root stay >/dev/null
        both() { $K $1 web >out1 2>err1 & one=$!; $K $1 web >out2 2>err2 & two=$!; a=0; wait $one || a=$?; b=0; wait $two || b=$?; echo $1 $((a + b)); }
        for _ in 1 2 3; do
            both suspend; cat err1 err2; $K inspect --format '{{.State.Status}}' web
            $K resume web >out1 2>err1 & one=$!; $K resume web >out2 2>err2 & two=$!
            # Who was slower finds it resumed, or running already.
            wait $one || grep -o 'running already' err1 >/dev/null; wait $two || grep -o 'running already' err2 >/dev/null
            $K inspect --format '{{.State.Status}}' web
        done
        # An end that comes at the same time is an end.
        $K suspend web >/dev/null 2>err1 & one=$!; $K stop -t 0 web >/dev/null; wait $one || true
        $K inspect --format '{{.State.Status}}' web; ls /var/lib/kvmlet/instances/*/ | grep -c suspended || true
        "#,
        "suspend 1\nerror: instance `web` is suspended already\nsuspended\nrunning\nsuspend 1\nerror: instance `web` is suspended already\nsuspended\nrunning\n\
         suspend 1\nerror: instance `web` is suspended already\nsuspended\nrunning\nexited\n0\n",
    );
}

fn attached() {
    script(
        r#"
        $K run --name web --kernel "$AGENT" -m 16m root out=ready stay >out 2>err & run=$!
        until grep -q ready out; do sleep 0.05; done
        $K suspend web >/dev/null; wait $run; cat err
        ! $K attach web 2>err; cat err
        $K resume web >/dev/null; $K exec web out=on exit=0
        "#,
        "error: the guest cannot go on: it is suspended\nerror: instance `web` is suspended\n  help: `kvmlet resume web` has it go on\non\n",
    );
}

/// Whoever is killed: the book says what is so, and nothing is left of what it says is over.
fn killed() {
    script(
        r#"
        RANDOM=42; file() { ls /var/lib/kvmlet/instances/*/suspended 2>/dev/null || true; }
        state() { $K inspect --format '{{.State.Status}}' web; }
        # Whoever was killed may have begun something that goes on.
        settled() { for _ in $(seq 2000); do now=$(state); case $now in running|suspended|dead|exited) return;; esac; sleep 0.02; done; echo "it is $now"; exit 1; }
        $K run -d --name web --kernel "$AGENT" -m 16m root stay >/dev/null
        seen=
        for i in $(seq 100); do
            settled
            case $now in running) verb=suspend;; suspended) verb=resume;; *) verb=start;; esac
            $K $verb web >/dev/null 2>&1 & who=$!
            sleep 0.0$((RANDOM % 80 + 10))
            case $((RANDOM % 4)) in
                0) kill -9 $who 2>/dev/null || true;;
                1) pid=$($K inspect --format '{{.State.Pid}}' web); [ $pid = 0 ] || kill -9 $pid 2>/dev/null || true;;
                2) pid=$($K inspect --format '{{.State.Pid}}' web); [ $pid = 0 ] || pkill -9 -P $pid || true;;
            esac
            wait $who 2>/dev/null || true
            settled; seen="$seen $now"
            case $now in
                # What was saved is whole: it goes on, or nobody is told that it could.
                suspended) [ -n "$(file)" ] || [ $(state) != suspended ] || { echo "its file is gone"; exit 1; };;
                # It may be about to be seen that its VM is gone.
                running) $K exec web exit=0 2>err || { sleep 1; settled; [ $now != running ] || $K exec web exit=0; };;
            esac
        done
        for what in running suspended dead; do echo $seen | tr ' ' '\n' | grep -c $what >/dev/null || echo "never $what"; done
        settled; case $now in dead|exited) $K start web >/dev/null;; suspended) $K resume web >/dev/null;; esac
        $K exec web out=on exit=0; $K suspend web; $K resume web
        $K stop web >/dev/null; file; $K inspect --format '{{.State.Status}}' web
        "#,
        "on\nweb\nweb\nexited\n",
    );
}
