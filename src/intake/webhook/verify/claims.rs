//! Claims in the headers of a delivery: digests and signatures, as each forge writes them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderMap;

use super::Unverified;

/// Maximum number of signatures in one header that are checked.
const MAX_SIGNATURES: usize = 8;

/// Maximum length of the identifier and of the time of a signed delivery, in bytes.
const MAX_ID: usize = 256;
const MAX_TIME: usize = 20;

/// Headers of a delivery that is signed according to Standard Webhooks.
pub(super) struct Claim<'h> {
    pub(super) id: &'h [u8],
    pub(super) signed_at: &'h [u8],
    pub(super) signatures: Vec<[u8; 32]>,
}

/// Parses the headers of Standard Webhooks. Each signature is `v1,` and base64; several are separated by
/// spaces.
pub(super) fn standard_claim(headers: &HeaderMap) -> Result<Claim<'_>, Unverified> {
    let needed = |header| value(headers, header).ok_or(Unverified::Missing(header));
    let bounded = |header, most| {
        let value = needed(header)?;
        let is_short = value.len() <= most;
        is_short
            .then_some(value)
            .ok_or(Unverified::Mismatch(header))
    };
    let header = "webhook-signature";
    let (id, signed_at) = (
        bounded("webhook-id", MAX_ID)?,
        bounded("webhook-timestamp", MAX_TIME)?,
    );
    let signatures = needed(header)?.split(|b| *b == b' ').take(MAX_SIGNATURES);
    let signatures: Vec<[u8; 32]> = signatures
        .filter_map(|signature| {
            let signature = STANDARD.decode(signature.strip_prefix(b"v1,")?).ok()?;
            signature.try_into().ok()
        })
        .collect();
    if signatures.is_empty() {
        return Err(Unverified::Mismatch(header));
    }
    Ok(Claim {
        id,
        signed_at,
        signatures,
    })
}

/// Parses a digest of the form `sha256=` and 64 hexadecimal digits.
pub(super) fn hub_digest(
    headers: &HeaderMap,
    header: &'static str,
) -> Result<[u8; 32], Unverified> {
    let signature = value(headers, header).ok_or(Unverified::Missing(header))?;
    let digits = signature.strip_prefix(b"sha256=");
    hex_digest(digits.unwrap_or_default(), header)
}

/// Parses Gitea's digest, which is hexadecimal digits alone, or GitHub's header, which newer versions
/// also send. Returns the digest and the name of the header.
pub(super) fn gitea_digest(headers: &HeaderMap) -> Result<([u8; 32], &'static str), Unverified> {
    let own = [
        "X-Gitea-Signature",
        "X-Forgejo-Signature",
        "X-Gogs-Signature",
    ];
    for header in own {
        if let Some(digits) = value(headers, header) {
            return Ok((hex_digest(digits, header)?, header));
        }
    }
    let header = "X-Hub-Signature-256";
    if value(headers, header).is_none() {
        return Err(Unverified::Missing("X-Gitea-Signature"));
    }
    Ok((hub_digest(headers, header)?, header))
}

fn hex_digest(digits: &[u8], header: &'static str) -> Result<[u8; 32], Unverified> {
    let mut claimed = [0; 32];
    hex::decode_to_slice(digits, &mut claimed).map_err(|_| Unverified::Mismatch(header))?;
    Ok(claimed)
}

/// Returns the value of a header that is not empty.
pub(super) fn value<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let value = headers.get(name)?.as_bytes();
    (!value.is_empty()).then_some(value)
}
