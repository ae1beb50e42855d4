//! Which CPU features KVM can give to guests (KVM_GET_SUPPORTED_CPUID, Linux Documentation/virt/kvm/api.rst §4.46).
//!
//! Where the host is a virtual machine itself, this is KVM's slowest answer: it makes a hundred CPUID instructions,
//! and each traps (0.3 ms, a tenth of a VM's start). The answer is the same until KVM is loaded again, so it is
//! written down for the next VM; libvirt does so, too.

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::Kvm;
use kvmlet_sys::directory::Directory;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

const FILE: &str = "cpuid";
/// A number for each register, and three for which leaf it is.
const ENTRY_BYTES: usize = 7 * size_of::<u32>();

/// KVM's offer, from what was written down, if that still holds.
///
/// # Errors
/// What KVM says when it is asked. Nothing depends on what is written down.
pub fn recall(kvm: &Kvm, notes: Option<&Directory>) -> Result<CpuId, kvm_ioctls::Error> {
    let place = notes.and_then(|notes| Some((notes, Generation::of_kvm()?)));
    let written = place.as_ref().and_then(|(notes, now)| now.read(notes));
    if let Some(entries) = written
        && let Ok(offer) = CpuId::from_entries(&entries)
    {
        return Ok(offer);
    }
    let offer = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    if let Some((notes, now)) = place
        && let Err(error) = now.write(notes, offer.as_slice())
    {
        log::debug!("KVM's CPUID is not written down: {error}");
    }
    Ok(offer)
}

/// A KVM from its loading to its unloading: the first line of what is written down about it.
#[derive(Debug, PartialEq, Eq)]
struct Generation(String);

impl Generation {
    /// That of the KVM of now, if it can be told: the kernel's boot, and the number of KVM's entry in sysfs, which
    /// is made anew whenever KVM is loaded.
    fn of_kvm() -> Option<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let entry = fs::metadata("/sys/devices/virtual/misc/kvm").ok()?.ino();
        Some(Self(format!("kvmlet 1 {} {entry}\n", boot.trim_end())))
    }

    /// What was written down in its time.
    fn read(&self, notes: &Directory) -> Option<Vec<kvm_cpuid_entry2>> {
        let most = self.0.len() + size_of::<u32>() + KVM_MAX_CPUID_ENTRIES * ENTRY_BYTES;
        let bytes = notes.read(FILE, most as u64 + 1).ok()??;
        let (count, entries) = (bytes.strip_prefix(self.0.as_bytes())?).split_first_chunk()?;
        let (entries, rest) = entries.as_chunks();
        let whole = rest.is_empty() && entries.len() == u32::from_ne_bytes(*count) as usize;
        whole.then(|| entries.iter().map(decode).collect())
    }

    /// Replaces what is there. Others that write at the same time write the same.
    fn write(&self, notes: &Directory, entries: &[kvm_cpuid_entry2]) -> io::Result<()> {
        let mut bytes = self.0.clone().into_bytes();
        bytes.extend((entries.len() as u32).to_ne_bytes());
        bytes.extend(entries.iter().flat_map(encode));
        notes.write(FILE, &bytes)
    }
}

fn encode(entry: &kvm_cpuid_entry2) -> impl Iterator<Item = u8> {
    let kvm_cpuid_entry2 {
        function,
        index,
        flags,
        eax,
        ebx,
        ecx,
        edx,
        padding: _,
    } = *entry;
    let numbers = [function, index, flags, eax, ebx, ecx, edx];
    numbers.into_iter().flat_map(u32::to_ne_bytes)
}

fn decode(bytes: &[u8; ENTRY_BYTES]) -> kvm_cpuid_entry2 {
    let (numbers, _) = bytes.as_chunks();
    let mut numbers = numbers.iter().map(|bytes| u32::from_ne_bytes(*bytes));
    let mut next = || numbers.next().unwrap_or_default();
    kvm_cpuid_entry2 {
        function: next(),
        index: next(),
        flags: next(),
        eax: next(),
        ebx: next(),
        ecx: next(),
        edx: next(),
        padding: [0; 3],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<kvm_cpuid_entry2> {
        let entry = |number: u32| kvm_cpuid_entry2 {
            function: number,
            index: 1,
            flags: 2,
            eax: 3,
            ebx: 4,
            ecx: u32::MAX,
            edx: 6,
            padding: [0; 3],
        };
        (0..70).map(entry).collect()
    }

    #[test]
    fn what_is_written_down_holds_for_one_generation() {
        let place = tempfile::tempdir().unwrap();
        let notes = Directory::open(place.path()).unwrap();
        let (now, later) = (Generation("now\n".into()), Generation("later\n".into()));
        assert!(now.read(&notes).is_none());
        now.write(&notes, &entries()).unwrap();
        assert_eq!(now.read(&notes).unwrap(), entries());
        assert!(later.read(&notes).is_none());
        later.write(&notes, &entries()[..3]).unwrap();
        assert_eq!(later.read(&notes).unwrap(), entries()[..3]);
        assert!(now.read(&notes).is_none());
        assert_eq!(notes.names().unwrap(), [FILE], "nothing else is left");
    }

    #[test]
    fn what_is_damaged_is_not_read() {
        let place = tempfile::tempdir().unwrap();
        let (file, notes) = (
            place.path().join(FILE),
            Directory::open(place.path()).unwrap(),
        );
        let now = Generation("now\n".into());
        now.write(&notes, &entries()).unwrap();
        let good = fs::read(&file).unwrap();
        let reads = |bytes: &[u8]| {
            fs::write(&file, bytes).unwrap();
            now.read(&notes).is_some()
        };
        assert!(reads(&good));
        assert!(!reads(&good[..good.len() - 1]));
        assert!(!reads(&good[..good.len() - ENTRY_BYTES]));
        assert!(!reads(b"now\n"));
        assert!(!reads(b""));
        assert!(!reads(&[b"now\n", &[0; 1 << 20][..]].concat()));
        assert!(reads(&good));
    }

    #[test]
    fn this_hosts_kvm_has_a_generation() {
        let Ok(kvm) = kvmlet_sys::kvm::open() else {
            return println!("no KVM");
        };
        assert!(Generation::of_kvm().is_some());
        assert_eq!(Generation::of_kvm(), Generation::of_kvm());
        let place = tempfile::tempdir().unwrap();
        let notes = Directory::open(place.path()).unwrap();
        let first = recall(&kvm, Some(&notes)).unwrap();
        assert!(place.path().join(FILE).exists());
        for known in [Some(&notes), None] {
            let again = recall(&kvm, known).unwrap();
            assert_eq!(again.as_slice(), first.as_slice());
        }
    }
}
