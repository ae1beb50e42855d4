//! What a VM is promised of its host, and what holds it to that, settled before it is built.

use crate::Failed;
use crate::VmConfig;
use crate::config::CgroupParent;
use crate::host::cgroup::{self, Hierarchies, Limits, Plan};
use crate::host::interrupt;
use crate::host::ledger::{self, Host, Ledger, Promise, Share};
use crate::host::runtime::RuntimeDirectory;
use crate::vm::check_host_memory;
use std::error::Error;

/// Where what VMs have is noted. Without such a place nothing can be promised, which is an error, and with
/// `best_effort` a warning.
pub(super) fn runtime(best_effort: bool) -> Result<Option<RuntimeDirectory>, Failed> {
    match RuntimeDirectory::of_user() {
        Ok(runtime) => Ok(Some(runtime)),
        Err(error) if best_effort => {
            warn(&error);
            Ok(None)
        }
        Err(error) => {
            let help = format!("{}; or {WITHOUT}", error.help());
            Err(Failed::new(error).help(help))
        }
    }
}

const WITHOUT: &str = "go on without it: --best-effort";

/// Has a VM noted in the ledger, and makes its cgroup if it is to have one. What this host cannot do is an
/// error, or a warning if the configuration says so; but nobody gets what others were promised.
pub(super) fn admit(
    config: &VmConfig,
    runtime: Option<&RuntimeDirectory>,
) -> Result<Option<Share>, Failed> {
    // No overcommitment makes room for one VM that is larger than the host.
    check_host_memory(config.memory)?;
    let best_effort = config.best_effort;
    let plan = plan(config)?;
    let Some(runtime) = runtime else {
        return Ok(None);
    };
    match enter(config, runtime, plan) {
        Err(error) if interrupt::interrupted_by().is_some() => Err(refused(error)),
        Err(error @ ledger::Error::Cgroup(_)) if best_effort => {
            warn(&error);
            enter(config, runtime, None).map(Some).map_err(refused)
        }
        Err(error @ ledger::Error::Claims(_)) if best_effort => {
            warn(&error);
            Ok(None)
        }
        result => result.map(Some).map_err(refused),
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
fn plan(config: &VmConfig) -> Result<Option<Plan>, Failed> {
    if !config.quota.is_asked() {
        return Ok(None);
    }
    let memory_bytes = config.memory.bytes() + config.overhead().bytes();
    let limits = Limits::new(&config.quota, memory_bytes);
    let hierarchies = Hierarchies::find().map_err(|error| refused(error.into()))?;
    let parent = config.quota.parent.as_ref().map(CgroupParent::path);
    let plan = Plan::new(&hierarchies, &cgroup::unique_name(), &limits, parent);
    if !config.best_effort {
        return plan
            .whole()
            .map(Some)
            .map_err(|error| refused(error.into()));
    }
    plan.missing().iter().for_each(|error| warn(error));
    Ok(Some(plan))
}

fn refused(error: ledger::Error) -> Failed {
    let can_do_without = matches!(error, ledger::Error::Cgroup(_) | ledger::Error::Claims(_));
    let ways = [error.help(), can_do_without.then(|| WITHOUT.into())];
    let ways: Vec<String> = ways.into_iter().flatten().collect();
    match ways.is_empty() {
        true => Failed::new(error),
        false => Failed::new(error).help(ways.join("; or ")),
    }
}

/// Tells what is done without.
fn warn(error: &dyn Error) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    log::warn!("{text}");
}
