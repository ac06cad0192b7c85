//! Detailed view of an incident.

use jiff::Timestamp;
use uuid::Uuid;

use super::Responder;
use crate::store::{Incident, LogEntry, Occurrence, StoreError, Urgency, UseAfterExposure};

/// Maximum number of occurrences, uses and log entries in a detailed view, for each of them.
const DETAIL_MAX: u32 = 500;

/// Incident with its occurrences, its timeline and the uses of its key after exposure. If there are very many, only
/// the earliest are included; the incident's own counts are complete.
#[derive(Debug, Clone)]
pub struct IncidentDetail {
    /// The incident and its key.
    pub incident: Incident,
    /// Places where the key was seen, in the order of detection.
    pub occurrences: Vec<Occurrence>,
    /// Events in chronological order.
    pub timeline: Vec<Moment>,
    /// Uses of the key after its exposure.
    pub uses: Vec<UseAfterExposure>,
}

/// Event in the course of an incident.
#[derive(Debug, Clone)]
pub struct Moment {
    /// Time of the event.
    pub at: Timestamp,
    /// Kind of the event.
    pub what: What,
}

/// Kind of an event, with its details.
#[derive(Debug, Clone)]
pub enum What {
    /// The key was issued.
    Issued,
    /// The key was seen at a place for the first time, by this source.
    Seen(String),
    /// An entry about the key was added to the revocation log.
    Logged(Box<LogEntry>),
    /// The key was used after its exposure.
    Used(UseAfterExposure),
}

impl Responder {
    /// Returns the detailed view of an incident, or `None` if there is none with this identifier.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn incident(&self, id: Uuid) -> Result<Option<IncidentDetail>, StoreError> {
        let store = self.store.with_urgency(Urgency::Listing);
        let Some(incident) = store.incident(id).await? else {
            return Ok(None);
        };
        let key = incident.key.id;
        let occurrences = store.occurrences(key, DETAIL_MAX).await?;
        let uses = store.uses_after_exposure(key, DETAIL_MAX).await?;
        let entries = store.log_of_key(key, DETAIL_MAX).await?;
        Ok(Some(IncidentDetail {
            timeline: timeline(&incident, &occurrences, entries, &uses),
            incident,
            occurrences,
            uses,
        }))
    }
}

fn timeline(
    incident: &Incident,
    occurrences: &[Occurrence],
    entries: Vec<LogEntry>,
    uses: &[UseAfterExposure],
) -> Vec<Moment> {
    let mut timeline = vec![Moment {
        at: incident.key.created_at,
        what: What::Issued,
    }];
    timeline.extend(occurrences.iter().map(|occurrence| Moment {
        at: occurrence.detected_at,
        what: What::Seen(occurrence.place.source.clone()),
    }));
    timeline.extend(entries.into_iter().map(|entry| Moment {
        at: entry.at,
        what: What::Logged(Box::new(entry)),
    }));
    timeline.extend(uses.iter().map(|used| Moment {
        at: used.at,
        what: What::Used(used.clone()),
    }));
    // The sort is stable: within one microsecond, a sighting comes before the revocation.
    timeline.sort_by_key(|moment| moment.at);
    timeline
}
