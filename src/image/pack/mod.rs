//! A directory of the host as a layer, or as an image that is mounted: all of its files are of 1970, whenever they were made,
//! so the same files are the same bytes.
//!
//! Kept are modes, hard links, symbolic links, devices, FIFOs, holes, and extended attributes, capabilities among them, but
//! for the host's SELinux labels. Sockets nobody listens at are left out.

mod archive;
mod header;
mod image;
mod walk;

pub use archive::archive;
pub use image::{Owners, image};
pub use walk::Error;

#[cfg(test)]
mod tests;
