//! Kinds of forges: their names, their public servers, and their links.

use reqwest::Url;

use crate::fetch::TokenUser;

named! {
    /// A kind of forge. The name is that in the configuration and in the path of its endpoint.
    pub enum Forge {
        /// GitHub and GitHub Enterprise Server.
        GitHub = "github",
        /// GitLab.
        GitLab = "gitlab",
        /// Gitea, Forgejo and Gogs.
        Gitea = "gitea",
        /// Bitbucket Cloud and Bitbucket Data Center.
        Bitbucket = "bitbucket",
    }
}

impl Forge {
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

    /// Returns the URLs of the public servers.
    pub fn public_urls(self) -> impl Iterator<Item = Url> {
        let servers = self.public_servers().iter();
        servers.flat_map(|server| Url::parse(server))
    }

    /// Returns the name in which an access token is presented to git over HTTP, unless the configuration says another one.
    ///
    /// GitHub: "Authenticating as a GitHub App installation". GitLab takes any name with most tokens, and this one with
    /// all of OAuth ("Access Git over HTTPS with access token"). Bitbucket Cloud: "Using repository access tokens"; one
    /// of its API tokens is another user's. Gogs before 0.12 takes a token as the name only, which Gitea and Forgejo do,
    /// too, with this password (`services/auth/basic.go`).
    pub fn token_user(self) -> TokenUser {
        let named = |user: &str| TokenUser::Named(user.to_owned());
        match self {
            Self::GitHub => named("x-access-token"),
            Self::GitLab => named("oauth2"),
            Self::Gitea => TokenUser::Itself,
            Self::Bitbucket => named("x-token-auth"),
        }
    }

    /// Returns the path of a file at a commit, below the page of its repository.
    pub fn blob_path(self, commit: &str, path: &str) -> String {
        match self {
            Self::GitHub => format!("blob/{commit}/{path}"),
            Self::GitLab => format!("-/blob/{commit}/{path}"),
            Self::Gitea => format!("src/commit/{commit}/{path}"),
            Self::Bitbucket => format!("src/{commit}/{path}"),
        }
    }

    /// Returns the path of a commit, below the page of its repository.
    pub fn commit_path(self, commit: &str) -> String {
        match self {
            Self::GitHub | Self::Gitea => format!("commit/{commit}"),
            Self::GitLab => format!("-/commit/{commit}"),
            Self::Bitbucket => format!("commits/{commit}"),
        }
    }

    /// Returns what stands between the URL of a file and a line number.
    pub fn line_fragment(self) -> &'static str {
        match self {
            Self::GitHub | Self::GitLab | Self::Gitea => "#L",
            Self::Bitbucket => "#lines-",
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forge_is_found_by_each_of_its_names() {
        for forge in Forge::ALL {
            assert_eq!(Forge::by_name(forge.name()), Some(forge));
            assert_eq!(Forge::by_source(forge.source()), Some(forge));
            for server in forge.public_servers() {
                let host = server.strip_prefix("https://").unwrap();
                assert_eq!(Forge::by_public_host(host), Some(forge));
            }
            assert_eq!(forge.public_urls().count(), forge.public_servers().len());
        }
        assert_eq!(Forge::by_name("GitHub"), None);
        assert_eq!(Forge::by_source("webhook:"), None);
        assert_eq!(Forge::by_public_host("git.example"), None);
    }

    #[test]
    fn each_forge_has_its_own_links() {
        let links = |forge: Forge| {
            let file = forge.blob_path("c", "a.txt");
            format!(
                "{file}{}1 {}",
                forge.line_fragment(),
                forge.commit_path("c")
            )
        };
        assert_eq!(
            Forge::ALL.map(links),
            [
                "blob/c/a.txt#L1 commit/c",
                "-/blob/c/a.txt#L1 -/commit/c",
                "src/commit/c/a.txt#L1 commit/c",
                "src/c/a.txt#lines-1 commits/c",
            ]
        );
    }
}
