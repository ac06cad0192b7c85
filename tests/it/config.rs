//! Tests of config.

mod keys;
mod mistakes;
mod variables;

use std::path::Path;

use reqwest::Url;
use rescind::config::{Config, ConfigError, Environment, Needs, SourceKind};
use rescind::daemon::{token_of_source, token_of_webhook};
use rescind::fetch::{Token, TokenUser};
use rescind::forge::Forge;
use rescind::github::InstallationId;
use rescind::intake::PartnerName;
use rescind::schedule::Schedule;
use rescind::source::Scope;
use secrecy::ExposeSecret;

const SOURCE: &str = "[[sources]]\nname = \"a\"\nkind = \"github_events\"\n";

fn environment(variables: &[(&str, &str)]) -> Environment {
    let variables = variables.iter();
    variables
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::parse(Path::new("config.toml"), text, &environment(variables))
}

fn valid(text: &str, variables: &[(&str, &str)]) -> Config {
    parse(text, variables).unwrap_or_else(|error| panic!("{error}"))
}

fn url(text: &str) -> Url {
    text.parse().expect("a URL")
}

/// The problems of a configuration, each as one line of place, key and sentence, and one of the hint.
fn problems(text: &str, variables: &[(&str, &str)]) -> String {
    match parse(text, variables) {
        Ok(_) => panic!("accepted: {text}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn shipped_file_is_the_defaults_and_one_source() {
    let shipped = valid(include_str!("../../config.toml"), &[]);
    let defaults = Config::default();
    assert_eq!(shipped.sources.len(), 1);
    assert_eq!(shipped.sources[0].name, "github-public");
    let github = SourceKind::GithubEvents {
        scope: Scope::Public,
        api_url: url("https://api.github.com"),
    };
    assert_eq!(shipped.sources[0].kind, github);
    assert_eq!(shipped.sources[0].schedule, Schedule::Poll);
    assert!(shipped.sources[0].token.is_none());
    assert_eq!(
        shipped.warnings,
        ["sources[0].token: the environment variable GITHUB_TOKEN is not set, going on without"]
    );
    // Everything else is the default to the letter, also the folder of formats: the file works wherever it is.
    assert!(shipped.formats.dir.is_none());
    let mut rest = shipped.clone();
    rest.sources.clear();
    let without_places = |config: &Config| {
        let text = config.to_masked_toml();
        let lines = text.lines().map(|line| line.split("  # ").next());
        lines.flatten().collect::<Vec<_>>().join("\n")
    };
    assert_eq!(without_places(&rest), without_places(&defaults));
    assert_eq!(
        rest.database.url.expose_secret(),
        defaults.database.url.expose_secret()
    );
}

#[test]
fn no_file_and_no_variables_give_the_defaults() {
    let config = valid("", &[]);
    assert_eq!(config.server.bind.to_string(), "127.0.0.1:8787");
    assert_eq!(
        config.public_url(config.server.bind),
        "http://127.0.0.1:8787"
    );
    assert_eq!(
        config.database.url.expose_secret(),
        "sqlite://data/rescind.db"
    );
    assert!(config.formats.dir.is_none() && config.sources.is_empty());
    assert!(config.partners.of(PartnerName::GitHub).enabled);
    assert_eq!(config.scan.max_fetch_bytes, 256 << 20);
}

#[test]
fn secrets_come_from_variables_and_files() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("pepper");
    std::fs::write(&file, "a pepper from a file\r\n").expect("a file");
    let text = format!(
        "[keys]\npeppers = [\"a pepper as text\", {{ file = \"{}\" }}]",
        file.display()
    );
    let config = valid(&text, &[]);
    assert_eq!(
        config.keys.peppers[1].expose_secret(),
        "a pepper from a file"
    );
    std::fs::write(&file, "\n").expect("a file");
    assert!(problems(&text, &[]).contains("keys.peppers[1]: is empty"));
    std::fs::write(&file, b"\xff\xfe").expect("a file");
    assert!(problems(&text, &[]).contains("cannot read the file"));
    // An optional token whose variable is there but empty is no token.
    let config = valid(&format!("{SOURCE}token = {{ env = \"T\" }}"), &[("T", "")]);
    assert!(config.sources[0].token.is_none());
    assert_eq!(config.warnings.len(), 1);
}

/// Forges would sign with another secret.
#[test]
fn what_is_beside_a_secret_in_its_file_is_warned_of() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("secret");
    let name = file.display().to_string();
    let text = format!("[webhooks.github]\nsecrets = [{{ file = \"{name}\" }}]");
    for beside in ["\u{feff}secret\n", "secret \r\n", "\tsecret", "secret\n \n"] {
        std::fs::write(&file, beside).expect("a file");
        let warnings = valid(&text, &[]).warnings;
        let said = format!("{warnings:?}");
        assert!(said.contains("webhooks.github.secrets[0]"), "{said}");
        assert!(
            said.contains(&name) && said.contains("save the secret without"),
            "{said}"
        );
    }
    std::fs::write(&file, "sec ret\n").expect("a file");
    assert!(valid(&text, &[]).warnings.is_empty());
}

