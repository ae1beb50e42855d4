//! What drivers do wrong.

/// What a driver did that makes a queue unusable. The device then needs a reset; the VM goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// A descriptor points outside RAM.
    #[error("a descriptor points to {bytes} bytes at {address:#x}, which are not all RAM")]
    Address {
        /// Guest physical address.
        address: u64,
        /// Size in bytes.
        bytes: u32,
    },
    /// A readable descriptor behind a writable one (§2.7.4.2).
    #[error("a readable descriptor follows a writable one")]
    Order,
    /// More descriptors than the device's queue can have entries (§2.7.5.3.1).
    #[error("a descriptor chain is longer than its queue")]
    Length,
    /// A chain that loops, leaves its table, or nests indirect tables (§2.7.5).
    #[error("a descriptor chain cannot be followed to its end")]
    Chain,
    /// More requests than the ring has entries.
    #[error("the ring is inconsistent: it says that {requests} requests are in its {size} entries")]
    Ring {
        /// Requests that are new.
        requests: u16,
        /// Entries of the ring.
        size: u16,
    },
    /// A request that its device cannot make sense of.
    #[error("a request is malformed: {0}")]
    Request(&'static str),
}
