//! All settings of a VM: a flag, a key in a configuration file, and what each does. What help, manual pages,
//! `docs/reference.md`, error messages and the text form of devices know of a setting, they know from here.

/// How a setting is named where it is set. All that is said of it is said here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Definition {
    /// The long flag, without dashes. Several settings can share one: those are keys of its value.
    pub flag: &'static str,
    /// The key in the flag's value, where that is a list of keys.
    pub name: Option<&'static str>,
    /// What stands in the place of a value; nothing where the setting is said by its name alone.
    pub value: &'static str,
    /// The keys that lead to it in a configuration file: `memory`, `disks[].path`, `dns[]`.
    pub key: &'static str,
    /// What it does, in a sentence or two.
    pub help: &'static str,
}

macro_rules! settings {
    ($($setting:ident: $flag:literal $(, $name:literal)?; $value:literal; $key:literal; $help:literal)*) => {
        /// Something that can be said about a VM. [`definition`](Self::definition) tells where.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[allow(rustdoc::broken_intra_doc_links)] // brackets there are for terminals
        pub enum Setting {
            $(#[doc = $help] $setting,)*
        }

        impl Setting {
            /// All that there are, in the order in which they are told.
            pub const ALL: &[Setting] = &[$(Setting::$setting),*];
        }

        const DEFINITIONS: &[Definition] = &[$(Definition {
            flag: $flag, name: settings!(@name $($name)?), value: $value, key: $key, help: $help,
        }),*];
    };
    (@name) => { None };
    (@name $name:literal) => { Some($name) };
}

impl Setting {
    /// How it is named, and what it does.
    pub const fn definition(self) -> &'static Definition {
        &DEFINITIONS[self as usize]
    }
}

