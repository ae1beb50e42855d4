//! Commands about one instance that come at one instant.

use crate::harness::Test;
use crate::instances::script;

pub const TESTS: &[Test] = &[
    ("starts_at_one_instant_are_one", starts),
    ("a_start_is_waited_for_until_it_is_settled", waits),
    ("what_is_being_made_is_nobody_elses", made),
    ("a_supervisor_without_a_turn_ends", without),
];

fn starts() {
    script(
        r#"
        $K run -d --name web --kernel "$AGENT" root stay >/dev/null; $K stop web >/dev/null
        all() { for i in $(seq $1); do { "${@:2}" >out$i 2>&1 || echo failed $? >>out$i; } & done; wait
                cat out* | sort | uniq -c | tr -s ' '; rm out*; }
        told() { $K events --since '#0' --until 0s | grep -c "\"event\":\"$1\""; }
        all 12 $K start web; told start
        # One after the other, each as a whole.
        all 4 $K restart -t 0 web; told start; told restart
        either() { if [ $(($RANDOM % 2)) = 0 ]; then $K restart -t 0 web; else $K start web; fi; }
        all 6 either; $K ps --format '{{.Names}} {{.State}}'
        $K stop web >/dev/null
        # What unit does is nobody else's turn, either.
        $K run -d --name always --restart always --kernel "$AGENT" root stay >/dev/null; $K stop always >/dev/null
        before=$(told start)
        for i in 1 2 3; do $K service-unit --up >/dev/null 2>err$i & $K start always >/dev/null 2>err$i$i & done; wait
        cat err*; echo $(($(told start) - before)); $K ps --format '{{.Names}} {{.State}}'
        # Whoever removes it has the last word, and whoever starts it is told so.
        for i in $(seq 6); do { $K start web >/dev/null 2>gone$i || true; } & done
        $K rm -f web; wait
        $K ps -a --format '{{.Names}}'; cat gone* | grep -v 'there is no instance\|each user has\|stopped before it ran' || true
        $K pause always; ! $K start always 2>err && grep -o 'is paused' err; $K unpause always
        "#,
        " 12 web\n2\n 4 web\n6\n4\n 6 web\nweb running\n1\nalways running\nweb\nalways\nalways\nis paused\nalways\n",
    );
}

fn waits() {
    script(
        r#"
        $K run -d --name mute --kernel "$AGENT" root mute 2>/dev/null & run=$!
        until $K inspect mute >/dev/null 2>&1; do sleep 0.05; done
        $K start mute 2>err & start=$!
        $K rm mute 2>refused || grep -o 'is in use by another command' refused
        sleep 0.3; kill -0 $start; kill $start; wait $start || echo $?; cat err | head -c 0
        # Whoever waits for a start is killed, and it is going on.
        kill -9 $run; wait $run || true
        $K start mute & start=$!
        sleep 0.3; kill -0 $start; kill -9 $start; wait $start || echo $?
        $K stop mute; $K ps -a --format '{{.Names}} {{.State}}'
        "#,
        "is in use by another command\n143\n137\nmute\nmute exited\n",
    );
}

fn made() {
    script(
        r#"
        # An image of many files takes its time to be made.
        mkdir -p many/{1..100}/{1..100}
        $K run -d --name web --kernel "$AGENT" many stay >/dev/null & run=$!
        until $K inspect web >/dev/null 2>&1; do sleep 0.02; done
        $K prune -f; $K start web; wait $run
        $K ps --format '{{.Names}} {{.State}}'
        $K events --since '#0' --until 0s | grep -c '"event":"start"'
        # It was run by a job in the background, for which a shell has SIGQUIT ignored: it heeds that all the same.
        timeout 20 $K rm -f web
        "#,
        "web\nweb running\n1\nweb\n",
    );
}

fn without() {
    script(
        r#"
        $K run -d --name web --kernel "$AGENT" root stay >/dev/null
        # That of what is not made in the end was there already.
        ! $K run -d --name web --kernel "$AGENT" root stay 2>err && grep -o 'the name `web` is taken' err
        kept=$($K inspect --format '{{.State.Pid}}' web)
        others() { for it in /proc/[0-9]*; do
            [ "$(readlink $it/exe 2>/dev/null)" = "$(realpath $K)" ] || continue
            [ "$(readlink $it/ns/mnt)" = "$(readlink /proc/self/ns/mnt)" ] || continue
            tr '\0' ' ' <$it/cmdline | grep ' keep ' | grep -v "$($K inspect --format '{{.Id}}' web)" || true
        done; }
        for i in $(seq 100); do [ -n "$(others)" ] || break; sleep 0.05; done; others
        # Who has no turn to give is no reason to start anything.
        code=0; $K keep "$($K inspect --format '{{.Id}}' web)" </dev/null >out || code=$?; echo $code; wc -l <out
        $K stop web; code=0; $K keep "$($K inspect --format '{{.Id}}' web)" <&- >out || code=$?; echo $code
        $K ps -a --format '{{.Names}} {{.State}}'; [ -n "$kept" ]
        "#,
        "the name `web` is taken\n125\n1\nweb\n125\nweb exited\n",
    );
}
