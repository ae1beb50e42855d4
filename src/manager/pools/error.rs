//! What can go wrong with pools. (Apart from [`Error`], for programs that have none are smaller by that.)

use crate::{Error, Name};
use kvmlet_control::PoolError;
use kvmlet_spec::{Advice, Remedy};

/// Why something cannot be done with pools.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolsError {
    /// The book cannot be used.
    #[error(transparent)]
    Book(#[from] Error),
    /// No pool is called that.
    #[error("there is no pool `{name}`")]
    NotFound {
        /// What the user named.
        name: Name,
    },
    /// A pool of that name has VMs ready.
    #[error("there is a pool `{name}` already")]
    Taken {
        /// The name.
        name: Name,
    },
    /// Its process was killed, or the host has been started again.
    #[error("the process of pool `{name}` has ended, and its VMs with it")]
    Dead {
        /// Its name.
        name: Name,
    },
    /// A pool does not do it.
    #[error("pool `{name}` does not do it")]
    Refused {
        /// Its name.
        name: Name,
        /// Why.
        #[source]
        source: PoolError,
    },
}

impl Remedy for PoolsError {
    fn remedy(&self) -> Option<Advice> {
        match self {
            Self::Book(error) => error.remedy(),
            Self::NotFound { .. } => Some("`kvmlet pool ls` lists those that there are".into()),
            Self::Taken { name } => Some(
                format!("take another name, or remove that one (`kvmlet pool rm {name}`)").into(),
            ),
            Self::Dead { .. } => Some("make it again".into()),
            Self::Refused { .. } => None,
        }
    }
}
