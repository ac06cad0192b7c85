//! Keys of the demo, and the ways in which they leak.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::keyformat::KeyValue;
use crate::sandbox::git_server::{Pushed, Repository};

/// Branch that receives every push.
pub(super) const BRANCH: &str = "main";

/// Way in which a key of the demo leaks, or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leak {
    /// Committed verbatim, in a file of environment variables.
    PlainText,
    /// Committed in base64, as Kubernetes stores secrets.
    Base64,
    /// Committed in a UTF-16 file, as written by some Windows tools.
    Utf16,
    /// Committed and removed again before the push, so that the last commit does not contain it.
    AddedAndRemoved,
    /// Reported by a partner.
    PartnerReport,
    /// A public key, committed where public keys belong.
    PublicKey,
    /// A secret key that does not leak.
    None,
}

impl Leak {
    /// All variants, in the order in which the demo mints keys.
    pub(super) const ALL: [Self; 7] = [
        Self::PlainText,
        Self::Base64,
        Self::Utf16,
        Self::AddedAndRemoved,
        Self::PartnerReport,
        Self::PublicKey,
        Self::None,
    ];

    /// Returns the description of the key, which is also its label in the timeline.
    pub(super) fn description(self) -> &'static str {
        match self {
            Self::PlainText => "plain text in deploy/.env",
            Self::Base64 => "base64 in a Kubernetes secret",
            Self::Utf16 => "UTF-16 in windows/settings.ini",
            Self::AddedAndRemoved => "added and removed within one push",
            Self::PartnerReport => "in a signed partner report",
            Self::PublicKey => "public key in web/app.js",
            Self::None => "never leaked",
        }
    }

    /// Returns whether the key must be revoked in the end.
    pub(super) fn must_be_revoked(self) -> bool {
        !matches!(self, Self::PublicKey | Self::None)
    }

    /// Returns whether the key is pushed to the repository.
    pub(super) fn is_pushed(self) -> bool {
        !matches!(self, Self::PartnerReport | Self::None)
    }
}

/// Commits every key that leaks by a push, in two commits, and pushes both at once.
///
/// # Errors
/// Returns an error if a file cannot be written or git fails.
pub(super) fn push(repository: &Repository, keys: &[(Leak, &KeyValue)]) -> anyhow::Result<Pushed> {
    for (leak, key) in keys {
        let plain = |line: &str| line.replace("KEY", key.expose()).into_bytes();
        let (path, contents) = match leak {
            Leak::PlainText => ("deploy/.env", plain("PORT=8080\nSHOP_SECRET=KEY\n")),
            Leak::Base64 => ("k8s/secret.yaml", kubernetes_secret(key).into_bytes()),
            Leak::Utf16 => ("windows/settings.ini", utf16(key)),
            Leak::AddedAndRemoved => ("src/debug.py", plain("client = Client(\"KEY\")\n")),
            Leak::PublicKey => ("web/app.js", plain("const shop = \"KEY\";\n")),
            Leak::PartnerReport | Leak::None => continue,
        };
        repository.write(path, &contents)?;
    }
    repository.commit("Deploy to production")?;
    repository.write(
        "src/debug.py",
        b"client = Client(os.environ[\"SHOP_SECRET\"])\n",
    )?;
    repository.commit("Take the key out of the code again")?;
    repository.push(BRANCH)
}

fn kubernetes_secret(key: &KeyValue) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: shop\ndata:\n  api-key: {}\n",
        STANDARD.encode(key.expose())
    )
}

fn utf16(key: &KeyValue) -> Vec<u8> {
    format!("\u{feff}[api]\r\nkey={}\r\n", key.expose())
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect()
}
