//! What a VM is promised of its host, and what holds it to that, settled before it is built.

use crate::Error;
use kvmlet_host::shares::cgroup::{self, Hierarchies, Limits, Plan};
use kvmlet_host::shares::ledger::{self, Host, Ledger, Promise, Share};
use kvmlet_host::state::runtime::RuntimeDirectory;
use kvmlet_spec::{CgroupParent, VmConfig};
use kvmlet_sys::{causes, interrupt};
use std::error;

/// Where what VMs have is noted. Without such a place nothing can be promised, which is an error, and with
/// `best_effort` a warning.
pub(crate) fn runtime(best_effort: bool) -> Result<Option<RuntimeDirectory>, Error> {
    match RuntimeDirectory::of_user() {
        Ok(runtime) => Ok(Some(runtime)),
        Err(error) if best_effort => {
            warn(&error);
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Has a VM noted in the ledger, and makes its cgroup if it is to have one. What this host cannot do is an
/// error, or a warning if the configuration says so; but nobody gets what others were promised.
pub(crate) fn admit(
    config: &VmConfig,
    runtime: Option<&RuntimeDirectory>,
) -> Result<Option<Share>, Error> {
    let best_effort = config.best_effort;
    let plan = plan(config)?;
    let Some(runtime) = runtime else {
        return Ok(None);
    };
    match enter(config, runtime, plan) {
        Err(error) if interrupt::interrupted_by().is_some() => Err(error.into()),
        Err(error @ ledger::Error::Cgroup(_)) if best_effort => {
            warn(&error);
            Ok(enter(config, runtime, None).map(Some)?)
        }
        Err(error @ ledger::Error::Claims(_)) if best_effort => {
            warn(&error);
            Ok(None)
        }
        result => Ok(result.map(Some)?),
    }
}

fn enter(
    config: &VmConfig,
    runtime: &RuntimeDirectory,
    plan: Option<Plan>,
) -> Result<Share, ledger::Error> {
    let (promise, host) = (Promise::of(config), Host::here()?);
    Ledger::lock(runtime)?.admit(promise, config.overcommit, &host, plan)
}

/// The cgroup of a VM that asks for one.
fn plan(config: &VmConfig) -> Result<Option<Plan>, ledger::Error> {
    if !config.quota.is_asked() {
        return Ok(None);
    }
    let memory_bytes = config.memory.bytes() + config.overhead().bytes();
    let limits = Limits::new(&config.quota, memory_bytes);
    let hierarchies = Hierarchies::find()?;
    let parent = config.quota.parent.as_ref().map(CgroupParent::path);
    let plan = Plan::new(&hierarchies, &cgroup::unique_name(), &limits, parent);
    if !config.best_effort {
        return Ok(plan.whole().map(Some)?);
    }
    plan.missing().iter().for_each(|error| warn(error));
    Ok(Some(plan))
}

/// Tells what is done without.
fn warn(error: &dyn error::Error) {
    log::warn!("{}", causes::in_a_line(error));
}
