//! Each key of the configuration is described alike by the program, the shipped file and the documentation.

use std::collections::{BTreeMap, BTreeSet};

use rescind::forge::Forge;
use rescind::intake::PartnerName;

use super::{problems, valid};

const SHIPPED: &str = include_str!("../../../config.toml");
const DOCUMENTATION: &str = include_str!("../../../docs/configuration.md");

/// A source of each kind and the search for failed deliveries, with nothing that has a default.
const LEAST: &str = r#"
[webhooks.github]
secrets = ["s"]
[webhooks.github.redelivery]
hooks = ["org:acme:9"]
token = "t"
[[sources]]
name = "a"
kind = "github_events"
[[sources]]
name = "b"
kind = "gharchive"
[[sources]]
name = "c"
kind = "git"
url = "https://git.example/team/project.git"
"#;

/// A value for every key that has none by default.
fn everything() -> String {
    let webhook = |forge: Forge| {
        let name = forge.name();
        format!(
            "[webhooks.{name}]\nsecrets = [\"s\"]\nclone_url = \"https://{name}.example\"\ntoken = \"t\"\nuser = \"u\"\n"
        )
    };
    let partner = |partner: PartnerName| {
        let name = partner.name();
        format!("[partners.{name}]\npublic_keys_url = \"https://{name}.example/keys\"\n")
    };
    Forge::ALL.map(webhook).concat() + &PartnerName::ALL.map(partner).concat() + THE_OTHERS
}

const THE_OTHERS: &str = r#"
[formats]
dir = "patterns"
[webhooks.github.redelivery]
hooks = ["org:acme:9"]
token = "t"
app = { id = 1, private_key = "k", installation = 2 }
[[sources]]
name = "a"
kind = "github_events"
scope = "org:acme"
token = "t"
tokens = ["u"]
app = { id = 1, private_key = "k", installation = 2 }
[[sources]]
name = "b"
kind = "gharchive"
[[sources]]
name = "c"
kind = "git"
url = "https://git.example/team/project.git"
token = "t"
user = "u"
"#;

/// Values by key, such as `sources.app.id`.
type Values = BTreeMap<String, String>;

/// Names the keys that only one of the two has.
fn assert_same(described: &Values, read: &Values) {
    let only = |one: &Values, other: &Values| {
        let keys = one.keys().filter(|key| !other.contains_key(*key));
        keys.cloned().collect::<Vec<_>>()
    };
    let (missing, unknown) = (only(read, described), only(described, read));
    assert!(missing.is_empty(), "not described: {missing:?}");
    assert!(unknown.is_empty(), "never read: {unknown:?}");
}

/// Values that `config show` prints for a file.
fn shown(file: &str) -> Values {
    values(&valid(file, &[]).to_masked_toml())
}

/// The first value of each key of a file. What is commented out counts as well.
fn values(file: &str) -> Values {
    let is_key = |key: &str| key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let mut values = Values::new();
    let mut section = "";
    for line in file.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        let line = line.split(" #").next().unwrap_or_default().trim_end();
        if line.starts_with('[') && line.ends_with(']') {
            section = line.trim_matches(['[', ']']);
        } else if let Some((key, value)) = line.split_once(" = ").filter(|(key, _)| is_key(key)) {
            let first = values.entry(format!("{section}.{key}"));
            first.or_insert(value.to_owned());
        }
    }
    values
}

/// Default of each key in the tables of the documentation: in backticks if it is a value, else words.
fn documented() -> Values {
    let (_, tables) = DOCUMENTATION.split_once("\n## Keys\n").expect("tables");
    let (tables, _) = tables.split_once("\n### Behind").expect("their end");
    let (general, of_sources) = tables.split_once("\n### Sources\n").expect("two of them");
    let mut defaults = Values::new();
    for (prefix, table) in [("", general), ("sources.", of_sources)] {
        for row in table.lines().filter(|line| line.starts_with("| `")) {
            let mut cells = row.trim_matches(['|', ' ']).split(" | ");
            let names = cells.next().expect("keys").split(", ");
            let keys = names.flat_map(|name| expanded(name.trim_matches('`')));
            let keys: Vec<String> = keys.collect();
            let cell = cells.next().expect("a default");
            // A value for each of the keys, or one for all.
            let each: Vec<String> = cell.split("`, `").map(in_backticks).collect();
            let is_one_each = each.len() > 1 && each.len() == keys.len();
            for (index, key) in keys.into_iter().enumerate() {
                let default = if is_one_each { &each[index] } else { cell };
                let before = defaults.insert(format!("{prefix}{key}"), default.to_owned());
                assert_eq!(before, None, "{key} is described twice");
            }
        }
    }
    defaults
}

