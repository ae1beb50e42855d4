//! VMs with a network, a port and a share that are killed at random instants, and what is left of them.

use crate::Test;
use crate::host::Host;
use crate::task::Task;

pub const TESTS: &[Test] = &[("killed_vms_leave_nothing_behind_the_next_command", killed)];

/// How many are killed, unless this environment variable has another number.
const KILLS: &str = "KVMLET_KILLS";
const USUAL: u32 = 60;

/// Starts VMs, six at a time, and kills each some time after its start: most are in the middle of that, some run.
/// One in three loses its VM's process, the others what holds their network and share, or both. Then one more
/// command, and nothing is there that was not there before all this.
const SCRIPT: &str = r#"
    RANDOM=$2
    # What a host has of VMs. The book's own files stay: locks, sums, what KVM said of CPUID, a network of jails.
    left() {
        ip -o link | grep -v ': lo:' || true
        nft list ruleset
        find /sys/fs/cgroup -type d -name 'kvmlet-*'
        find /run -path '*kvmlet*' -type f ! -name '*lock' ! -name 'cpuid*' ! -name roll ! -name network
        cat /proc/sys/net/ipv4/ip_forward
        cat /sys/fs/cgroup/cgroup.subtree_control /sys/fs/cgroup/user.slice/cgroup.subtree_control
        pgrep -a kvmlet || true
        pgrep -x net-departure || true
    }
    next() {
        kvmlet boot --jail --memory 16M --cpu-quota 0.1 -p 9000:80 --kernel $GUESTS/power_off </dev/null
    }
    next
    while pgrep -x net-departure >/dev/null; do sleep 0.05; done
    before=$(left)
    for ((done = 0; done < $1; )); do
        started=()
        for slot in 1 2 3 4 5 6; do
            kvmlet boot --jail --memory 16M --cpu-quota 0.1 -p 900$slot:80 --kernel $GUESTS/orders \
                </dev/null >/dev/null 2>&1 &
            started+=($!)
        done
        for pid in "${started[@]}"; do
            sleep 0.$((RANDOM % 4))$((RANDOM % 10))
            vm=$(cat /proc/$pid/task/$pid/children 2>/dev/null) || true
            case $((RANDOM % 3)) in
                0) kill -9 ${vm:-$pid} 2>/dev/null || true ;;
                1) kill -9 $pid $vm 2>/dev/null || true ;;
                2) kill -9 $pid 2>/dev/null || true ;;
            esac
            done=$((done + 1))
        done
        # Who lost its VM's process ends by itself. One that lost another child, which set its network up, may not.
        sleep 0.5
        kill -9 "${started[@]}" 2>/dev/null || true
        wait "${started[@]}" 2>/dev/null || true
        # Who is being killed still has what it has.
        for ((pause = 0; pause < 200; pause++)); do
            pgrep -x kvmlet >/dev/null || pgrep -x net-proxy >/dev/null || break
            sleep 0.05
        done
        next
        for ((pause = 0; pause < 200; pause++)); do
            after=$(left)
            [ "$before" != "$after" ] || break
            sleep 0.05
        done
        if [ "$before" != "$after" ]; then
            printf 'after %s kills (seed %s) there is something left:\n%s\n' "$done" "$2" "$after"
            diff <(echo "$before") <(echo "$after") || true
            exit 1
        fi
    done
    echo "$done killed (seed $2), nothing left"
"#;

fn killed(host: &Host) {
    let count = std::env::var(KILLS).ok().and_then(|text| text.parse().ok());
    let count = count.unwrap_or(USUAL);
    let seed = (std::process::id() % 32_768).to_string();
    let task = Task::new(["bash", "-euc", SCRIPT, "bash", &count.to_string(), &seed]);
    let output = host.run(task.patience(120 + 3 * u64::from(count)));
    println!("{}", output.success().trim());
}
