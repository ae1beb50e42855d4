//! Runtime of the bare-metal guests.
#![no_std]
