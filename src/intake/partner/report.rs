//! Body of a partner's report: read as rows and, where it is none, as a text; then answered.

mod reading;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use super::{Answered, Feedback, Label, PartnerError, PartnerName};
use crate::fetch::as_text;
use crate::intake::place::{partner_place, understand};
use crate::intake::rows::{
    MAX_ROWS, Piece, Pieces, ReportError, Row, UNKNOWN_TYPE, count_rows, read_array,
};
use crate::intake::wide::narrow;
use crate::keyformat::Sha256Digest;
use crate::offload;
use crate::respond::{Known, Outcome, PlacesPerValue, Responder, Sighting, Turn, divided};
use crate::scan::Redactor;
use crate::store::Reason;
use reading::{Contents, Reading};

/// Maximum number of places that one report adds to one key.
const PLACES_PER_KEY: u32 = 1000;

/// Maximum number of different types of one report that are sent back. Partners have one for each format.
const MAX_TYPES: usize = 1000;

/// Memory that a row, or a key in a text, takes in addition to its texts while it is read and answered, in bytes.
const ROW_COST: usize = 256;

/// Number of bytes of a text per key in it, for an estimate. Most keys are longer.
const BYTES_PER_KEY: usize = 32;

/// Number of keys, in addition to one for each malformed row, that are looked up of what is no row of an array. They are
/// so few that they are not weighed.
const FEW_KEYS: usize = 1_000;

/// Body of a report whose sender is verified and whose rows are not parsed yet.
#[derive(Debug)]
pub struct PartnerReport {
    body: Vec<u8>,
    rows: usize,
    is_array: bool,
}

impl PartnerReport {
    pub(in crate::intake) fn of(mut body: Vec<u8>) -> Result<Self, PartnerError> {
        narrow(&mut body);
        // An odd character in one row must not affect the others.
        let text = as_text(&mut body);
        let (rows, is_array) = match count_rows(text.as_bytes()) {
            Ok(rows) => (rows, true),
            Err(ReportError::NotAnArray) => {
                let pieces = Pieces::of(text);
                let rows = pieces.filter(|piece| matches!(piece, Piece::Row(..)));
                (rows.count(), false)
            }
            Err(error) => return Err(error.into()),
        };
        if rows > MAX_ROWS {
            return Err(ReportError::TooManyRows.into());
        }
        Ok(Self {
            body,
            rows,
            is_array,
        })
    }

    /// Returns an estimate of the memory that parsing and answering the report takes at most beside its body, in bytes:
    /// that of its texts, plus a fixed amount for each row, however short, and for each key that may be in what is no
    /// row.
    pub fn cost(&self) -> usize {
        self.body.len() + (self.rows + self.most_keys()) * ROW_COST
    }

    /// Returns the maximum number of keys that are looked up of what is no row, but for those in malformed rows.
    fn most_keys(&self) -> usize {
        if self.is_array {
            return 0;
        }
        (self.body.len() / BYTES_PER_KEY).min(MAX_ROWS - self.rows)
    }

    /// Parses the report, and searches what is no row for keys. Blocks the thread.
    fn read(mut self, redactor: &Redactor) -> Result<Contents, PartnerError> {
        let most = self.most_keys() + FEW_KEYS;
        let mut reading = Reading::new(redactor.engine(), self.rows, most);
        let body = as_text(&mut self.body);
        if self.is_array {
            read_array(body.as_bytes(), &mut |row, json| reading.row(row, json))?;
        } else {
            for piece in Pieces::of(body) {
                match piece {
                    Piece::Row(row, json) => reading.row(row, json),
                    Piece::Text(text) => reading.unreadable(text),
                }
            }
        }
        Ok(reading.finish())
    }

    pub(in crate::intake) async fn answer(
        self,
        responder: &Responder,
        partner: PartnerName,
    ) -> Result<Answered, PartnerError> {
        let is_array = self.is_array;
        let redactor = responder.redactor().clone();
        let read = tokio::task::spawn_blocking(move || self.read(&redactor));
        let contents = read.await.map_err(|_| PartnerError::Died)??;
        let (unread_bytes, found) = (contents.unread_bytes, contents.found.len());
        if contents.left_out > 0 {
            tracing::warn!(
                actor = partner.source(),
                left_out = contents.left_out,
                "a report has very many keys in what is no row: some were not looked up"
            );
        }
        let answered = answer(responder, partner, contents).await?;
        let (rows, revoked) = (answered.feedback.len(), answered.revoked);
        if unread_bytes > 0 {
            tracing::warn!(
                actor = partner.source(),
                rows,
                unread_bytes,
                found,
                revoked,
                "a report is no array of rows: what was not understood of it was searched for keys"
            );
        }
        if !is_array && rows == 0 {
            return Err(PartnerError::NoRows { found, revoked });
        }
        Ok(answered)
    }
}