/// Refusing it would make the keys that stand under it unknown.
#[test]
fn a_retired_pepper_that_is_short_is_taken_with_a_warning() {
    let config = valid("[keys]\npeppers = [\"0123456789abcdef\", \"short\"]", &[]);
    assert_eq!(config.keys.peppers.len(), 2);
    assert!(config.warnings[0].starts_with("keys.peppers: a retired pepper"));
    assert!(!config.warnings[0].contains("short\""));
}

#[test]
fn no_problem_and_no_output_shows_a_value() {
    const VALUE: &str = "hunter2hunter2hunter2";
    for text in [
        VALUE.to_owned(),
        format!("{VALUE} = 1"),
        format!("[keys]\npeppers = [{VALUE}]"),
        format!("[keys]\npeppers = [\"{VALUE}]"),
        format!("[keys]\npeppers = [\"{VALUE}\", \"{VALUE}\"]"),
        format!("[keys]\npeppers = \"{VALUE}\""),
        format!("[database]\nurl = \"mysql://me:{VALUE}@host\""),
        format!("[server]\nbind = \"{VALUE}\"\npublic_url = \"http://a:{VALUE}@b\""),
        format!("[policy]\non_leak = \"{VALUE}\""),
        format!("[scan]\nencodings = [\"{VALUE}\"]\nmax_blob_bytes = \"{VALUE}\""),
        format!("{SOURCE}token = \"{VALUE}\nscope = 1"),
        format!("{SOURCE}token = \"{VALUE} {VALUE}\""),
        format!("{SOURCE}scope = \"{VALUE}\"\nschedule = \"{VALUE}\"\napi_url = \"{VALUE}\""),
        format!("[[sources]]\nname = \"{VALUE} x\"\nkind = \"{VALUE}\""),
    ] {
        let text = text.replacen(&format!("{VALUE} = 1"), &format!("{VALUE}{VALUE} = 1"), 1);
        let found = problems(&text, &[]);
        assert!(!found.contains(VALUE), "{found}");
    }
    let found = problems("", &[("RESCIND__KEYS__PEPPERS", &format!("[{VALUE}"))]);
    assert!(!found.contains(VALUE), "{found}");

    let text = format!(
        "[keys]\npeppers = [\"{VALUE}\"]\n[database]\nurl = \"postgres://me:{VALUE}@host/db\"\n{SOURCE}token = \"{VALUE}\""
    );
    let config = valid(&text, &[]);
    assert!(!format!("{config:?}").contains(VALUE));
    let shown = config.to_masked_toml();
    assert!(!shown.contains(VALUE), "{shown}");
    assert!(shown.contains("postgres://me:********@host/db"), "{shown}");
}

#[test]
fn what_is_shown_can_be_read_back() {
    let text = format!("[server]\nbind = \"[::]:1\"\n{SOURCE}schedule = \"0 1 * * mon\"");
    let config = valid(&text, &[("RESCIND__ISSUER__SECRET", "acme")]);
    let shown = config.to_masked_toml();
    assert!(
        shown.contains("bind = \"[::]:1\"  # config.toml:2\n"),
        "{shown}"
    );
    assert!(
        shown.contains("secret = \"acme\"  # RESCIND__ISSUER__SECRET\n"),
        "{shown}"
    );
    let again = valid(&shown, &[]);
    assert_eq!(again.server.bind, config.server.bind);
    assert_eq!(again.sources[0].schedule, config.sources[0].schedule);
}

#[test]
fn an_archive_has_defaults_and_is_shown() {
    let config = valid("[[sources]]\nname = \"past\"\nkind = \"gharchive\"\n", &[]);
    let archive = SourceKind::Gharchive {
        base_url: url("https://data.gharchive.org"),
    };
    assert_eq!(config.sources[0].kind, archive);
    assert_eq!(config.sources[0].clone_url, url("https://github.com"));
    let shown = config.to_masked_toml();
    assert!(
        shown.contains("base_url = \"https://data.gharchive.org\"\n"),
        "{shown}"
    );
    assert!(!shown.contains("api_url") && !shown.contains("scope"));
    assert_eq!(valid(&shown, &[]).sources[0].kind, archive);
}

