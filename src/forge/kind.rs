//! Kinds of forges: their names, their public servers, and their links.

/// A kind of forge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Forge {
    /// GitHub and GitHub Enterprise Server.
    GitHub,
    /// GitLab.
    GitLab,
    /// Gitea, Forgejo and Gogs.
    Gitea,
    /// Bitbucket Cloud and Bitbucket Data Center.
    Bitbucket,
}

impl Forge {
    /// All forges.
    pub const ALL: [Self; 4] = [Self::GitHub, Self::GitLab, Self::Gitea, Self::Bitbucket];

    /// Returns the name of the forge in the configuration and in the path of its endpoint.
    pub fn name(self) -> &'static str {
        match self {
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::Gitea => "gitea",
            Self::Bitbucket => "bitbucket",
        }
    }

    /// Returns the name of the forge's source: in occurrences, in the list of sources, and as the actor
    /// in the revocation log.
    pub fn source(self) -> &'static str {
        match self {
            Self::GitHub => "webhook:github",
            Self::GitLab => "webhook:gitlab",
            Self::Gitea => "webhook:gitea",
            Self::Bitbucket => "webhook:bitbucket",
        }
    }

    /// Returns the public servers from which the forge's repositories are cloned.
    pub fn public_servers(self) -> &'static [&'static str] {
        match self {
            Self::GitHub => &["https://github.com"],
            Self::GitLab => &["https://gitlab.com"],
            Self::Gitea => &["https://codeberg.org", "https://gitea.com"],
            Self::Bitbucket => &["https://bitbucket.org"],
        }
    }

    /// Returns the forge with this name in the configuration.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|forge| forge.name() == name)
    }

    /// Returns the forge whose webhooks are the source with this name.
    pub fn by_source(source: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|forge| forge.source() == source)
    }

    /// Returns the forge that runs the public server `host`.
    pub fn by_public_host(host: &str) -> Option<Self> {
        let runs = |forge: &Self| {
            let mut servers = forge.public_servers().iter();
            servers.any(|server| server.strip_prefix("https://") == Some(host))
        };
        Self::ALL.into_iter().find(runs)
    }
}
