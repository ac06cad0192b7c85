//! Keys in a report that are not simply tokens of its rows.
//!
//! Their number is up to whoever writes where a partner looks, and most are nobody's. They come in pieces, are looked up
//! and, if they are ours, acted upon at once: however many there are, few are held, and none takes the room of another.

use std::collections::HashSet;

use tokio::sync::mpsc;

use super::reading::{BYTES_AT_ONCE, Found, Standing};
use super::{PartnerError, PartnerName, act};
use crate::intake::rows::Row;
use crate::keyformat::{KeyValue, Sha256Digest};
use crate::respond::{Known, Responder, Turn};

/// Maximum number of keys of ours of which it is remembered that they were acted upon, in up to 4 MiB.
const MAX_HANDLED: usize = 100_000;

/// Keys of ours in a report that were acted upon, by the first halves of their digests. Whoever reports them may name them
/// again and again.
#[derive(Default)]
struct Handled(HashSet<[u8; 16]>);

impl Handled {
    /// Returns whether a key was not acted upon yet, as far as that is remembered, and remembers it.
    fn is_new(&mut self, key: &Sha256Digest) -> bool {
        let Some(half) = key.0.first_chunk() else {
            return true;
        };
        if self.0.len() >= MAX_HANDLED {
            return !self.0.contains(half);
        }
        self.0.insert(*half)
    }
}

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
    let mut handled = Handled::default();
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
                Standing::Beside(_) if !handled.is_new(&value.sha256()) => (),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Else a report in which a customer's thousand keys stand again and again is not answered in time.
    #[test]
    fn keys_are_acted_upon_once_unless_there_are_very_many() {
        let digest = |n: usize| Sha256Digest::of(&n.to_le_bytes());
        let mut handled = Handled::default();
        let mut new = |n: usize| handled.is_new(&digest(n));
        for n in 0..MAX_HANDLED {
            assert!(new(n));
        }
        assert!(!new(0) && !new(MAX_HANDLED - 1));
        assert!(new(MAX_HANDLED) && new(MAX_HANDLED));
        assert_eq!(handled.0.len(), MAX_HANDLED);
    }
}
