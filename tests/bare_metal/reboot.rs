//! What becomes of instances when their host is restarted.

use crate::harness::Test;
use crate::instances::script;

pub const TESTS: &[Test] = &[
    ("instances_come_back_after_a_loss_of_power", power),
    ("instances_come_back_after_a_shutdown", shutdown),
    (
        "what_was_suspended_is_after_a_restart_of_the_host",
        suspended,
    ),
];

const RUN: &str = r#"
    run() { $K run -d --name $1 --restart $2 --kernel "$AGENT" root out=ready stay >/dev/null; }
    pid() { $K inspect --format '{{.State.Pid}}' $1; }
    states() { $K ps -a --format '{{.Names}} {{.State}}' | sort | tr '\n' ','; echo; }
"#;

fn power() {
    script(
        &(RUN.to_owned()
            + r#"
        run aa always; run bb unless-stopped; run stopped unless-stopped; run always-stopped always; run once no; run failing on-failure
        $K stop stopped always-stopped >/dev/null
        $K service-unit --up; echo nothing runs that did not
        $K stop always-stopped >/dev/null
        for name in aa bb once failing; do kill -9 $(pid $name); wait_for $name dead; done
        echo 00000000-0000-4000-8000-000000000000 >boot; mount --bind boot /proc/sys/kernel/random/boot_id
        $K ps -a --filter name=once --format '{{.Status}}'
        $K service-unit --up
        states
        # Once more, it has nothing to do.
        $K service-unit --up
        "#),
        "always-stopped\nnothing runs that did not\nDead (the host was restarted)\naa\nbb\nalways-stopped\n\
         aa running,always-stopped running,bb running,failing dead,once dead,stopped exited,\n",
    );
}

/// Its file is as good, and no policy starts it.
fn suspended() {
    script(
        &(RUN.to_owned()
            + r#"
        run aa always; run bb always
        $K exec aa turns=012 || true; $K suspend aa >/dev/null
        kill -9 $(pid bb); wait_for bb dead
        echo 00000000-0000-4000-8000-000000000000 >boot; mount --bind boot /proc/sys/kernel/random/boot_id
        unshare --mount bash -eu -c '
            mount -t tmpfs tmpfs /run
            $K service-unit --up; $K ps -a --format "{{.Names}} {{.State}}"
            $K resume aa; $K exec aa turns=012 || echo turn $?
            # Stopped in order while it is suspended, and resumed.
            $K suspend aa >/dev/null; $K service-unit --down; $K resume aa; $K exec aa turns=012 || echo turn $?
            $K rm -f aa bb >/dev/null'
        "#),
        "bb\nbb running\naa suspended\naa\nturn 1\nbb\naa\nturn 2\n",
    );
}

fn shutdown() {
    script(
        &(RUN.to_owned()
            + r#"
        run aa always; run bb unless-stopped; run stopped unless-stopped; run once no
        $K pause bb >/dev/null
        $K stop stopped >/dev/null
        # In order, by the unit. The services are stopped, and not killed.
        $K service-unit --down | sort | tr '\n' ','; echo
        states
        $K inspect --format '{{.State.ExitCode}}' aa bb once | tr '\n' ','; echo
        $K service-unit --up
        states
        $K rm -f aa bb stopped once >/dev/null
        # Or by the host's first process, which ends all that is left.
        export -f run wait_for pid
        unshare --pid --fork --mount-proc bash -eu -c '
            run cc unless-stopped; run dd unless-stopped
            kill -TERM $(pid cc)
            wait_for cc exited
            # Not so by somebody else.
            (exec env kill -TERM $(pid dd))
            wait_for dd exited
            $K service-unit --up
            $K rm -f cc dd >/dev/null'
        "#),
        "aa,bb,once,\naa exited,bb exited,once exited,stopped exited,\n143,143,143,\naa\nbb\n\
         aa running,bb running,once exited,stopped exited,\ncc\n",
    );
}
