//! What the host changes in the machine: its clock, its random numbers, its networks.

use alloc::format;
use alloc::string::{String, ToString};

use kvmlet_contract::NetworkSpec;
use kvmlet_contract::channel::Request;

use crate::{network, sys};

/// Does what the request is about; the rest of a sentence that starts with "cannot" if that does not work.
pub fn change(request: &Request<'_>) -> Result<(), String> {
    match *request {
        Request::SetClock { realtime_ns } => {
            sys::set_clock(realtime_ns).map_err(|e| format!("set the clock: {e}"))
        }
        Request::AddEntropy { bytes } => {
            sys::add_entropy(bytes).map_err(|e| format!("add to the random numbers: {e}"))
        }
        Request::Network { spec } => {
            let spec = NetworkSpec::from_parameter_value(spec);
            network::replace(&spec.map_err(|e| format!("configure the network: {e}"))?)
        }
        _ => Err("change what is none of the machine's".to_string()),
    }
}
