//! nf_tables by netlink: no program is run, so none can be put in its place, and none has to be there.
//!
//! `netlink-packet-core` does the framing; the few messages of nf_tables that are needed are here. What they mean
//! for guests is for the [rules](super::rules) to say.

mod expression;
mod message;
mod quiet;
mod socket;

pub use expression::{Connection, Expression, Header, Meta, Original, Register, Verdict, data};
pub use message::{
    Attribute, Batch, INET, IPV4, IPV6, Kind, Received, as_number, as_text, bytes, each, find,
    nest, nested, number, text,
};
pub use socket::{Change, News, Socket};
