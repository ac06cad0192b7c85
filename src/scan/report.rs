//! Output of findings for people and programs. Keys are never included: see
//! [`Candidate::display`](super::Candidate).

mod held;
pub(super) mod sarif;

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::json;

use super::{
    Counters, Engine, Finding, GitKind, GitObject, Part, Redactor, Unread, visible_json,
    visible_name,
};
use sarif::Sarif;

/// Format of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportFormat {
    /// One line per finding, as compilers write them.
    Text,
    /// One JSON document.
    Json,
    /// One JSON object per line.
    JsonLines,
    /// One log of the Static Analysis Results Interchange Format (SARIF), version 2.1.0.
    Sarif,
}

/// Key store entry of a candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KnownKey {
    /// Identifier of the key.
    pub id: String,
    /// Kind of its owner.
    pub owner_type: &'static str,
    /// Identifier of its owner.
    pub owner_id: String,
    /// State: `valid`, `revoked` or `expired`.
    pub state: &'static str,
}

/// Result of looking up a candidate in the key store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Match {
    /// The key store was not asked.
    NotAsked,
    /// The key store does not know the candidate.
    Unknown,
    /// The candidate is a key.
    Known(KnownKey),
}

/// Totals of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Number of files, or objects of a repository, that were scanned.
    pub scanned: u64,
    /// Total size of these texts, in bytes.
    pub bytes: u64,
    /// Number of candidates, with every place counted.
    pub candidates: u64,
    /// Number of files, folders and the like that could not be read.
    pub unread: u64,
    /// Number of symbolic links, which are not followed.
    pub links_not_followed: u64,
    /// Number of folders named `.git`, which are left out.
    pub git_folders_left_out: u64,
    /// Number of files and folders that ignore files list, which are left out.
    pub ignored_left_out: u64,
}

impl Summary {
    /// Returns the totals so far.
    pub fn of(counters: &Counters, candidates: u64) -> Self {
        Self {
            scanned: counters.texts.load(Ordering::Relaxed),
            bytes: counters.bytes.load(Ordering::Relaxed),
            candidates,
            unread: counters.unread.load(Ordering::Relaxed),
            links_not_followed: counters.links.load(Ordering::Relaxed),
            git_folders_left_out: counters.git_folders.load(Ordering::Relaxed),
            ignored_left_out: counters.ignored.load(Ordering::Relaxed),
        }
    }
}

/// Writer of findings, one at a time.
pub struct Report<'a, W> {
    out: W,
    format: ReportFormat,
    redactor: &'a Redactor,
    sarif: Sarif<'a>,
    written: u64,
}

/// JSON form of a finding.
#[derive(Serialize)]
struct Row<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// Bytes of the path in base64, if they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    /// `name` if the candidate is in the name and not in the contents, which alone have lines.
    #[serde(rename = "in", skip_serializing_if = "Option::is_none")]
    part: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    format: &'a str,
    encoding: &'a str,
    candidate: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<Object<'a>>,
    /// `null` if the key store does not know the candidate; omitted if it was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a Match>,
}

/// JSON form of something that could not be scanned.
#[derive(Serialize)]
struct NotScanned<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<Object<'a>>,
    reason: String,
}

#[derive(Serialize)]
struct Object<'a> {
    kind: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<&'a str>,
}

impl<'a, W: Write> Report<'a, W> {
    /// Creates a report of the findings of `engine`, written to `out`. Keys in file names are redacted too.
    pub fn new(out: W, format: ReportFormat, engine: &'a Engine, redactor: &'a Redactor) -> Self {
        Self {
            out,
            format,
            redactor,
            sarif: Sarif::new(engine, redactor),
            written: 0,
        }
    }

    /// Writes one finding.
    ///
    /// # Errors
    /// Returns an error if the output cannot be written.
    pub fn add(&mut self, finding: &Finding, known: &Match) -> io::Result<()> {
        match self.format {
            ReportFormat::Text => self.add_text(finding, known)?,
            ReportFormat::Json => {
                let before = if self.written == 0 {
                    "{\"candidates\":[\n"
                } else {
                    ",\n"
                };
                self.out.write_all(before.as_bytes())?;
                self.add_json(finding, known)?;
            }
            ReportFormat::JsonLines => {
                self.add_json(finding, known)?;
                self.out.write_all(b"\n")?;
            }
            ReportFormat::Sarif => self.sarif.add(&mut self.out, finding, known)?,
        }
        self.written += 1;
        Ok(())
    }