settings! {
    Kernel: "kernel"; "FILE"; "kernel"; "Guest kernel: an ELF vmlinux or a bzImage"
    Initrd: "initrd"; "FILE"; "initrd"; "Initial RAM disk"
    Cmdline: "cmdline"; "TEXT"; "cmdline"; "Kernel command line, instead of \"console=ttyS0 reboot=k panic=-1 quiet\"; a command that is to tell more adds \"loglevel=7\""
    Vcpus: "cpus"; "N"; "vcpus"; "Number of vCPUs [default: 1]"
    Memory: "memory"; "SIZE"; "memory"; "Guest memory, with a unit: 512M, 2G [default: 128M]"
    HugePages: "huge-pages"; "KIND"; "huge_pages"; "Which pages back guest memory"
    Prefault: "prefault"; ""; "prefault"; "Touch all guest memory before the guest starts"
    CpuMask: "cpu-mask"; "NAME,..."; "cpu_mask[]"; "CPUID bits to hide from the guest, by the names of /proc/cpuinfo"
    Cpuid: "cpuid"; "CHANGE"; "cpuid[]"; "What the guest is to see of CPUID: LEAF[.SUBLEAF]:REGISTER=BITS, such as 0x7.0:ebx=0b0xxxx, where bits are 0, 1, or x for what KVM and kvmlet have there. Can be given again"
    Msr: "msr"; "CHANGE"; "msrs[]"; "What a model-specific register is to have in it when the guest begins: REGISTER=BITS, such as 0x277=0b110. Can be given again"
    Nested: "nested"; ""; "nested"; "Let the guest run virtual machines of its own (VT-x or SVM)"
    Pmu: "pmu"; ""; "pmu"; "Give the guest performance counters"
    Pci: "pci"; ""; "pci"; "Put devices on a PCI bus, where stock kernels find them, instead of at fixed addresses"
    CpuQuota: "cpu-quota"; "CPUS"; "cpu_quota"; "CPU time that the VM may use, in CPUs: 0.5 is half of one"
    Cpuset: "cpuset"; "LIST"; "cpuset"; "CPUs of the host on which the VM may run: 0,2-3"
    CpuWeight: "cpu-weight"; "N"; "cpu_weight"; "The VM's weight when CPUs are short, 1 to 10000 [default: 100, or 10 for each thousandth of a CPU of the quota]"
    CpuScope: "cpu-scope"; "SCOPE"; "cpu_scope"; "Which threads the CPU quota and the CPU set hold [default: vm]"
    MemoryMode: "memory-mode"; "MODE"; "memory_mode"; "Whether other VMs may use the memory that this one has not touched yet [default: shared]"
    CgroupParent: "cgroup-parent"; "PATH"; "cgroup_parent"; "The cgroup below which the VM's is made, by its path from the root of the cgroup tree. Made if it is not there [default: where this user may make any]"
    Overcommit: "overcommit"; "FACTORS"; "overcommit"; "How many times the host may be promised to all VMs together"
    OvercommitCpus: "overcommit", "cpus"; "FACTOR"; "overcommit.cpus"; "CPUs, a factor such as 1.5 [default: 1]"
    OvercommitMemory: "overcommit", "memory"; "FACTOR"; "overcommit.memory"; "memory that is not reserved [default: 1]"
    Root: "root"; "FILE"; "root"; "Image of a root file system (erofs or ext4), shared and only read: changes go to guest memory"
    ReadOnly: "read-only"; ""; "read_only"; "The guest cannot change its root: nothing keeps changes, and writing is an error"
    Scratch: "scratch"; "DISK"; "scratch"; "Disk of the VM's own (ext4) that keeps the changes of the root"
    ScratchPath: "scratch", "path"; "FILE"; "scratch"; "the file or block device; may come first without its key"
    ScratchSize: "scratch", "size"; "SIZE"; "scratch_size"; "makes a file of this size where there is none"
    Disks: "disk"; "DISK"; "disks"; "One more disk; can be given again"
    DiskPath: "disk", "path"; "FILE"; "disks[].path"; "the file or block device; may come first without its key"
    DiskReadOnly: "disk", "ro"; ""; "disks[].read_only"; "the guest may only read, and VMs may share it"
    DiskDirect: "disk", "direct"; ""; "disks[].direct"; "bypasses the host's page cache"
    DiskCache: "disk", "cache"; "writeback|writethrough"; "disks[].cache"; "when a write is durable: once flushed, or at once [default: writeback]"
    DiskFormat: "disk", "format"; "raw"; "disks[].format"; "takes the content as it is, whatever it looks like"
    DiskId: "disk", "id"; "NAME"; "disks[].id"; "serial number in the guest, 1 to 20 characters"
    DiskQueues: "disk", "queues"; "N"; "disks[].queues"; "queues, each with a thread, 1 to 32 [default: 1]"
    DiskIo: "disk", "io"; "auto|io_uring|sync"; "disks[].io"; "how the host does the work [default: auto]"
    DiskBandwidth: "disk", "bandwidth"; "SIZE"; "disks[].rate_limit.bandwidth"; "bytes per second"
    DiskBurst: "disk", "burst"; "SIZE"; "disks[].rate_limit.burst"; "bytes at once after a pause [default: a tenth of a second's]"
    DiskOnce: "disk", "once"; "SIZE"; "disks[].rate_limit.once"; "bytes more at full speed, one time only"
    DiskIops: "disk", "iops"; "N"; "disks[].rate_limit.operations"; "requests per second"
    DiskIopsBurst: "disk", "iops-burst"; "N"; "disks[].rate_limit.operations_burst"; "requests at once after a pause [default: a tenth of a second's]"
    DiskIopsOnce: "disk", "iops-once"; "N"; "disks[].rate_limit.operations_once"; "requests more at full speed, one time only"
    Nets: "net"; "KEYS"; "nets"; "A network interface; alone, kvmlet makes one with addresses and a way out. Can be given again"
    NetTap: "net", "tap"; "NAME"; "nets[].tap"; "a tap that exists; may come first without its key"
    NetBackend: "net", "backend"; "tap|passt"; "nets[].backend"; "what carries its frames; may come first without its key [default: a tap where this user may make one, or passt]"
    NetMac: "net", "mac"; "ADDRESS"; "nets[].mac"; "the guest's hardware address"
    NetMtu: "net", "mtu"; "BYTES"; "nets[].mtu"; "the largest packet, 68 to 65521"
    NetQueues: "net", "queues"; "N"; "nets[].queues"; "pairs of queues, 1 to 8 [default: 1]"
    NetVhost: "net", "vhost"; ""; "nets[].vhost"; "the host's kernel moves its frames (vhost-net), instead of a thread of the VM's process"
    NetSubnet: "net", "subnet"; "NETWORK"; "nets[].subnet"; "network of host and guest, such as 10.1.2.0/30"
    NetEgress: "net", "egress"; "none|internet|all"; "nets[].egress"; "what the guest reaches [default: internet]"
    NetRxBandwidth: "net", "rx-bandwidth"; "SIZE"; "nets[].rx.bandwidth"; "bytes per second towards the guest"
    NetRxBurst: "net", "rx-burst"; "SIZE"; "nets[].rx.burst"; "bytes at once after a pause"
    NetRxOnce: "net", "rx-once"; "SIZE"; "nets[].rx.once"; "bytes more at full speed, one time only"
    NetRxPackets: "net", "rx-packets"; "N"; "nets[].rx.operations"; "packets per second towards the guest"
    NetRxPacketsBurst: "net", "rx-packets-burst"; "N"; "nets[].rx.operations_burst"; "packets at once after a pause"
    NetRxPacketsOnce: "net", "rx-packets-once"; "N"; "nets[].rx.operations_once"; "packets more at full speed, one time only"
    NetTxBandwidth: "net", "tx-bandwidth"; "SIZE"; "nets[].tx.bandwidth"; "bytes per second from the guest"
    NetTxBurst: "net", "tx-burst"; "SIZE"; "nets[].tx.burst"; "bytes at once after a pause"
    NetTxOnce: "net", "tx-once"; "SIZE"; "nets[].tx.once"; "bytes more at full speed, one time only"
    NetTxPackets: "net", "tx-packets"; "N"; "nets[].tx.operations"; "packets per second from the guest"
    NetTxPacketsBurst: "net", "tx-packets-burst"; "N"; "nets[].tx.operations_burst"; "packets at once after a pause"
    NetTxPacketsOnce: "net", "tx-packets-once"; "N"; "nets[].tx.operations_once"; "packets more at full speed, one time only"
    Balloon: "balloon"; "KEYS"; "balloon"; "A memory balloon that gives idle memory back; alone, free memory is reported"
    BalloonSize: "balloon", "size"; "SIZE"; "balloon.size"; "what it takes from the guest at once; may come first without its key"
    BalloonDeflate: "balloon", "deflate-on-oom"; "on|off"; "balloon.deflate_on_oom"; "lets a guest short of memory take it back [default: on]"
    BalloonReporting: "balloon", "reporting"; "on|off"; "balloon.reporting"; "the guest tells which memory is free [default: on]"
    Vsock: "vsock"; "KEYS"; "vsock"; "Sockets between guest and host. A program that connects to the socket at PATH and writes `CONNECT PORT` is connected to that port of the guest; what the guest connects to at port P of its host is the socket at PATH_P"
    VsockPath: "vsock", "path"; "PATH"; "vsock.path"; "where the host's socket is made; may come first without its key"
    VsockCid: "vsock", "cid"; "N"; "vsock.cid"; "the guest's address, 3 to 4294967294 [default: 3]"
    VsockAgent: "vsock", "agent"; "on|off"; "vsock.agent"; "the guest's init asks the program at PATH_1023 which service it is to run, and hands its streams over there [default: off]"
    Rng: "no-rng"; ""; "rng"; "Leave out the entropy source: for guests that trust their processor's"
    Poll: "no-poll"; ""; "poll"; "Have the threads of disks and interfaces sleep as soon as nothing is asked of them, instead of looking for a moment first: slower, and cheaper in CPU time"
    Publish: "publish"; "PORTS"; "nets[].publish[]"; "Make a port of the host lead to the guest: [ADDRESS:][HOST:]GUEST[/tcp|udp], where ADDRESS is an IPv4 address, an IPv6 address in brackets or `localhost`, and ports may be ranges (8000-8010:80-90); there is an interface then. Without HOST the host chooses one, which is printed"
    Dns: "dns"; "ADDRESS"; "dns[]"; "A name server that the host asks for the guest, instead of its own; can be given again"
    Env: "env"; "NAME[=VALUE]"; "env"; "Set an environment variable of the service; without a value, pass on the one set here"
    Workdir: "workdir"; "DIR"; "workdir"; "Directory in which the service starts"
    Hostname: "hostname"; "NAME"; "hostname"; "Host name of the guest"
    StopTimeout: "stop-timeout"; "SECONDS"; "stop_timeout"; "How long the service may take to end when kvmlet is told to: then it is killed, and 5 seconds later the guest's power is cut [default: 10]"
    Stats: "stats"; "FILE"; "stats"; "Write statistics to a file as JSON, when the VM ends and on SIGUSR1; `-` is standard output, behind what the guest has written"
    Jail: "jail"; ""; "jail"; "Confine the VM's process: it has nothing of the host but what is opened for it. This is the default as far as the host can; asked for, what the host cannot do is an error"
    NoJail: "no-jail"; ""; "jail"; "Do not confine the VM's process"
    BestEffort: "best-effort"; ""; "best_effort"; "Go on, with a warning, where this host cannot hold the VM to what is asked for"
    Command: "command"; "COMMAND"; "command[]"; "The service to run, with its arguments, instead of the image's own"
}
