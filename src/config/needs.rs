//! Parts of the configuration that a command needs. All of a file is checked, so that a misspelled key is found by
//! whichever command comes first, but only the secrets that are needed are looked up: a hook that scans what is
//! staged has no use for the password of the database.

use super::problem::ConfigPlace;
use super::problem::nearest;
use super::tree::{Table, Value};

/// Parts of the configuration that a command needs.
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    /// Sections, or keys in them, whose secrets are looked up. `*` stands for any one name.
    secrets: &'static [&'static str],
    /// `true` if the command does the same without any configuration file. One of another program that happens to be
    /// in the current folder is then left aside.
    works_without: bool,
}

impl Needs {
    /// Everything: the daemon, and the commands that examine the configuration itself.
    pub const ALL: Self = Self {
        secrets: &["*"],
        works_without: false,
    };

    /// Key formats and limits of scanning.
    pub const FORMATS: Self = Self {
        secrets: &[],
        works_without: true,
    };

    /// The database, but no value in it that stands under a pepper: the revocation log, the state of the sources.
    pub const RECORDS: Self = Self {
        secrets: &["database"],
        works_without: false,
    };

    /// The database, with the keys and access tokens in it.
    pub const KEYS: Self = Self {
        secrets: &["database", "keys"],
        works_without: false,
    };

    /// The requirements of polling a source and of reading the contents that it tells of.
    pub const POLLS: Self = Self {
        secrets: &["database", "keys", "sources", "webhooks.*.token"],
        works_without: false,
    };

    /// The same for the search for failed deliveries.
    pub const REDELIVERS: Self = Self {
        secrets: &[
            "database",
            "keys",
            "sources",
            "webhooks.*.token",
            "webhooks.*.redelivery",
        ],
        works_without: false,
    };

    /// Returns whether the secret at this path, such as `webhooks.github.secrets[0]`, is needed.
    pub(super) fn has_secret(self, path: &str) -> bool {
        let is_part = |needed: &&str| {
            let mut parts = path.split('.').map(without_index);
            needed
                .split('.')
                .all(|name| parts.next().is_some_and(|part| name == "*" || name == part))
        };
        self.secrets.iter().any(is_part)
    }

    pub(super) fn works_without_file(self) -> bool {
        self.works_without
    }
}

fn without_index(part: &str) -> &str {
    part.split_once('[').map_or(part, |(name, _)| name)
}

/// Sections of the configuration.
pub(super) const SECTIONS: &[&str] = &[
    "server", "database", "formats", "keys", "issuer", "policy", "partners", "webhooks", "sources",
    "scan", "work",
];

/// Returns the first key that shows that a file is another program's, if it plainly is.
///
/// Such a file has no section of ours, not even a misspelled one, or it has values outside of any section, as ours never
/// have, and no more of ours than of those: other programs have a `[server]` as well.
pub(super) fn first_foreign(file: &Table) -> Option<(&str, &ConfigPlace)> {
    let is_ours =
        |name: &str| SECTIONS.contains(&name) || nearest(name, SECTIONS.iter().copied()).is_some();
    let (ours, others): (Vec<_>, Vec<_>) = file.0.iter().partition(|(name, _)| is_ours(name));
    let is_section = |value: &Value| match value {
        Value::Table(_) => true,
        Value::List(items) => items
            .iter()
            .all(|item| matches!(item.value, Value::Table(_))),
        _ => false,
    };
    let has_values = others.iter().any(|(_, (_, node))| !is_section(&node.value));
    let is_foreign = ours.is_empty() || (has_values && others.len() >= ours.len());
    let first = others.iter().min_by_key(|(_, (place, _))| match place {
        ConfigPlace::File { line, column, .. } => (*line, *column),
        _ => (usize::MAX, 0),
    });
    let (name, (place, _)) = first.filter(|_| is_foreign)?;
    Some((name, place))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::problem::Problems;
    use super::super::tree::parse_file;
    use super::*;

    #[test]
    fn only_what_is_plainly_of_another_program_is_taken_for_it() {
        let line = |text: &str| {
            let table = parse_file(Path::new("config.toml"), text, &Problems::default());
            let foreign = first_foreign(&table);
            foreign.map(|(name, place)| (name.to_owned(), place.to_string()))
        };
        let at = |name: &str, place: &str| Some((name.to_owned(), place.to_owned()));
        let hugo =
            "baseURL = \"https://example.org/\"\ntitle = \"x\"\n[params]\na = 1\n[server]\nb = 1\n";
        assert_eq!(line(hugo), at("baseURL", "config.toml:1:1"));
        assert_eq!(
            line("[build]\nrustflags = []\n"),
            at("build", "config.toml:1:2")
        );
        assert_eq!(line("a = 1\n[server]\nx = 1\n"), at("a", "config.toml:1:1"));
        for ours in [
            "",
            "[sevrer]\nbind = 1\n",
            "[policy]\n[notify]\n",
            "policy = \"revoke\"\n",
            "pepers = []\n[server]\n[database]\n[scan]\n",
        ] {
            assert_eq!(line(ours), None, "{ours}");
        }
    }

    #[test]
    fn a_secret_is_needed_by_its_section_or_its_key() {
        assert!(Needs::ALL.has_secret("webhooks.github.secrets[0]"));
        assert!(Needs::POLLS.has_secret("sources[3].tokens[1]"));
        assert!(Needs::POLLS.has_secret("webhooks.gitea.token"));
        assert!(!Needs::POLLS.has_secret("webhooks.gitea.secrets[0]"));
        assert!(!Needs::POLLS.has_secret("webhooks.github.redelivery.token"));
        assert!(Needs::REDELIVERS.has_secret("webhooks.github.redelivery.app.private_key"));
        assert!(!Needs::POLLS.has_secret("webhooks"));
        assert!(Needs::RECORDS.has_secret("database.url"));
        assert!(!Needs::RECORDS.has_secret("keys.peppers[0]"));
        assert!(!Needs::FORMATS.has_secret("database.url"));
    }
}