    /// Records something that could not be scanned. JSON Lines and SARIF name it; the other formats leave that to
    /// standard error and the summary.
    ///
    /// # Errors
    /// Returns an error if the output cannot be written.
    pub fn unread(&mut self, unread: &Unread) -> io::Result<()> {
        match self.format {
            ReportFormat::Sarif => self.sarif.unread(unread),
            ReportFormat::JsonLines => {
                let (path, path_base64) = self.path(unread.path.as_deref());
                let row = json!({"not_scanned": NotScanned {
                    path,
                    path_base64,
                    object: unread.object.as_ref().map(|object| Object {
                        kind: object.kind,
                        id: &object.id,
                        commit: None,
                    }),
                    reason: self.redactor.redact(&unread.reason).into_owned(),
                }});
                let row = visible_json(&row.to_string()).into_owned();
                writeln!(self.out, "{row}")?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Completes and flushes the report. `failure` is the reason that the scan ended early, if it did.
    ///
    /// # Errors
    /// Returns an error if the output cannot be written.
    pub fn finish(mut self, summary: &Summary, failure: Option<&str>) -> io::Result<()> {
        match self.format {
            ReportFormat::Text | ReportFormat::JsonLines => {}
            ReportFormat::Json => {
                let start = if self.written == 0 {
                    "{\"candidates\":["
                } else {
                    ""
                };
                write!(self.out, "{start}\n],\"summary\":")?;
                serde_json::to_writer(&mut self.out, summary)?;
                self.out.write_all(b"}\n")?;
            }
            ReportFormat::Sarif => self.sarif.finish(&mut self.out, summary, failure)?,
        }
        self.out.flush()
    }

    fn add_text(&mut self, finding: &Finding, known: &Match) -> io::Result<()> {
        let candidate = &finding.candidate;
        let place = match (&finding.path, &finding.object) {
            (Some(path), _) => printable(self.redactor, path),
            (None, Some(object)) => {
                let id = shown_id(self.redactor, object);
                format!("{} {}", object.kind.name(), visible_name(OsStr::new(&*id)))
            }
            (None, None) => String::new(),
        };
        let (line, column) = match finding.part {
            Part::Contents => (candidate.line, candidate.column),
            Part::Name => (1, 1),
        };
        write!(
            self.out,
            "{place}:{line}:{column}: {} {} {}",
            candidate.display,
            candidate.format,
            candidate.encoding.name()
        )?;
        if let (Some(_), Some(object)) = (&finding.path, &finding.object) {
            match &object.commit {
                Some(commit) => write!(self.out, " commit {commit}")?,
                None => write!(self.out, " {} {}", object.kind.name(), object.id)?,
            }
        }
        if finding.part == Part::Name {
            self.out.write_all(b" in the name")?;
        }
        match known {
            Match::NotAsked => {}
            Match::Unknown => write!(self.out, " unknown")?,
            Match::Known(key) => write!(
                self.out,
                " {} key {} of {} {}",
                key.state,
                key.id,
                key.owner_type,
                printable(self.redactor, Path::new(&key.owner_id))
            )?,
        }
        self.out.write_all(b"\n")
    }

    fn add_json(&mut self, finding: &Finding, known: &Match) -> io::Result<()> {
        let candidate = &finding.candidate;
        let has_lines = finding.part == Part::Contents;
        let id = finding
            .object
            .as_ref()
            .map(|object| shown_id(self.redactor, object));
        let (path, path_base64) = self.path(finding.path.as_deref());
        let row = Row {
            path,
            path_base64,
            part: (!has_lines).then_some("name"),
            line: has_lines.then_some(candidate.line),
            column: has_lines.then_some(candidate.column),
            offset: has_lines.then_some(candidate.offset),
            format: &candidate.format,
            encoding: candidate.encoding.name(),
            candidate: &candidate.display,
            object: finding
                .object
                .as_ref()
                .zip(id.as_deref())
                .map(|(object, id)| Object {
                    kind: object.kind.name(),
                    id,
                    commit: object.commit.as_deref(),
                }),
            key: (*known != Match::NotAsked).then_some(known),
        };
        self.out
            .write_all(visible_json(&serde_json::to_string(&row)?).as_bytes())
    }

    /// Returns the JSON forms of a path: its text with keys redacted, and its bytes in base64 if they are not
    /// UTF-8.
    fn path(&self, path: Option<&Path>) -> (Option<String>, Option<String>) {
        let bytes = path.map(|path| path.as_os_str().as_encoded_bytes());
        let odd = bytes.filter(|bytes| std::str::from_utf8(bytes).is_err());
        let text = bytes.map(String::from_utf8_lossy);
        (
            text.map(|text| self.redactor.redact(&text).into_owned()),
            // The bytes would reveal a key that is redacted in the text.
            odd.filter(|bytes| !self.redactor.holds_key(bytes))
                .map(|bytes| STANDARD.encode(bytes)),
        )
    }
}

/// Returns what an object is called, without keys: the name of a reference is anybody's choice.
fn shown_id<'o>(redactor: &Redactor, object: &'o GitObject) -> Cow<'o, str> {
    match object.kind {
        GitKind::Reference => redactor.redact(&object.id),
        _ => Cow::Borrowed(&object.id),
    }
}

/// Returns a description of something that could not be scanned, and the reason, that is safe to print to a
/// terminal.
pub fn printable_unread(redactor: &Redactor, unread: &Unread) -> String {
    let reason = printable(redactor, Path::new(&unread.reason));
    let object = unread.object.as_ref();
    let object = object.map(|object| format!("{} {}", object.kind, object.id));
    match (&unread.path, object) {
        (Some(path), None) => format!("{}: {reason}", printable(redactor, path)),
        (Some(path), Some(object)) => {
            format!("{}: {reason}: {object}", printable(redactor, path))
        }
        (None, object) => format!("{}: {reason}", object.unwrap_or_default()),
    }
}

/// Returns a path in a form that is safe to print to a terminal: on one line, without control characters and keys.
pub fn printable(redactor: &Redactor, path: &Path) -> String {
    let name = path.as_os_str();
    match name.to_str() {
        Some(text) => visible_name(OsStr::new(&*redactor.redact(text))),
        None if redactor.holds_key(name.as_encoded_bytes()) => {
            visible_name(OsStr::new(&*redactor.redact(&path.to_string_lossy())))
        }
        None => visible_name(name),
    }
}
