//! The set of key formats that are in force together.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use super::KeyFormat;
use super::format::{Verdict, Visibility};
use super::load::{self, Draft};
use super::overlap::{self, could_claim_the_same};
use super::problem::{FormatsError, Problem};
use super::shape::Shape;
use crate::regular;

/// Revision of the scan engine. It is incremented whenever the engine finds other candidates with the
/// same formats, so that contents that were already scanned are scanned again.
const ENGINE_REVISION: u32 = 1;

const MAX_FILE_BYTES: u64 = 1 << 20;
const MAX_FILES: usize = 256;
const MAX_FORMATS: usize = 5000;

/// A set of key formats that are in force together. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct FormatSet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    formats: Vec<KeyFormat>,
    ruleset_version: String,
}

static BUILTIN: LazyLock<FormatSet> = LazyLock::new(|| {
    FormatSet::parse(&[
        ("rescind.toml", include_str!("../../patterns/rescind.toml")),
        (
            "stack_auth.toml",
            include_str!("../../patterns/stack_auth.toml"),
        ),
    ])
    .expect("a test loads the pattern files that are built in")
});

impl FormatSet {
    /// Returns the formats from the copy of `patterns/` that is compiled into the program.
    pub fn builtin() -> Self {
        BUILTIN.clone()
    }

    /// Loads all `*.toml` files in a directory, in the order of their names.
    ///
    /// # Errors
    /// Returns every problem in any of the files, not only the first.
    pub fn load_dir(dir: &Path) -> Result<Self, FormatsError> {
        let mut problems = Vec::new();
        let mut files = Vec::new();
        match pattern_files(dir) {
            Ok(paths) => {
                for path in paths {
                    match read_bounded(&path) {
                        Ok(text) => files.push((path.display().to_string(), text)),
                        Err(problem) => problems.push(problem),
                    }
                }
            }
            Err(problem) => problems.push(problem),
        }
        let files: Vec<_> = files
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        Self::assemble(&files, problems, &dir.display().to_string())
    }

    /// Parses files that are already in memory, given as pairs of name and text. The names appear in
    /// errors.
    ///
    /// # Errors
    /// Returns every problem in any of the files, not only the first.
    pub fn parse(files: &[(&str, &str)]) -> Result<Self, FormatsError> {
        let place = files.first().map_or("patterns", |(name, _)| name);
        Self::assemble(files, Vec::new(), place)
    }

    fn assemble(
        files: &[(&str, &str)],
        mut problems: Vec<Problem>,
        place: &str,
    ) -> Result<Self, FormatsError> {
        let mut drafts = Vec::new();
        for (name, text) in files {
            drafts.extend(load::read_file(name, text, &mut problems));
        }
        if drafts.is_empty() && problems.is_empty() {
            problems.push(whole_file(
                place,
                "there is no format in it".to_owned(),
                "add a [[format]] to a file *.toml; docs/key-formats.md shows one",
            ));
        }
        if drafts.len() > MAX_FORMATS {
            problems.push(whole_file(
                place,
                format!("there are {} formats", drafts.len()),
                "keep to 5000 formats",
            ));
            return Err(FormatsError { problems });
        }
        refuse_repeated_ids(&drafts, &mut problems);
        overlap::refuse_overlaps(&drafts, &mut problems);
        if !problems.is_empty() {
            problems.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
            return Err(FormatsError { problems });
        }
        let formats: Vec<_> = drafts
            .into_iter()
            .filter_map(|draft| Some(draft.format?.value))
            .collect();
        let ruleset_version = ruleset_version(&formats);
        Ok(Self(Arc::new(Inner {
            formats,
            ruleset_version,
        })))
    }

    /// Returns an iterator over all formats, in the order of files and lines.
    pub fn iter(&self) -> impl Iterator<Item = &KeyFormat> {
        self.0.formats.iter()
    }

    /// Returns the format with the given identifier.
    pub fn get(&self, id: &str) -> Option<&KeyFormat> {
        self.iter().find(|format| format.id() == id)
    }

    /// Returns an iterator over the secret formats, each with its position in [`Self::iter`]. Contents are searched for
    /// these only: a public key is never hunted.
    pub fn secret(&self) -> impl Iterator<Item = (usize, &KeyFormat)> {
        secret(&self.0.formats)
    }

    /// Returns the format, secret or public, of which the whole string is a key: its shape is right, and
    /// so is its checksum if the format has one. No two formats claim the same string.
    pub fn identify(&self, whole: &str) -> Option<&KeyFormat> {
        self.iter()
            .find(|format| matches!(format.judge(whole.as_bytes()), Verdict::Match { .. }))
    }

    /// Returns the first format that could claim a string which `other` could claim, too.
    pub(super) fn claiming_the_same(&self, other: &KeyFormat) -> Option<&KeyFormat> {
        self.iter()
            .find(|format| could_claim_the_same(format, other))
    }

    /// Returns the version of the rule set, which changes whenever the same contents could yield other
    /// candidates. It is 16 hexadecimal digits.
    pub fn ruleset_version(&self) -> &str {
        &self.0.ruleset_version
    }
}

fn secret(formats: &[KeyFormat]) -> impl Iterator<Item = (usize, &KeyFormat)> {
    let formats = formats.iter().enumerate();
    formats.filter(|(_, format)| format.visibility() == Visibility::Secret)
}

fn whole_file(file: &str, message: String, remedy: &str) -> Problem {
    Problem {
        file: file.to_owned(),
        line: None,
        format: None,
        message,
        remedy: remedy.to_owned(),
    }
}

