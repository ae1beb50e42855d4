//! x86-64: address map, boot protocols, CPUID, MSRs, interrupt-controller tables.

pub mod acpi;
pub mod address_map;
pub mod boot;
pub mod cpuid;
pub mod diagnosis;
pub mod mptable;
pub mod msr;
