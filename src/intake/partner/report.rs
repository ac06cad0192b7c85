//! Body of a partner's report: read as rows and, where it is none, as a text; then answered.

mod found;
mod links;
mod reading;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use memchr::memchr;
use tokio::sync::mpsc;

use super::{Answered, Feedback, Label, PartnerError, PartnerName};
use crate::fetch::as_text;
use crate::intake::place::{partner_place, understand};
use crate::intake::rows::{
    MAX_ROWS, Measured, Piece, Pieces, ReportError, Row, UNKNOWN_TYPE, loose_in, measure,
    read_array,
};
use crate::intake::wide::narrow;
use crate::keyformat::{KeyValue, Sha256Digest};
use crate::offload;
use crate::respond::{Known, Outcome, PlacesPerValue, Responder, Sighting, Turn, divided};
use crate::scan::Redactor;
use crate::store::Reason;
use found::act_on_found;
use reading::{Contents, Found, MAX_HELD, Reading};

/// Maximum number of places that one report adds to one key.
const PLACES_PER_KEY: u32 = 1000;

/// Maximum number of different types of one report that are sent back. Partners have one for each format.
const MAX_TYPES: usize = 1000;

/// Memory that a row takes in addition to its texts while it is read and answered, in bytes.
const ROW_COST: usize = 256;

/// Memory that a key in what is no row takes, with its link, until it is looked up, in bytes.
const KEY_COST: usize = 512;

/// Number of bytes per key in what is no row, for an estimate. Most keys are longer.
const BYTES_PER_KEY: usize = 16;

/// Number of keys, in addition to one for each [`BYTES_PER_KEY`] of the body, that are looked up of what is no row. It
/// bounds the work: what is nobody's takes no memory once it was looked up.
const FEW_KEYS: usize = 1_000;

/// Body of a report whose sender is verified and whose rows are not parsed yet.
#[derive(Debug)]
pub struct PartnerReport {
    body: Vec<u8>,
    rows: usize,
    /// Size of what may hold keys that are no tokens of rows, in bytes.
    loose: usize,
    is_array: bool,
    /// `true` if NULs stood in the body, as in UTF-16. They are blanks now.
    had_nuls: bool,
}

impl PartnerReport {
    pub(in crate::intake) fn of(mut body: Vec<u8>) -> Result<Self, PartnerError> {
        narrow(&mut body);
        let had_nuls = memchr(0, &body).is_some();
        // An odd character in one row must not affect the others.
        let text = as_text(&mut body);
        let (Measured { rows, loose }, is_array) = match measure(text.as_bytes()) {
            Ok(measured) => (measured, true),
            Err(ReportError::NotAnArray) => (measure_pieces(text), false),
            Err(error) => return Err(error.into()),
        };
        if rows > MAX_ROWS {
            return Err(ReportError::TooManyRows.into());
        }
        let loose = if had_nuls { body.len() } else { loose };
        Ok(Self {
            body,
            rows,
            loose,
            is_array,
            had_nuls,
        })
    }

    /// Returns an estimate of the memory that parsing and answering the report takes at most beside its body, in bytes:
    /// that of its texts, plus a fixed amount for each row, however short, and for each key that may be in what is no
    /// row, of which few are held at a time.
    pub fn cost(&self) -> usize {
        let keys = (self.loose / BYTES_PER_KEY).min(MAX_HELD);
        self.body.len() + self.rows * ROW_COST + keys * KEY_COST
    }

    /// Parses the report, and passes on the keys in what is no row. Blocks the thread.
    fn read(
        mut self,
        redactor: &Redactor,
        found: &mpsc::Sender<Vec<Found>>,
    ) -> Result<Contents, PartnerError> {
        let most = self.body.len() / BYTES_PER_KEY + FEW_KEYS;
        // Who does not want any more has failed, and says so.
        let mut pass_on = |piece| drop(found.blocking_send(piece));
        let mut reading = Reading::new(redactor.engine(), self.rows, most, &mut pass_on);
        let body = as_text(&mut self.body);
        if self.had_nuls {
            reading.wide(body);
        }
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
        let (passed_on, found) = mpsc::channel(1);
        let read = tokio::task::spawn_blocking(move || self.read(&redactor, &passed_on));
        let mut turn = Turn::default();
        let acted = act_on_found(responder, partner, found, &mut turn).await;
        // What was read is in memory until then.
        let contents = read.await.map_err(|_| PartnerError::Died)??;
        let acted = acted?;
        let (unread_bytes, found) = (contents.unread_bytes, contents.found);
        if contents.left_out > 0 {
            tracing::warn!(
                actor = partner.source(),
                left_out = contents.left_out,
                "a report has very many keys in what is no row: some were not looked up"
            );
        }
        let mut answered =
            answer(responder, partner, contents.rows, acted.whole, &mut turn).await?;
        answered.revoked += acted.revoked;
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

/// Returns the size of a body that is no array of rows.
fn measure_pieces(text: &str) -> Measured {
    let mut measured = Measured::default();
    for piece in Pieces::of(text) {
        match piece {
            Piece::Row(_, json) => {
                measured.rows += 1;
                measured.loose += loose_in(json);
            }
            Piece::Text(text) => measured.loose += text.len(),
        }
    }
    measured
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

/// Responds to the rows of a report of `partner`, of which each has its feedback. `whole` are the keys of ours that the
/// tokens of rows are but for what surrounds them, by the index of the row.
async fn answer(
    responder: &Responder,
    partner: PartnerName,
    mut rows: Vec<Row>,
    whole: Vec<(usize, KeyValue)>,
    turn: &mut Turn,
) -> Result<Answered, PartnerError> {
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
    let acted = act(responder, partner, rows, &digests, &known, turn).await?;
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

/// Outcome of the rows that are ours.
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
    turn: &mut Turn,
) -> Result<Acted, PartnerError> {
    let sighted = sighted(partner, &mut rows, digests, known);
    let detected_at = responder.clock().now();
    let (actor, reason) = (partner.source(), Reason::Leaked);
    let mut positive = HashSet::new();
    let mut revoked = HashSet::new();
    for piece in divided(&sighted, digests) {
        let sightings = piece
            .iter()
            .filter_map(|at| sighting(std::mem::take(&mut rows[*at]), actor, detected_at));
        let sightings = sightings.collect();
        let answers = responder.report_known(sightings, known, understand, reason, actor, turn);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(body: &str) -> usize {
        PartnerReport::of(body.as_bytes().to_vec()).unwrap().cost()
    }

    #[test]
    fn what_may_hold_other_keys_is_weighed_and_plain_tokens_are_not_weighed_twice() {
        let plain = r#"{"token":"rsc_sk_0123456789","url":"https://a/b"}"#;
        let array = |row: &str| format!("[{}]", vec![row; 64].join(","));
        let of_rows = |body: &str| body.len() + 64 * ROW_COST;
        assert_eq!(cost(&array(plain)), of_rows(&array(plain)));
        for odd in [
            plain.replace("token", "tokens"),
            plain.replace("rsc_", "KEY=rsc_"),
        ] {
            let body = array(&odd);
            let keys = 64 * odd.len() / BYTES_PER_KEY;
            assert_eq!(cost(&body), of_rows(&body) + keys * KEY_COST, "{odd}");
            // The same without its end.
            let cut = &body[..body.len() - 1];
            assert_eq!(cost(cut), cost(&body) - 1, "{odd}");
        }
        // However many there are, few of them are held.
        let text = "k ".repeat(1 << 20);
        assert_eq!(cost(&text), text.len() + MAX_HELD * KEY_COST);
    }
}
