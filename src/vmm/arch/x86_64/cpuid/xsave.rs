//! How large the area is that XSAVE writes (Intel SDM vol. 1 §13.4).

use super::{Leaf, find};

/// The leaf that tells of state components.
const COMPONENTS: u32 = 0xd;
/// x87, SSE, AVX, and AVX-512 in three parts.
const REGISTERS: u32 = 0b1110_0111;
/// x87 and SSE, which are in the part that each area has.
const LEGACY: u32 = 0b11;
/// That part, and the header.
const LEAST_BYTES: u32 = 576;
/// The area that KVM tells and takes (`struct kvm_xsave`).
const MOST_BYTES: u32 = 4096;

/// The registers that processes compute with: which components they are, and the size of an area in the standard format
/// that has them. None where the processor has no XSAVE, or an area that nobody knows.
pub fn xsave_area(leaves: &[Leaf]) -> Option<(u32, usize)> {
    let components = find(leaves, COMPONENTS, 0)?.eax & REGISTERS;
    if components & LEGACY != LEGACY {
        return None;
    }
    let mut bytes = LEAST_BYTES;
    for number in (2..u32::BITS).filter(|number| components & 1 << number != 0) {
        let part = find(leaves, COMPONENTS, number)?;
        bytes = bytes.max(part.ebx.checked_add(part.eax)?);
    }
    (bytes <= MOST_BYTES).then_some((components, bytes as usize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::x86_64::cpuid::indexed;

    fn part(number: u32, eax: u32, ebx: u32) -> Leaf {
        let leaf = indexed(COMPONENTS, number);
        Leaf { eax, ebx, ..leaf }
    }

    #[test]
    fn an_area_ends_with_its_last_component() {
        let avx = part(2, 256, 576);
        let zmm = [part(5, 64, 832), part(6, 512, 896), part(7, 1024, 1408)];
        let keys = part(9, 8, 2688);
        let area = |components, parts: &[Leaf]| {
            xsave_area(&[&[part(0, components, 0)][..], parts].concat())
        };
        assert_eq!(area(0b11, &[]), Some((0b11, 576)));
        assert_eq!(area(0b111, &[avx]), Some((0b111, 832)));
        let all = [&[avx][..], &zmm, &[keys]].concat();
        assert_eq!(area(0xe7, &all), Some((0xe7, 2432)));
        // What the kernel keeps by itself is not among them.
        assert_eq!(area(0x2e7, &all), Some((0xe7, 2432)));
    }

    #[test]
    fn a_processor_that_tells_nonsense_has_none() {
        let area = |leaves: &[Leaf]| xsave_area(leaves);
        assert_eq!(area(&[]), None);
        assert_eq!(area(&[part(0, 0b101, 0), part(2, 256, 576)]), None);
        assert_eq!(area(&[part(0, 0b111, 0)]), None);
        assert_eq!(area(&[part(0, 0b111, 0), part(2, 256, 4000)]), None);
        assert_eq!(area(&[part(0, 0b111, 0), part(2, 256, u32::MAX)]), None);
    }
}
