//! What the machine looks like from inside: memory, CPUs, empty addresses.

use crate::cli::{kvmlet, run, text};
use crate::harness::{Guest, Test, program};
use kvmlet_host::state::runtime::RuntimeDirectory;
use kvmlet_spec::{
    CpuMask, Dialect, HugePages, MemorySize, Net, Remedy, VmConfig, VmConfigBuilder,
};
use kvmlet_sys::kvm::Execution;
use kvmlet_vmm::{ExitReason, Vm};

pub const TESTS: &[Test] = &[
    ("memory_is_all_there", memory),
    ("memory_can_be_prefaulted_and_huge", backing),
    ("vcpus_start_by_the_mp_table", || smp("via=mptable")),
    ("vcpus_start_by_acpi", || smp("via=acpi")),
    ("cpuid_tells_topology_and_hypervisor", cpuid),
    ("registers_are_saved_and_restored_by_ports", fpu_ports),
    ("masked_cpuid_bits_are_hidden", masked),
    ("what_is_said_of_cpuid_and_registers_is_so", changed),
    ("nothing_of_the_host_is_shown", withheld),
    (
        "virtualization_and_counters_are_for_those_who_ask",
        asked_for,
    ),
    ("nowhere_reads_as_ones", nowhere),
    ("pvh_entry", pvh),
    ("the_service_is_on_the_command_line", service),
    ("a_command_line_that_is_too_long_is_accounted_for", too_long),
    ("kernels_that_do_not_fit_are_refused", too_large),
    (
        "memory_that_the_host_does_not_have_is_refused_on_each_way",
        beyond_the_host,
    ),
    ("notes_go_where_an_embedder_wants_them", notes),
];

fn success(guest: Guest) -> String {
    let (reason, output) = guest.finish();
    assert_eq!(reason, ExitReason::Shutdown { code: 0 }, "{output}");
    output
}

/// A host agent has a runtime directory of its own, or none.
fn notes() {
    let config = |net: bool| {
        let config = VmConfig::builder().kernel(program("power_off"));
        let config = if net {
            config.net(Net::default())
        } else {
            config
        };
        config.build().unwrap()
    };
    let run = |runtime: Option<&RuntimeDirectory>| {
        let vm = kvmlet_run::build(config(false), std::io::sink(), runtime).unwrap();
        vm.start().unwrap().wait().unwrap()
    };
    let place = tempfile::tempdir().unwrap();
    let runtime = RuntimeDirectory::at(&place.path().join("agent")).unwrap();
    for runtime in [Some(&runtime), None] {
        assert_eq!(run(runtime), ExitReason::Shutdown { code: 0 });
    }
    assert_eq!(runtime.names().unwrap(), ["cpuid"]);
    let error = kvmlet_run::build(config(true), std::io::sink(), None).err();
    let error = error.unwrap();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("cannot be noted"), "{cause}");
    let remedy = error.remedy().unwrap();
    assert!(
        remedy
            .in_words_of(Dialect::Flags)
            .contains("--net tap=NAME")
    );
}

fn memory() {
    let host = kvmlet_sys::facts::total_memory_bytes();
    for memory in [16.mib(), 128.mib(), 3.gib(), 4.gib(), 6.gib()] {
        if memory.bytes() > host {
            // The kernel gives nobody more than it has.
            println!("SKIPPED: {memory} of {} MiB", host >> 20);
            continue;
        }
        let output = success(Guest::boot_with("memory_map", |c| c.memory(memory)));
        // Less the 385 KiB of the BIOS area, as on every PC.
        let expected = memory.bytes() - (0x10_0000 - 0x9_fc00);
        assert!(
            output.contains(&format!("ram={expected}")),
            "{memory}: {output}"
        );
    }
}

fn backing() {
    let transparent = |c: kvmlet_spec::VmConfigBuilder| {
        c.memory(64.mib())
            .huge_pages(HugePages::Transparent)
            .prefault(true)
    };
    success(Guest::boot_with("memory_map", transparent));
}

fn smp(via: &str) {
    for vcpus in [1, 2, 8, 32] {
        let output = success(Guest::boot_with("smp", |c| c.vcpus(vcpus).cmdline(via)));
        let ids = (0..vcpus)
            .map(|id| id.to_string())
            .collect::<Vec<_>>()
            .join(",");
        assert!(
            output.contains(&format!("cpus={vcpus} ids={ids}")),
            "{output}"
        );
    }
}

/// `cpuid` prints `cpuid LEAF SUBLEAF: EAX EBX ECX EDX`, all in hex.
fn leaf(output: &str, name: &str) -> [u32; 4] {
    let line = output
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or_else(|| panic!("{output}"));
    let mut words = line
        .split_whitespace()
        .map(|word| u32::from_str_radix(word, 16).unwrap());
    std::array::from_fn(|_| words.next().unwrap())
}

