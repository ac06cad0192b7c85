//! GitHub's signature scheme for partner reports, which GitLab and deps.dev adopted: ECDSA on P-256 with
//! SHA-256 over the raw body, the signature in ASN.1 DER, the DER in standard base64.
//!
//! Source: GitHub, "Secret scanning partner program", section "Implement signature verification".

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{Signature, VerifyingKey};
use p256::pkcs8::DecodePublicKey as _;

/// Maximum length of a P-256 signature in DER, in bytes: two integers of 33 bytes, three headers of 2.
const LONGEST_DER: usize = 72;

/// Error returned for a signature that is not accepted. Every variant is a 401 to the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The signature is not canonical base64 in the standard alphabet with padding.
    #[error("the signature is not canonical base64 in the standard alphabet")]
    Base64,
    /// The signature is not a DER sequence of two integers in the range of P-256's order.
    #[error("the signature is not a DER-encoded P-256 signature")]
    Der,
    /// The signature is well-formed, but was not made with this key over these bytes.
    #[error("the signature does not fit the body")]
    Mismatch,
}

/// A well-formed signature that has not been verified yet.
#[derive(Debug, Clone)]
pub struct ReportSignature(Signature);

impl ReportSignature {
    /// Parses the value of the signature header strictly: only the canonical encoding of a signature is
    /// accepted, without white space or the liberties of BER.
    ///
    /// # Errors
    /// Returns [`SignatureError::Base64`] or [`SignatureError::Der`] for any other value.
    pub fn parse(header: &[u8]) -> Result<Self, SignatureError> {
        if header.len() > LONGEST_DER.div_ceil(3) * 4 {
            return Err(SignatureError::Base64);
        }
        let der = STANDARD
            .decode(header)
            .map_err(|_| SignatureError::Base64)?;
        let signature = Signature::from_der(&der).map_err(|_| SignatureError::Der)?;
        Ok(Self(signature))
    }
}

/// A public key that signs reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportKey(VerifyingKey);

impl ReportKey {
    /// Parses a `SubjectPublicKeyInfo` in PEM. Returns `None` if it is anything else or on another curve.
    pub fn from_pem(pem: &str) -> Option<Self> {
        VerifyingKey::from_public_key_pem(pem).ok().map(Self)
    }

    /// Verifies `signature` over the bytes of the body exactly as they arrived.
    ///
    /// # Errors
    /// Returns [`SignatureError::Mismatch`] if the signature was not made with this key over these bytes.
    pub fn verify(&self, body: &[u8], signature: &ReportSignature) -> Result<(), SignatureError> {
        self.0
            .verify(body, &signature.0)
            .map_err(|_| SignatureError::Mismatch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Vectors {
        public_keys: Vec<PublicKey>,
        vectors: Vec<Vector>,
    }

    #[derive(serde::Deserialize)]
    struct PublicKey {
        key_identifier: String,
        key: String,
    }

    #[derive(serde::Deserialize)]
    struct Vector {
        id: String,
        key_identifier: String,
        signature_b64: String,
        payload: String,
        expected_valid: bool,
    }

    fn vectors() -> Vectors {
        let text = include_str!("../../fixtures/vectors/github_partner.json");
        serde_json::from_str(text).unwrap()
    }

    fn key_of(vectors: &Vectors, identifier: &str) -> ReportKey {
        let key = vectors
            .public_keys
            .iter()
            .find(|key| key.key_identifier == identifier);
        ReportKey::from_pem(&key.unwrap().key).unwrap()
    }

    #[test]
    fn published_vectors_behave() {
        let vectors = vectors();
        assert_eq!(vectors.vectors.len(), 3);
        for vector in &vectors.vectors {
            let key = key_of(&vectors, &vector.key_identifier);
            let signature = ReportSignature::parse(vector.signature_b64.as_bytes()).unwrap();
            let valid = key.verify(vector.payload.as_bytes(), &signature).is_ok();
            assert_eq!(valid, vector.expected_valid, "{}", vector.id);
        }
    }

    #[test]
    fn one_changed_byte_of_the_body_is_noticed() {
        let vectors = vectors();
        let vector = &vectors.vectors[1];
        let key = key_of(&vectors, &vector.key_identifier);
        let signature = ReportSignature::parse(vector.signature_b64.as_bytes()).unwrap();
        let without_spaces = vector.payload.replace(": ", ":");
        for body in [without_spaces, format!("{} ", vector.payload)] {
            assert_eq!(
                key.verify(body.as_bytes(), &signature),
                Err(SignatureError::Mismatch)
            );
        }
    }

    #[test]
    fn only_canonical_base64_is_read() {
        let good = vectors().vectors[0].signature_b64.clone();
        let url_safe = good.replace('/', "_").replace('+', "-");
        assert_ne!(url_safe, good);
        // The last character before the padding carries four unused bits at this length.
        let loose_bits = good.replace("xg==", "xh==");
        let wrapped = format!("{}\n{}", &good[..40], &good[40..]);
        let bad = [
            url_safe,
            loose_bits,
            wrapped,
            good.trim_end_matches('=').to_owned(),
            format!("{good}="),
            format!(" {good}"),
            format!("{good}{good}"),
            String::new(),
        ];
        for header in bad {
            assert!(
                ReportSignature::parse(header.as_bytes()).is_err(),
                "{header:?}"
            );
        }
    }

    #[test]
    fn only_strict_der_is_read() {
        let der = STANDARD
            .decode(&vectors().vectors[0].signature_b64)
            .unwrap();
        let long_form_length = [&[0x30, 0x81], &der[1..]].concat();
        let trailing = [&der[..], &[0]].concat();
        let indefinite = [&[0x30, 0x80], &der[2..], &[0, 0]].concat();
        // A superfluous zero before r, lengths adjusted: BER allows it, DER does not.
        let mut padded = der.clone();
        padded[1] += 1;
        padded[3] += 1;
        padded.insert(4, 0);
        let mut negative = der.clone();
        negative[1] -= 1;
        negative[3] -= 1;
        negative.remove(4);
        let zero_r = vec![0x30, 6, 2, 1, 0, 2, 1, 1];
        let raw = vec![1; 64];
        let truncated = der[..der.len() - 1].to_vec();
        for bad in [
            long_form_length,
            trailing,
            indefinite,
            padded,
            negative,
            zero_r,
            raw,
            truncated,
        ] {
            let parsed = ReportSignature::parse(STANDARD.encode(&bad).as_bytes());
            assert_eq!(
                parsed.unwrap_err(),
                SignatureError::Der,
                "{}",
                hex::encode(bad)
            );
        }
    }

    #[test]
    fn keys_on_other_curves_are_not_keys() {
        // `openssl ecparam -name secp384r1 -genkey | openssl ec -pubout`
        let p384 = "-----BEGIN PUBLIC KEY-----\n\
            MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEiRkzVKuXjWPHYkANUcw5Fs/haYR3N4eK\n\
            flNiYNvZwbb1Zw+IZvpFJXAvQMcsyq0G5I7Bi2nqZICdnLYOlZR1sRoD3+DoRCsb\n\
            4iJlZNgl2LfnPUm9eAOnNb6x3onKAOb1\n\
            -----END PUBLIC KEY-----\n";
        for pem in [
            p384,
            "",
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        ] {
            assert!(ReportKey::from_pem(pem).is_none());
        }
    }
}
