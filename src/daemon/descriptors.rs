//! File descriptors: one for every connection, others for the database, files and fetches.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::server::{MOMENTARY_CONNECTIONS, MOST_CONNECTIONS};

/// Descriptors reserved for everything but connections: the database, files, fetches, polls, the log. Half of all if
/// that is less, but never fewer than these need while sixteen fetches run.
const OTHERS: usize = 96;
const FEWEST_OTHERS: usize = 44;

/// Number of descriptors per momentary place, and the minimum number of such places.
const FOR_A_MOMENT: usize = 16;
const FEWEST_MOMENTARY: usize = 4;

/// Minimum number of descriptors with which the daemon starts.
const FEWEST: u64 = 64;

/// Remedy for too few descriptors.
const REMEDY: &str = "raise the hard limit (`ulimit -Hn`, LimitNOFILE of systemd) to 2048 or more";

/// Number of connections below which the log and `doctor` warn.
const FEW: usize = 1024;

/// File descriptors of the process, and the number of connections that they are enough for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// Limit on file descriptors. `None` if there is none.
    pub limit: Option<u64>,
    /// Maximum number of connections.
    pub connections: usize,
    /// Maximum number of further, momentary connections.
    pub momentary: usize,
}

impl Descriptors {
    /// Returns the descriptors that this process will have once it has raised its limit.
    pub fn available() -> Self {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        Self::within(maximum)
    }

    /// Raises the limit of this process as far as permitted, and returns the result.
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
        let all = limit.map_or(enough, |limit| usize::try_from(limit).unwrap_or(enough));
        let momentary = (all / FOR_A_MOMENT).clamp(FEWEST_MOMENTARY, MOMENTARY_CONNECTIONS);
        let others = (all / 2).clamp(FEWEST_OTHERS, OTHERS);
        let connections = all.saturating_sub(momentary + others);
        Self {
            limit,
            connections: connections.clamp(1, MOST_CONNECTIONS),
            momentary,
        }
    }

    /// Returns the problem and its remedy if there are too few descriptors for the daemon to start.
    pub fn far_too_few(self) -> Option<(String, &'static str)> {
        let limit = self.limit.filter(|limit| *limit < FEWEST)?;
        let what =
            format!("{limit} file descriptors are too few to work with; {FEWEST} are the fewest");
        Some((what, REMEDY))
    }

    /// Returns the problem and its remedy if there are few descriptors.
    pub fn too_few(self) -> Option<(String, &'static str)> {
        let limit = self.limit.filter(|_| self.connections < FEW)?;
        let Self { connections, .. } = self;
        let what = format!("{limit} file descriptors are enough for {connections} connections");
        Some((what, REMEDY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_everything_else() {
        for (limit, connections, momentary) in [
            (None, MOST_CONNECTIONS, MOMENTARY_CONNECTIONS),
            (Some(1 << 20), MOST_CONNECTIONS, MOMENTARY_CONNECTIONS),
            (Some(u64::MAX), MOST_CONNECTIONS, MOMENTARY_CONNECTIONS),
            (Some(1024), 864, 64),
            (Some(256), 144, 16),
            (Some(100), 44, 6),
            (Some(64), 16, 4),
            (Some(0), 1, 4),
        ] {
            let descriptors = Descriptors::within(limit);
            assert_eq!(descriptors.connections, connections, "{limit:?}");
            assert_eq!(descriptors.momentary, momentary, "{limit:?}");
            let is_low = limit.is_some_and(|limit| limit <= 1024);
            assert_eq!(descriptors.too_few().is_some(), is_low, "{limit:?}");
            let is_hopeless = limit.is_some_and(|limit| limit < 64);
            assert_eq!(descriptors.far_too_few().is_some(), is_hopeless);
        }
    }
}