/// Returns the pattern files in a directory, sorted by name.
fn pattern_files(dir: &Path) -> Result<Vec<PathBuf>, Problem> {
    let unreadable = |error: std::io::Error| {
        whole_file(
            &dir.display().to_string(),
            format!("the folder of pattern files cannot be read: {error}"),
            "create it, or point `formats.dir` to where it is",
        )
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            paths.push(path);
        }
    }
    if paths.len() > MAX_FILES {
        return Err(whole_file(
            &dir.display().to_string(),
            format!("there are {} pattern files", paths.len()),
            "keep to 256 files; one file holds many formats",
        ));
    }
    paths.sort();
    Ok(paths)
}

fn read_bounded(path: &Path) -> Result<String, Problem> {
    let problem =
        |message: String, remedy| whole_file(&path.display().to_string(), message, remedy);
    let unreadable = |error: std::io::Error| {
        problem(
            format!("cannot be read: {error}"),
            "mend its permissions or remove it",
        )
    };
    let Some(file) = regular::open(path).map_err(unreadable)? else {
        return Err(problem(
            "is not a regular file".to_owned(),
            "remove or rename it",
        ));
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(problem(
            "is larger than 1 MiB".to_owned(),
            "is it a pattern file? split it",
        ));
    }
    String::from_utf8(bytes).map_err(|error| Problem {
        line: Some(line_after(
            &error.as_bytes()[..error.utf8_error().valid_up_to()],
        )),
        ..problem("is not UTF-8 text".to_owned(), "save it as UTF-8")
    })
}

/// Returns the line, counted from 1, on which `text` ends.
fn line_after(text: &[u8]) -> usize {
    1 + memchr::memchr_iter(b'\n', text).count()
}

fn refuse_repeated_ids(drafts: &[Draft], problems: &mut Vec<Problem>) {
    let mut first_uses = HashMap::new();
    for draft in drafts {
        let Some(id) = &draft.id else { continue };
        match first_uses.entry(id.value.as_str()) {
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert((draft.file.as_str(), id.line));
            }
            std::collections::hash_map::Entry::Occupied(taken) => {
                let (file, line) = taken.get();
                problems.push(Problem {
                    file: draft.file.clone(),
                    line: Some(id.line),
                    format: Some(id.value.clone()),
                    message: format!("the id is used twice: {file}:{line} has it too"),
                    remedy: "give each format an id of its own".to_owned(),
                });
            }
        }
    }
}

/// Returns a digest over everything that determines the engine's findings: the secret formats, in any
/// order.
fn ruleset_version(formats: &[KeyFormat]) -> String {
    let mut rules: Vec<String> = secret(formats)
        .map(|(_, format)| {
            let shape = match &format.shape {
                Shape::Prefix(body) => format!("{} {}", body.alphabet.name(), body.length),
                Shape::Regex(regex) => regex.source.clone(),
            };
            let checksum = format.checksum.map(|checksum| {
                format!(
                    "{} {} {}",
                    checksum.algorithm.name(),
                    checksum.encoding.name(),
                    checksum.over.name()
                )
            });
            // Debug output quotes strings, so that no two different lists look the same.
            format!(
                "{:?}",
                [
                    &format.id,
                    &format.literal,
                    &shape,
                    &checksum.unwrap_or_default()
                ]
            )
        })
        .collect();
    rules.sort();
    let text = format!("{ENGINE_REVISION}\n{}", rules.join("\n"));
    super::Sha256Digest::of(text.as_bytes()).to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::fuzz;
    use crate::keyformat::refusals::{SOUND, SOUND_REGEX};

    #[test]
    fn ruleset_version_follows_what_is_scanned_for() {
        let version = |text: &str| {
            FormatSet::parse(&[("f.toml", text)])
                .unwrap()
                .ruleset_version()
                .to_owned()
        };
        let base = version(SOUND);
        assert_eq!(base.len(), 16);
        let public = SOUND_REGEX.replace("\"secret\"", "\"public\"");
        assert_eq!(
            version(&format!("{SOUND}{public}")),
            base,
            "public formats are not scanned for"
        );
        assert_eq!(
            version(&SOUND.replace("visibility", "description = \"d\"\nvisibility")),
            base
        );
        assert_eq!(
            version(&format!("{SOUND}{SOUND_REGEX}")),
            version(&format!("{SOUND_REGEX}{SOUND}"))
        );
        for changed in [
            SOUND.replace("\"acme\"", "\"acme2\""),
            SOUND.replace("acme_sk_", "acme_s2_"),
            SOUND.replace("length = 30", "length = 31"),
            SOUND.replace("over = \"body\"", "over = \"preceding\""),
            format!("{SOUND}{SOUND_REGEX}"),
        ] {
            assert_ne!(version(&changed), base, "{changed}");
        }
    }

    #[test]
    fn fuzz_pattern_files() {
        let words: &[&[u8]] = &[
            b"[[format]]\n",
            b"prefix = \"",
            b"regex = '",
            b"anchor = \"",
            b"length = 22",
            b"checksum = { algorithm = \"crc32\", encoding = \"base62\", length = 6, over = \"body\" }\n",
            b"{1,9}",
            b"[0-9a-z]",
        ];
        fuzz("pattern_files", words, |text| {
            let Ok(text) = str::from_utf8(text) else {
                return;
            };
            let Ok(formats) = FormatSet::parse(&[("f.toml", text)]) else {
                return;
            };
            for format in formats.iter() {
                // Whatever is minted is found.
                let Ok(key) = format.mint() else { continue };
                assert!(formats.identify(key.expose()).is_some(), "{text}");
            }
        });
    }
}
