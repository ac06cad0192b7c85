//! File descriptors: every connection takes one, and so do the database, files and fetches.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::server::{MOMENTARY_CONNECTIONS, MOST_CONNECTIONS};

/// What is left for everything but connections: the database's, files, fetches, polls, the log.
const OTHERS: usize = 96;

/// Below so many connections the log and `doctor` say so.
const FEW: usize = 1024;

/// How many file descriptors there are, and for how many connections that is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// The limit. `None`: there is none.
    pub limit: Option<u64>,
    /// The most connections.
    pub connections: usize,
}

impl Descriptors {
    /// What this process has once it has raised its limit as far as it may.
    pub fn available() -> Self {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        Self::within(maximum)
    }

    /// Raises the limit as far as this process may.
    pub fn raise() -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        if current == maximum {
            return Self::within(current);
        }
        let raised = Rlimit {
            current: maximum,
            maximum,
        };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => Self::within(maximum),
            Err(error) => {
                tracing::warn!(%error, "the limit of file descriptors could not be raised");
                Self::within(current)
            }
        }
    }

    fn within(limit: Option<u64>) -> Self {
        let enough = MOST_CONNECTIONS + MOMENTARY_CONNECTIONS + OTHERS;
        let descriptors = limit.map_or(enough, |limit| usize::try_from(limit).unwrap_or(enough));
        let connections = descriptors.saturating_sub(MOMENTARY_CONNECTIONS + OTHERS);
        Self {
            limit,
            connections: connections.max(descriptors / 4).clamp(1, MOST_CONNECTIONS),
        }
    }

    /// What is wrong, and what to do about it, when they are few.
    pub fn too_few(self) -> Option<(String, &'static str)> {
        let limit = self.limit.filter(|_| self.connections < FEW)?;
        let Self { connections, .. } = self;
        let what = format!("{limit} file descriptors are enough for {connections} connections");
        Some((
            what,
            "raise the hard limit (`ulimit -Hn`, LimitNOFILE of systemd) to 8192 or more",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_everything_else() {
        for (limit, connections) in [
            (None, MOST_CONNECTIONS),
            (Some(1 << 20), MOST_CONNECTIONS),
            (Some(u64::MAX), MOST_CONNECTIONS),
            (Some(1024), 864),
            (Some(256), 96),
            (Some(64), 16),
            (Some(0), 1),
        ] {
            let descriptors = Descriptors::within(limit);
            assert_eq!(descriptors.connections, connections, "{limit:?}");
            let is_low = limit.is_some_and(|limit| limit <= 1024);
            assert_eq!(descriptors.too_few().is_some(), is_low, "{limit:?}");
        }
    }
}
