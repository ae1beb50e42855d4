//! nginx is run warm: the first run boots and keeps a template, the second goes on from that as a machine of its own.

use crate::cache;
use crate::harness::Test;
use crate::script::Script;

pub const TESTS: &[Test] = &[("nginx_runs_warm", run)];

fn run() {
    if !rustix::process::geteuid().is_root() {
        return println!("SKIPPED: only root has a book that can be put elsewhere by a mount");
    }
    let place = tempfile::tempdir().unwrap();
    let script = r#"
        set -eu; mount -t tmpfs tmpfs /var/lib; ip link set lo up; trap '$K pool rm -f web >/dev/null 2>&1; $K rm -f one two three four >/dev/null 2>&1' EXIT
        ms() { echo $(( $(date +%s%N) / 1000000 )); }
        # What answers by HTTP and is nginx.
        answers() { exec 9<>/dev/tcp/127.0.0.1/$1 && printf 'GET / HTTP/1.0\r\n\r\n' >&9 && timeout 30 grep -q microVM <&9; }
        run() { $K run -d --warm --name $1 -p $2:80 "$NGINX" >/dev/null; until (answers $2) 2>/dev/null; do sleep 0.02; done; }
        begun=$(ms); run one 8080; echo "first $(( $(ms) - begun ))"
        $K snapshot ls --format '{{.Instance}} {{.Kind}} {{.Status}}'
        begun=$(ms); run two 8081; echo "second $(( $(ms) - begun ))"
        $K stop -t 0 two; run three 8081
        # All have their own, at the same time.
        answers 8080; answers 8081; $K ps --format '{{.Names}} {{.State}}'
        $K inspect --format '{{.Service.hostname}}' one three | sort -u | wc -l
        # Of a pool, too, whose instance has its own before anybody takes it.
        $K pool create --name web --warm -- -p 80 "$NGINX"; $K pool ls --format '{{.Ready}} {{.Status}}'
        begun=$(ms); id=$($K pool take --name four web); port=$($K port four 80 | sed -n 's/.*://;1p')
        until (answers $port) 2>/dev/null; do sleep 0.02; done; echo "taken $(( $(ms) - begun ))"
        $K cp four:/etc/hostname named; sed "s/^${id::12}$/its own/" named
        for name in three four; do $K cp $name:/run/kvmlet/generation $name; done; cmp -s three four || echo another
        $K pool rm web; $K rm -f four
        # It is none of the template's that this one ends.
        $K snapshot prune -af | wc -l; answers 8081; echo still
    "#;
    let script = Script::new(script, place.path(), 3).alone();
    let nginx = cache().join("images/nginx.erofs");
    let (out, err) = script.env("NGINX", nginx).run();
    let lines: Vec<&str> = out.lines().collect();
    let took = |key: &str| -> u64 {
        let mut found = lines.iter().filter_map(|line| line.strip_prefix(key));
        found
            .next()
            .and_then(|rest| rest.trim().parse().ok())
            .expect(&out)
    };
    let (first, second, taken) = (took("first"), took("second"), took("taken"));
    println!(
        "nginx answers {first} ms after its first warm run, {second} ms after its second, {taken} ms after it is taken"
    );
    let rest: Vec<&str> = lines
        .iter()
        .copied()
        .filter(|line| {
            !["first ", "second ", "taken "]
                .iter()
                .any(|key| line.starts_with(key))
        })
        .collect();
    let expected = [
        "one template ready",
        "two",
        "three running",
        "one running",
        "2",
        "web",
        "1 ready",
        "its own",
        "another",
        "web",
        "four",
        "1",
        "still",
    ];
    assert_eq!(rest, expected, "{out}{err}");
}
