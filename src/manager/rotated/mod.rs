//! Lines in files that are put aside when they are full: `NAME`, which is written, and `NAME.1`, `NAME.2` and so on, of
//! which there is a fixed number.

mod files;
mod lines;

pub(crate) use files::Files;
#[cfg(test)]
pub(crate) use files::name;
pub(crate) use lines::Lines;
