//! Result of one check.

use std::borrow::Cow;
use std::time::Duration;

use serde::Serialize;

/// Maximum duration of one check.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Outcome of a check, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Ok,
    Warning,
    Failed,
}

impl Status {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// Finding of one check, and the remedy if it failed.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    pub(super) name: Cow<'static, str>,
    pub(super) status: Status,
    pub(super) message: String,
    /// Remedy, if the outcome is not [`Status::Ok`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mend: Option<String>,
    /// `true` if the configuration has to change.
    #[serde(skip)]
    pub(super) is_configuration: bool,
}

impl Check {
    pub(super) fn ok(name: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            status: Status::Ok,
            message: message.into(),
            mend: None,
            is_configuration: false,
        }
    }

    pub(super) fn warning(
        name: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self {
            status: Status::Warning,
            mend: Some(mend.into()),
            ..Self::ok(name, message)
        }
    }

    pub(super) fn failed(
        name: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self {
            status: Status::Failed,
            mend: Some(mend.into()),
            ..Self::ok(name, message)
        }
    }

    /// Returns a failure that ends only when the configuration, or a file that it names, is changed.
    pub(super) fn misconfigured(
        name: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self {
            is_configuration: true,
            ..Self::failed(name, message, mend)
        }
    }
}

/// Runs `task` for at most [`PATIENCE`]. Returns `None` on timeout.
pub(super) async fn in_time<T>(task: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(PATIENCE, task).await.ok()
}
