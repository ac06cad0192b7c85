//! Reasons for which a delivery is not accepted, and how they are counted.

use std::sync::Arc;
use std::time::Duration;

use super::counts::{Loss, Refusal};
use super::{BodyError, Forge, Unverified};
use crate::store::StoreError;

/// Error returned when a delivery is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// 401: the delivery is not genuine.
    #[error(transparent)]
    Unverified(#[from] Unverified),
    /// 400: the header that names the event is missing, empty or too long.
    #[error("the header `{0}` is missing, empty or too long: it names the event")]
    NoEvent(&'static str),
    /// 400: the delivery is from another forge.
    #[error(
        "the headers are those of another forge; send this delivery to `/webhooks/{}`, with a header `{header}` \
         for this endpoint", forge.name()
    )]
    Foreign {
        /// Forge that sent the delivery.
        forge: Forge,
        /// Name of the header that this endpoint requires.
        header: &'static str,
    },
    /// 400: the body is not a payload.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// 503: too many deliveries are waiting already.
    #[error("too many deliveries wait to be stored; send this one again later")]
    Busy {
        /// Time to wait before the delivery is sent again.
        retry_after: Duration,
    },
    /// 503: too many work items of the same repository, owner or server are waiting. Items for which
    /// there was room were accepted.
    #[error(
        "too much of this repository, its owner or its server waits to be read; send this delivery again later"
    )]
    Full {
        /// Time to wait before the delivery is sent again.
        retry_after: Duration,
    },
    /// Usually 503: nothing was changed.
    #[error(transparent)]
    Store(#[from] Arc<StoreError>),
    /// 500: a task of this program died.
    #[error("reading the delivery failed inside the program")]
    Died,
}

impl WebhookError {
    /// Returns what the delivery is counted as, and the loss that it is if the forge does not send it again. A delivery
    /// whose sender is not verified is none: anybody can send one.
    pub(super) fn counts_as(&self) -> (Refusal, Option<Loss>) {
        match self {
            Self::Unverified(_) => (Refusal::Unproved, None),
            Self::NoEvent(_) | Self::Foreign { .. } | Self::Body(_) => (
                Refusal::Unreadable,
                Some(Loss::Unreadable(self.to_string())),
            ),
            Self::Full { .. } => (Refusal::Unavailable, Some(Loss::Full)),
            Self::Busy { .. } | Self::Store(_) | Self::Died => {
                (Refusal::Unavailable, Some(Loss::Unavailable))
            }
        }
    }
}
