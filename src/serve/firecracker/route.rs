//! What a request asks for, by its path and its body.

use super::fault::Fault;
use super::machine::{Component, HOTPLUG, PCI, PMEM};
use super::model::{
    Action, ActionType, BalloonPatch, BalloonStatsPatch, DrivePatch, MachinePatch, NetworkPatch,
    VmPatch, VmState, id, same_id,
};
use super::snapshot::{CreateSnapshot, LoadSnapshot};
use crate::http::{Method, Request};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Something that a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// To be told something.
    Tell(Told),
    /// To describe a part of the VM.
    Set(Component),
    PatchMachine(MachinePatch),
    PatchDrive(DrivePatch),
    PatchNetwork(NetworkPatch),
    PatchBalloon(BalloonPatch),
    PatchBalloonStats(BalloonStatsPatch),
    BalloonStats,
    Act(ActionType),
    Move(VmState),
    Save(CreateSnapshot),
    Load(LoadSnapshot),
    /// To give the guest other metadata.
    PutMetadata(Value),
    PatchMetadata(Value),
}

/// What this process knows itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Instance,
    Version,
    Config,
    Machine,
    Balloon,
    Metadata,
}

/// When something can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Always,
    Before,
    After,
}

impl Call {
    /// When this can be asked for.
    pub fn when(&self) -> When {
        match self {
            Self::Tell(_) | Self::PutMetadata(_) | Self::PatchMetadata(_) => When::Always,
            Self::Set(_) | Self::PatchMachine(_) | Self::Load(_) => When::Before,
            Self::Act(ActionType::InstanceStart) => When::Before,
            Self::Act(ActionType::FlushMetrics | ActionType::SendCtrlAltDel)
            | Self::PatchDrive(_)
            | Self::PatchNetwork(_)
            | Self::PatchBalloon(_)
            | Self::PatchBalloonStats(_)
            | Self::BalloonStats
            | Self::Move(_)
            | Self::Save(_) => When::After,
        }
    }
}

/// What is asked for.
pub fn route(request: &Request) -> Result<Call, Fault> {
    let method = request.method;
    let steps: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
    let call = match method {
        Method::Get => tell(&steps),
        Method::Put => put(&steps, &request.body),
        Method::Patch => patch(&steps, &request.body),
        Method::Delete => delete(&steps),
        Method::Post | Method::Head | Method::Options | Method::Trace | Method::Query => None,
    };
    let call = call.unwrap_or_else(|| {
        Err(Fault(format!(
            "Invalid request method and/or path: {} {}.",
            method.name(),
            request.path
        )))
    });
    match method {
        Method::Get if call.is_ok() && !request.body.is_empty() => {
            Err(Fault("GET request cannot have a body.".into()))
        }
        _ => call,
    }
}

/// None if there is no such path.
type Routed = Option<Result<Call, Fault>>;

fn tell(steps: &[&str]) -> Routed {
    Some(Ok(match steps {
        [""] => Call::Tell(Told::Instance),
        ["version"] => Call::Tell(Told::Version),
        ["vm", "config"] => Call::Tell(Told::Config),
        ["machine-config"] => Call::Tell(Told::Machine),
        ["balloon"] => Call::Tell(Told::Balloon),
        ["balloon", "statistics"] => Call::BalloonStats,
        ["balloon", "hinting", "status"] => return hinting(),
        ["mmds"] => Call::Tell(Told::Metadata),
        ["hotplug", "memory"] => return unsupported(HOTPLUG),
        _ => return None,
    }))
}

