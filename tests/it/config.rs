//! Tests of config.

mod keys;

use std::path::Path;

use reqwest::Url;
use rescind::config::{Config, ConfigError, Environment, SourceKind};
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

/// A table with ` | ` between the columns; lines beginning with `#` are remarks, `⏎` is a line break.
fn rows<const N: usize>(table: &str) -> Vec<[String; N]> {
    let lines = table.lines().filter(|line| !line.is_empty());
    let lines = lines.filter(|line| !line.starts_with('#'));
    let cells = lines.map(|line| line.split(" | ").map(|cell| cell.trim().replace('⏎', "\n")));
    cells
        .map(|cells| cells.collect::<Vec<_>>().try_into().expect("every column"))
        .collect()
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
    // The folder is the one that is built in; everything else is the default to the letter.
    assert_eq!(shipped.formats.dir.as_deref(), Some(Path::new("patterns")));
    let mut rest = shipped.clone();
    rest.sources.clear();
    rest.formats.dir = None;
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

const MISTAKES: &str = r#"
# Syntax.
[server⏎bind = 1 | config.toml:1:8: not valid TOML: unclosed table | double quotes
⏎[server]⏎bind = oops | config.toml:3:8: not valid TOML | double quotes
[server]⏎bind = "a"⏎bind = "b" | config.toml:3:1: not valid TOML: duplicate key | double
# Unknown keys, those of later versions among them.
[sever]⏎ | config.toml:1:2: sever: this version knows no such section | did you mean `server`?
[server]⏎bnd = "" | config.toml:2:1: server.bnd: this version knows no such key | did you mean `bind`?
[webhooks.github]⏎secret = ["x"] | config.toml:2:1: webhooks.github.secret: this version knows no such key | did you mean `secrets`?
[webhooks.github]⏎clone_url = "https://a.example" | config.toml:1:1: webhooks.github.secrets: is missing | WEBHOOK_SECRET
[webhooks.github]⏎secrets = ["a", "a"] | config.toml:2:17: webhooks.github.secrets: the same secret twice | once
[webhooks.github]⏎secrets = [{ env = "S" }] | config.toml:2:12: webhooks.github.secrets[0]: the environment variable S is not set | set S
[webhooks.gitlab]⏎secrets = ["whsec_?"] | config.toml:2:12: webhooks.gitlab.secrets: begins with whsec_ | copy
[webhooks.gitlab]⏎secrets = ["a"]⏎token = "t" | config.toml:1:1: webhooks.gitlab.token: is for clones | no other
[webhooks.gitlab]⏎secrets = ["a"]⏎redelivery = {} | config.toml:3:1: webhooks.gitlab.redelivery: this version knows no such key | known here
[webhooks.gitea]⏎secrets = ["a"]⏎clone_hosts = ["https://a.example/git"] | config.toml:3:16: webhooks.gitea.clone_hosts: is no server | gitea
[webhooks.gitea]⏎secrets = ["a"]⏎clone_hosts = ["a.example"] | config.toml:3:16: webhooks.gitea.clone_hosts: is no server | 8443
[webhooks.gitea]⏎clone_hosts = ["https://a.example"] | config.toml:1:1: webhooks.gitea.secrets: is missing | WEBHOOK_SECRET
[webhooks.gitea]⏎secrets = ["a"]⏎clone_url = "ssh://git@a.example" | config.toml:3:13: webhooks.gitea.clone_url: has to begin with https:// | gitea
[[sources]]⏎name = "a"⏎kind = "github_events"⏎[webhooks.github]⏎secrets = ["a"]⏎clone_url = "https://github.com/x" | config.toml:4:1: webhooks.github.clone_url: a source or webhook of the same host | same clone_url
[webhooks.github.redelivery]⏎token = "t"⏎hooks = ["repo:a/b:1"] | config.toml:1:11: webhooks.github.secrets: is missing | WEBHOOK
[webhooks.github]⏎secrets = ["a"]⏎[webhooks.github.redelivery]⏎token = "t" | config.toml:3:1: webhooks.github.redelivery.hooks: is missing | org:acme:9
[webhooks.github]⏎secrets = ["a"]⏎[webhooks.github.redelivery]⏎hooks = ["org:a:1"] | config.toml:3:1: webhooks.github.redelivery.token: is missing | token =
[webhooks.github]⏎secrets = ["a"]⏎[webhooks.github.redelivery]⏎hooks = ["org:a:1"]⏎app = { id = 1 } | config.toml:5:7: webhooks.github.redelivery.app.private_key: is missing | app.pem
[webhooks.github]⏎secrets = ["a"]⏎[webhooks.github.redelivery]⏎hooks = ["org:a:1", "repo:A/b:2", "org:c:3"]⏎app = { id = 1, private_key = "k" } | config.toml:3:1: webhooks.github.redelivery.hooks: are of a and c | leave the hooks of one account
[webhooks.github]⏎secrets = ["a"]⏎[webhooks.github.redelivery]⏎token = "t"⏎hooks = ["user:a:1"] | config.toml:5:10: webhooks.github.redelivery.hooks: is no webhook | settings page
[webhooks.github]⏎secrets = ["a"]⏎[webhooks.github.redelivery]⏎token = "t"⏎hooks = ["app"] | config.toml:5:10: webhooks.github.redelivery.hooks: is no webhook | settings page
[webhooks.bitbuket]⏎secrets = [] | config.toml:1:11: webhooks.bitbuket: | did you mean `bitbucket`?
[partners.gitlab]⏎enabled = true | config.toml:1:1: partners.gitlab.public_keys_url: is missing | program
[partners.depsdev]⏎signature_header = "a b" | config.toml:2:20: partners.depsdev.signature_header: is not the name of a header | Gitlab-Public-Key-Signature
[partners.depsdev]⏎signature_header = "Gosst-Public-Key-Identifier" | config.toml:1:1: partners.depsdev.signature_header: is the same header | names the key
[partners.gitlab]⏎revocation_tokens = ["a", "a"] | config.toml:2:27: partners.gitlab.revocation_tokens: the same token twice | once
[policy]⏎dry_run = true | config.toml:2:1: policy.dry_run:  | known here: on_leak
[log]⏎retention = "7y" | config.toml:1:2: log:  | known here: sources, server
[[notify.email]]⏎ | config.toml:1:3: notify:  | known here
[partners.gitlb]⏎enabled = true | config.toml:1:11: partners.gitlb:  | did you mean `gitlab`?
server = 3 | config.toml:1:10: server: has to be a section | [server]
[sources]⏎name = "a" | config.toml:1:1: sources: has to be a list of sections | [[sources]]
# Wrong types and values.
[server]⏎bind = 8787 | config.toml:2:8: server.bind: has to be a text | 127.0.0.1:8787
[server]⏎bind = "localhost:1" | config.toml:2:8: server.bind: has to be an IP | [::]:8787
[server]⏎public_url = "rescind" | config.toml:2:14: server.public_url: is not a URL | https://
[server]⏎public_url = "ftp://a" | server.public_url: has to begin with https:// | https://
[server]⏎public_url = "http://u:p@a" | server.public_url: holds a user name | https://
[server]⏎trusted_proxies = "10.0.0.1" | config.toml:2:19: server.trusted_proxies: has to be a list | 10.0.0.0/8
[server]⏎trusted_proxies = ["proxy"] | server.trusted_proxies: is neither an IP address | 10.0.0.0/8
[server]⏎trusted_proxies = ["10.0.0.0/33"] | server.trusted_proxies: is neither an IP address | 10.0.0.0/8
[server]⏎trusted_proxies = ["0.0.0.0/0"] | server.trusted_proxies: holds every address | 10.0.0.0/8
[server]⏎public_url = "http://a/?q" | server.public_url: has a query | https://
[database]⏎url = "mysql://a" | config.toml:2:7: database.url: has to be the URL | postgres://
[database]⏎url = "" | config.toml:2:7: database.url: is empty | remove the key
[formats]⏎dir = "" | formats.dir: has to be a text that is not empty | patterns
[policy]⏎on_leak = "notify" | config.toml:2:11: policy.on_leak: this version only revokes | revoke
[policy]⏎on_leak = "grace:24h" | policy.on_leak: this version only revokes | revoke
[partners.github]⏎enabled = "yes" | config.toml:2:11: partners.github.enabled: has to be true or false | true
[scan]⏎max_blob_bytes = "1 MEG" | config.toml:2:18: scan.max_blob_bytes: has to be a number of bytes | 32MiB
[scan]⏎max_blob_bytes = 0 | scan.max_blob_bytes: has to be a number of bytes | 32MiB
[scan]⏎max_blob_bytes = "1GiB" | scan.max_blob_bytes: is larger than | raise
[scan]⏎encodings = ["utf16"] | config.toml:2:14: scan.encodings: lacks utf8 | add "utf8"
[scan]⏎encodings = ["utf8", "latin1"] | config.toml:2:22: scan.encodings: is not an encoding | base64
[scan]⏎encodings = "utf8" | scan.encodings: has to be a list of texts | base64
# Secrets.
[keys]⏎peppers = [{ env = "P" }] | config.toml:2:12: keys.peppers[0]: the environment variable P is not set | set P
[keys]⏎peppers = [{ file = "/no/such" }] | config.toml:2:12: keys.peppers[0]: cannot read the file /no/such | UTF-8
[keys]⏎peppers = [{ vault = "a" }] | keys.peppers[0]: has to be a text or a reference | env
[keys]⏎peppers = [{ env = "A", file = "b" }] | keys.peppers[0]: has to be a text or a reference | env
[keys]⏎peppers = [7] | keys.peppers[0]: has to be a secret | env
[keys]⏎peppers = [""] | keys.peppers[0]: is empty | value
[keys]⏎peppers = ["a", "a"] | config.toml:2:17: keys.peppers: the same pepper twice | once
"#;

#[test]
fn each_mistake_is_named_with_its_line_and_a_hint() {
    for row in rows(MISTAKES) {
        let [text, place_and_key, hint] = row.each_ref().map(String::as_str);
        let found = problems(text, &[]);
        assert!(found.contains(place_and_key), "{text}\n{found}");
        let after = found.split("hint: ").nth(1).unwrap_or_default();
        assert!(after.contains(hint), "{text}\n{found}");
    }
}

const MISTAKES_IN_A_SOURCE: &str = r#"
schedule = "* * * *" | config.toml:4:12: sources[0].schedule: a cron expression has five fields | poll
schedule = "61 * * * *" | sources[0].schedule: minute: has to be | poll
scope = "everything" | config.toml:4:9: sources[0].scope: is not a scope | org:NAME
scope = "org:" | sources[0].scope: is not a scope | org:NAME
scope = "repo:a/../b" | sources[0].scope: is not a scope | repo:OWNER/NAME
scope = "user:.." | sources[0].scope: is not a scope | repo:OWNER/NAME
token = "a\nb" | sources[0].token: holds characters | line breaks
tokn = "a" | config.toml:4:1: sources[0].tokn:  | did you mean `token`?
api_url = "api.github.com" | sources[0].api_url: is not a URL | https://api.github.com
[[sources]]⏎name = "a"⏎kind = "github_events" | config.toml:5:8: sources[1].name: another source | of its own
[[sources]]⏎name = "b" | config.toml:4:1: sources[1].kind: is missing | github_events
[[sources]]⏎kind = "github_events" | config.toml:4:1: sources[1].name: is missing | github-public
clone_url = "https://a.example/x"⏎[[sources]]⏎name = "b"⏎kind = "github_events"⏎clone_url = "https://a.example/y" | config.toml:5:1: sources[1].clone_url: another source | same clone_url
token = "s"⏎[[sources]]⏎name = "b"⏎kind = "github_events"⏎token = "t" | config.toml:5:1: sources[1].token: another source | same token
[[sources]]⏎name = "b"⏎kind = "gitlab" | config.toml:6:8: sources[1].kind: this version | known here: github_events, gharchive
[[sources]]⏎name = "b"⏎kind = "gharchiv"⏎base_url = "https://a.example" | config.toml:6:8: sources[1].kind: this version | did you mean `gharchive`?
base_url = "https://a.example" | config.toml:4:1: sources[0].base_url: does not go with kind = "github_events" | remove it; only gharchive
[[sources]]⏎name = "b"⏎kind = "gharchive"⏎scope = "public" | config.toml:7:1: sources[1].scope: does not go with kind = "gharchive" | remove it; only github_events
[[sources]]⏎name = "b"⏎kind = "gharchive"⏎api_url = 3 | config.toml:7:1: sources[1].api_url: does not go with kind = "gharchive" | remove it; only github_events
[[sources]]⏎name = "b"⏎kind = "gharchive"⏎base_url = "ftp://a" | config.toml:7:12: sources[1].base_url: has to begin with https:// | https://data.gharchive.org
[[sources]]⏎name = "b"⏎kind = "gharchive"⏎base_ur = "x" | config.toml:7:1: sources[1].base_ur: this version knows no such key | did you mean `base_url`?
[[sources]]⏎name = "b c"⏎kind = "github_events" | sources[1].name: has to be at most | github-public
"#;

#[test]
fn each_mistake_in_a_source_is_named() {
    for row in rows(MISTAKES_IN_A_SOURCE) {
        let [lines, place_and_key, hint] = row.each_ref().map(String::as_str);
        let found = problems(&format!("{SOURCE}{lines}"), &[]);
        assert!(found.contains(place_and_key), "{lines}\n{found}");
        assert!(found.contains(hint), "{lines}\n{found}");
    }
}

#[test]
fn all_problems_are_reported_at_once_in_the_order_of_the_file() {
    let text = "[server]\nbind = 1\nbnd = 2\n[scan]\nencodings = 3\n[database]\nurl = \"x:y\"";
    let found = problems(text, &[("RESCIND__ISSUER__SECERT", "x")]);
    let places: Vec<&str> = found
        .lines()
        .filter(|line| !line.starts_with(' '))
        .map(|line| line.split(": ").next().unwrap_or_default())
        .collect();
    assert_eq!(
        places,
        [
            "config.toml:2:8",
            "config.toml:3:1",
            "config.toml:5:13",
            "config.toml:7:7",
            "environment variable RESCIND__ISSUER__SECERT"
        ]
    );
}

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
            ("RESCIND__KEYS__PEPPERS", r#"["new", { env = "OLD" }]"#),
            ("RESCIND__SCAN__MAX_BLOB_BYTES", "1048576"),
            ("RESCIND__SCAN__ENCODINGS", r#"["utf8"]"#),
            ("RESCIND__SOURCES__0__TOKEN", "from-variable"),
            ("RESCIND__SOURCES__0__SCOPE", "repo:rust-lang/rust"),
            ("RESCIND__SOURCES__1__NAME", "second"),
            ("RESCIND__SOURCES__1__KIND", "github_events"),
            ("RESCIND__SOURCES__1__SCHEDULE", "0 3 * * 7"),
            ("OLD", "old"),
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
    assert_eq!(peppers, ["new", "old"]);
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
            ("RESCIND__KEYS__PEPPERS__0", "p"),
            ("T", "secret"),
        ],
    );
    let token = config.sources[0]
        .token
        .as_ref()
        .map(ExposeSecret::expose_secret);
    assert_eq!(token, Some("secret"));
    assert_eq!(config.keys.peppers[0].expose_secret(), "p");
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

const MISTAKES_IN_VARIABLES: &str = r#"
RESCIND__SERVER__BND | x | server.bnd:  | did you mean `bind`?
RESCIND__SEVER__BIND | x | sever:  | did you mean `server`?
RESCIND__LOG__RETENTION | 7y | log:  | known here
RESCIND__SERVER__BIND | 8787 | server.bind: has to be an IP | 127.0.0.1
RESCIND__SERVER__BIND__X | 1 | server.bind.x: this is a single value | config show
RESCIND__SOURCES__1__NAME | a | sources.1.name: the next free number | config show
RESCIND__SOURCES__X__NAME | a | sources | config show
RESCIND__ | a | does not name a key | RESCIND__SECTION__KEY
RESCIND__SERVER____BIND | a | does not name a key | RESCIND__SECTION__KEY
RESCIND__PARTNERS__GITHUB__ENABLED | maybe | partners.github.enabled: has to be true | true
RESCIND__SCAN__ENCODINGS | utf8,utf16 | scan.encodings: has to be a list | base64
RESCIND__SERVER__TRUSTED_PROXIES | 10.0.0.1,10.0.0.2 | server.trusted_proxies: has to be a list | 10.0.0
RESCIND__SERVER__TRUSTED_PROXIES__0 | 10.0.0.0/99 | server.trusted_proxies | 10.0.0
RESCIND__SERVER__TRUSTED_PROXIES__1 | 10.0.0.1 | server.trusted_proxies.1: the next free number in this list is 0 | config show
RESCIND__SOURCES__0 | a | sources: has to be a list of sections | [[sources]]
RESCIND__KEYS__PEPPERS | [ | keys.peppers: has to be a list of secrets | env
# A line break must not smuggle a second key in.
RESCIND__SCAN__ENCODINGS | ["utf8"]⏎x = 1 | scan.encodings: has to be a list | base64
"#;

#[test]
fn mistakes_in_variables_name_the_variable() {
    for row in rows(MISTAKES_IN_VARIABLES) {
        let [name, value, key, hint] = row.each_ref().map(String::as_str);
        let text =
            "[server]\nbind = \"127.0.0.1:1\"\n[[sources]]\nname = \"a\"\nkind = \"github_events\"";
        let text = if name.contains("SOURCES__1") {
            "sources = []"
        } else {
            text
        };
        let found = problems(text, &[(name, value)]);
        assert!(
            found.starts_with(&format!("environment variable {name}: ")),
            "{found}"
        );
        assert!(found.contains(key), "{name}\n{found}");
        assert!(found.contains(hint), "{name}\n{found}");
    }
}

#[test]
fn secrets_come_from_variables_and_files() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("pepper");
    std::fs::write(&file, "from file\r\n").expect("a file");
    let text = format!(
        "[keys]\npeppers = [\"text\", {{ file = \"{}\" }}]",
        file.display()
    );
    let config = valid(&text, &[]);
    assert_eq!(config.keys.peppers[1].expose_secret(), "from file");
    std::fs::write(&file, "\n").expect("a file");
    assert!(problems(&text, &[]).contains("keys.peppers[1]: is empty"));
    std::fs::write(&file, b"\xff\xfe").expect("a file");
    assert!(problems(&text, &[]).contains("cannot read the file"));
    // An optional token whose variable is there but empty is no token.
    let config = valid(&format!("{SOURCE}token = {{ env = \"T\" }}"), &[("T", "")]);
    assert!(config.sources[0].token.is_none());
    assert_eq!(config.warnings.len(), 1);
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
    let error = Config::load(Some(Path::new("/no/such/config.toml")), &environment(&[]));
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
    let shipped = valid(include_str!("../../config.toml"), &[]).load_formats();
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
