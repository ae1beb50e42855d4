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
    ("what_a_template_is_read_of_is_read_ahead", read_ahead),
    ("no_file_is_replaced_that_is_no_snapshot", replaced),
    (
        "a_signal_that_comes_before_a_service_is_taken_over_is_the_services",
        signalled,
    ),
    ("a_clone_of_one_that_runs_is_another", cloned),
    ("a_pool_of_an_image_has_machines_of_their_own", pooled),
    (
        "what_waits_in_a_pool_of_an_image_is_found_again",
        found_again,
    ),
    ("what_cannot_be_warm_is_refused", refused),
    ("a_snapshot_that_is_cut_short_is_why_its_vm_ends", cut),
    ("a_snapshot_goes_to_another_host", exported),
];

/// Another book stands for another host, which has the kernel and the root elsewhere.
fn exported() {
    script(
        r#"
        mkfs.ext4 -q root.img 4M >/dev/null; cp "$AGENT" kernel
        $K run -d --name web -l a=b -m 32m --kernel "$AGENT" root.img out=ready stay >/dev/null
        $K snapshot web web.snap
        $K snapshot export web web.tar.zst; stat -c %a web.tar.zst
        $K snapshot export web.snap - | cmp - web.tar.zst && echo same
        ! $K snapshot export web - 2>err >&-; grep -o 'bad file descriptor' err
        $K snapshot web two; ! $K snapshot export web x 2>err; grep -o 'has 2 snapshots' err; $K snapshot rm two >/dev/null
        ! $K snapshot export web kernel 2>err; grep -o 'is no archive that could be replaced' err
        mkdir small; mount -t tmpfs -o size=8k tmpfs small
        ! $K snapshot export web small/x 2>err; grep -o 'make room' err; ls small
        $K rm -f web >/dev/null; mkdir there; mv web.snap root.img there
        mount -t tmpfs tmpfs /var/lib
        import() { $K snapshot import "$@" 2>err; }
        ! import web.tar.zst new; grep -o "a kernel that is not kvmlet's" err
        ! import --kernel kernel web.tar.zst new; grep -o 'the root of the instance is a file' err
        cp there/root.img other; printf x | dd of=other conv=notrunc 2>/dev/null
        ! import --kernel kernel --root other web.tar.zst new; grep -o 'the root is another' err
        head -c -1 web.tar.zst >cut; ! import --alone cut new; grep -o 'it is cut short' err
        ! import --alone kernel new; grep -o 'it is no tar archive' err
        ! import --alone web.tar.zst kernel; grep -o 'is no snapshot that could be replaced' err
        ! import --alone web.tar.zst small/x; grep -o 'no more is free' err; ls small
        # Whoever unpacks ends with who is killed.
        mkfifo pipe; $K snapshot import --alone ./pipe new & import=$!
        exec 8>pipe; head -c 3000 web.tar.zst >&8; kill -9 $import; exec 8>&-; wait $import 2>/dev/null || true
        while grep -qzx './pip[e]' /proc/[0-9]*/cmdline 2>/dev/null; do sleep 0.02; done
        ls; $K snapshot ls -q
        import --kernel kernel --root there/root.img web.tar.zst new; stat -c %a new
        $K snapshot ls --format '{{.Instance}} {{.Image}} {{.Kind}} {{.Status}}'
        $K restore new -d --name other >/dev/null
        until $K logs --console other | grep -q 'another machine'; do sleep 0.05; done
        $K exec other out=there exit=0; $K ps --format '{{.Names}} {{.Labels}}'
        # Started again, it boots what is here.
        $K restart -t 0 other >/dev/null; $K exec other out=booted exit=0
        import --alone - alone <web.tar.zst; cmp -i 16777216 alone there/web.snap && echo memory
        ! $K restore alone --name gone 2>err; grep -o 'no snapshot of an instance' err
        "#,
        "600\nsame\nbad file descriptor\nhas 2 snapshots\nis no archive that could be replaced\nmake room\n\
         a kernel that is not kvmlet's\nthe root of the instance is a file\nthe root is another\nit is cut short\n\
         it is no tar archive\nis no snapshot that could be replaced\nno more is free\n\
         cut\nerr\nkernel\nother\npipe\nroot\nsmall\nthere\nweb.tar.zst\n600\nweb root.img snapshot ready\n\
         there\nother a=b\nbooted\nmemory\nno snapshot of an instance\n",
    );
}

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

