//! Parts of the configuration that a command needs. A section that is misspelled is found by whichever command comes
//! first, but what is wrong within a section concerns those who need it only, and only the secrets that are needed are
//! looked up: a hook that scans what is staged has no use for the password of the database.

use super::problem::ConfigPlace;
use super::problem::nearest;
use super::tree::{Table, Value};

/// Parts of the configuration that a command needs.
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    /// Sections whose mistakes are in the way. `*` stands for any one name.
    sections: &'static [&'static str],
    /// Sections, or keys in them, whose secrets are looked up.
    secrets: &'static [&'static str],
    /// `true` if the command does the same without any configuration file. One of another program that happens to be
    /// in the current folder is then left aside.
    works_without: bool,
    /// `true` if a secret that cannot be looked up is no mistake yet, but marked.
    marks_unset: bool,
}

impl Needs {
    /// Everything: the daemon, and the command that examines whether it would start.
    pub const ALL: Self = Self::new(&["*"], &["*"]);

    /// Everything that can be shown.
    pub const SHOWN: Self = Self {
        marks_unset: true,
        ..Self::ALL
    };

    /// Key formats.
    pub const FORMATS: Self = Self {
        works_without: true,
        ..Self::new(&["formats"], &[])
    };

    /// Key formats and limits of scanning.
    pub const SCANS: Self = Self {
        works_without: true,
        ..Self::new(&["formats", "scan"], &[])
    };

    /// The database, but no value in it that stands under a pepper: the revocation log.
    pub const RECORDS: Self = Self::new(&["database"], &["database"]);

    /// Likewise, the names of what is polled and received, and the key formats: the state of the sources.
    pub const SOURCES: Self = Self::new(
        &["database", "formats", "sources", "webhooks"],
        &["database"],
    );

    /// The database, with the keys and access tokens in it.
    pub const KEYS: Self = Self::new(
        &["database", "keys", "formats", "issuer"],
        &["database", "keys"],
    );

    /// The same for whatever a scan finds.
    pub const MATCHES: Self = Self::new(
        &["database", "keys", "formats", "issuer", "scan"],
        &["database", "keys"],
    );

    /// The requirements of polling a source and of reading the contents that it tells of.
    pub const POLLS: Self = Self::new(POLLED, &["database", "keys", "sources", "webhooks.*.token"]);

    /// The same for the search for failed deliveries.
    pub const REDELIVERS: Self = Self::new(
        POLLED,
        &[
            "database",
            "keys",
            "sources",
            "webhooks.*.token",
            "webhooks.*.redelivery",
        ],
    );

    const fn new(sections: &'static [&'static str], secrets: &'static [&'static str]) -> Self {
        Self {
            sections,
            secrets,
            works_without: false,
            marks_unset: false,
        }
    }

    /// Returns whether a mistake at this path, such as `server.bind`, is one for this command. The name of a section that
    /// there is not is one for every command.
    pub(super) fn has_part(self, path: &str) -> bool {
        let section = path.split('.').next().map_or("", without_index);
        let is_part = |needed: &&str| *needed == "*" || *needed == section;
        !SECTIONS.contains(&section) || self.sections.iter().any(is_part)
    }

    /// Returns whether a secret that cannot be looked up is marked.
    pub(super) fn marks_unset(self) -> bool {
        self.marks_unset
    }

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

/// Sections that are needed to read what is polled, and to respond to it.
const POLLED: &[&str] = &[
    "database", "keys", "formats", "issuer", "policy", "sources", "webhooks", "scan", "work",
];

/// Sections of the configuration.
const SECTIONS: &[&str] = &[
    "server", "database", "formats", "keys", "issuer", "policy", "partners", "webhooks", "sources",
    "scan", "work",
];

/// Returns the first key that shows that a file is another program's, if it plainly is.
///
/// Such a file has no section of ours, not even a misspelled one, or it has values outside of any section, as ours never
/// have, and no more of ours than of those: other programs have a `[server]` as well. For whoever does the same without
/// any file, one section that is not even misspelled is enough.
pub(super) fn first_foreign(file: &Table, needs: Needs) -> Option<(&str, &ConfigPlace)> {
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
    let is_foreign =
        needs.works_without || ours.is_empty() || (has_values && others.len() >= ours.len());
    let first = others.iter().min_by_key(|(_, (place, _))| match place {
        ConfigPlace::File { line, column, .. } => (*line, *column),
        _ => (usize::MAX, 0),
    });
    let (name, (place, _)) = first.filter(|_| is_foreign)?;
    Some((name, place))
}

/// Returns whether a text, which may be no TOML and in any encoding, names a section of ours: in a header, or as the first
/// part of a key.
pub(super) fn has_section_of_ours(text: &[u8]) -> bool {
    // In UTF-16, every other byte is one, and a mark may come first.
    let text: Vec<u8> = text.iter().copied().filter(|byte| *byte != 0).collect();
    text.split(|byte| matches!(byte, b'\n' | b'\r'))
        .any(|line| {
            let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
            // Whatever is not ASCII is a mark, or blank.
            let is_before = |byte: &u8| {
                byte.is_ascii_whitespace() || b"[\"'".contains(byte) || !byte.is_ascii()
            };
            let start = line.iter().position(|byte| !is_before(byte));
            let name = &line[start.unwrap_or(line.len())..];
            let end = name.iter().position(|byte| !is_name(byte));
            let name = &name[..end.unwrap_or(name.len())];
            SECTIONS.iter().any(|section| section.as_bytes() == name)
        })
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
            let foreign = first_foreign(&table, Needs::ALL);
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
    fn a_text_that_names_a_section_is_ours_whatever_else_is_in_it() {
        for text in [
            &b"[formats]"[..],
            b"a = 1\r\n  [[ 'sources' ]]",
            b"# Schl\xfcssel\n[formats]\n",
            b"formats.dir = \"p\" x\n",
            b"[\"formats\"]\ndir = \"p\" x\n",
            b"scan = { a",
            b"\xef\xbb\xbf[scan]\n",
            b"\xff\xfe[\0s\0c\0a\0n\0]\0",
            b"\xfe\xff\0[\0s\0c\0a\0n\0]",
        ] {
            assert!(has_section_of_ours(text), "{text:?}");
        }
        for text in [
            &b""[..],
            b"# [formats]\n",
            b"[scanner]\nformats-dir = 1\na = \"scan\"\n",
        ] {
            assert!(!has_section_of_ours(text), "{text:?}");
        }
    }

    #[test]
    fn a_mistake_is_in_the_way_of_those_who_need_its_section() {
        for path in ["server.port", "sources[0].kind", "webhooks"] {
            assert!(Needs::ALL.has_part(path), "{path}");
            assert!(!Needs::SCANS.has_part(path), "{path}");
        }
        assert!(Needs::SCANS.has_part("scan.encodings"));
        assert!(Needs::SOURCES.has_part("sources[0].kind"));
        assert!(!Needs::KEYS.has_part("sources[0].kind"));
        for path in ["fromats", "", "fromats.dir"] {
            assert!(Needs::SCANS.has_part(path), "{path}");
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
