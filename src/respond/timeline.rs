//! An incident with everything that happened.

use jiff::Timestamp;
use uuid::Uuid;

use super::Responder;
use crate::store::{Incident, LogEntry, Occurrence, StoreError, UseAfterExposure};

/// The most occurrences, uses and log entries that a detailed view holds of each.
const DETAIL_MAX: u32 = 500;

/// An incident with its occurrences, its timeline and the uses of its key after exposure. Of very many
/// the earliest are given; the incident's own counts are complete.
#[derive(Debug, Clone)]
pub struct IncidentDetail {
    /// The incident and its key.
    pub incident: Incident,
    /// Where the key was seen, in the order in which the places were found.
    pub occurrences: Vec<Occurrence>,
    /// What happened, in order.
    pub timeline: Vec<Moment>,
    /// When the key was used after it had been seen in public.
    pub uses: Vec<UseAfterExposure>,
}

/// Something that happened in the course of an incident.
#[derive(Debug, Clone)]
pub struct Moment {
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum What {
    /// The key was issued.
    Issued,
    /// The key was seen at a place for the first time.
    Seen(Occurrence),
    /// The revocation log got an entry about the key.
    Logged(Box<LogEntry>),
    /// The key was used after it had been seen in public.
    Used(UseAfterExposure),
}

impl Responder {
    /// An incident with everything that happened; `None` when there is none with this identifier.
    ///
    /// # Errors
    /// Any [`StoreError`] of a read.
    pub async fn incident(&self, id: Uuid) -> Result<Option<IncidentDetail>, StoreError> {
        let Some(incident) = self.store.incident(id).await? else {
            return Ok(None);
        };
        let key = incident.key.id;
        let occurrences = self.store.occurrences(key, DETAIL_MAX).await?;
        let uses = self.store.uses_after_exposure(key, DETAIL_MAX).await?;
        let entries = self.store.log_of_key(key, DETAIL_MAX).await?;
        Ok(Some(IncidentDetail {
            timeline: timeline(&incident, &occurrences, &entries, &uses),
            incident,
            occurrences,
            uses,
        }))
    }
}

fn timeline(
    incident: &Incident,
    occurrences: &[Occurrence],
    entries: &[LogEntry],
    uses: &[UseAfterExposure],
) -> Vec<Moment> {
    let mut timeline = vec![Moment {
        at: incident.key.created_at,
        what: What::Issued,
    }];
    timeline.extend(occurrences.iter().map(|occurrence| Moment {
        at: occurrence.detected_at,
        what: What::Seen(occurrence.clone()),
    }));
    timeline.extend(entries.iter().map(|entry| Moment {
        at: entry.at,
        what: What::Logged(Box::new(entry.clone())),
    }));
    timeline.extend(uses.iter().map(|used| Moment {
        at: used.at,
        what: What::Used(used.clone()),
    }));
    // Stable: of what happened within one microsecond, the sighting comes before the revocation.
    timeline.sort_by_key(|moment| moment.at);
    timeline
}
