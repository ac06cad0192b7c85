//! Keys in a report that are not simply tokens of its rows.
//!
//! Their number is up to whoever writes where a partner looks, and most are nobody's. They come in pieces, are looked up
//! and, if they are ours, acted upon at once: however many there are, few are held, and none takes the room of another.

use tokio::sync::mpsc;

use super::reading::{BYTES_AT_ONCE, Found, Standing};
use super::{PartnerError, PartnerName, act};
use crate::intake::rows::Row;
use crate::keyformat::{KeyValue, Sha256Digest};
use crate::respond::{Known, Responder, Turn};

/// Outcome of the keys that were found.
#[derive(Default)]
pub(super) struct ActedOnFound {
    /// Keys of ours that the tokens of rows are, but for what surrounds them, by the index of the row. Nothing was done
    /// about them yet.
    pub(super) whole: Vec<(usize, KeyValue)>,
    /// Number of keys that were revoked.
    pub(super) revoked: usize,
}

/// Looks up the keys of each piece, and responds to those that are ours, until no more come.
pub(super) async fn act_on_found(
    responder: &Responder,
    partner: PartnerName,
    mut pieces: mpsc::Receiver<Vec<Found>>,
    turn: &mut Turn,
) -> Result<ActedOnFound, PartnerError> {
    let mut acted = ActedOnFound::default();
    while let Some(piece) = pieces.recv().await {
        let values = piece.iter().map(|found| found.value.sha256());
        let values = values.chain(piece.iter().filter_map(|found| match found.standing {
            Standing::Token { sent, .. } => Some(sent),
            Standing::Beside(_) => None,
        }));
        let known = Known::of(responder.store(), values).await?;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for Found { value, standing } in piece {
            if !known.contains(&value.sha256()) {
                continue;
            }
            match standing {
                // One that is ours as it was sent needs nothing else.
                Standing::Token { sent, .. } if known.contains(&sent) => (),
                Standing::Token { row, .. } => acted.whole.push((row, value)),
                Standing::Beside(link) => {
                    // Each sighting has a copy of its link.
                    bytes += link.as_ref().map_or(0, |link| link.len());
                    if bytes > BYTES_AT_ONCE && !rows.is_empty() {
                        let rows = std::mem::take(&mut rows);
                        acted.revoked += act_on(responder, partner, rows, &known, turn).await?;
                        bytes = 0;
                    }
                    rows.push(Row {
                        url: link.map(|link| link.to_string()),
                        token: Some(value),
                        ..Row::default()
                    });
                }
            }
        }
        acted.revoked += act_on(responder, partner, rows, &known, turn).await?;
    }
    Ok(acted)
}

/// Responds to rows that are ours. Returns the number of keys that were revoked.
async fn act_on(
    responder: &Responder,
    partner: PartnerName,
    rows: Vec<Row>,
    known: &Known,
    turn: &mut Turn,
) -> Result<usize, PartnerError> {
    let digests: Vec<Sha256Digest> = rows.iter().map(Row::token_hash).collect();
    let acted = act(responder, partner, rows, &digests, known, turn).await?;
    Ok(acted.revoked)
}
