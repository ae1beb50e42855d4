//! A configuration as the JSON that says it.

use super::{DiskSource, Error, NameServer, Net, Overlay, VmConfig, VmConfigBuilder};
use std::path::PathBuf;

impl VmConfig {
    /// The JSON text that [`from_json`](Self::from_json) reads as this configuration. Equal configurations have
    /// equal texts: defaults are in it, and what is not there is not.
    ///
    /// The size of a console's terminal is left out: it belongs to one run.
    ///
    /// # Errors
    /// What no key says: a path that is not UTF-8, and what was changed behind the builder's back, such as
    /// `guest.service.user`.
    pub fn to_json(&self) -> Result<String, Error> {
        let written = self.as_written()?;
        let json = serde_json::to_string(&written).map_err(|_| Error::PathNotText)?;
        let mut said = self.clone();
        said.guest.console = None;
        match written.build()? == said {
            true => Ok(json),
            false => Err(Error::NoKeySays),
        }
    }

    /// The builder that makes this configuration.
    fn as_written(&self) -> Result<VmConfigBuilder, Error> {
        let Self { quota, guest, .. } = self;
        let mut disks = self.disks.iter().cloned();
        let overlay = guest.root.as_ref().and_then(|root| root.overlay.as_ref());
        let scratch = matches!(overlay, Some(Overlay::Device(_)));
        let mut next = |is_there: bool| {
            let disk = is_there.then(|| disks.next().ok_or(Error::NoKeySays));
            disk.transpose().map(|disk| disk.map(|disk| disk.source))
        };
        let (root, scratch) = (next(guest.root.is_some())?, next(scratch)?);
        let path = |source: DiskSource| source.path().map(PathBuf::from).ok_or(Error::NoKeySays);
        let scratch = scratch.map(path).transpose()?;
        let made = self.nets.iter().find(|net| net.is_made());
        let dns = made.map_or(&[][..], |net: &Net| &net.dns);
        Ok(VmConfigBuilder {
            kernel: Some(self.kernel.clone()),
            initrd: self.initrd.clone(),
            cmdline: Some(self.cmdline.clone()),
            memory: Some(self.memory),
            huge_pages: self.huge_pages,
            prefault: self.prefault,
            vcpus: Some(self.vcpus.get().into()),
            cpu_mask: self.cpu_mask.clone(),
            cpuid: self.cpuid.clone(),
            msrs: self.msrs.clone(),
            nested: self.nested,
            pmu: self.pmu,
            pci: self.pci,
            cpu_quota: quota.cpu,
            cpuset: quota.cpus.clone(),
            cpu_weight: quota.weight,
            cpu_scope: quota.scope,
            cgroup_parent: quota.parent.clone(),
            memory_mode: quota.memory,
            overcommit: self.overcommit,
            root,
            scratch,
            read_only: guest
                .root
                .as_ref()
                .is_some_and(|root| root.overlay.is_none()),
            scratch_size: self.scratch_size,
            disks: disks.collect(),
            nets: self.nets.clone(),
            dns: dns.iter().copied().map(NameServer).collect(),
            balloon: self.balloon,
            vsock: self.vsock.clone(),
            rng: Some(self.rng),
            poll: Some(self.poll),
            command: guest.service.command.clone(),
            env: guest.service.env.iter().cloned().collect(),
            workdir: guest.service.workdir.clone(),
            hostname: guest.hostname.clone(),
            stop_timeout: guest.stop_timeout_s,
            jail: self.jail,
            best_effort: self.best_effort,
            stats: self.stats.clone(),
        })
    }
}

#[cfg(test)]
#[path = "written_tests.rs"]
mod tests;