fn cpuid() {
    let output = success(Guest::boot_with("cpuid", |c| c.vcpus(5)));
    let [_, ebx, ecx, _] = leaf(&output, "cpuid 00000001 0:");
    assert_ne!(ecx & 1 << 31, 0, "hypervisor bit");
    assert_eq!(ebx >> 16 & 0xff, 5, "logical processors");
    let [_, signature, ..] = leaf(&output, "cpuid 40000000 0:");
    assert_eq!(&signature.to_le_bytes(), b"KVMK");
    let [tsc_khz, ..] = leaf(&output, "cpuid 40000010 0:");
    assert!((500_000..10_000_000).contains(&tsc_khz), "{tsc_khz} kHz");
    let [shift, count, kind, id] = leaf(&output, "cpuid 0000000b 1:");
    assert_eq!((shift, count, kind >> 8, id), (3, 5, 2, 0));
}

/// Where guest kernels cannot do that themselves, they have ports for it, and nowhere else.
fn fpu_ports() {
    let output = success(Guest::boot("fpu_ports"));
    let said: Vec<&str> = output.lines().collect();
    match Execution::detect().unwrap() {
        Execution::Hardware => assert_eq!(said, ["none"]),
        Execution::Interpreted if !is_x86_feature_detected!("avx") => println!("SKIPPED: no AVX"),
        Execution::Interpreted => {
            assert!(said[0].starts_with("bytes="), "{output}");
            assert_eq!(said[1..], ["restored", "begun anew", "nothing else"]);
        }
    }
}

fn masked() {
    let bit = |mask: CpuMask| {
        let output = success(Guest::boot_with("cpuid", |c| c.cpu_mask(mask)));
        leaf(&output, "cpuid 00000001 0:")[2] >> 13 & 1
    };
    assert_eq!(
        (bit(CpuMask::default()), bit("cx16".parse().unwrap())),
        (1, 0)
    );
}

/// Of CPUID a bit less, a bit more, and a register of another brand; a register's bit that nothing else sets. A leaf that
/// nobody has is named, and so is a register that KVM does not have.
fn changed() {
    let changes = |c: VmConfigBuilder| {
        [
            "1:ecx=0b0xxxxxxxxxxxxx",
            "1:ecx=0b1xxxx",
            "0x40000000:ebx=0b01000001_01000001_01000001_01000001",
        ]
        .iter()
        .fold(c, |c, change| c.cpuid(change.parse().unwrap()))
        .msr("0x1a0=0b1xxx".parse().unwrap())
    };
    let (before, after) = (
        success(Guest::boot("cpuid")),
        success(Guest::boot_with("cpuid", changes)),
    );
    let [eax, ebx, ecx, edx] = leaf(&before, "cpuid 00000001 0:");
    let expected = [eax, ebx, ecx & !(1 << 13) | 1 << 4, edx];
    assert_eq!(leaf(&after, "cpuid 00000001 0:"), expected);
    assert_eq!(leaf(&after, "cpuid 40000000 0:")[1].to_le_bytes(), *b"AAAA");
    let register = |output: &str| {
        let misc = output.split("msr 1a0: ").nth(1).unwrap();
        u64::from_str_radix(misc.split_whitespace().next().unwrap(), 16).unwrap()
    };
    assert_eq!(register(&after), register(&before) | 1 << 3);
    let config = || VmConfig::builder().kernel(program("cpuid"));
    for (config, expected) in [
        (
            config().cpuid("0x3fffffff:eax=0b1".parse().unwrap()),
            "no leaf 0x3fffffff.0x0",
        ),
        (
            config().msr("0xdead=0b1".parse().unwrap()),
            "register 0xdead",
        ),
    ] {
        let Err(error) = Vm::new(config.build().unwrap()) else {
            panic!("{expected}");
        };
        assert!(error.to_string().contains(expected), "{error}");
    }
}

/// Each is what a host of many tenants would not show.
fn withheld() {
    let output = success(Guest::boot("cpuid"));
    let [_, _, features, more] = leaf(&output, "cpuid 00000001 0:");
    let amd = leaf(&output, "cpuid 80000001 0:")[2];
    assert_eq!(features & 1 << 5 | amd & 1 << 2, 0, "VT-x, SVM");
    assert_eq!(features & 1 << 15, 0, "PDCM");
    assert_eq!(features & 1 << 3, 0, "MONITOR");
    assert_eq!(more & (1 << 21 | 1 << 22 | 1 << 29), 0, "traces, heat");
    assert_eq!(amd & (1 << 23 | 1 << 24 | 1 << 28), 0, "counters of AMD");
    for empty in ["00000005", "0000000a", "8000000a", "8000001f", "80000022"] {
        assert_eq!(
            leaf(&output, &format!("cpuid {empty} 0:")),
            [0; 4],
            "{empty}"
        );
    }
    assert_eq!(leaf(&output, "cpuid 00000006 0:")[0] & !(1 << 2), 0);
    // Fast strings are on, and what KVM says after a reset, where it does, stays: no branch traces.
    let misc = output.split("msr 1a0: ").nth(1).unwrap();
    let misc = u64::from_str_radix(misc.split_whitespace().next().unwrap(), 16).unwrap();
    let hardware = Execution::detect().unwrap() == Execution::Hardware;
    let traces = if hardware { 1 << 11 } else { 0 };
    assert_eq!(misc & (1 | traces), 1 | traces, "{misc:#x}");
}

