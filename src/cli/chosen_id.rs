//! Ids that whoever has started this process has chosen, to know by them what it makes.

use kvmlet_manager::{InstanceId, NotAnId};

/// Such a one.
pub(super) fn id(text: &str) -> Result<InstanceId, NotAnId> {
    text.to_owned().try_into()
}
