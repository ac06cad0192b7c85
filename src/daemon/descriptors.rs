//! File descriptors: every connection takes one, and so do the database, files and fetches.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::server::{MOMENTARY_CONNECTIONS, MOST_CONNECTIONS};

/// Descriptors left for everything but connections: the database's, files, fetches, polls, the log. Half of all, where
/// that is less, but never less than what these take when sixteen fetches run.
const OTHERS: usize = 96;
const FEWEST_OTHERS: usize = 44;

/// The number of descriptors to each place for a moment, and the fewest such places.
const FOR_A_MOMENT: usize = 16;
const FEWEST_MOMENTARY: usize = 4;

/// With fewer nothing works that deserves the name.
const FEWEST: u64 = 64;

/// The remedy for too few.
const REMEDY: &str = "raise the hard limit (`ulimit -Hn`, LimitNOFILE of systemd) to 4096 or more";

/// Below so many connections the log and `doctor` say so.
const FEW: usize = 1024;

/// How many file descriptors there are, and for how many connections that is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// The limit. `None`: there is none.
    pub limit: Option<u64>,
    /// The most connections.
    pub connections: usize,
    /// The most further connections for a moment.
    pub momentary: usize,
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

    /// Returns what is wrong, and what to do about it, when they are so few that the daemon does not start.
    pub fn far_too_few(self) -> Option<(String, &'static str)> {
        let limit = self.limit.filter(|limit| *limit < FEWEST)?;
        let what =
            format!("{limit} file descriptors are too few to work with; {FEWEST} are the fewest");
        Some((what, REMEDY))
    }

    /// What is wrong, and what to do about it, when they are few.
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
