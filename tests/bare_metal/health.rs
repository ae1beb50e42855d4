//! Health checks of instances, and their clocks, by a guest that plays the agent.

use crate::harness::Test;
use crate::instances::script;

pub const TESTS: &[Test] = &[
    ("the_health_of_an_instance_is_told", told),
    ("a_check_that_takes_too_long_is_killed", late),
    ("an_instance_that_is_not_well_is_started_again", restarted),
    ("a_guest_that_lies_about_its_health_is_unhealthy", liars),
    ("an_instance_that_stands_still_is_not_checked", still),
    ("a_guest_that_stood_still_has_its_clock_set", clock),
];

/// What scripts have for it.
const PRELUDE: &str = r#"
    health() { $K inspect --format '{{.State.Health.Status}}' $1; }
    until_health() { for _ in $(seq 400); do [ "$(health $1)" != $2 ] || return 0; sleep 0.05; done; echo "$1 is never $2 but $(health $1)"; exit 1; }
    console() { for _ in $(seq 400); do ! $K logs --console $1 | grep -qE "$2" || return 0; sleep 0.05; done; echo "$1 never says $2"; exit 1; }
"#;

fn scripted(text: &str, expected: &str) {
    script(&format!("{PRELUDE}{text}"), expected);
}

fn told() {
    scripted(
        r#"
        $K run -d --name slow --kernel "$AGENT" --health-cmd 'exit=0' --health-interval 1h root stay >/dev/null
        $K ps --format '{{.Names}} {{.Health}} {{.Status}}' | sed 's/Up .* (/(/'
        $K rm -f slow >/dev/null
        # Two failures of three, well, and then ill for good.
        $K run -d --name web --kernel "$AGENT" -u 5:6 -e FROM=service --health-cmd 'user env=FROM err=words turns=1101111' \
            --health-interval 40ms --health-retries 3 root stay >/dev/null
        until_health web unhealthy
        $K ps --filter health=unhealthy --format '{{.Names}} {{.Status}}' | sed 's/Up .* (/(/'
        $K inspect --format '{{json .State.Health.Log}}' web | grep -o '"ExitCode":1,"Output":"5:6\\nFROM 7\\nwords\\n"' | head -n 1
        $K inspect --format '{{.Healthcheck.interval}} {{.Healthcheck.retries}}' web
        $K logs --console web 2>&1 | grep -o 'the service is unhealthy: its check ended with exit code 1: words'
        $K stop web >/dev/null
        health web; $K ps -a --filter health=none --format '{{.Names}}'
        $K run -d --name without --kernel "$AGENT" --no-healthcheck root stay >/dev/null
        $K inspect --format '{{json .State.Health}}' without; $K rm -f without >/dev/null
        $K events --since '#0' --until 0s | grep -o '"health_status":"[a-z]*"'
        "#,
        "slow starting (health: starting)\nweb (unhealthy)\n\
         \"ExitCode\":1,\"Output\":\"5:6\\nFROM 7\\nwords\\n\"\n40ms 3\n\
         the service is unhealthy: its check ended with exit code 1: words\nnone\nweb\nnull\n\
         \"health_status\":\"healthy\"\n\"health_status\":\"unhealthy\"\n",
    );
}

fn late() {
    scripted(
        r#"
        $K run -d --name web --kernel "$AGENT" --health-cmd 'out=begun stay' --health-interval 20ms --health-timeout 1s \
            --health-retries 2 root stay >/dev/null
        until_health web unhealthy
        console web 'sent signal 9'
        results() { $K inspect --format '{{json .State.Health.Log}}' web; }
        until results | grep -q '"ExitCode":-1,"Output":"begun\\nthe check has not ended in 1 s"'; do sleep 0.05; done
        # It goes on to be asked, and others are served meanwhile.
        $K exec web exit=4 || echo $?
        "#,
        "4\n",
    );
}

fn restarted() {
    scripted(
        r#"
        $K run -d --name web --kernel "$AGENT" --restart on-failure:2 --health-cmd exit=1 --health-interval 20ms --health-retries 2 \
            --health-on-failure restart root stay >/dev/null
        wait_for web exited
        $K inspect --format '{{.RestartCount}} {{.State.ExitCode}}' web
        $K logs --console web 2>&1 | grep -c 'to be started again'
        ! $K run -d --kernel "$AGENT" --health-cmd exit=1 --health-on-failure restart root 2>err && grep -o 'say when it is started again' err
        "#,
        "2 143\n3\nsay when it is started again\n",
    );
}

fn liars() {
    scripted(
        r#"
        for lie in 'flood exit=0' 'noise' 'twice' 'vanish' 'mute' 'hang' 'fail=127' 'many=300000 exit=3' 'deaf'; do
            # What ends has as long as it takes here.
            case $lie in mute | deaf) limit=400ms ;; *) limit=60s ;; esac
            $K run -d --name web --kernel "$AGENT" --health-cmd "$lie" --health-interval 20ms --health-timeout $limit --health-retries 2 \
                --stop-timeout 0 root stay >/dev/null
            case $lie in
                # What is written is taken, and the end of its process counts, said once too often or not at the end.
                flood* | twice | hang) until_health web healthy ;;
                *) until_health web unhealthy ;;
            esac
            echo "$lie: $(health web), $($K inspect --format '{{.State.Status}} {{json .State.Health.Log}}' web | grep -oE '^running|a frame|ended the connection|not ended|purpose' | sort -u | tr '\n' ' ')"
            $K rm -f web >/dev/null
        done
        "#,
        "flood exit=0: healthy, running \nnoise: unhealthy, a frame running \n\
         twice: healthy, running \nvanish: unhealthy, ended the connection running \nmute: unhealthy, not ended running \n\
         hang: healthy, running \nfail=127: unhealthy, purpose running \nmany=300000 exit=3: unhealthy, running \n\
         deaf: unhealthy, not ended running \n",
    );
}

fn still() {
    scripted(
        r#"
        # Well for 8 s: who looks may take long to see it.
        $K run -d --name web --kernel "$AGENT" --health-cmd turns=00000000000000000001 --health-interval 400ms --health-retries 1 root stay >/dev/null
        until_health web healthy
        $K pause web >/dev/null
        before=$($K inspect --format '{{.State.Health.Log}}' web)
        sleep 1.5
        [ "$before" = "$($K inspect --format '{{.State.Health.Log}}' web)" ] && echo nothing
        $K unpause web >/dev/null
        until_health web unhealthy
        health web
        "#,
        "nothing\nunhealthy\n",
    );
}

fn clock() {
    scripted(
        r#"
        $K run -d --name web --kernel "$AGENT" root stay >/dev/null
        $K pause web >/dev/null; $K unpause web >/dev/null
        console web 'its clock is set to'
        console web '^32 random bytes'
        told=$($K logs --console web | grep -oE 'its clock is set to [0-9]+' | head -n 1 | grep -oE '[0-9]+')
        now=$(date +%s)
        [ $told -le $now ] && [ $told -ge $((now - 60)) ] && echo right
        $K logs --console web 2>&1 | grep -oE "the guest's clock was set: it was [0-9]+ s behind" | tr -d 0-9
        "#,
        "right\nthe guest's clock was set: it was  s behind\n",
    );
}
