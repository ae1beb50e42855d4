//! What can be wrong with a configuration.

use super::complete::MIN_SCRATCH;
use super::flag::comma_hint;
use super::words::{at, did_you_mean_one_of, did_you_mean_or, needs_or_is, within};
use super::{
    Balloon, CpuQuota, CpuWeight, Memory, PortMapping, PortMappings, QueueCount, QueuePairs,
    Serial, VcpuCount,
};
use std::{net::IpAddr, path::PathBuf};

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No kernel was named.
    #[error("no guest kernel is named")]
    KernelMissing,
    /// A memory size that does not parse.
    #[error("`{text}` is not a memory size (write a number with a unit, such as 512M or 2G)")]
    MemorySyntax {
        /// What the user wrote.
        text: String,
    },
    /// A memory size outside the limits.
    #[error("{size} of guest memory is outside the limits: {} to {}{}", Memory::MIN, Memory::MAX, .size.unit_hint())]
    MemoryRange {
        /// The size asked for.
        size: Memory,
    },
    /// A memory size that is not made of whole pages.
    #[error("{bytes} bytes of guest memory is not a multiple of the page size, {page} bytes")]
    MemoryAlignment {
        /// The size asked for, in bytes.
        bytes: u64,
        /// The page size that applies, in bytes.
        page: u64,
    },
    /// A vCPU count outside the limits.
    #[error("{count} vCPUs is outside the limits: 1 to {}", VcpuCount::MAX)]
    VcpuRange {
        /// The count asked for.
        count: u64,
    },
    /// A CPU quota that does not parse.
    #[error(
        "`{text}` is not a share in CPUs (write a number with at most three decimals, such as 0.5)"
    )]
    CpuQuotaSyntax {
        /// What the user wrote.
        text: String,
    },
    /// A CPU quota outside the limits.
    #[error(
        "{quota} CPUs is outside the limits of a quota: {} to {}",
        CpuQuota::MIN,
        CpuQuota::MAX
    )]
    CpuQuotaRange {
        /// The quota asked for.
        quota: CpuQuota,
    },
    /// A CPU quota that is more than can be used.
    #[error("a quota of {quota} CPUs is more than {of} can use ({count})")]
    CpuQuotaUnusable {
        /// The quota asked for.
        quota: CpuQuota,
        /// How many there are.
        count: usize,
        /// Of what.
        of: &'static str,
    },
    /// A CPU weight that does not parse.
    #[error(
        "`{text}` is not a CPU weight (write a number from 1 to {})",
        CpuWeight::MAX
    )]
    CpuWeightSyntax {
        /// What the user wrote.
        text: String,
    },
    /// A CPU weight outside the limits.
    #[error(
        "{weight} is outside the limits of a CPU weight: 1 to {}",
        CpuWeight::MAX
    )]
    CpuWeightRange {
        /// The weight asked for.
        weight: u64,
    },
    /// A scope without anything that it could apply to.
    #[error("a CPU scope changes nothing without a CPU quota or a CPU set")]
    CpuScopeAlone,
    /// A set of CPUs that does not parse.
    #[error("`{text}` is not a set of CPUs: {why} (write a list such as 0,2-3)")]
    CpuSet {
        /// What the user wrote.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A path that is not that of a cgroup.
    #[error("`{text}` is not a cgroup: {why} (write a path such as /tenants/a)")]
    CgroupParent {
        /// What the user wrote.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A factor that does not parse, or is outside the limits.
    #[error("`{text}` is not a factor from 0.001 to 1000, such as 1.5")]
    Factor {
        /// What the user wrote.
        text: String,
    },
    /// No CPUID bit at all.
    #[error("no CPUID bit is named (write names of the flags in /proc/cpuinfo, such as avx2,cx16)")]
    CpuMaskEmpty,
    /// A CPUID bit that is not known by that name.
    #[error(
        "`{name}` is not a CPUID bit that can be masked{}",
        did_you_mean_or(.nearest, " (they go by the names of the flags in /proc/cpuinfo, such as avx2)")
    )]
    CpuMaskName {
        /// What the user wrote.
        name: String,
        /// The nearest known name.
        nearest: Option<String>,
    },
    /// CPUs that cannot be.
    #[error(transparent)]
    CpuTemplate(#[from] super::cpu_template::CpuTemplateError),
    /// A command line that cannot be passed to a kernel.
    #[error("the kernel command line contains a {what}")]
    CmdlineCharacter {
        /// What kind of character was found.
        what: &'static str,
    },
    /// A scratch disk without a root to lay it over.
    #[error("a scratch disk keeps the changes of a root, and no root that changes is named")]
    ScratchAlone,
    /// The size of a scratch disk that is not named.
    #[error("a size of the scratch disk is named, but not its file")]
    ScratchSizeAlone,
    /// A scratch disk that is too small for a file system with a journal.
    #[error("a scratch disk of {size} is too small: {} is the least", MIN_SCRATCH)]
    ScratchSize {
        /// The size.
        size: super::Memory,
    },
    /// An environment variable without a name, or with `=` or a control character in it.
    #[error("`{}` is not the name of an environment variable (write NAME=VALUE)", .name.escape_debug())]
    EnvName {
        /// What the user wrote.
        name: String,
    },
    /// A command whose program has no name.
    #[error(
        "the command has an empty name in place of its program's; name a program, or leave out the command"
    )]
    CommandEmpty,
    /// A working directory that is not told from the root.
    #[error("the working directory `{}` is not an absolute path (it begins with `/`)", .path.escape_debug())]
    WorkdirRelative {
        /// What the user wrote.
        path: String,
    },
    /// Text that the kernel would cut.
    #[error("{what} has a NUL byte in it, which the kernel takes for the end; leave it out")]
    NulByte {
        /// Whose text it is.
        what: String,
    },
    /// A path without anything in it.
    #[error("the path of {what} is empty; name a file, or leave out the setting")]
    PathEmpty {
        /// Whose path it is.
        what: &'static str,
    },
    /// A host name that no host can have.
    #[error("`{}` cannot be a host name: {why}", .name.escape_debug())]
    Hostname {
        /// What the user wrote.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Addresses for a tap that is not kvmlet's.
    #[error(
        "`{key}` is for interfaces that kvmlet makes; who makes the tap sets it up (leave out `tap`)"
    )]
    NetTapOwned {
        /// The key that does not go with `tap`.
        key: &'static str,
    },
    /// A hardware address that no interface can have.
    #[error("`{text}` is not the hardware address of an interface (such as 02:00:00:12:34:56)")]
    MacAddress {
        /// What the user wrote.
        text: String,
    },
    /// An MTU outside the limits.
    #[error("an MTU of {bytes} is outside the limits: 68 to 65521 bytes")]
    MtuRange {
        /// What the user wrote.
        bytes: u64,
    },
    /// A number of queue pairs outside the limits.
    #[error("{count} queue pairs is outside the limits: 1 to {}", QueuePairs::MAX)]
    QueuePairs {
        /// The count asked for.
        count: u64,
    },
    /// Not a network, or one that has no room for host and guest.
    #[error("`{text}` is not an IPv4 network for host and guest (such as 10.1.2.0/30)")]
    Subnet {
        /// What the user wrote.
        text: String,
    },
    /// A published port that does not parse.
    #[error("`{text}` does not publish a port: {why} (write [ADDRESS:][HOST:]GUEST[/tcp|udp])")]
    PortMapping {
        /// What the user wrote.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A port of the host that is to lead to two places.
    #[error("port {mapping} is published twice: a port of the host leads to one of the guest")]
    PublishedTwice {
        /// The later one.
        mapping: PortMapping,
    },
    /// More ports than one VM can have.
    #[error("{count} ports are published; {} is the most", PortMappings::MAX)]
    PortCount {
        /// How many the user wrote.
        count: usize,
    },
    /// Something else than an IP address.
    #[error("`{}` is not an IP address (write one such as 9.9.9.9 or 2620:fe::fe)", .text.escape_debug())]
    IpAddress {
        /// What the user wrote.
        text: String,
    },
    /// An address that no name server can have.
    #[error("{address} cannot be the address of a name server: it is not that of one host")]
    NameServer {
        /// What the user wrote.
        address: IpAddr,
    },
    /// Name servers without an interface whose guest could ask them.
    #[error(
        "name servers are told to guests whose addresses kvmlet chooses, and there is no such interface"
    )]
    NameServersAlone,
    /// A key that is not known.
    #[error(
        "unknown key `{key}`{}{} (line {line}, column {column})",
        within(.place),
        did_you_mean_one_of(.nearest, .known)
    )]
    UnknownKey {
        /// The key in the file.
        key: String,
        /// The keys that lead to its object, such as `disks[0]`; empty at the top.
        place: String,
        /// The nearest known key.
        nearest: Option<String>,
        /// All that are known there.
        known: Vec<String>,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// A key that a device does not have.
    #[error("{of} has no key `{}`{}{}", .key.escape_debug(), did_you_mean_one_of(.nearest, .known), comma_hint(.nearest, .known))]
    FlagKey {
        /// What has such keys, with its article.
        of: &'static str,
        /// What the user wrote.
        key: String,
        /// The nearest known key.
        nearest: Option<String>,
        /// All that are known.
        known: Vec<String>,
    },
    /// A key that stands more than once in a text.
    #[error("{of} has `{key}` twice")]
    FlagTwice {
        /// What has such keys, with its article.
        of: &'static str,
        /// The key.
        key: String,
    },
    /// A value that a key of a device cannot have.
    #[error("`{key}` of {of} {}{expected}", needs_or_is(.value))]
    FlagValue {
        /// What has such keys, with its article.
        of: &'static str,
        /// The key.
        key: &'static str,
        /// What the user wrote; empty if nothing.
        value: String,
        /// What would do.
        expected: &'static str,
    },
    /// Devices that cannot be told apart.
    #[error("two {of} have the `{key}` {value}: give each its own")]
    Twice {
        /// What they are.
        of: &'static str,
        /// The key that both have.
        key: &'static str,
        /// What both have there.
        value: String,
    },
    /// One file for two disks, of which one would change what the other has.
    #[error("the disk `{}` is named twice, and written to: name it once, or read-only each time", .path.display())]
    DiskTwice {
        /// The file.
        path: PathBuf,
    },
    /// A disk without a file.
    #[error("a disk has no file: add `path=FILE`")]
    DiskPathMissing,
    /// Ranges of files that make no disk.
    #[error(transparent)]
    Extents(#[from] super::extents::ExtentsError),
    /// A serial number that a disk cannot have.
    #[error(
        "`{text}` cannot be the serial number of a disk: those are 1 to {} printable ASCII characters",
        Serial::MAX_BYTES
    )]
    DiskSerial {
        /// What the user wrote.
        text: String,
    },
    /// A number of queues outside the limits.
    #[error("a disk has 1 to {} queues, not {count}", QueueCount::MAX)]
    DiskQueues {
        /// The count asked for.
        count: u64,
    },
    /// A balloon that leaves the guest too little.
    #[error(
        "a balloon of {size} leaves less than {} of the guest's {memory}; {} is the most",
        Memory::MIN,
        Balloon::limit(*.memory)
    )]
    BalloonSize {
        /// The size asked for.
        size: Memory,
        /// Guest RAM.
        memory: Memory,
    },
    /// A balloon in memory that stays with its VM.
    #[error("reserved huge pages stay with their VM, so a balloon cannot give them back")]
    BalloonReserved,
    /// Memory that is touched beforehand, only to be given back.
    #[error(
        "all memory is touched before the start, as prefaulted or reserved memory is, and free page reporting \
         gives back what is not used"
    )]
    BalloonPrefault,
    /// Sockets that cannot be.
    #[error(transparent)]
    Vsock(#[from] super::vsock::VsockError),
    /// A rate limit that lets nothing through.
    #[error("a rate of zero would stop the device; leave out the limit for none")]
    RateZero,
    /// A burst to go with no rate.
    #[error("a burst limits nothing without a rate; add `{of}`")]
    BurstWithoutRate {
        /// The key that is missing.
        of: &'static str,
    },
    /// A path that JSON cannot have.
    #[error("a path is not UTF-8, as JSON is: rename the file, or link to it")]
    PathNotText,
    /// Something that no key of a configuration file says.
    #[error("the configuration has been changed in a way that no key of a configuration file says")]
    NoKeySays,
    /// Text that is not JSON, or a value that a key cannot have.
    #[error("{}{message} (line {line}, column {column})", at(.place))]
    Json {
        /// Is it JSON, and only its contents are wrong?
        is_json: bool,
        /// The keys that lead to what is wrong, such as `disks[0].path`; empty at the top.
        place: String,
        /// What is wrong.
        message: String,
        /// Line, from 1.
        line: usize,
        /// Column, from 1; 0 before the first one.
        column: usize,
    },
}