#[test]
fn a_named_file_has_to_exist() {
    let error = Config::load(
        Some(Path::new("/no/such/config.toml")),
        &environment(&[]),
        Needs::ALL,
    );
    let error = error
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    assert!(error.contains("/no/such/config.toml"), "{error}");
    assert!(error.contains("--config or RESCIND_CONFIG"), "{error}");
}

#[test]
fn the_issuers_formats_have_to_be_fit_for_minting() {
    let formats = Config::default().load_formats().expect("built-in formats");
    assert!(Config::default().issuer_formats(&formats).is_ok());
    for (key, id, what, hint) in [
        (
            "secret",
            "rescind_secert",
            "is not the id of a key format",
            "did you mean `rescind_secret`?",
        ),
        (
            "secret",
            "acme",
            "is not the id of a key format",
            "usable here: rescind_secret",
        ),
        (
            "secret",
            "rescind_public",
            "names a format that is not secret",
            "rescind_secret",
        ),
        (
            "public",
            "rescind_secret",
            "names a format that is not public",
            "rescind_public",
        ),
        (
            "secret",
            "stack_auth_secret",
            "keys cannot be minted in",
            "usable here: rescind_secret",
        ),
    ] {
        let config = valid(&format!("[issuer]\n{key} = \"{id}\""), &[]);
        let error = config
            .issuer_formats(&formats)
            .err()
            .map(|error| error.to_string());
        let error = error.unwrap_or_default();
        assert!(
            error.starts_with(&format!("config.toml:2:10: issuer.{key}: ")),
            "{error}"
        );
        assert!(error.contains(what) && error.contains(hint), "{error}");
    }
}

#[test]
fn the_shipped_folder_of_formats_is_the_one_built_in() {
    let shipped = Config::load(
        Some(Path::new("config.toml")),
        &environment(&[]),
        Needs::ALL,
    );
    let shipped = shipped.expect("the shipped file");
    assert_eq!(shipped.formats.dir.as_deref(), Some(Path::new("patterns")));
    let shipped = shipped.load_formats();
    let built_in = Config::default().load_formats();
    let versions = [shipped, built_in].map(|set| set.map(|set| set.ruleset_version().to_owned()));
    assert_eq!(versions[0], versions[1]);
    assert!(versions[0].is_ok());
}

