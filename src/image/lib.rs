//! From the layers of an OCI image to a root file system that a guest mounts: trees of files whose content lies in blobs,
//! and the EROFS image that is put in front of these blobs. Nothing of an image is ever unpacked into a directory, so
//! there is no path of the host that a layer could get at. For kvmlet's own crates: nothing here is stable.

// Whoever runs a kvmlet with file capabilities must not steer it by the environment; tests may.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod blob;
mod compressed;
pub mod config;
mod digest;
pub mod erofs;
mod feed;
pub mod layer;
pub mod manifest;
pub mod merge;
#[cfg(test)]
mod mounted;
pub mod pack;
mod packed;
pub mod reference;
pub mod source;
pub mod store;
#[cfg(test)]
mod tarball;
pub mod tree;

pub use compressed::Compressed;
pub use digest::{Digest, Digesting};
pub use feed::feed;
