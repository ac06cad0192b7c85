//! `[partners]`: partners that send signed leak reports.

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use super::base_url;
use crate::config::read::{Found, Section, is_unset};
use crate::config::url::built_in;
use crate::intake::PartnerName;

/// The `[partners]` section.
#[derive(Debug, Clone)]
pub struct Partners {
    /// Sections of the partners, in the order of [`PartnerName::ALL`].
    partners: [Partner; PartnerName::ALL.len()],
    /// Values of `Authorization` that GitLab instances may present to the token revocation API. Without
    /// one the API is disabled.
    pub revocation_tokens: Vec<SecretString>,
}

/// A `[partners.NAME]` section.
#[derive(Debug, Clone)]
pub struct Partner {
    /// `true` if the partner's reports are accepted.
    pub enabled: bool,
    /// URL of the public keys with which the partner signs reports. If `None`, the configuration has to
    /// provide it.
    pub public_keys_url: Option<Url>,
    /// Name of the header that identifies the key.
    pub key_identifier_header: String,
    /// Name of the header that carries the signature.
    pub signature_header: String,
}

impl Partner {
    /// Returns the section of a partner that is not configured.
    fn default_of(name: PartnerName) -> Self {
        match name {
            // https://docs.github.com/en/code-security/secret-scanning/secret-scanning-partnership-program
            PartnerName::GitHub => Self::new(
                true,
                Some("https://api.github.com/meta/public_keys/secret_scanning"),
                "Github",
            ),
            // https://docs.gitlab.com/user/application_security/secret_detection/automatic_response/:
            // GitLab discloses the URL to its partners only.
            PartnerName::GitLab => Self::new(false, None, "Gitlab"),
            // As in the Python package index: warehouse/integrations/secrets/config.py in
            // https://github.com/pypi/warehouse.
            PartnerName::DepsDev => Self::new(
                false,
                Some("https://storage.googleapis.com/depsdev-gcp-public-keys/secret_scanning"),
                "Gosst",
            ),
        }
    }

    fn new(enabled: bool, public_keys_url: Option<&'static str>, prefix: &str) -> Self {
        Self {
            enabled,
            public_keys_url: public_keys_url.map(built_in),
            key_identifier_header: format!("{prefix}-Public-Key-Identifier"),
            signature_header: format!("{prefix}-Public-Key-Signature"),
        }
    }
}

impl Default for Partners {
    fn default() -> Self {
        Self {
            partners: PartnerName::ALL.map(Partner::default_of),
            revocation_tokens: Vec::new(),
        }
    }
}

impl Partners {
    /// Returns the section of a partner.
    pub fn of(&self, name: PartnerName) -> &Partner {
        &self.partners[name as usize]
    }

    /// Returns the sections of all partners.
    pub fn each(&self) -> [(PartnerName, &Partner); PartnerName::ALL.len()] {
        PartnerName::ALL.map(|name| (name, self.of(name)))
    }

    /// Returns the sections of the partners whose reports are accepted, each with the URL of the partner's keys.
    pub fn accepting(&self) -> impl Iterator<Item = (PartnerName, &Partner, &Url)> {
        let enabled = self
            .each()
            .into_iter()
            .filter(|(_, partner)| partner.enabled);
        enabled
            .filter_map(|(name, partner)| Some((name, partner, partner.public_keys_url.as_ref()?)))
    }
}

pub(super) fn partners(section: Section<'_>) -> Partners {
    let mut tokens = Vec::new();
    let partners = PartnerName::ALL.map(|name| {
        let section = section.section(name.name());
        if name == PartnerName::GitLab {
            tokens = revocation_tokens(&section);
        }
        partner(section, Partner::default_of(name))
    });
    section.finish();
    Partners {
        partners,
        revocation_tokens: tokens,
    }
}

fn partner(section: Section<'_>, mut partner: Partner) -> Partner {
    if let Some(enabled) = section.flag("enabled") {
        partner.enabled = enabled;
    }
    let example = "https://api.github.com/meta/public_keys/secret_scanning";
    if let Some(url) = base_url(&section, "public_keys_url", example) {
        partner.public_keys_url = Some(url);
    }
    if partner.enabled && partner.public_keys_url.is_none() && !section.has("public_keys_url") {
        section.refuse(
            section.place(),
            "public_keys_url",
            "is missing: without it no report could be verified",
            "the partner tells the address of its public keys when you join its program",
        );
    }
    let headers = [
        ("key_identifier_header", &mut partner.key_identifier_header),
        ("signature_header", &mut partner.signature_header),
    ];
    for (key, header) in headers {
        if let Some(found) = header_name(&section, key) {
            *header = found;
        }
    }
    if partner
        .key_identifier_header
        .eq_ignore_ascii_case(&partner.signature_header)
    {
        let hint = "one names the key, the other has the signature made with it";
        let what = "is the same header as key_identifier_header";
        section.refuse(section.place(), "signature_header", what, hint);
    }
    section.finish();
    partner
}

fn header_name(section: &Section<'_>, key: &'static str) -> Option<String> {
    let example = r#""Gitlab-Public-Key-Signature""#;
    let Found { value, place } = section.text(key, example)?;
    // RFC 9110 section 5.6.2: a token.
    let allowed = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if value.len() <= 100 && value.chars().all(allowed) {
        return Some(value);
    }
    let hint = format!("for example {example}");
    section.refuse(&place, key, "is not the name of a header", &hint);
    None
}

fn revocation_tokens(section: &Section<'_>) -> Vec<SecretString> {
    let mut tokens: Vec<SecretString> = Vec::new();
    for Found { value, place } in section.secrets("revocation_tokens") {
        let text = value.expose_secret();
        if is_unset(&value) {
            tokens.push(value);
            continue;
        }
        if tokens.iter().any(|known| known.expose_secret() == text) {
            let hint = "each token stands in the list once";
            section.refuse(&place, "revocation_tokens", "the same token twice", hint);
        }
        if !text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() || byte == b' ')
        {
            let what = "holds characters that no header has";
            let hint = "only printable ASCII; check for line breaks";
            section.refuse(&place, "revocation_tokens", what, hint);
        }
        tokens.push(value);
    }
    tokens
}
