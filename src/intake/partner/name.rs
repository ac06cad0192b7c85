//! Names of the partners.

/// A partner that sends signed reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PartnerName {
    /// GitHub's secret scanning partner program.
    GitHub,
    /// GitLab's partner program for leaked credentials, and its token revocation API.
    GitLab,
    /// Google's deps.dev, which scans packages.
    DepsDev,
}

impl PartnerName {
    /// All partners.
    pub const ALL: [Self; 3] = [Self::GitHub, Self::GitLab, Self::DepsDev];

    /// Returns the name of the partner in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::DepsDev => "depsdev",
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