/// Where the file is on the disk alone: the first that goes on from it shows what is read of it. That more is read ahead than this
/// guest touches is the note's doing.
fn read_ahead() {
    script(
        r#"
        mkdir book; mount --bind book /var/lib; mkfs.ext4 -q root.img 4M >/dev/null
        run() { $K run -d --warm --kernel "$AGENT" --name $1 root.img out=ready stay >/dev/null; }
        run one; template=$(ls -d /var/lib/kvmlet/templates/*[0-9a-f]); note=$template.pages
        there() { fincore -b -n -r -o RES $template; }
        cool() { sync $template; dd if=$template iflag=nocache count=0 2>/dev/null; }
        cool; if [ $(there) != 0 ]; then echo 600; echo known; echo more; echo other; echo lock; exit; fi
        run two; until [ -e $note ]; do sleep 0.05; done
        [ $(there) -lt $((60 << 20)) ] && stat -c %a $note
        grep -qx '{"snapshot":"[0-9a-f]*","parts":\[\[0,[0-9]*\].*\]}' $note && echo known
        # What is there is not read again, nor more than that.
        run three; [ $(there) -lt $((60 << 20)) ]
        sed -i 's/"parts":.*/"parts":[[0,'$((96 << 20))']]}/' $note; cool; run four; until [ $(there) -ge $((96 << 20)) ]; do sleep 0.05; done; echo more
        # That of another snapshot is none.
        sed -i 's/"snapshot":"./"snapshot":"x/' $note; cool; run five; until grep -q '"snapshot":"[0-9a-f]' $note; do sleep 0.05; done; echo other
        $K rm -f one two three four five >/dev/null; $K snapshot prune -af >/dev/null; ls /var/lib/kvmlet/templates
        "#,
        "600\nknown\nmore\nother\nlock\n",
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
        # A name that is taken is no fault of it, nor is a port.
        run four; grep -o 'is taken' err; run five; boots five
        unshare --net bash -ec '
            ip link set lo up; exec 9<>/dev/null; mount -t tmpfs tmpfs /run
            run() { $K run -d --warm --kernel "$AGENT" --name $1 --net=egress=none -p 127.0.0.1:8080:80 --health-cmd exit=0 --health-interval 50ms root.img stay 2>err >/dev/null || echo failed; }
            run six; run seven; grep -o "in use" err; ! grep "thrown away" err
            $K rm -f six >/dev/null; run eight; $K logs --console eight | grep -c "an agent on its console" || true; $K rm -f eight >/dev/null'
        "#,
        "1\nis thrown away\nis cut short\ntwo running\none running\n0\n1\nfour ready\nfailed\nis taken\n0\nfailed\nin use\n0\n",
    );
}

