//! `[webhooks]`: forges that report pushes and texts by webhook.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use super::base_url;
use super::sources::{
    App, Source, refuse_second_user, source_app, source_schedule, source_token, token_user, url_or,
};
use crate::config::read::{Found, Section, is_unset};
use crate::config::url::same_host;
use crate::forge::Forge;
use crate::schedule::{CronSchedule, Schedule};
use crate::source::Hook;

/// Prefix of a signing token of GitLab (Standard Webhooks).
const SIGNING_TOKEN: &str = "whsec_";

/// Default schedule of the search for failed deliveries.
const SWEEPS: &str = "*/30 * * * *";

/// The `[webhooks]` section.
#[derive(Debug, Clone, Default)]
pub struct Webhooks {
    /// Sections of the forges, in the order of [`Forge::ALL`].
    webhooks: [Webhook; Forge::ALL.len()],
    /// Settings of the search for failed deliveries of GitHub, `[webhooks.github.redelivery]`.
    pub redelivery: Option<Redelivery>,
}

/// A `[webhooks.FORGE]` section.
#[derive(Debug, Clone, Default)]
pub struct Webhook {
    /// `true` if the forge has an endpoint, which it has with any secret.
    pub accepts: bool,
    /// Secrets with which deliveries may be signed, if they were needed and looked up.
    pub secrets: Vec<SecretString>,
    /// Base URL of repositories over smart HTTP. If `None`, the URL in the payload is used where that is allowed.
    pub clone_url: Option<Url>,
    /// Servers, by scheme, host and port, to which the clone URLs of payloads may point, in addition to
    /// those of every `clone_url` of a source or webhook and the forge's own on the internet.
    pub clone_hosts: Vec<Url>,
    /// Access token for clones from `clone_url`.
    pub token: Option<SecretString>,
    /// User in whose name the token is presented. If `None`, it is what the forge wants.
    pub user: Option<String>,
}

/// The `[webhooks.github.redelivery]` section.
#[derive(Debug, Clone)]
pub struct Redelivery {
    /// Webhooks whose deliveries are checked.
    pub hooks: Vec<Hook>,
    /// Access token, which may read and redeliver the deliveries of all hooks. Required unless there is an app.
    pub token: Option<SecretString>,
    /// GitHub App on whose behalf deliveries are read and redelivered. All hooks are of the account it is installed on.
    pub app: Option<App>,
    /// Base URL of the REST API.
    pub api_url: Url,
    /// Times at which deliveries are checked.
    pub schedule: Schedule,
}

impl Webhooks {
    /// Returns the section of a forge.
    pub fn of(&self, forge: Forge) -> &Webhook {
        &self.webhooks[forge as usize]
    }

    /// Returns the sections of all forges.
    pub fn each(&self) -> [(Forge, &Webhook); Forge::ALL.len()] {
        Forge::ALL.map(|forge| (forge, self.of(forge)))
    }

    /// Returns the sections of the forges whose deliveries are accepted: those with a secret.
    pub fn accepting(&self) -> impl Iterator<Item = (Forge, &Webhook)> {
        let sections = self.each().into_iter();
        sections.filter(|(_, webhook)| webhook.accepts)
    }
}

pub(super) fn webhooks(section: Section<'_>, sources: &[Source]) -> Webhooks {
    let mut known = Vec::new();
    for source in sources {
        known.push(ClonePlace {
            user: source.user.clone(),
            ..ClonePlace::new(&source.clone_url, source.token.as_ref())
        });
    }
    let mut found = None;
    let webhooks = Forge::ALL.map(|forge| {
        let section = section.section(forge.name());
        let webhook = webhook(&section, forge, &mut known);
        if forge == Forge::GitHub {
            let is_wanted = section.has("redelivery");
            found = redelivery(section.section("redelivery"), is_wanted);
        }
        section.finish();
        webhook
    });
    section.finish();
    Webhooks {
        webhooks,
        redelivery: found,
    }
}

fn webhook(section: &Section<'_>, forge: Forge, known: &mut Vec<ClonePlace>) -> Webhook {
    let webhook = Webhook {
        accepts: section.lists("secrets"),
        secrets: secrets(section, forge),
        clone_url: base_url(section, "clone_url", example_of(forge)),
        clone_hosts: clone_hosts(section, forge),
        token: source_token(section),
        user: token_user(section),
    };
    check_clone_place(section, &webhook, known);
    let asks_for_more = ["clone_url", "clone_hosts", "token", "user", "redelivery"].iter();
    if asks_for_more.clone().any(|key| section.has(key)) && !section.has("secrets") {
        section.refuse(
            section.place(),
            "secrets",
            "is missing, so no delivery could be verified",
            r#"add a line such as secrets = [{ env = "WEBHOOK_SECRET" }]"#,
        );
    }
    webhook
}

fn clone_hosts(section: &Section<'_>, forge: Forge) -> Vec<Url> {
    let example = format!(r#"["{}:8443"]"#, example_of(forge));
    let mut hosts = Vec::new();
    for Found { value, place } in section.texts("clone_hosts", &example).into_iter().flatten() {
        let host = Url::parse(&value).ok().filter(is_server);
        if host.is_none() {
            let what =
                "is no server: http:// or https://, a host, and a port unless it is the usual one";
            section.refuse(
                &place,
                "clone_hosts",
                what,
                &format!("for example {example}"),
            );
        }
        hosts.extend(host);
    }
    hosts
}

/// Returns `true` if the URL consists of nothing but a scheme, a host and an optional port.
fn is_server(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
}

fn example_of(forge: Forge) -> &'static str {
    match forge {
        Forge::GitHub => "https://github.com",
        Forge::GitLab => "https://gitlab.com",
        Forge::Gitea => "https://gitea.example.com",
        Forge::Bitbucket => "https://bitbucket.org",
    }
}

