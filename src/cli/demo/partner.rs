//! Somebody who sends signed leak reports the way GitHub does:
//! <https://docs.github.com/en/code-security/tutorials/secret-scanning-partner-program>.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::{EncodePublicKey as _, LineEnding};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// A reporter with a P-256 key pair made for this run.
#[derive(Debug)]
pub struct Partner {
    key: SigningKey,
    identifier: String,
    public_key_pem: String,
}

impl Partner {
    /// A reporter with a fresh key from the operating system's randomness.
    ///
    /// # Errors
    /// When the operating system gives no randomness or the key cannot be written as PEM.
    pub fn new() -> anyhow::Result<Self> {
        let key = loop {
            let bytes: [u8; 32] = random_bytes()?;
            // Not every 32 bytes are a scalar of the curve; nearly all are.
            if let Ok(key) = SigningKey::from_slice(&bytes) {
                break key;
            }
        };
        let public_key_pem = key.verifying_key().to_public_key_pem(LineEnding::LF)?;
        let identifier = hex::encode(Sha256::digest(public_key_pem.as_bytes()));
        Ok(Self {
            key,
            identifier,
            public_key_pem,
        })
    }

    /// The body of the public-key list that verifiers fetch.
    pub fn public_keys(&self) -> Value {
        json!({ "public_keys": [{
            "key_identifier": self.identifier,
            "key": self.public_key_pem,
            "is_current": true,
        }]})
    }

    /// The value of `Github-Public-Key-Identifier`.
    pub fn identifier(&self) -> &str {
        &self.identifier
    }

    /// The value of `Github-Public-Key-Signature` for exactly these bytes.
    pub fn sign(&self, body: &[u8]) -> String {
        let signature: Signature = self.key.sign(body);
        STANDARD.encode(signature.to_der())
    }
}

fn random_bytes() -> anyhow::Result<[u8; 32]> {
    use rand::TryRng as _;
    let mut bytes = [0; 32];
    rand::rngs::SysRng.try_fill_bytes(&mut bytes)?;
    Ok(bytes)
}