fn foreign() {
    script(
        r#"
        mkfs.ext4 -q root.img 4M >/dev/null
        run() { $K run -d --rm --warm --kernel "$AGENT" --name $1 root.img stay 2>err >/dev/null || echo failed; }
        boots() { $K logs --console $1 | grep -c 'an agent on its console' || true; }
        # Where no template is kept, nobody has waited for its first words.
        booted() { until $K logs --console $1 | grep -q 'an agent on its console'; do sleep 0.05; done; echo 1; }
        run one; template=/var/lib/kvmlet/templates/$(ls /var/lib/kvmlet/templates | grep -v lock)
        run two; boots two
        # The same file, of another user; a new one takes its place.
        chown 4000000 $template; run three; boots three; cat err; stat -c %u $template; run four; boots four
        # What would wait for a writer, or has no end; both stay.
        rm $template; mkfifo $template; run five; booted five; grep -o 'no template is kept' err; stat -c %F $template
        rm $template; mknod $template c 1 5; run six; booted six; grep -o 'not a regular file' err; stat -c %F $template
        # A name for something else.
        rm $template; $K snapshot six saved 2>/dev/null; ln -s $PWD/saved $template; run seven; booted seven
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

fn pooled() {
    script(
        r#"
        mkfs.ext4 -q root.img 4M >/dev/null
        create() { $K pool create --warm "$@" -m 32m --kernel "$AGENT" root.img out=ready stay; }
        create --size 2 --name web --
        $K pool ls --format '{{.Name}} {{.Ready}} {{.Size}} {{.Taken}} {{.File}} {{.Status}}'
        $K ps --format '{{.State}} {{.Labels}}'; $K snapshot ls --format '{{.Kind}} {{.Status}}'
        one=$($K pool take --name one web); two=$($K pool take web)
        $K ps --format '{{.Names}} {{.State}}' | grep -x 'one running'
        # Each is another machine, but the one that has booted.
        for id in $one $two; do
            $K exec $id out=${id::4} exit=0 | sed "s/${one::4}/one/;s/${two::4}/two/"
            $K logs --console $id | grep 'another machine' | sed "s/${id::12}/itself/" || true
            [ $($K inspect --format '{{.Service.hostname}}' $id) = ${id::12} ]
        done
        full() { until [ "$($K pool ls --format '{{.Ready}} {{.Status}}')" = '2 ready' ]; do sleep 0.02; done; }
        full
        # A name that is taken is no reason to lose one.
        ! $K pool take --name one web 2>err; grep -o 'name `one` is taken' err; $K pool ls --format '{{.Ready}} {{.Taken}}'
        # More at once than there are.
        for number in 1 2 3 4; do $K pool take web >took$number & done; wait; cat took* | sort -u | wc -l
        for id in $(cat took*); do $K exec $id exit=0; done; full; $K pool ls --format '{{.Taken}}'
        ! create --name web -- 2>err; grep -o 'there is a pool `web` already' err
        no() { what=$1; shift; ! create "$@" 2>err >/dev/null; grep -o "$what" err; }
        no 'has a name when it is taken' -- --name xx; no 'leave out --detach' -- -d; no 'leave out --restart' -- --restart always
        no 'say their values' -- -e HOME; no 'say their values' -- -eHOME; no 'unexpected argument' -- --nonsense
        no 'cannot be run warm' -- --scratch 64m
        $K pool ls -q; $K pool rm web; $K ps -aq | wc -l; ls /var/lib/kvmlet/pools
        "#,
        "web\nweb 2 2 0 root.img ready\npaused kvmlet.pool=web\npaused kvmlet.pool=web\ntemplate ready\none running\n\
         one\ntwo\nanother machine, itself\nname `one` is taken\n2 2\n4\n6\nthere is a pool `web` already\n\
         has a name when it is taken\nleave out --detach\nleave out --restart\nsay their values\nsay their values\n\
         unexpected argument\ncannot be run warm\nweb\nweb\n6\ngate\n",
    );
}

/// Whatever is done to those that wait, and whoever makes them is killed.
fn found_again() {
    script(
        r#"
        mkfs.ext4 -q root.img 4M >/dev/null
        create() { $K pool create --warm "$@" -m 32m --kernel "$AGENT" root.img; }
        create --size 3 --name web -- >/dev/null
        set -- $($K ps -q); $K rm -f $1 >/dev/null; $K unpause $2 >/dev/null
        $K pool ls --format '{{.Ready}} {{.Status}}'
        took=$($K pool take web); [ ${took::12} = $3 ]
        until [ "$($K pool ls --format '{{.Ready}} {{.Status}}')" = '3 ready' ]; do sleep 0.02; done
        # The one that somebody has had go on is theirs.
        $K pool rm web; $K ps --format '{{.State}}'; $K rm -f $2 $took | wc -l
        # One that is never healthy is made until it is removed.
        $K pool create --name slow --warm -- --health-cmd exit=1 --health-interval 60s -m 32m --kernel "$AGENT" root.img stay & maker=$!
        until [ "$($K ps --format '{{.State}}')" = running ]; do sleep 0.02; done
        kill -9 $maker; wait $maker || echo $?; $K pool ls --format '{{.Ready}} {{.Status}}'
        $K pool rm slow; $K ps -aq | wc -l; $K pool ls -q
        "#,
        "1 filling\nweb\nrunning\nrunning\n2\n137\n0 filling\nslow\n0\n",
    );
}
