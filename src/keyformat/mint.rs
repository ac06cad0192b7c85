//! Minting of keys: a random body and its checksum.

use rand::TryRng as _;
use rand::rngs::SysRng;
use zeroize::Zeroizing;

use super::KeyValue;
use super::checksum::Checksum;
use super::shape::Body;

/// Error returned when no key could be minted.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The format is described by a regular expression, which cannot mint.
    #[error(
        "format `{format}` cannot mint keys because it has no `prefix` and `body`; choose another format in [issuer]"
    )]
    NotMintable {
        /// Identifier of the format.
        format: String,
    },
    /// The format is retired.
    #[error(
        "format `{format}` is retired, so that no keys are minted in it; choose another format in [issuer]"
    )]
    Retired {
        /// Identifier of the format.
        format: String,
    },
    /// The operating system provided no randomness.
    #[error("the operating system gave no randomness to mint a key with: {0}; try again")]
    NoRandomness(#[from] rand::rngs::SysError),
}

/// Fills `buffer` from the operating system's randomness.
pub(super) fn system_randomness(buffer: &mut [u8]) -> Result<(), MintError> {
    Ok(SysRng.try_fill_bytes(buffer)?)
}

/// Mints a key of `literal`, a random body, and the checksum if there is one.
pub(super) fn mint(
    literal: &str,
    body: Body,
    checksum: Option<Checksum>,
    randomness: impl FnMut(&mut [u8]) -> Result<(), MintError>,
) -> Result<KeyValue, MintError> {
    let checksum_len = checksum.map_or(0, |checksum| checksum.encoding.length());
    // Full capacity up front: growing would leave a copy of the body behind in freed memory.
    let mut key = String::with_capacity(literal.len() + body.length + checksum_len);
    key.push_str(literal);
    push_random(&mut key, body, randomness)?;
    if let Some(checksum) = checksum {
        let sum = checksum.compute(key.as_bytes(), literal.len());
        key.push_str(&checksum.encoding.encode(sum));
    }
    Ok(KeyValue::new(key))
}

/// Appends characters drawn uniformly from the alphabet.
///
/// Bytes beyond the greatest multiple of the alphabet's size are discarded, since folding them in would
/// favor the first characters.
fn push_random(
    key: &mut String,
    body: Body,
    mut randomness: impl FnMut(&mut [u8]) -> Result<(), MintError>,
) -> Result<(), MintError> {
    let chars = body.alphabet.chars();
    let evenly = 256 - 256 % chars.len();
    let mut buffer = Zeroizing::new([0; 64]);
    let full = key.len() + body.length;
    while key.len() < full {
        randomness(buffer.as_mut_slice())?;
        let wanted = full - key.len();
        key.extend(
            buffer
                .iter()
                .map(|byte| usize::from(*byte))
                .filter(|byte| *byte < evenly)
                .take(wanted)
                .map(|byte| char::from(chars[byte % chars.len()])),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyformat::Alphabet;

    const ALPHABET: Alphabet = Alphabet::Base62;

    fn body(length: usize) -> Body {
        Body {
            alphabet: ALPHABET,
            length,
        }
    }

    #[test]
    fn every_character_is_equally_likely() {
        // All 256 bytes in turn: 62 characters share 248 of them evenly, and 8 are discarded.
        let mut byte = u8::MAX;
        let all_bytes = |buffer: &mut [u8]| {
            for place in buffer {
                byte = byte.wrapping_add(1);
                *place = byte;
            }
            Ok(())
        };
        let key = mint("", body(248), None, all_bytes).unwrap();
        for char in ALPHABET.chars() {
            let count = key.expose().bytes().filter(|byte| byte == char).count();
            assert_eq!(count, 4, "{}", char::from(*char));
        }
    }

    #[test]
    fn no_key_without_randomness() {
        let mut calls = 0;
        let fails_later = |buffer: &mut [u8]| {
            calls += 1;
            buffer.fill(7);
            match calls {
                1 => Ok(()),
                _ => Err(MintError::NotMintable {
                    format: "f".to_owned(),
                }),
            }
        };
        assert!(mint("key_", body(65), None, fails_later).is_err());
    }
}
