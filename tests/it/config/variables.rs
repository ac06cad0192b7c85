//! Environment variables that stand above the file.

use rescind::config::SourceKind;
use rescind::forge::Forge;
use rescind::intake::PartnerName;
use secrecy::ExposeSecret;

use super::{SOURCE, url, valid};

#[test]
fn variables_override_the_file() {
    let text = format!("[server]\nbind = \"127.0.0.1:1\"\n{SOURCE}token = \"from-file\"");
    let config = valid(
        &text,
        &[
            ("RESCIND__SERVER__BIND", "0.0.0.0:2"),
            (
                "RESCIND__SERVER__TRUSTED_PROXIES",
                r#"["::ffff:10.0.0.1", "192.168.7.9/16"]"#,
            ),
            ("RESCIND__DATABASE__URL", "postgres://me@host/db"),
            (
                "RESCIND__PARTNERS__GITHUB__PUBLIC_KEYS_URL",
                "http://127.0.0.1:3/keys",
            ),
            ("RESCIND__PARTNERS__GITHUB__ENABLED", "false"),
            (
                "RESCIND__KEYS__PEPPERS",
                r#"["the pepper of 2027", { env = "OLD" }]"#,
            ),
            ("RESCIND__SCAN__MAX_BLOB_BYTES", "1048576"),
            ("RESCIND__SCAN__ENCODINGS", r#"["utf8"]"#),
            ("RESCIND__SOURCES__0__TOKEN", "from-variable"),
            ("RESCIND__SOURCES__0__SCOPE", "repo:rust-lang/rust"),
            ("RESCIND__SOURCES__1__NAME", "second"),
            ("RESCIND__SOURCES__1__KIND", "github_events"),
            ("RESCIND__SOURCES__1__SCHEDULE", "0 3 * * 7"),
            ("OLD", "the pepper of 2026"),
            // Neither is an override: one underscore.
            ("RESCIND_TEST_POSTGRES", "x"),
            ("RESCIND_CONFIG", "x"),
        ],
    );
    assert_eq!(config.server.bind.to_string(), "0.0.0.0:2");
    let shown = config.to_masked_toml();
    assert!(
        shown.contains(r#"trusted_proxies = ["10.0.0.1/32", "192.168.0.0/16"]"#),
        "{shown}"
    );
    assert_eq!(config.database.url.expose_secret(), "postgres://me@host/db");
    assert_eq!(
        config.partners.of(PartnerName::GitHub).public_keys_url,
        Some(url("http://127.0.0.1:3/keys"))
    );
    assert!(!config.partners.of(PartnerName::GitHub).enabled);
    let peppers: Vec<&str> = config
        .keys
        .peppers
        .iter()
        .map(ExposeSecret::expose_secret)
        .collect();
    assert_eq!(peppers, ["the pepper of 2027", "the pepper of 2026"]);
    assert_eq!(config.scan.max_blob_bytes, 1 << 20);
    assert!(!config.scan.encodings.utf16 && !config.scan.encodings.base64);
    let token = config.sources[0]
        .token
        .as_ref()
        .map(ExposeSecret::expose_secret);
    assert_eq!(token, Some("from-variable"));
    let SourceKind::GithubEvents { scope, .. } = &config.sources[0].kind else {
        panic!("{:?}", config.sources[0]);
    };
    assert_eq!(scope.to_string(), "repo:rust-lang/rust");
    assert_eq!(config.sources[1].schedule.to_string(), "0 3 * * 7");
}

#[test]
fn lists_and_references_may_come_from_variables_as_a_whole() {
    let config = valid(
        "",
        &[
            (
                "RESCIND__SOURCES",
                r#"[{ name = "a", kind = "github_events" }]"#,
            ),
            ("RESCIND__SOURCES__0__TOKEN", r#"{ env = "T" }"#),
            ("RESCIND__KEYS__PEPPERS__0", "a pepper of 2026"),
            ("T", "secret"),
        ],
    );
    let token = config.sources[0]
        .token
        .as_ref()
        .map(ExposeSecret::expose_secret);
    assert_eq!(token, Some("secret"));
    assert_eq!(config.keys.peppers[0].expose_secret(), "a pepper of 2026");
}

#[test]
fn elements_of_lists_may_come_from_variables_of_their_own() {
    let mut variables = vec![
        ("RESCIND__SCAN__ENCODINGS__0".to_owned(), "utf8".to_owned()),
        ("RESCIND__SCAN__ENCODINGS__1".to_owned(), "utf16".to_owned()),
        (
            "RESCIND__WEBHOOKS__GITEA__SECRETS__0".to_owned(),
            "s".to_owned(),
        ),
        (
            "RESCIND__WEBHOOKS__GITEA__CLONE_HOSTS__0".to_owned(),
            "https://git.example".to_owned(),
        ),
        (
            "RESCIND__SOURCES__0".to_owned(),
            r#"{ name = "a", kind = "github_events" }"#.to_owned(),
        ),
        (
            "RESCIND__SOURCES__0__SCOPE".to_owned(),
            "org:acme".to_owned(),
        ),
    ];
    // Of the file's two, the second is another one; ten more follow, whose names do not sort as numbers do.
    for n in 1..12 {
        let name = format!("RESCIND__SERVER__TRUSTED_PROXIES__{n}");
        variables.push((name, format!("10.0.0.{n}/32")));
    }
    let variables: Vec<(&str, &str)> = variables
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let text = "[server]\ntrusted_proxies = [\"10.0.0.0\", \"192.168.0.1\"]";
    let config = valid(text, &variables);
    let shown = config.to_masked_toml();
    let proxies: Vec<String> = (0..12).map(|n| format!("\"10.0.0.{n}/32\"")).collect();
    let proxies = format!("trusted_proxies = [{}]", proxies.join(", "));
    assert!(shown.contains(&proxies), "{shown}");
    assert!(config.scan.encodings.utf16 && !config.scan.encodings.base64);
    assert_eq!(
        config.webhooks.of(Forge::Gitea).clone_hosts[0].as_str(),
        "https://git.example/"
    );
    let SourceKind::GithubEvents { scope, .. } = &config.sources[0].kind else {
        panic!("{:?}", config.sources[0]);
    };
    assert_eq!(scope.to_string(), "org:acme");
}
