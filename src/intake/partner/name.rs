//! Names of the partners.

named! {
    /// A partner that sends signed reports.
    pub enum PartnerName {
        /// GitHub's secret scanning partner program.
        GitHub = "github",
        /// GitLab's partner program for leaked credentials, and its token revocation API.
        GitLab = "gitlab",
        /// Google's deps.dev, which scans packages.
        DepsDev = "depsdev",
    }
}

impl PartnerName {
    /// Returns the path of the endpoint for the partner's reports.
    pub fn endpoint(self) -> &'static str {
        match self {
            Self::GitHub => "/webhooks/github/secret-scanning",
            Self::GitLab => "/webhooks/gitlab/secret-detection",
            Self::DepsDev => "/webhooks/depsdev/secret-scanning",
        }
    }

    /// Returns the name of the partner as a source: in occurrences, and as the actor in the revocation log.
    pub fn source(self) -> &'static str {
        match self {
            Self::GitHub => "partner:github",
            Self::GitLab => "partner:gitlab",
            Self::DepsDev => "partner:depsdev",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partner_as_a_source_has_its_name_in_the_configuration() {
        for partner in PartnerName::ALL {
            assert_eq!(partner.source(), format!("partner:{}", partner.name()));
        }
    }
}