/// Takes keys out of the types of rows, which are sent back.
async fn redact_types(redactor: &Redactor, rows: &mut [Row]) {
    // `None` is a type without a key.
    let mut known: HashMap<Cow<'static, str>, Option<String>> = HashMap::new();
    let mut bytes = 0;
    for row in rows {
        let kind = &mut row.token_type;
        if let Some(redacted) = known.get(kind) {
            if let Some(redacted) = redacted {
                *kind = redacted.clone().into();
            }
            continue;
        }
        if known.len() >= MAX_TYPES {
            *kind = Cow::Borrowed(UNKNOWN_TYPE);
            continue;
        }
        // Of many types, all but the first wait for their turns.
        bytes += kind.len();
        let redacted = offload::in_turn(bytes, || match redactor.redact(kind) {
            Cow::Owned(redacted) => Some(redacted),
            Cow::Borrowed(_) => None,
        });
        let redacted = redacted.await;
        let sent = match &redacted {
            Some(redacted) => std::mem::replace(kind, redacted.clone().into()),
            None => kind.clone(),
        };
        known.insert(sent, redacted);
    }
}

/// Responds to a report of `partner`: to its rows, of which each has its feedback, and to the keys in the rest of it.
async fn answer(
    responder: &Responder,
    partner: PartnerName,
    contents: Contents,
) -> Result<Answered, PartnerError> {
    let Contents {
        mut rows,
        whole,
        found,
        ..
    } = contents;
    redact_types(responder.redactor(), &mut rows).await;
    let malformed = rows.iter().filter(|row| row.token.is_none()).count();
    let bytes = rows.iter().filter_map(|row| row.token.as_ref());
    let bytes = bytes.map(|token| token.expose().len()).sum();
    let sent: Vec<Sha256Digest> =
        offload::apart(bytes, || rows.iter().map(Row::token_hash).collect());
    let mut feedback: Vec<Feedback> = rows
        .iter_mut()
        .zip(&sent)
        .map(|(row, digest)| Feedback {
            token_hash: digest.to_hex(),
            token_type: std::mem::take(&mut row.token_type),
            label: Label::FalsePositive,
        })
        .collect();
    let mut digests = sent;
    digests.extend(found.iter().map(Row::token_hash));
    rows.extend(found);
    let values = digests.iter().copied();
    let values = values.chain(whole.iter().map(|(_, key)| key.sha256()));
    let known = Known::of(responder.store(), values).await?;
    for (row, key) in whole {
        let digest = key.sha256();
        if !known.contains(&digests[row]) && known.contains(&digest) {
            digests[row] = digest;
            rows[row].token = Some(key);
        }
    }
    let acted = act(responder, partner, rows, &digests, &known).await?;
    for (row, feedback) in feedback.iter_mut().enumerate() {
        if acted.positive.contains(&digests[row]) {
            feedback.label = Label::TruePositive;
        }
    }
    Ok(Answered {
        feedback,
        malformed,
        revoked: acted.revoked,
    })
}

/// What was done about a report.
struct Acted {
    /// Digests of what is secret and ours.
    positive: HashSet<Sha256Digest>,
    /// Number of keys that were revoked.
    revoked: usize,
}

/// Responds to those of the rows that are ours. `digests` are those of their tokens.
async fn act(
    responder: &Responder,
    partner: PartnerName,
    mut rows: Vec<Row>,
    digests: &[Sha256Digest],
    known: &Known,
) -> Result<Acted, PartnerError> {
    let sighted = sighted(partner, &mut rows, digests, known);
    let detected_at = responder.clock().now();
    let (actor, reason) = (partner.source(), Reason::Leaked);
    let mut positive = HashSet::new();
    let mut revoked = HashSet::new();
    let mut turn = Turn::default();
    for piece in divided(&sighted, digests) {
        let sightings = piece
            .iter()
            .filter_map(|at| sighting(std::mem::take(&mut rows[*at]), actor, detected_at));
        let sightings = sightings.collect();
        let answers =
            responder.report_known(sightings, known, understand, reason, actor, &mut turn);
        for (at, answer) in piece.iter().zip(answers.await?) {
            if answer.is_secret() {
                positive.insert(digests[*at]);
            }
            for outcome in answer.outcomes {
                if let Outcome::Revoked(key) = outcome {
                    revoked.insert(key.id);
                }
            }
        }
    }
    Ok(Acted {
        positive,
        revoked: revoked.len(),
    })
}

fn sighting(row: Row, actor: &str, detected_at: Timestamp) -> Option<Sighting> {
    let (url, source) = (row.url.as_deref(), row.source.as_deref());
    Some(Sighting {
        place: partner_place(actor, url, source),
        value: row.token?,
        detected_at,
    })
}

/// Returns the rows of which sightings are made: those of what is ours, up to a bound for each key. Drops all others.
fn sighted(
    partner: PartnerName,
    rows: &mut [Row],
    digests: &[Sha256Digest],
    known: &Known,
) -> Vec<usize> {
    // Keys of ours are not so many that they had to be forgotten.
    let mut places = PlacesPerValue::new(PLACES_PER_KEY, usize::MAX);
    let (mut sighted, mut left_out) = (Vec::new(), 0);
    for (at, (row, digest)) in rows.iter_mut().zip(digests).enumerate() {
        // Nothing else is needed of an unknown token, and a report may contain a hundred thousand of
        // them.
        if row.token.is_none() || !known.contains(digest) {
            *row = Row::default();
        } else if places.admits(*digest) {
            sighted.push(at);
        } else {
            left_out += 1;
        }
    }
    if left_out > 0 {
        tracing::warn!(
            actor = partner.source(),
            left_out,
            "a report names one key in very many places"
        );
    }
    sighted
}