#[test]
fn tokens_apps_and_single_repositories_are_sources() {
    let text = r#"
[[sources]]
name = "acme"
kind = "github_events"
scope = "org:acme"
tokens = ["ghp_one", "ghp_two"]
[sources.app]
id = 12345
private_key = "-----BEGIN RSA PRIVATE KEY-----"
installation = 678

[[sources]]
name = "project"
kind = "git"
url = "https://git.example.com/team/project.git"
token = "sesame"

[webhooks.github]
secrets = ["sesame"]
[webhooks.github.redelivery]
hooks = ["org:acme:9"]
app = { id = 54321, private_key = "-----BEGIN RSA PRIVATE KEY-----", installation = 876 }
"#;
    let config = valid(text, &[]);
    let acme = &config.sources[0];
    let app = acme.app.as_ref().unwrap();
    assert_eq!(
        (acme.tokens.len(), app.id, &app.installation),
        (2, 12345, &InstallationId::Known(678))
    );
    assert_eq!(config.sources[1].clone_url, url("https://git.example.com"));
    let redelivery = config.webhooks.redelivery.as_ref().unwrap();
    let app = redelivery.app.as_ref().unwrap();
    assert!(redelivery.token.is_none());
    assert_eq!(
        (app.id, &app.installation),
        (54321, &InstallationId::Known(876))
    );
    let shown = config.to_masked_toml();
    for secret in ["ghp_", "BEGIN", "sesame"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(valid(&shown, &[]).sources.len() == 2, "{shown}");
}

#[test]
fn a_token_is_presented_in_the_name_that_is_configured_or_that_the_forge_wants() {
    let git = |name: &str, host: &str, more: &str| {
        format!(
            "[[sources]]\nname = \"{name}\"\nkind = \"git\"\nurl = \"https://{host}/x/{name}\"\ntoken = \"t\"\n{more}"
        )
    };
    let text = [
        git("unknown", "git.example", ""),
        git("gitlab", "gitlab.com", ""),
        git("bitbucket", "bitbucket.org", ""),
        git("codeberg", "codeberg.org", ""),
        git("own", "own.example", "user = \"me\"\n"),
        git("beside", "own.example", ""),
        git("of_webhook", "lab.example:8443", ""),
        git("of_user", "bb.example", ""),
        "[webhooks.gitlab]\nsecrets = [\"s\"]\nclone_hosts = [\"https://lab.example:8443\"]\n".to_owned(),
        "[webhooks.gitea]\nsecrets = [\"s\"]\nclone_url = \"https://gitea.example\"\ntoken = \"t\"\n".to_owned(),
        "[webhooks.bitbucket]\nsecrets = [\"s\"]\nclone_url = \"https://bb.example\"\ntoken = \"t\"\nuser = \"it\"\n"
            .to_owned(),
    ];
    let config = valid(&text.concat(), &[]);
    let is = |token: Option<Token>, user: TokenUser| {
        token.is_some_and(|token| token.is(&Token::new(user, "t".into())))
    };
    for (source, user) in config.sources.iter().zip([
        "x-access-token",
        "oauth2",
        "x-token-auth",
        "",
        "me",
        "me",
        "oauth2",
        "it",
    ]) {
        let user = match user {
            "" => TokenUser::Itself,
            user => TokenUser::Named(user.to_owned()),
        };
        assert!(
            is(token_of_source(&config, source), user),
            "{}",
            source.name
        );
    }
    let of_webhook = token_of_webhook(&config, Forge::Gitea);
    assert!(is(of_webhook, TokenUser::Itself));
    let of_webhook = token_of_webhook(&config, Forge::Bitbucket);
    assert!(is(of_webhook, TokenUser::Named("it".to_owned())));
    assert!(token_of_webhook(&config, Forge::GitLab).is_none());
    let two =
        git("a", "own.example", "user = \"me\"\n") + &git("b", "own.example", "user = \"you\"\n");
    let error = problems(&two, &[]);
    let what = "another source or webhook of the same host has a different user";
    assert!(
        error.contains(&format!("sources[1].user: {what}")),
        "{error}"
    );
    let webhook = "[webhooks.gitea]\nsecrets = [\"s\"]\nclone_url = \"https://own.example\"\ntoken = \"t\"\nuser = \"you\"\n";
    let error = problems(&(git("a", "own.example", "user = \"me\"\n") + webhook), &[]);
    assert!(
        error.contains(&format!("webhooks.gitea.user: {what}")),
        "{error}"
    );
}

#[test]
fn half_an_app_and_keys_of_other_kinds_are_refused() {
    let source = "[[sources]]\nname = \"a\"\nkind = \"github_events\"\n";
    let git = "[[sources]]\nname = \"a\"\nkind = \"git\"\n";
    for (text, expected) in [
        (
            format!("{source}scope = \"org:x\"\n[sources.app]\nid = 1\n"),
            "private_key: is missing",
        ),
        (
            format!("{source}scope = \"org:x\"\n[sources.app]\nprivate_key = \"x\"\n"),
            "id: is missing",
        ),
        (
            format!("{source}[sources.app]\nid = 1\nprivate_key = \"x\"\n"),
            "installation: is missing",
        ),
        (
            format!("{source}tokens = [\"a b\"]\n"),
            "holds characters that no access token has",
        ),
        (git.to_owned(), "url: is missing"),
        (
            format!("{git}url = \"https://git.example.com/\"\n"),
            "names a server and no repository",
        ),
        (
            format!("{git}url = \"https://git.example.com/x\"\ntokens = [\"x\"]\n"),
            "does not go with kind",
        ),
        (
            format!("{git}url = \"https://git.example.com/x\"\nscope = \"public\"\n"),
            "does not go with kind",
        ),
    ] {
        let error = problems(&text, &[]);
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn servers_that_payloads_may_name_come_from_the_file_or_the_environment() {
    let gitea = "[webhooks.gitea]\nsecrets = [\"s\"]\nclone_hosts = [\"https://GIT.example:443\", \"http://10.0.0.7:3000/\"]\n";
    let config = valid(gitea, &[]);
    let hosts = |config: &Config| {
        let hosts = config.webhooks.of(Forge::Gitea).clone_hosts.iter();
        hosts.map(ToString::to_string).collect::<Vec<_>>()
    };
    let expected = ["https://git.example/", "http://10.0.0.7:3000/"];
    assert_eq!(hosts(&config), expected);
    let shown = "clone_hosts = [\"https://git.example\", \"http://10.0.0.7:3000\"]";
    assert!(
        config.to_masked_toml().contains(shown),
        "{}",
        config.to_masked_toml()
    );
    let variable = "RESCIND__WEBHOOKS__GITEA__CLONE_HOSTS";
    let config = valid(gitea, &[(variable, "[\"http://other.example\"]")]);
    assert_eq!(hosts(&config), ["http://other.example/"]);
}
