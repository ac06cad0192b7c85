//! Pushes and announcements, independent of the forge.

use std::sync::Arc;

use reqwest::Url;
use sha2::{Digest as _, Sha256};

use crate::fetch::{ObjectId, RepositoryName};
use crate::respond::shorten;
use crate::scan::Redactor;

/// Maximum length of the name of a reference in a message, in bytes: that of a path on Linux, which a reference is in
/// most repositories.
const MAX_REFERENCE: usize = 4_096;

/// Maximum length of the name of a reference that is stored to the letter, in bytes. It is part of an index, whose
/// entries PostgreSQL bounds.
const KEPT_MAX: usize = 1_024;

/// A repository and its clone URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Host of the forge, with its port unless that is the default of the scheme.
    pub host: String,
    /// Identifier of the repository at the forge, which survives renaming.
    pub repository_id: String,
    /// `owner/name`, or with the nested groups of some forges.
    pub repository: RepositoryName,
    /// Clone URL, unless it is `{clone_url}/{repository}.git` of the host's configured source.
    pub clone_url: Option<Url>,
}

/// A branch or tag that moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// Repository of the branch or tag. All pushes that a message tells of share it.
    pub remote: Arc<Remote>,
    /// Full name of the branch or tag, `refs/heads/…`.
    pub reference: String,
    /// Target before the push. All zeros if the reference is new, or if the message does not contain it.
    pub before: ObjectId,
    /// Target after the push. All zeros if the reference was deleted.
    pub after: ObjectId,
}

/// Notice of branches and tags without their commits: a new branch, or a repository that became public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// Repository of the branches and tags.
    pub remote: Remote,
    /// Full name of the branch or tag. If `None`, all those of the repository are meant.
    pub reference: Option<String>,
    /// Identifier that tells this announcement from others of the same reference, such as the event's id.
    pub id: String,
}

/// Returns `true` if a message may name a reference like this: it is neither empty nor too long, and has none of the
/// control characters that git forbids (git-check-ref-format(1)), which are those of ASCII.
pub fn is_reference(name: &str) -> bool {
    let is_control = |byte: &u8| byte.is_ascii_control();
    !name.is_empty() && name.len() <= MAX_REFERENCE && !name.as_bytes().iter().any(is_control)
}

/// Returns the form in which the name of a reference is stored, wherever it comes from, and in which names are compared
/// with stored ones: without keys and the control characters of ASCII, with a bounded length.
///
/// Names that differ only in what is left out for their length or their control characters have different forms. Names
/// with keys may have the same.
pub fn kept_reference(redactor: &Redactor, name: &str) -> String {
    let is_control = |c: char| c.is_ascii_control();
    let kept = shorten(redactor, name, KEPT_MAX, false);
    if name.len() <= KEPT_MAX && !name.contains(is_control) {
        return kept;
    }
    let digest = hex::encode(&Sha256::digest(name)[..16]);
    // No name has a space in it.
    format!("{} sha256:{digest}", kept.replace(is_control, "\u{fffd}"))
}

/// Returns `true` if no other reference than that of this name has it as its stored form.
pub fn is_to_the_letter(kept: &str) -> bool {
    // The first stands for what was a key or too long, the second for what is not UTF-8.
    !kept.contains(['…', '\u{fffd}'])
}

/// Stands for the commit before a new reference, and after one that was deleted.
pub const NO_COMMIT: &str = "0000000000000000000000000000000000000000";

/// Returns the object id that stands for no commit: one for all hash functions, so that items of ranges compare alike.
pub fn no_commit() -> ObjectId {
    ObjectId::null(gix_hash::Kind::Sha1)
}

/// Returns whether a text is safe to store as the identifier of something: hexadecimal digits, as in numbers and UUIDs,
/// and `-{}`. Any other may hold a key.
pub fn is_plain_id(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_hexdigit() || b"-{}".contains(&byte);
    text.bytes().all(is_plain)
}

/// Returns the form in which an identifier is stored, which identifies what it did as well: a digest if it holds a key.
/// Digits may be one, of a format that consists of them.
pub fn kept_id(redactor: &Redactor, id: &str) -> String {
    if redactor.holds_key(id) {
        return hex::encode(Sha256::digest(id));
    }
    id.to_owned()
}

/// Returns what identifies a repository of which a message tells the number, or that of its name: some messages have none,
/// and their pushes are to be read all the same.
pub fn id_or_name(id: Option<String>, name: &RepositoryName) -> String {
    id.unwrap_or_else(|| format!("path:{name}"))
}

/// Parses an object id: 40 digits, or 64 of a repository whose objects are named by SHA-256.
///
/// # Errors
/// Returns a description of the problem that does not quote the text.
pub fn object_id(hex: &str) -> Result<ObjectId, &'static str> {
    let id = ObjectId::from_hex(hex.as_bytes());
    let id = id.map_err(|_| "a commit is no object id of 40 or 64 digits")?;
    Ok(if id.is_null() { no_commit() } else { id })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyformat::FormatSet;

    #[test]
    fn stored_names_are_bounded_and_differ_as_names_do() {
        let formats = FormatSet::builtin();
        let redactor = Redactor::new(&formats);
        let key = formats.get("rescind_secret").unwrap().mint().unwrap();
        let long = "x".repeat(60_000);
        let names = [
            "refs/heads/main".to_owned(),
            "refs/heads/f\u{fc}r".to_owned(),
            "refs/heads/a\u{fffd}b".to_owned(),
            "refs/heads/a\0b".to_owned(),
            "refs/heads/a\x01b".to_owned(),
            format!("refs/heads/{}", &long[..KEPT_MAX - 11]),
            format!("refs/heads/{}", &long[..KEPT_MAX - 10]),
            format!("refs/heads/{long}/1"),
            format!("refs/heads/{long}/2"),
            format!("refs/heads/{}", key.expose()),
        ];
        let mut kept: Vec<_> = names
            .iter()
            .map(|name| kept_reference(&redactor, name))
            .collect();
        for (name, kept) in names.iter().zip(&kept) {
            assert!(kept.len() <= KEPT_MAX + 48 && !kept.contains(|c: char| c.is_ascii_control()));
            // Whatever is known to the letter is the name itself.
            assert!(kept == name || !is_to_the_letter(kept), "{kept}");
            assert!(!kept.contains(key.expose()));
        }
        kept.sort_unstable();
        kept.dedup();
        assert_eq!(kept.len(), names.len());
    }

    #[test]
    fn names_that_git_allows_may_be_named() {
        for name in [
            "refs/heads/a\u{85}b",
            "refs/heads/\u{202e}x",
            &"x".repeat(4_096),
        ] {
            assert!(is_reference(name), "{name}");
        }
        for name in [
            "",
            "refs/heads/a\0b",
            "refs/heads/a\x7fb",
            &"x".repeat(4_097),
        ] {
            assert!(!is_reference(name), "{name}");
        }
    }

    #[test]
    fn object_ids_have_40_or_64_digits() {
        for digits in ["a".repeat(40), "b".repeat(64)] {
            assert_eq!(object_id(&digits).unwrap().to_string(), digits);
        }
        assert_eq!(object_id(&"0".repeat(64)).unwrap().to_string(), NO_COMMIT);
        for odd in ["", "a", &"g".repeat(64), &"a".repeat(41), &"a".repeat(63)] {
            assert!(object_id(odd).unwrap_err().contains("64 digits"), "{odd}");
        }
    }
}
