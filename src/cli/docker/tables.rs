//! Verbs and flags of docker's, and what does the same here.

pub(super) const VERBS: &[(&[&str], &str)] = &[
    (
        &["create", "up"],
        "`kvmlet run -d --name NAME IMAGE` runs a service, and `kvmlet start` one that has ended",
    ),
    (&["ls", "list"], "`kvmlet ps` lists instances"),
    (
        &["down"],
        "`kvmlet stop` ends an instance, and `kvmlet rm --force` removes it at once",
    ),
    (
        &["version", "info"],
        "`kvmlet --version`, or `kvmlet doctor`",
    ),
    (
        &["history"],
        "`kvmlet image history NAME` shows how an image was made",
    ),
    (
        &["container", "system"],
        "verbs stand alone: `kvmlet ps`, `kvmlet inspect`, `kvmlet prune`",
    ),
    (
        &["network"],
        "networks go with their VMs (`kvmlet run -p`, `--net`)",
    ),
    (
        &["export"],
        "`kvmlet cp NAME:/ -` writes all that an instance has as an archive",
    ),
    (
        &["update"],
        "what an instance may use is said when it is run: `kvmlet rm` it, and `kvmlet run` it anew",
    ),
];

/// Those that `kvmlet run` does not have.
pub(super) const RUN_FLAGS: &[(&[&str], &str)] = &[
    (
        &["--disk", "--root", "--initrd", "--config"],
        "that is said to `kvmlet boot`, which boots a machine; `kvmlet run` runs an image of a root",
    ),
    (
        &[
            "--privileged",
            "--cap-add",
            "--cap-drop",
            "--security-opt",
            "--userns",
            "--pid",
            "--ipc",
            "--uts",
            "--cgroupns",
            "--sysctl",
            "--use-api-socket",
        ],
        "leave it out: the service has a kernel of its own, where it may do what its user may, and nothing on this host",
    ),
    (&["--init"], "leave it out: the guest has an init, kvmlet's"),
    (
        &["--ulimit"],
        "leave it out: the guest is the service's alone, and its limits are those of its memory (`-m`) and vCPUs (`--cpus`)",
    ),
    (
        &[
            "--pids-limit",
            "--memory-swap",
            "--memory-reservation",
            "--memory-swappiness",
            "--kernel-memory",
            "--oom-kill-disable",
            "--oom-score-adj",
        ],
        "leave it out: the guest has its memory (`-m`) and what it starts is limited by that",
    ),
    (
        &["--link"],
        "instances do not reach each other by names: publish a port (`-p`), and name this host to the other (`--add-host`)",
    ),
    (
        &["--log-driver"],
        "logs are kept by kvmlet (`kvmlet logs`; `--log-opt max-size=10m` says how much of them); `kvmlet logs -f` can be piped elsewhere",
    ),
    (
        &[
            "--ip",
            "--ip6",
            "--link-local-ip",
            "--network-alias",
            "--net-alias",
            "--mac-address",
        ],
        "keys of an interface say that: `--net=subnet=10.1.2.0/30`; see `kvmlet boot --help`",
    ),
    (
        &["--device", "--device-cgroup-rule", "--gpus"],
        "devices of the host are not given to guests; `kvmlet boot --disk` has block devices",
    ),
    (
        &["--platform"],
        "leave it out: what is pulled is for this machine, and `kvmlet pull --platform` pulls for others",
    ),
    (
        &["--network"],
        "VMs have no networks in common. `-p` publishes a port, and `--net` alone gives an interface with a way out (`--net=egress=none`: one that only this host reaches); without either there is none",
    ),
    (
        &["-a", "--attach", "--sig-proxy"],
        "leave it out: in the foreground all streams and signals are the service's; `-d` leaves it to itself, and `kvmlet attach` joins it",
    ),
    (
        // What is left of `-d=false`.
        &["-="],
        "a flag without a value is said alone, and left out where it is not wanted",
    ),
    (&["--detach-keys"], "leave it out: Ctrl-p Ctrl-q detach"),
    (
        &[
            "--blkio-weight",
            "--blkio-weight-device",
            "--device-read-bps",
            "--device-read-iops",
            "--device-write-bps",
            "--device-write-iops",
        ],
        "`kvmlet boot --disk FILE,bandwidth=SIZE,iops=N` limits what a VM does with a disk",
    ),
    (
        &[
            "--cpu-period",
            "--cpu-quota",
            "--cpu-rt-period",
            "--cpu-rt-runtime",
        ],
        "`--cpus 1.5` says how much CPU time it may use",
    ),
    (
        &["--cpuset-mems"],
        "leave it out: its memory is taken where it runs (`--cpuset-cpus`)",
    ),
    (
        &[
            "--cpu-count",
            "--cpu-percent",
            "--io-maxbandwidth",
            "--io-maxiops",
            "--isolation",
        ],
        "leave it out: that is for containers of Windows",
    ),
    (
        &["--disable-content-trust"],
        "leave it out: what is pulled is compared with its digests",
    ),
    (
        &["--dns-option", "--dns-opt", "--dns-search", "--domainname"],
        "`--dns` names a server that is asked, and `--hostname` the guest",
    ),
    (
        &["--expose"],
        "leave it out: a port that is published (`-p`) can be reached, and no other",
    ),
    (
        &["-q", "--quiet"],
        "leave it out: how far a pull is, is shown on terminals only",
    ),
    (
        &["--runtime"],
        "leave it out: what runs a service is a microVM",
    ),
    (
        &["--storage-opt"],
        "`--scratch SIZE` keeps what the service changes on a disk of that size",
    ),
    (
        &["--volume-driver"],
        "leave it out: volumes are files of kvmlet's (`-v NAME:/PATH`)",
    ),
    (
        &["--volumes-from"],
        "name its volumes (`-v NAME:/PATH`), which `kvmlet inspect` tells",
    ),
    (
        &["--annotation"],
        "`--label` notes something about an instance",
    ),
];

/// Those that `kvmlet boot` does not have.
pub(super) const FLAGS: &[(&[&str], &str)] = &[
    (
        &["-i", "-t", "--interactive", "--tty"],
        "leave it out: the guest's console is this terminal already",
    ),
    (
        &["--rm"],
        "leave it out: nothing is left of a VM but its scratch disk; `kvmlet run --rm` is for instances",
    ),
    (
        &["-d", "--detach"],
        "`kvmlet run -d` returns when a service runs; `kvmlet boot` stays in the foreground",
    ),
    (
        &["--name"],
        "`kvmlet run --name` gives an instance a name; `--hostname` is for what the guest calls itself",
    ),
    (&["--volume", "--mount"], NO_VOLUMES),
    (
        &["--network"],
        "`--net` gives the guest an interface, and `--net egress=none` one that only the host reaches",
    ),
    (
        &["--entrypoint"],
        "the service and its arguments stand at the end; for `kvmlet boot` behind `--`",
    ),
    (
        &["--restart"],
        "`kvmlet run --restart` starts again what has ended",
    ),
];

pub(super) const NO_VOLUMES: &str = "directories of the host are not shared with guests: put files into the root's image, or on a `--disk`; `kvmlet run -v` has volumes";
pub(super) const NO_IMAGE_NAMES: &str = "the image of a root is a file, named by `--root FILE`; a command for the guest stands behind `--`";
