//! Definitions of formats that mint, kept with the keys that were minted, so that it can be told when these are hunted no
//! more.

use sha2::{Digest as _, Sha256};

use super::shape::Shape;
use super::{FormatSet, KeyFormat, Verdict};

/// Number of keys that are minted to find out whether other formats claim all of them. Formats that claim only some, as
/// those of a smaller alphabet, claim one of so many bodies hardly ever.
const SAMPLES: usize = 16;

/// Bytes of the digest by which a definition is known.
const ID_BYTES: usize = 8;

/// Parts of a format with a prefix that decide which strings are its keys: prefix, body and checksum.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Definition {
    toml: String,
}

impl Definition {
    /// Reads a definition that was kept.
    pub fn kept(toml: impl Into<String>) -> Self {
        Self { toml: toml.into() }
    }

    /// Returns the definition as pairs of TOML, separated by commas.
    pub fn toml(&self) -> &str {
        &self.toml
    }

    /// Returns the identity of the definition: 16 hexadecimal digits.
    pub fn id(&self) -> String {
        hex::encode(&Sha256::digest(&self.toml)[..ID_BYTES])
    }

    /// Returns whether every key of this definition is one of a secret format in `formats`.
    pub fn is_hunted_by(&self, formats: &FormatSet) -> bool {
        let mut secret = formats.secret().map(|(_, format)| format);
        if secret.any(|format| format.definition().as_ref() == Some(self)) {
            return true;
        }
        let Some(former) = self.format() else {
            return false;
        };
        (0..SAMPLES).all(|_| {
            let is_match =
                |format: &KeyFormat, key: &[u8]| matches!(format.judge(key), Verdict::Match { .. });
            former.mint().is_ok_and(|key| {
                let key = key.expose().as_bytes();
                let mut secret = formats.secret();
                secret.any(|(_, format)| is_match(format, key))
            })
        })
    }

    /// Returns a pattern file of one line that has keys of this definition hunted beside `formats`, under an identifier
    /// that begins with `id` and is free.
    ///
    /// # Errors
    /// Returns the identifier of the format that could claim the same string, if there is one: both cannot be loaded.
    /// It is empty if the definition is none that this version knows.
    pub fn retired(&self, id: &str, formats: &FormatSet) -> Result<String, String> {
        let former = self.format().ok_or_else(String::new)?;
        if let Some(other) = formats.claiming_the_same(&former) {
            return Err(other.id().to_owned());
        }
        let numbers = std::iter::once(String::new()).chain((2..).map(|n: u32| format!("_{n}")));
        let mut free = numbers
            .map(|number| format!("{id}_former{number}"))
            .filter(|id| formats.get(id).is_none());
        let id = free.next().unwrap_or_default();
        Ok(self.pattern(&id, ", retired = true"))
    }

    fn pattern(&self, id: &str, more: &str) -> String {
        let toml = &self.toml;
        format!("format = [{{ id = \"{id}\", visibility = \"secret\", {toml}{more} }}]")
    }

    /// Returns the format of this definition, which mints.
    fn format(&self) -> Option<KeyFormat> {
        let pattern = self.pattern("former", "");
        let formats = FormatSet::parse(&[("kept", &pattern)]).ok()?;
        formats.get("former").cloned()
    }
}

impl KeyFormat {
    /// Returns the definition of a format with a prefix. Those that are regular expressions mint nothing.
    pub fn definition(&self) -> Option<Definition> {
        let Shape::Prefix(body) = &self.shape else {
            return None;
        };
        // Debug output quotes as TOML does: a prefix is printable ASCII.
        let prefix = format!("prefix = {:?}", self.literal);
        let (alphabet, length) = (body.alphabet.name(), body.length);
        let body = format!("body = {{ alphabet = \"{alphabet}\", length = {length} }}");
        let checksum = self.checksum.map(|checksum| {
            format!(
                "checksum = {{ algorithm = \"{}\", encoding = \"{}\", length = {}, over = \"{}\" }}",
                checksum.algorithm.name(),
                checksum.encoding.name(),
                checksum.encoding.length(),
                checksum.over.name()
            )
        });
        let parts: Vec<String> = [prefix, body].into_iter().chain(checksum).collect();
        Some(Definition {
            toml: parts.join(", "),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyformat::refusals::SOUND;

    fn formats(changes: &[(&str, &str)]) -> FormatSet {
        let mut text = SOUND.replace("on_leak = \"revoke\"\n", "");
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        FormatSet::parse(&[("a.toml", &text)]).unwrap()
    }

    fn definition() -> Definition {
        let formats = formats(&[]);
        formats.iter().next().unwrap().definition().unwrap()
    }

    #[test]
    fn a_format_is_hunted_as_long_as_something_claims_all_of_its_keys() {
        let former = definition();
        assert_eq!(Definition::kept(former.toml()), former);
        assert_eq!(former.id().len(), 16);
        assert!(former.is_hunted_by(&formats(&[])));
        assert!(former.is_hunted_by(&formats(&[("\"acme\"", "\"another\"")])));
        for change in [
            ("length = 30", "length = 32"),
            ("alphabet = \"base62\"", "alphabet = \"base58\""),
            ("over = \"body\"", "over = \"preceding\""),
            ("prefix = \"acme_sk_\"", "prefix = \"acme_key_\""),
            ("visibility = \"secret\"", "visibility = \"public\""),
        ] {
            assert!(!former.is_hunted_by(&formats(&[change])), "{change:?}");
        }
        // Without the checksum each of its keys is one of the longer body.
        let checksum = SOUND
            .lines()
            .find(|line| line.starts_with("checksum"))
            .unwrap();
        let longer = formats(&[("length = 30", "length = 36"), (checksum, "")]);
        assert!(former.is_hunted_by(&longer));
        assert!(!Definition::kept("of another version").is_hunted_by(&formats(&[])));
    }

    #[test]
    fn the_line_that_is_advised_has_the_keys_hunted_again() {
        let former = definition();
        let changed = [("length = 30", "length = 32")];
        let line = former.retired("acme", &formats(&changed)).unwrap();
        assert!(
            line.contains("\"acme_former\"") && line.contains("retired = true"),
            "{line}"
        );
        let text = SOUND.replace("length = 30", "length = 32");
        let both = FormatSet::parse(&[("a.toml", &text), ("b.toml", &line)]).unwrap();
        assert!(former.is_hunted_by(&both));
        assert!(!both.get("acme_former").unwrap().can_mint());
        // What differs by its checksum only cannot be told apart.
        let over = formats(&[("over = \"body\"", "over = \"preceding\"")]);
        assert_eq!(former.retired("acme", &over), Err("acme".to_owned()));
    }
}
