//! `[partners]`: who sends signed leak reports.

use super::base_url;
use crate::config::read::Section;

/// `[partners]`
#[derive(Debug, Clone, Default)]
pub struct Partners {
    /// GitHub's secret scanning partner programme.
    pub github: GithubPartner,
}

/// `[partners.github]`
#[derive(Debug, Clone)]
pub struct GithubPartner {
    /// Whether its reports are taken.
    pub enabled: bool,
    /// Where GitHub lists the public keys that it signs reports with.
    pub public_keys_url: String,
}

impl Default for GithubPartner {
    fn default() -> Self {
        Self {
            enabled: true,
            public_keys_url: "https://api.github.com/meta/public_keys/secret_scanning".to_owned(),
        }
    }
}

pub(super) fn partners(section: Section<'_>) -> Partners {
    let mut github = GithubPartner::default();
    let inner = section.section("github");
    if let Some(enabled) = inner.flag("enabled") {
        github.enabled = enabled;
    }
    if let Some(url) = base_url(&inner, "public_keys_url", &github.public_keys_url) {
        github.public_keys_url = url;
    }
    inner.finish();
    section.finish();
    Partners { github }
}