fn secrets(section: &Section<'_>, forge: Forge) -> Vec<SecretString> {
    let mut secrets: Vec<SecretString> = Vec::new();
    for Found { value, place } in section.secrets("secrets") {
        let text = value.expose_secret();
        if is_unset(&value) {
            secrets.push(value);
            continue;
        }
        if secrets.iter().any(|known| known.expose_secret() == text) {
            let hint = "each secret stands in the list once";
            section.refuse(&place, "secrets", "the same secret twice", hint);
        }
        if forge == Forge::GitLab && text.starts_with(SIGNING_TOKEN) && !is_signing_token(text) {
            let what = "begins with whsec_ like a signing token, but no base64 follows";
            let hint = "copy the signing token as GitLab shows it";
            section.refuse(&place, "secrets", what, hint);
        }
        secrets.push(value);
    }
    secrets
}

fn is_signing_token(text: &str) -> bool {
    let key = text.strip_prefix(SIGNING_TOKEN).unwrap_or_default();
    !key.is_empty() && STANDARD.decode(key).is_ok()
}

/// Origin of the contents of a host.
struct ClonePlace {
    user: Option<String>,
    url: Url,
    token: Option<String>,
}

impl ClonePlace {
    fn new(url: &Url, token: Option<&SecretString>) -> Self {
        Self {
            user: None,
            url: url.clone(),
            token: token
                .filter(|token| !is_unset(token))
                .map(|token| token.expose_secret().to_owned()),
        }
    }
}

/// Checks that contents of the webhook's host are fetched in one way, and that a token has a host to
/// which it belongs.
///
/// A push that a webhook and a source see is one work item, whichever of them announced it.
fn check_clone_place(section: &Section<'_>, webhook: &Webhook, known: &mut Vec<ClonePlace>) {
    let Some(clone_url) = &webhook.clone_url else {
        if section.has("token") && !section.has("clone_url") {
            let what = "is for clones, and nothing says from where";
            let hint = "add clone_url: the token is sent to that host and to no other";
            section.refuse(section.place(), "token", what, hint);
        }
        return;
    };
    let here = ClonePlace {
        user: webhook.user.clone(),
        ..ClonePlace::new(clone_url, webhook.token.as_ref())
    };
    for other in known
        .iter()
        .filter(|other| same_host(&other.url, &here.url))
    {
        if other.url != here.url {
            let what = "a source or webhook of the same host has a different clone_url";
            let hint = "give sources and webhooks of one host the same clone_url";
            section.refuse(section.place(), "clone_url", what, hint);
        }
        if let (Some(token), Some(other)) = (&here.token, &other.token)
            && token != other
        {
            let what = "a source or webhook of the same host has a different token";
            let hint = "give sources and webhooks of one host the same token";
            section.refuse(section.place(), "token", what, hint);
        }
        refuse_second_user(section, here.user.as_ref(), other.user.as_ref());
    }
    known.push(here);
}

fn redelivery(section: Section<'_>, wanted: bool) -> Option<Redelivery> {
    let hooks = hooks(&section);
    let token = source_token(&section);
    // Without hooks there is nothing to be an app for, which is said below.
    section.forgive(&["app"]);
    let first = hooks.first();
    let app = first.and_then(|hook| source_app(&section, Some(hook.installation())));
    if section.has("app") {
        refuse_second_account(&section, &hooks);
    }
    let api_url = url_or(&section, "api_url", "https://api.github.com");
    let schedule = if section.has("schedule") {
        source_schedule(&section)
    } else {
        CronSchedule::parse(SWEEPS).map_or(Schedule::Poll, Schedule::Cron)
    };
    let missing = |key: &str, hint: &str| {
        if wanted && !section.has(key) {
            section.refuse(section.place(), key, "is missing", hint);
        }
    };
    missing("hooks", r#"add a line such as hooks = ["org:acme:9"]"#);
    if !section.has("app") {
        missing(
            "token",
            r#"add a line such as token = { env = "GITHUB_HOOKS_TOKEN" }, or an app"#,
        );
    }
    let is_needed = section.needs_secret("token");
    section.finish();
    let lacks_secret = token.is_none() && app.is_none();
    if hooks.is_empty() || (lacks_secret && is_needed) {
        return None;
    }
    Some(Redelivery {
        hooks,
        token,
        app,
        api_url,
        schedule,
    })
}

/// Reports webhooks of several accounts: an app has an installation, with tokens of its own, on each of them.
fn refuse_second_account(section: &Section<'_>, hooks: &[Hook]) {
    let mut accounts = hooks.iter().map(Hook::account);
    let Some(first) = accounts.next() else {
        return;
    };
    if let Some(other) = accounts.find(|account| !account.eq_ignore_ascii_case(first)) {
        let what = format!("are of {first} and {other}, but an app is installed on one account");
        let hint = "leave the hooks of one account, or use a token that may do both";
        section.refuse(section.place(), "hooks", &what, hint);
    }
}

fn hooks(section: &Section<'_>) -> Vec<Hook> {
    let example = r#"["repo:acme/shop:123", "org:acme:9"]"#;
    let mut hooks = Vec::new();
    for Found { value, place } in section.texts("hooks", example).into_iter().flatten() {
        let known = Hook::parse(&value).filter(|hook| !hooks.contains(hook));
        if known.is_none() {
            let what = "is no webhook of a repository or organization, or stands in the list twice";
            let hint = format!("its number is in the address of its settings page: {example}");
            section.refuse(&place, "hooks", what, &hint);
        }
        hooks.extend(known);
    }
    hooks
}