/// What is asked for is shown, or the host is said not to have it.
fn asked_for() {
    let config = || VmConfig::builder().kernel(program("cpuid"));
    for (name, config) in [
        ("`nested`", config().nested(true)),
        ("`pmu`", config().pmu(true)),
    ] {
        if let Err(error) = Vm::new(config.build().unwrap()) {
            println!("{name}: {error}");
            assert!(error.to_string().contains("offers guests no"), "{error}");
            assert!(error.remedy().unwrap().to_string().contains(name));
            continue;
        }
        if name == "`pmu`" {
            success(Guest::boot_with("cpuid", |c| c.pmu(true)));
            continue; // AMD's first counters are not in CPUID
        }
        let output = success(Guest::boot_with("cpuid", |c| c.nested(true)));
        let [intel, amd] = ["00000001", "80000001"];
        let bits = |name, bit: u32| leaf(&output, &format!("cpuid {name} 0:"))[2] & 1 << bit;
        assert_ne!(bits(intel, 5) | bits(amd, 2), 0, "{output}");
        let hide = |c: kvmlet_spec::VmConfigBuilder| c.cpu_mask("vmx,svm".parse().unwrap());
        let output = success(Guest::boot_with("cpuid", |c| hide(c.nested(true))));
        let bits = |name, bit: u32| leaf(&output, &format!("cpuid {name} 0:"))[2] & 1 << bit;
        assert_eq!(bits(intel, 5) | bits(amd, 2), 0, "{output}");
    }
}

fn nowhere() {
    success(Guest::boot("mmio_nowhere"));
}

fn pvh() {
    let output = success(Guest::boot_with("pvh_entry", |c| c.cmdline("some words")));
    assert!(
        output.contains("pvh version=1") && output.contains("cmdline=some words"),
        "{output}"
    );
}

fn service() {
    let configure =
        |c: kvmlet_spec::VmConfigBuilder| c.command(["sh", "-c", "echo hi"]).env("A", "B");
    let output = success(Guest::boot_with("pvh_entry", configure));
    let expected = "kvmlet.arg=sh kvmlet.arg=-c kvmlet.arg=echo%20hi kvmlet.env=A=B";
    assert!(output.contains(expected), "{output}");
    // What is for init comes behind all that the kernel is to read.
    let output = success(Guest::boot_with("pvh_entry", |c| {
        configure(c.cmdline("some words -- for init"))
    }));
    let ours = output.find("virtio_mmio.device=").unwrap();
    assert!(output.find("cmdline=some words").unwrap() < ours);
    let order = format!("{expected} -- for init\n");
    assert!(output.replace('\r', "").contains(&order), "{output}");
}

/// Whoever asked for too much is told what of it.
fn too_long() {
    let config = VmConfig::builder().kernel(program("pvh_entry"));
    let config = config.env("BIG", "x".repeat(3000)).build().unwrap();
    let error = Vm::new(config).err().unwrap();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        cause.contains(": `env` has 3016 (`BIG` alone 3016), "),
        "{cause}"
    );
    assert!(
        error
            .remedy()
            .unwrap()
            .to_string()
            .contains("a file of the image")
    );
}

/// That is the reason, and not what the ledger has left.
fn beyond_the_host() {
    let mib = (kvmlet_sys::facts::total_memory_bytes() >> 20) + 1024;
    let config = VmConfig::builder().kernel(program("spin"));
    let config = config.memory(mib.mib()).build().unwrap();
    let embedded = Vm::new(config.clone()).err().unwrap();
    let error = embedded.to_string();
    assert!(error.contains("is more than this host has"), "{error}");
    let joined = kvmlet_run::build(config, std::io::sink(), None).err();
    assert_eq!(joined.unwrap().to_string(), error);
    for jail in ["--jail", "--no-jail"] {
        let memory = format!("{mib}M");
        let promised = ["--memory", &memory, "--overcommit", "memory=64"];
        let output = run(kvmlet("spin").arg(jail).args(promised));
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{told}");
        assert!(told.contains(&error), "{told}");
    }
}

fn too_large() {
    // Loaded at 2 MiB, so 16 MiB is enough for the program and an initrd of 15 MiB is too much.
    let initrd = tempfile::NamedTempFile::new().unwrap();
    initrd.as_file().set_len(15 << 20).unwrap();
    let config = VmConfig::builder()
        .kernel(program("spin"))
        .initrd(initrd.path())
        .memory(16.mib());
    let error = Vm::new(config.build().unwrap()).err().unwrap();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        cause.starts_with("too little guest memory for the initrd"),
        "{cause}"
    );
    assert!(
        error.to_string().contains(initrd.path().to_str().unwrap()),
        "{error}"
    );
}