fn put(steps: &[&str], body: &[u8]) -> Routed {
    let set = |component: Result<Component, Fault>| Some(component.map(Call::Set));
    match steps {
        ["boot-source"] => set(read("PUT", body).map(Component::Boot)),
        ["machine-config"] => set(read("PUT", body).map(Component::Machine)),
        ["drives", path] => {
            set(named(path, body, |it: &super::model::Drive| &it.drive_id).map(Component::Drive))
        }
        ["network-interfaces", path] => {
            set(named(path, body, |it: &super::model::NetworkInterface| {
                &it.iface_id
            })
            .map(Component::Network))
        }
        ["vsock"] => set(read("PUT", body).map(Component::Vsock)),
        ["balloon"] => set(read("PUT", body).map(Component::Balloon)),
        ["entropy"] => set(read("PUT", body).map(Component::Entropy)),
        ["serial"] => set(read("PUT", body).map(Component::Serial)),
        ["logger"] => set(read("PUT", body).map(Component::Logger)),
        ["metrics"] => set(read("PUT", body).map(Component::Metrics)),
        ["actions"] => Some(read("PUT", body).map(|it: Action| Call::Act(it.action_type))),
        ["snapshot", "create"] => Some(read("PUT", body).map(Call::Save)),
        ["snapshot", "load"] => Some(read("PUT", body).map(Call::Load)),
        ["cpu-config"] => set(read("PUT", body).map(Component::Cpus)),
        ["mmds"] => Some(read_any("PUT", body).map(Call::PutMetadata)),
        ["mmds", "config"] => set(read("PUT", body).map(Component::Mmds)),
        ["pmem", _] => unsupported(PMEM),
        ["hotplug", "memory"] => unsupported(HOTPLUG),
        _ => None,
    }
}

fn patch(steps: &[&str], body: &[u8]) -> Routed {
    Some(match steps {
        ["machine-config"] => read("PATCH", body).map(Call::PatchMachine),
        ["drives", path] => named(path, body, |it: &DrivePatch| &it.drive_id).map(Call::PatchDrive),
        ["network-interfaces", path] => {
            named(path, body, |it: &NetworkPatch| &it.iface_id).map(Call::PatchNetwork)
        }
        ["balloon"] => read("PATCH", body).map(Call::PatchBalloon),
        ["balloon", "statistics"] => read("PATCH", body).map(Call::PatchBalloonStats),
        ["balloon", "hinting", "start" | "stop"] => return hinting(),
        ["vm"] => read("PATCH", body).map(|it: VmPatch| Call::Move(it.state)),
        ["mmds"] => read_any("PATCH", body).map(Call::PatchMetadata),
        ["pmem", _] => return unsupported(PMEM),
        ["hotplug", "memory"] => return unsupported(HOTPLUG),
        _ => return None,
    })
}

fn delete(steps: &[&str]) -> Routed {
    match steps {
        ["drives" | "network-interfaces" | "pmem", _] => Some(Err(Fault::unsupported(
            "PCI is not enabled: taking a device away",
            PCI,
        ))),
        _ => None,
    }
}

fn unsupported((what, why): (&str, &str)) -> Routed {
    Some(Err(Fault::unsupported(what, why)))
}

fn hinting() -> Routed {
    unsupported((
        "balloon hinting",
        "the guest reports free pages by free_page_reporting",
    ))
}

/// A body, as what it has to be.
fn read<T: DeserializeOwned>(method: &str, body: &[u8]) -> Result<T, Fault> {
    let read = read_any(method, body)?;
    match serde_json::from_slice(body).map(|body| list("body", &body)) {
        Ok(Some(name)) => Err(wrong(&format_args!("{name} is a list, and no object"))),
        _ => Ok(read),
    }
}

/// A body of any form.
fn read_any<T: DeserializeOwned>(method: &str, body: &[u8]) -> Result<T, Fault> {
    if body.is_empty() {
        return Err(Fault(format!("Empty {method} request.")));
    }
    serde_json::from_slice(body).map_err(|error| wrong(&error))
}

fn wrong(why: &dyn std::fmt::Display) -> Fault {
    Fault(format!(
        "An error occurred when deserializing the json body of a request: {why}."
    ))
}

/// What can be a list; all else that may have fields is taken for one of them by serde, too, in their order.
const LISTS: [&str; 7] = [
    "network_overrides",
    "drive_overrides",
    "network_interfaces",
    "kvm_capabilities",
    "cpuid_modifiers",
    "modifiers",
    "msr_modifiers",
];

/// The first list that is to be something else, by its name.
fn list(name: &str, value: &Value) -> Option<String> {
    match value {
        Value::Array(all) if LISTS.contains(&name) => all.iter().find_map(|it| list("", it)),
        Value::Array(_) => Some(format!("`{name}`")),
        Value::Object(fields) => fields.iter().find_map(|(name, it)| list(name, it)),
        _ => None,
    }
}

/// A body that has the id which is in the path.
fn named<T: DeserializeOwned>(
    path: &str,
    body: &[u8],
    id_of: fn(&T) -> &String,
) -> Result<T, Fault> {
    let path = id(path)?;
    let read: T = read("PUT", body)?;
    same_id(path, id_of(&read))?;
    Ok(read)
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
