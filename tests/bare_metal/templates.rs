//! Snapshots that are listed and removed, and services that are run warm: from a template of what has run before.

use crate::harness::Test;
use crate::instances::script;

pub const TESTS: &[Test] = &[
    ("snapshots_are_listed_looked_at_and_removed", listed),
    ("the_second_run_goes_on_where_the_first_was_ready", warm),
    ("a_template_of_what_has_changed_is_thrown_away", changed),
    ("a_template_that_cannot_be_restored_is_thrown_away", broken),
    (
        "what_is_no_template_of_this_users_is_not_gone_on_from",
        foreign,
    ),
    ("there_are_no_more_templates_than_may_be", limited),
    ("two_first_runs_at_once_keep_one_template", at_once),
    ("no_file_is_replaced_that_is_no_snapshot", replaced),
    (
        "a_signal_that_comes_before_a_service_is_taken_over_is_the_services",
        signalled,
    ),
    ("a_clone_of_one_that_runs_is_another", cloned),
    ("what_cannot_be_warm_is_refused", refused),
    ("a_snapshot_that_is_cut_short_is_why_its_vm_ends", cut),
];

fn listed() {
    script(
        r#"
        $K run -d --name web --kernel "$AGENT" root out=ready stay >/dev/null
        # What it is called as a verb, it is not taken for.
        $K run -d --name ls --kernel "$AGENT" root stay >/dev/null
        $K snapshot web web.snap; $K snapshot $($K inspect --format '{{.Id}}' ls) ls.snap
        $K snapshot ls --format '{{.Instance}} {{.Image}} {{.Kind}} {{.Status}} {{.File}}'
        $K snapshot ls | sed 's/  .*//;q'
        id=$($K snapshot ls -q | tail -n 1); [ ${#id} = 12 ]
        $K snapshot inspect --format '{{.Instance.Name}} {{.Machine.Vcpus}} {{.Machine.Memory}} {{.Status}}' $id ./ls.snap
        [ "$($K snapshot inspect --format '{{.File}}' web.snap)" = "$PWD/web.snap" ]
        # It takes the place of the one before, of which nothing is known any more.
        $K snapshot web web.snap; $K snapshot ls -q | wc -l
        ! $K snapshot inspect $id 2>err >/dev/null && grep -o 'there is no snapshot' err
        # From where it was moved to it is restored.
        mv web.snap moved; $K snapshot ls --format '{{.Instance}} {{.Status}}'
        $K restore moved --name other -d >/dev/null
        $K snapshot ls --format '{{.Instance}} {{.Status}} {{.File}}' | sort
        until $K logs --console other | grep -q 'another machine'; do sleep 0.05; done; echo another
        # Removed by its file, while a VM goes on from it.
        $K snapshot rm moved >/dev/null; [ ! -e moved ]; $K exec other out=still exit=0
        truncate -s 1M ls.snap; $K snapshot ls --format '{{.Instance}} {{.Status}}'
        seq 99 >ls.snap; $K snapshot ls --format '{{.Instance}} {{.Status}}'
        $K snapshot prune -f | wc -l; head -n 1 ls.snap; $K snapshot ls -q
        ls /var/lib/kvmlet/snapshots | grep -v gate || true
        ! $K snapshot rm nothing 2>err && grep -o 'no snapshot `nothing`' err; $K snapshot rm -f nothing
        ! $K snapshot rm ls.snap 2>err && grep -o 'it is no snapshot' err
        $K snapshot web one; rm one; $K snapshot prune -f | wc -l
        "#,
        "ls root snapshot ready ls.snap\nweb root snapshot ready web.snap\nSNAPSHOT ID\nweb 1 134217728 ready\nls 1 134217728 ready\n2\n\
         there is no snapshot\nweb missing\nls ready\nls ready ls.snap\nweb ready moved\nanother\nstill\nls unusable\nls replaced\n1\n1\n\
         no snapshot `nothing`\nnothing\nit is no snapshot\n1\n",
    );
}

/// The first boots, and others have its memory, and names of their own.
fn warm() {
    script(
        r#"
        mkfs.ext4 -q root.img 4M >/dev/null
        run() { $K run -d --warm --kernel "$AGENT" --name "$@" root.img out=ready stay; }
        first=$(run one -l a=b)
        $K snapshot ls --format '{{.Instance}} {{.Image}} {{.Kind}} {{.Status}}'
        stat -c %a /var/lib/kvmlet/templates/* | sort | uniq -c | tr -s ' '
        second=$(run two --restart on-failure:1 -l c=d); third=$(run three --rm)
        for name in one two three; do
            $K logs --console $name | grep -c 'an agent on its console' || true
            $K logs --console $name | grep 'another machine' | sed "s/${second::12}/2/;s/${third::12}/3/" || true
        done
        $K ps --format '{{.Names}} {{.State}} {{.Labels}}'
        # Others are others: by their command, their size, their variables.
        $K run -d --warm --kernel "$AGENT" root.img stay >/dev/null
        $K run -d --warm --kernel "$AGENT" -m 64m root.img out=ready stay >/dev/null
        $K run -d --warm --kernel "$AGENT" -e A=b root.img out=ready stay >/dev/null
        $K snapshot ls -q | wc -l
        # Once it has ended, it boots as any other.
        $K stop two >/dev/null; $K start two >/dev/null
        $K logs --console two | grep -c 'an agent on its console'
        # In the foreground, too; who it is kept by is not waited for.
        $K run --warm --name front --kernel "$AGENT" -e C=d root.img out=ready stay >out & run=$!
        until [ $($K snapshot ls -q | wc -l) = 5 ]; do sleep 0.05; done
        kill $run; wait $run || echo $?; cat out
        $K run --warm --rm --name again --kernel "$AGENT" -e C=d root.img out=ready stay >out2 & run=$!
        wait_for again running; $K stop again >/dev/null; wait $run || echo $?; cat out2
        # Ready is who is healthy, where somebody asks for that.
        $K run -d --warm --kernel "$AGENT" --health-cmd exit=0 --health-interval 50ms --name well root.img stay >/dev/null
        $K inspect --format '{{.State.Health.Status}}' well
        # What has never been ready has no template.
        $K run -d --warm --kernel "$AGENT" --health-cmd exit=1 --health-interval 50ms --name ill root.img exit=3 2>&1 >/dev/null | grep -o 'has ended before it was ready'
        $K snapshot ls -q | wc -l
        $K snapshot prune -f; $K snapshot prune -af | wc -l; ls /var/lib/kvmlet/templates
        "#,
        "one root.img template ready\n 2 600\n1\n0\nanother machine, 2\n0\nanother machine, 3\n\
         three running \ntwo running c=d\none running a=b\n4\n1\n143\nready\n143\n\
         healthy\nhas ended before it was ready\n6\n6\nlock\n",
    );
}

fn changed() {
    script(
        r#"
        mkfs.ext4 -q root.img 4M >/dev/null; cp "$AGENT" kernel
        run() { $K run -d --rm --warm --kernel kernel --name $1 root.img stay 2>err >/dev/null; grep -o 'has changed: .*' err || true; }
        boots() { $K logs --console $1 | grep -c 'an agent on its console' || true; }
        run one; run two; boots two
        touch kernel; run three; boots three; run four; boots four
        printf x | dd of=root.img conv=notrunc seek=7000 2>/dev/null; run five; boots five
        cp root.img other; mv other root.img; run six; boots six
        $K snapshot ls -q | wc -l
        "#,
        "0\nhas changed: the guests' kernel\n1\n0\nhas changed: its image or a volume\n1\nhas changed: its image or a volume\n1\n1\n",
    );
}

fn broken() {
    script(
        r#"
        mkfs.ext4 -q root.img 4M >/dev/null
        run() { $K run -d --warm --kernel "$AGENT" --name $1 "${@:2}" root.img stay 2>err >/dev/null || echo failed; }
        boots() { $K logs --console $1 | grep -c 'an agent on its console' || true; }
        run one; template=/var/lib/kvmlet/templates/$(ls /var/lib/kvmlet/templates | grep -v lock)
        truncate -s -1 $template
        run two; boots two; grep -o 'is thrown away' err; grep -o 'is cut short' err; $K ps --format '{{.Names}} {{.State}}'
        run three; boots three; cat err
        # Nothing that can be read at all.
        rm $template; echo >$template; run four; boots four; cat err; $K snapshot ls --format '{{.Instance}} {{.Status}}'
        # A name that is taken is no fault of it.
        run four; grep -o 'is taken' err; run five; boots five
        "#,
        "1\nis thrown away\nis cut short\ntwo running\none running\n0\n1\nfour ready\nfailed\nis taken\n0\n",
    );
}

fn foreign() {
    script(
        r#"
        mkfs.ext4 -q root.img 4M >/dev/null
        run() { $K run -d --rm --warm --kernel "$AGENT" --name $1 root.img stay 2>err >/dev/null || echo failed; }
        boots() { $K logs --console $1 | grep -c 'an agent on its console' || true; }
        run one; template=/var/lib/kvmlet/templates/$(ls /var/lib/kvmlet/templates | grep -v lock)
        run two; boots two
        # The same file, of another user; a new one takes its place.
        chown 4000000 $template; run three; boots three; cat err; stat -c %u $template; run four; boots four
        # What would wait for a writer, or has no end; both stay.
        rm $template; mkfifo $template; run five; boots five; grep -o 'no template is kept' err; stat -c %F $template
        rm $template; mknod $template c 1 5; run six; boots six; grep -o 'not a regular file' err; stat -c %F $template
        # A name for something else.
        rm $template; $K snapshot six saved 2>/dev/null; ln -s $PWD/saved $template; run seven; boots seven
        "#,
        "0\n1\n0\n0\n1\nno template is kept\nfifo\n1\nnot a regular file\ncharacter special file\n1\n",
    );
}

fn limited() {
    script(
        r#"
        mkfs.ext4 -q root.img 4M >/dev/null
        run() { $K run -d --rm --warm --kernel "$AGENT" -m 16m --name n$1 -e A=$1 root.img stay 2>>err >/dev/null; $K kill n$1 >/dev/null; $K wait n$1 >/dev/null 2>&1 || true; }
        for i in $(seq 32); do run $i; done; cat err; $K snapshot ls -q | wc -l
        # The first is used once more, and so it is the second that goes.
        name() { $K snapshot ls --format '{{.Instance}}' | grep -x n$1 || echo no n$1; }
        $K run -d --rm --warm --kernel "$AGENT" -m 16m --name again -e A=1 root.img stay >/dev/null
        $K logs --console again | grep -c 'an agent on its console' || true
        run 33; grep -o 'there may be 32' err; $K snapshot ls -q | wc -l; ls /var/lib/kvmlet/templates | grep -vc lock
        name 1; name 2; name 3; name 33
        "#,
        "32\n0\nthere may be 32\n32\n32\nn1\nno n2\nn3\nn33\n",
    );
}

fn replaced() {
    script(
        r#"
        $K run -d --name web --kernel "$AGENT" root stay >/dev/null
        no() { ! $K snapshot web $1 2>err && grep -o "$2" err && grep -c 'help: name another file' err; }
        echo text >short; no short 'is there, and is no snapshot'; cat short
        seq 9999 >long; no long 'is there, and is no snapshot'; tail -n 1 long
        mkfifo fifo; ! $K snapshot web fifo 2>err && grep -o 'not a regular file' err
        # Nothing is lost by these: what is empty, an older one, and what is left of one.
        : >empty; for file in empty empty new new; do $K snapshot web $file 2>err; sed 's/[0-9.]* ms/N ms/' err; done
        truncate -s 100K new; $K snapshot web new 2>/dev/null; $K restore new -d --name two >/dev/null
        $K snapshot ls --format '{{.Instance}} {{.Status}}'; $K ps -q | wc -l
        "#,
        "is there, and is no snapshot\n1\ntext\nis there, and is no snapshot\n1\n9999\nnot a regular file\n\
         kvmlet: `web` stood still for N ms\nkvmlet: `web` stood still for N ms\nkvmlet: `web` stood still for N ms\n\
         kvmlet: `web` stood still for N ms\nweb ready\nweb ready\n2\n",
    );
}

/// Its guest does not answer at first, as one whose kernel is interpreted.
fn signalled() {
    script(
        r#"
        $K run -d --name web --kernel "$AGENT" root shy stay >/dev/null
        $K snapshot web web.snap 2>/dev/null
        env --default-signal=INT $K restore web.snap --name two >/dev/null 2>&1 & restore=$!
        until $K logs --console two 2>/dev/null | grep -q shy; do sleep 0.02; done
        kill -INT $restore; wait $restore || echo $?
        $K logs --console two | grep -o 'sent signal 2'; $K inspect --format '{{.State.ExitCode}}' two
        "#,
        "130\nsent signal 2\n130\n",
    );
}

fn at_once() {
    script(
        r#"
        mkfs.ext4 -q root.img 4M >/dev/null; all=
        for i in 1 2 3 4; do
            $K run -d --warm --kernel "$AGENT" --name n$i --health-cmd exit=0 --health-interval 200ms root.img stay 2>>err >/dev/null & all="$all $!"
        done
        wait $all; cat err; $K ps -q | wc -l
        $K snapshot ls --format '{{.Kind}} {{.Status}}'; ls /var/lib/kvmlet/templates | wc -l
        "#,
        "4\ntemplate ready\n2\n",
    );
}

fn refused() {
    script(
        r#"
        mkfs.ext4 -q root.img 4M >/dev/null; mkdir data
        no() { ! $K run -d --warm --kernel "$AGENT" "$@" 2>err && grep -o "$text" err; }
        text='becomes another image with each run'; no root stay; no -v ./data:/data:ro root.img stay
        text='writes to the disk'; no --scratch 64m root.img stay; no -v data:/data root.img stay
        text='a terminal or an input'; no -t root.img stay; no -i root.img stay
        $K ps -aq; $K snapshot ls -q
        "#,
        "becomes another image with each run\nbecomes another image with each run\nwrites to the disk\nwrites to the disk\n\
         a terminal or an input\na terminal or an input\n",
    );
}

/// What the VM has not changed of its memory it reads from the file.
fn cut() {
    script(
        r#"
        $K run -d --name web --kernel "$AGENT" root out=ready stay >/dev/null
        $K snapshot web web.snap
        for change in 'truncate -s 16M' 'rm'; do
            $K restore web.snap -d --name two >/dev/null
            cp --sparse=always web.snap copy; $change web.snap; mv copy web.snap
            $K exec two out=still exit=0 2>err || true
            case $change in rm) ;; *) wait_for two exited;; esac
            $K logs --console two 2>&1 | grep -o 'which the VM went on from, was cut short' || true
            $K rm -f two >/dev/null
        done
        "#,
        "which the VM went on from, was cut short\nstill\n",
    );
}

fn cloned() {
    script(
        r#"
        $K run -d --name web -l a=b --kernel "$AGENT" root out=ready stay >/dev/null
        id=$($K clone web two 2>err); sed 's/[0-9.]* ms/N ms/' err
        $K clone --rm web three 2>/dev/null >/dev/null
        # Of a clone, while it runs, and all go on.
        $K clone two four 2>/dev/null >/dev/null
        for name in web two three four; do $K exec $name out=$name exit=0; done
        # Nothing stands still for a name that is another's.
        ! $K clone web two 2>err && grep -c 'stood still' err || true; grep -o 'name `two` is taken' err
        until $K logs --console two | grep -o "another machine, ${id::12}" | sed 's/, .*//'; do sleep 0.05; done
        $K logs --console two | grep -c 'an agent on its console' || true
        $K ps --format '{{.Names}} {{.State}} {{.Labels}}'
        # Nothing that it was made from is left, and it boots when it is started again.
        $K snapshot ls -q; $K restart two >/dev/null; $K logs --console two | grep -c 'an agent on its console'
        ! $K clone nobody 2>/dev/null; $K stop web >/dev/null; ! $K clone web 2>err && grep -o 'is not running' err
        $K run -d --name disk --scratch 64m --kernel "$AGENT" root stay >/dev/null
        ! $K clone disk 2>err && grep -o 'writes to the disk' err; $K ps -q | wc -l
        "#,
        "kvmlet: `web` stood still for N ms\nweb\ntwo\nthree\nfour\n0\nname `two` is taken\nanother machine\n0\n\
         four running a=b\nthree running a=b\ntwo running a=b\nweb running a=b\n1\nis not running\nwrites to the disk\n4\n",
    );
}
