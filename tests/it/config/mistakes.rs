//! Each mistake is named with its place and a hint.

use super::{SOURCE, problems};

/// A table with ` | ` between the columns; lines beginning with `#` are remarks, `⏎` is a line break.
fn rows<const N: usize>(table: &str) -> Vec<[String; N]> {
    let lines = table.lines().filter(|line| !line.is_empty());
    let lines = lines.filter(|line| !line.starts_with('#'));
    let cells = lines.map(|line| line.split(" | ").map(|cell| cell.trim().replace('⏎', "\n")));
    cells
        .map(|cells| cells.collect::<Vec<_>>().try_into().expect("every column"))
        .collect()
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
[webhooks.bitbucket]⏎secrets = ["s"]⏎clone_url = "https://b.example"⏎user = "u" | config.toml:4:8: webhooks.bitbucket.user: is for a token, and there is none | add token
[webhooks.bitbucket]⏎secrets = ["s"]⏎clone_url = "https://b.example"⏎token = "t"⏎user = "a:b" | config.toml:5:8: webhooks.bitbucket.user: is no user's name | colons
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
[keys]⏎peppers = ["0123456789abcdef", "0123456789abcdef"] | config.toml:2:32: keys.peppers: the same pepper twice | once
[keys]⏎peppers = ["0123456789abcde"] | config.toml:2:12: keys.peppers: the current pepper is shorter than 16 bytes | openssl rand -base64 32
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
user = "u" | sources[0].user: does not go with kind = "github_events" | only git has this key
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
