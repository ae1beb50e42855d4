//! The flags that say how a VM is walled in.

use clap::Args;
use kvmlet_spec::{JailMode, Setting, VmConfigBuilder};

/// Whether there are walls, and whether all of them have to be.
#[derive(Args)]
pub(super) struct WallFlags {
    #[arg(long = Setting::Jail.flag(), overrides_with = "no_jail", help = Setting::Jail.help())]
    jail: bool,
    #[arg(long = Setting::NoJail.flag(), overrides_with = "jail", help = Setting::NoJail.help())]
    no_jail: bool,
    #[arg(long = Setting::BestEffort.flag(), help = Setting::BestEffort.help())]
    best_effort: bool,
}

impl WallFlags {
    /// A configuration with what these flags say.
    pub fn apply(self, mut config: VmConfigBuilder) -> VmConfigBuilder {
        match (self.jail, self.no_jail) {
            (true, _) => config = config.jail(JailMode::Required),
            (false, true) => config = config.jail(JailMode::Off),
            (false, false) => {}
        }
        if self.best_effort {
            config = config.best_effort(true);
        }
        config
    }
}
