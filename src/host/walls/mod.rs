//! What a process must not do, for what it might be made to do: a VM's is in the [jail], those beside it keep few [rights] and
//! are held to lists of system calls.

mod attending;
mod fetchers;
mod fewest;
pub mod jail;
pub mod rights;
pub mod strangers;
mod unpackers;
