//! Access tokens for git, as they are presented.

use reqwest::Url;

use crate::config::{Config, Source};
use crate::fetch::{Token, TokenUser, host_of};
use crate::forge::Forge;

/// Returns the access token that is presented to the git server of a source.
pub fn token_of_source(config: &Config, source: &Source) -> Option<Token> {
    let secret = source.token.clone()?;
    Some(Token::new(user_at(config, &source.clone_url), secret))
}

/// Returns the access token that is presented to the server of a forge's `clone_url`.
pub fn token_of_webhook(config: &Config, forge: Forge) -> Option<Token> {
    let webhook = config.webhooks.of(forge);
    let (secret, clone_url) = (webhook.token.clone()?, webhook.clone_url.as_ref()?);
    Some(Token::new(user_at(config, clone_url), secret))
}

/// Returns the name in which a token is presented to a server: that of any source or webhook of the host, which is the
/// same for all, or what the forge wants. Of an unknown one it is what GitHub wants; many take any name.
fn user_at(config: &Config, server: &Url) -> TokenUser {
    let host = host_of(server);
    let is_there = |url: &Url| host_of(url) == host;
    let mut sources = config.sources.iter();
    let of_source = sources.find_map(|source| {
        let user = source.user.as_ref()?;
        is_there(&source.clone_url).then(|| user.clone())
    });
    let webhooks = config.webhooks.each();
    let mut there = webhooks.iter().filter(|(_, webhook)| {
        let mut urls = webhook.clone_url.iter().chain(&webhook.clone_hosts);
        urls.any(is_there)
    });
    let of_webhook = there.clone().find_map(|(_, webhook)| webhook.user.clone());
    if let Some(user) = of_source.or(of_webhook) {
        return TokenUser::Named(user);
    }
    let forge = there.next().map(|(forge, _)| *forge);
    forge
        .or_else(|| Forge::by_public_host(&host))
        .unwrap_or(Forge::GitHub)
        .token_user()
}
