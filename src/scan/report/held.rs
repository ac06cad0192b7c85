//! Things that a log of SARIF holds until its end, as far as there is room.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::keyformat::Sha256Digest;

/// Maximum number of candidates at paths whose findings are counted, in up to 21 MiB.
const SEEN_MAX: usize = 900_000;

/// Maximum number of notifications. The rest is counted.
const NAMED_MAX: usize = 10_000;

/// Maximum size of them, in bytes.
const HELD_MAX: usize = 16 << 20;

/// Number of findings so far of each candidate at each path, by the beginning of a digest of both.
#[derive(Debug, Default)]
pub(super) struct Counts(HashMap<[u8; 8], u32>);

impl Counts {
    /// Counts a finding, and returns how many there are so far of its candidate at its path. If too many others are
    /// counted, it is the first, as most are, so that it is the same the next time.
    pub(super) fn count(&mut self, digest: &Sha256Digest) -> u32 {
        let Some(start) = digest.0.first_chunk() else {
            return 1;
        };
        if let Some(count) = self.0.get_mut(start) {
            *count = count.saturating_add(1);
            return *count;
        }
        if self.0.len() < SEEN_MAX {
            self.0.insert(*start, 1);
        }
        1
    }
}

/// Notifications of what could not be scanned, as JSON.
#[derive(Debug, Default)]
pub(super) struct Notifications {
    named: Vec<String>,
    /// Number of bytes that these hold.
    held: usize,
    /// Number of those that there was no room for.
    more: u64,
}

impl Notifications {
    /// Adds a notification, or counts it if there is no room for it.
    pub(super) fn add(&mut self, notification: &Value) {
        let notification = notification.to_string();
        let held = self.held + notification.len();
        if held > HELD_MAX || self.named.len() == NAMED_MAX {
            self.more += 1;
            return;
        }
        self.held = held;
        self.named.push(notification);
    }

    /// Returns all notifications, and one of how many more there were.
    pub(super) fn into_all(self) -> Vec<String> {
        let mut all = self.named;
        if self.more > 0 {
            let text = format!("not scanned: {} more", self.more);
            let more = json!({"level": "warning", "message": {"text": text}});
            all.push(more.to_string());
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_counted_until_there_are_too_many_kinds() {
        let mut counts = Counts::default();
        let digest = |n: usize| {
            let mut digest = Sha256Digest([0; 32]);
            digest.0[..8].copy_from_slice(&n.to_le_bytes());
            digest
        };
        for n in 0..SEEN_MAX {
            assert_eq!(counts.count(&digest(n)), 1);
        }
        assert_eq!(counts.count(&digest(0)), 2);
        for n in SEEN_MAX..SEEN_MAX + 10 {
            assert_eq!((counts.count(&digest(n)), counts.count(&digest(n))), (1, 1));
        }
        assert_eq!((counts.0.len(), counts.count(&digest(0))), (SEEN_MAX, 3));
    }

    #[test]
    fn notifications_are_held_as_long_as_there_is_room() {
        let mut notifications = Notifications::default();
        let long = json!("p".repeat(HELD_MAX / 4));
        for _ in 0..5 {
            notifications.add(&long);
        }
        let all = notifications.into_all();
        assert_eq!(all.len(), 4);
        assert!(all[3].contains("not scanned: 2 more"), "{}", all[3]);
        let mut notifications = Notifications::default();
        for n in 0..=NAMED_MAX {
            notifications.add(&json!(n));
        }
        assert_eq!(notifications.into_all().len(), NAMED_MAX + 1);
    }
}
