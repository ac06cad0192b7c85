//! Reporter that sends signed leak reports as GitHub does:
//! <https://docs.github.com/en/code-security/tutorials/secret-scanning-partner-program>.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::{EncodePublicKey as _, LineEnding};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Reporter with a P-256 key pair generated for this run.
#[derive(Debug)]
pub struct Partner {
    key: SigningKey,
    identifier: String,
    public_key_pem: String,
}

impl Partner {
    /// Generates a reporter with a key from the operating system's randomness.
    ///
    /// # Errors
    /// Returns an error if the operating system provides no randomness or the key cannot be encoded as PEM.
    pub fn new() -> anyhow::Result<Self> {
        let key = loop {
            let bytes: [u8; 32] = random_bytes()?;
            // Not every 32-byte string is a scalar of the curve, though nearly all are.
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

    /// Returns the body of the list of public keys that verifiers fetch.
    pub fn public_keys(&self) -> Value {
        json!({ "public_keys": [{
            "key_identifier": self.identifier,
            "key": self.public_key_pem,
            "is_current": true,
        }]})
    }

    /// Returns the value of the `Github-Public-Key-Identifier` header.
    pub fn identifier(&self) -> &str {
        &self.identifier
    }

    /// Returns the value of the `Github-Public-Key-Signature` header for exactly these bytes.
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