fn in_backticks(value: &str) -> String {
    format!("`{}`", value.trim_matches('`'))
}

/// The keys that a name in the documentation stands for: one of each partner, or of each forge.
fn expanded(name: &str) -> Vec<String> {
    if name.contains('…') {
        let partners = PartnerName::ALL.map(|partner| name.replace('…', partner.name()));
        return partners.to_vec();
    }
    if name.contains("FORGE") {
        let forges = Forge::ALL.map(|forge| name.replace("FORGE", forge.name()));
        return forges.to_vec();
    }
    vec![name.to_owned()]
}

/// The names that a section may have, as the hint at an unknown one lists them.
fn known_in(section: &str) -> BTreeSet<String> {
    let source = |kind: &str| format!("[[sources]]\nkind = \"{kind}\"\n");
    let headings = match section {
        "" => vec![String::new()],
        "sources" => kinds().iter().map(|kind| source(kind)).collect(),
        "sources.app" => vec![source("github_events") + "[sources.app]\n"],
        "webhooks.github.redelivery.app" => {
            let hooks = "[webhooks.github.redelivery]\nhooks = [\"org:acme:9\"]\n";
            vec![format!("{hooks}[{section}]\n")]
        }
        _ => vec![format!("[{section}]\n")],
    };
    let unknown = |heading: String| hinted(&format!("{heading}qqqqqqqqqqqq = 1\n"));
    headings.into_iter().flat_map(unknown).collect()
}

/// The kinds of sources, as the hint at an unknown one lists them.
fn kinds() -> Vec<String> {
    hinted("[[sources]]\nname = \"a\"\nkind = \"qqqqqqqqqqqq\"\n")
}

/// The words that the program names in place of an unknown one.
fn hinted(file: &str) -> Vec<String> {
    let found = problems(file, &[]);
    let hint = found.split("hint: known here: ").nth(1);
    let hint = hint.and_then(|hint| hint.lines().next());
    let hint = hint.unwrap_or_else(|| panic!("{file}: {found}"));
    hint.split(", ").map(str::to_owned).collect()
}

#[test]
fn a_source_of_each_kind_is_among_those_looked_at() {
    for kind in kinds() {
        let line = format!("kind = \"{kind}\"\n");
        for file in [LEAST, &everything(), SHIPPED, DOCUMENTATION] {
            let is_there = file.contains(&line) || file.contains(&format!("`\"{kind}\"`"));
            assert!(is_there, "no {line} in {:.60}", file.trim());
        }
    }
}

#[test]
fn every_key_that_is_read_is_shown() {
    let shown = shown(&everything());
    // Each section with the names of its keys, and of the sections in it.
    let mut sections: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for key in shown.keys() {
        let mut path = key.as_str();
        while !path.is_empty() {
            let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
            sections.entry(section).or_default().insert(name.to_owned());
            path = section;
        }
    }
    for (section, names) in sections {
        let known = known_in(section);
        let missing: Vec<&String> = known.difference(&names).collect();
        assert!(missing.is_empty(), "[{section}]: {missing:?}");
    }
}

#[test]
fn every_key_of_the_shipped_file_exists_and_no_key_is_missing_from_it() {
    assert_same(&values(SHIPPED), &shown(&everything()));
}

#[test]
fn every_key_in_the_documentation_exists_and_no_key_is_missing_from_it() {
    assert_same(&documented(), &shown(&everything()));
}

#[test]
fn the_documented_defaults_hold_and_are_those_of_the_shipped_file() {
    let (shown, shipped, set) = (shown(LEAST), values(SHIPPED), values(LEAST));
    let mut compared = 0;
    for (key, default) in documented() {
        if set.contains_key(&key) {
            continue;
        }
        let shown = shown.get(&key).map(String::as_str);
        let value = default.strip_prefix('`');
        match value.and_then(|value| value.strip_suffix('`')) {
            // The shipped file may have an example.
            Some("[]") => assert!(shown.is_none_or(|shown| shown == "[]"), "{key}"),
            Some(value) => {
                assert_eq!(shown, Some(value), "{key}");
                assert_eq!(shipped.get(&key).map(String::as_str), Some(value), "{key}");
                compared += 1;
            }
            None if default == "none" => assert_eq!(shown, None, "{key}"),
            None => {}
        }
    }
    assert!(compared >= 25, "{compared}");
}
