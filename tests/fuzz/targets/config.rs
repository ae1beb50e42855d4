//! Any text as a configuration, a memory size, published ports and a CPU mask: an error or values within their limits.
#![no_main]

use kvmlet_spec::{CpuMask, Memory, PortMapping, PortMappings, VmConfig};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(config) = VmConfig::from_json(text) {
        assert!(config.memory >= Memory::MIN && config.memory <= Memory::MAX);
        assert!(config.vcpus.get() >= 1);
        assert!(!config.cmdline.contains(['\0', '\n']));
    }
    if let Ok(memory) = text.parse::<Memory>() {
        // What is printed can be read again.
        let printed = memory
            .to_string()
            .replace(" bytes", "b")
            .replace(" byte", "b");
        assert_eq!(printed.parse::<Memory>().ok(), Some(memory));
    }
    for mapping in text.parse::<PortMappings>().into_iter().flatten() {
        let again = mapping.to_string().parse::<PortMapping>();
        assert_eq!(again.ok(), Some(mapping));
    }
    let _ = text.parse::<CpuMask>();
});
