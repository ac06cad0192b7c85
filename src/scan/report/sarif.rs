//! Output of findings as a log of SARIF, the Static Analysis Results Interchange Format 2.1.0
//! (<https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html>).

use std::io::{self, Write};
use std::path::Path;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde_json::{Value, json};

use super::super::{
    Engine, Finding, GitKind, GitObject, LostObject, Match, Part, Redactor, STANDARD_INPUT,
    Summary, Unread, visible_json,
};
use super::held::{Counts, Notifications};
use super::{printable, shown_id};
use crate::keyformat::{KeyFormat, Sha256Digest};

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// Base of relative paths.
const ROOT: &str = "SRCROOT";

/// Name of the fingerprint, with the version of its computation.
const FINGERPRINT: &str = "rescindCandidate/v1";

/// The one name of a fingerprint that GitHub looks at. It is not of a line here, so that it stays when lines move.
const FINGERPRINT_OF_GITHUB: &str = "primaryLocationLineHash";

/// Address of the tool's description: where a package of this name has its page.
const INFORMATION: &str = concat!("https://crates.io/crates/", env!("CARGO_PKG_NAME"));

/// Bytes that paths in a URI are written without: all but RFC 3986's unreserved characters and slashes.
const NOT_IN_PATHS: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// Log with one run, written result by result.
#[derive(Debug)]
pub(in crate::scan) struct Sarif<'a> {
    engine: &'a Engine,
    redactor: &'a Redactor,
    /// Findings so far of each candidate at each path.
    counts: Counts,
    /// Notifications of what could not be scanned.
    notifications: Notifications,
    started: bool,
}

impl<'a> Sarif<'a> {
    pub(in crate::scan) fn new(engine: &'a Engine, redactor: &'a Redactor) -> Self {
        Self {
            engine,
            redactor,
            counts: Counts::default(),
            notifications: Notifications::default(),
            started: false,
        }
    }

    /// Writes one finding.
    pub(in crate::scan) fn add(
        &mut self,
        out: &mut impl Write,
        finding: &Finding,
        known: &Match,
    ) -> io::Result<()> {
        let before = if self.started { ",\n" } else { "" };
        self.start(out)?;
        out.write_all(before.as_bytes())?;
        let result = self.result(finding, known);
        out.write_all(visible_json(&result.to_string()).as_bytes())
    }

    /// Records something that could not be scanned.
    pub(in crate::scan) fn unread(&mut self, unread: &Unread) {
        let mut location = json!({});
        if let Some(path) = &unread.path {
            location["physicalLocation"] = json!({"artifactLocation": self.artifact(path)});
        }
        if let Some(LostObject { kind, id }) = &unread.object {
            location["logicalLocations"] = json!([{
                "name": id,
                "fullyQualifiedName": format!("{kind} {id}"),
                "kind": kind,
            }]);
        }
        let reason = printable(self.redactor, Path::new(&unread.reason));
        let notification = json!({
            "level": "warning",
            "message": {"text": format!("not scanned: {reason}")},
            "locations": [location],
        });
        self.notifications.add(&notification);
    }

    /// Writes the end of the log.
    pub(in crate::scan) fn finish(
        &mut self,
        out: &mut impl Write,
        summary: &Summary,
        failure: Option<&str>,
    ) -> io::Result<()> {
        self.start(out)?;
        let notifications = std::mem::take(&mut self.notifications);
        let mut notifications = notifications.into_all();
        if let Some(failure) = failure {
            let text = printable(self.redactor, Path::new(failure));
            let failed = json!({"level": "error", "message": {"text": text}});
            notifications.push(failed.to_string());
        }
        let is_success = failure.is_none();
        write!(
            out,
            "\n],\"invocations\":[{{\"executionSuccessful\":{is_success},\"properties\":"
        )?;
        serde_json::to_writer(&mut *out, summary)?;
        out.write_all(b",\"toolExecutionNotifications\":[")?;
        for (number, notification) in notifications.iter().enumerate() {
            let before: &[u8] = if number == 0 { b"" } else { b"," };
            out.write_all(before)?;
            out.write_all(visible_json(notification).as_bytes())?;
        }
        out.write_all(b"]}]}]}\n")
    }

    /// Writes the part before the first result, unless it was written.
    fn start(&mut self, out: &mut impl Write) -> io::Result<()> {
        if std::mem::replace(&mut self.started, true) {
            return Ok(());
        }
        let rules: Vec<Value> = self.engine.formats().map(rule).collect();
        let tool = json!({"driver": {
            "name": "Rescind",
            "informationUri": INFORMATION,
            "version": env!("CARGO_PKG_VERSION"),
            "semanticVersion": env!("CARGO_PKG_VERSION"),
            "rules": rules,
        }});
        let root = "the folder that the scan was started in, or the top folder of the repository";
        let roots = json!({ROOT: {"description": {"text": root}}});
        writeln!(
            out,
            "{{\"$schema\":\"{SCHEMA}\",\"version\":\"2.1.0\",\"runs\":[{{\"tool\":{tool},\
             \"columnKind\":\"unicodeCodePoints\",\"originalUriBaseIds\":{roots},\"results\":["
        )
    }

    fn result(&mut self, finding: &Finding, known: &Match) -> Value {
        let candidate = &finding.candidate;
        let format = &*candidate.format;
        let rule = self.engine.formats().position(|rule| rule.id() == format);
        let fingerprint = self.fingerprint(finding);
        let mut result = json!({
            "ruleId": format,
            "ruleIndex": rule,
            "level": "error",
            "message": {"text": message(finding, known)},
            "locations": [self.location(finding)],
            "partialFingerprints": {
                FINGERPRINT: fingerprint,
                FINGERPRINT_OF_GITHUB: fingerprint,
            },
            "properties": properties(finding, self.redactor),
        });
        if *known != Match::NotAsked {
            result["properties"]["key"] = json!(known);
        }
        result
    }

    /// Returns the location of a finding. GitHub refuses a whole log if one location in it has no file and no line, so
    /// that whatever is in no file is said to be in the one in which git keeps it.
    fn location(&self, finding: &Finding) -> Value {
        let candidate = &finding.candidate;
        let region = match finding.part {
            Part::Name => json!({"startLine": 1}),
            Part::Contents => {
                let mut region = json!({
                    "startLine": candidate.line,
                    "startColumn": candidate.character,
                });
                // A region without an end extends to the end of its line.
                if let Some(characters) = candidate.characters {
                    region["endColumn"] = json!(candidate.character + characters);
                }
                region
            }
        };
        let (artifact, logical) = match (&finding.path, &finding.object) {
            (Some(path), _) => (self.artifact(path), None),
            (None, Some(object)) => {
                let id = shown_id(self.redactor, object);
                let kind = object.kind.name();
                let logical = json!([{
                    "name": id,
                    "fullyQualifiedName": format!("{kind} {id}"),
                    "kind": kind,
                }]);
                (
                    artifact(place_in_git(object, &id).as_bytes()),
                    Some(logical),
                )
            }
            (None, None) => (artifact(b".git"), None),
        };
        let mut location = json!({"physicalLocation": {
            "artifactLocation": artifact,
            "region": region,
        }});
        if let Some(logical) = logical {
            location["logicalLocations"] = logical;
        }
        location
    }

    /// Returns the location of a file: a URI that preserves every byte of the path, unless the path contains a key.
    fn artifact(&self, path: &Path) -> Value {
        if path == Path::new(STANDARD_INPUT) {
            return json!({"uri": "file:///dev/stdin"});
        }
        let bytes = path.as_os_str().as_encoded_bytes();
        if !self.redactor.holds_key(bytes) {
            return artifact(bytes);
        }
        artifact(self.redactor.redact(&path.to_string_lossy()).as_bytes())
    }

    /// Returns a fingerprint that identifies this finding after the file was changed elsewhere. It includes the key
    /// only as a digest of a digest, and so does not reveal it.
    fn fingerprint(&mut self, finding: &Finding) -> String {
        let Sha256Digest(key) = finding.candidate.value.sha256();
        let place = match &finding.path {
            Some(path) => from_here(path.as_os_str().as_encoded_bytes()),
            None => b"",
        };
        let part: &[u8] = match finding.part {
            Part::Contents => b"",
            Part::Name => b"\0name",
        };
        let digest = Sha256Digest::of(&[b"rescind candidate\0", &key[..], place, part].concat());
        format!("{}:{}", digest.to_hex(), self.counts.count(&digest))
    }
}

fn rule(format: &KeyFormat) -> Value {
    let remedy = "Revoke the key, which `rescind keys revoke --value-stdin` does, and take it out of the file. \
                  To rewrite the history does not make a key secret again.";
    json!({
        "id": format.id(),
        "name": format.id(),
        "shortDescription": {"text": format.description()},
        "fullDescription": {"text": format!(
            "{}: shape and checksum are those of the key format {}.", format.description(), format.id()
        )},
        "help": {"text": remedy, "markdown": remedy},
        "defaultConfiguration": {"level": "error"},
        "properties": {
            "tags": ["security", "secret"],
            "precision": "very-high",
            // Sort key of code scanning services, from 0 to 10; 9 and above is critical.
            "security-severity": "9.0",
        },
    })
}

fn message(finding: &Finding, known: &Match) -> String {
    let candidate = &finding.candidate;
    let what = match known {
        Match::NotAsked => String::new(),
        Match::Unknown => ", unknown to the key store".to_owned(),
        Match::Known(key) => format!(", the {} key {}", key.state, key.id),
    };
    let place = match finding.part {
        Part::Contents => "",
        Part::Name => " in the name",
    };
    format!(
        "{} is a candidate of the key format {}, written in {}{place}{what}.",
        candidate.display,
        candidate.format,
        candidate.encoding.name()
    )
}

/// Returns the path of the file in which git keeps an object or a reference, unless it packed it together with others.
/// No repository tracks such a path.
fn place_in_git(object: &GitObject, shown: &str) -> String {
    if object.kind == GitKind::Reference {
        return format!(".git/{shown}");
    }
    let (start, rest) = shown.split_at_checked(2).unwrap_or((shown, ""));
    format!(".git/objects/{start}/{rest}")
}

fn properties(finding: &Finding, redactor: &Redactor) -> Value {
    let candidate = &finding.candidate;
    let mut properties = json!({
        "candidate": candidate.display,
        "encoding": candidate.encoding.name(),
    });
    match finding.part {
        Part::Contents => properties["offset"] = json!(candidate.offset),
        Part::Name => properties["in"] = json!("name"),
    }
    if let Some(object) = &finding.object {
        let id = shown_id(redactor, object);
        properties["object"] = json!({"kind": object.kind.name(), "id": id});
        if let Some(commit) = &object.commit {
            properties["commit"] = json!(commit);
        }
    }
    properties
}

/// Returns a path without what only says that it begins in the current folder.
fn from_here(path: &[u8]) -> &[u8] {
    let mut path = path;
    while let Some(rest) = path.strip_prefix(b"./") {
        path = rest;
    }
    path
}

fn artifact(path: &[u8]) -> Value {
    let path = from_here(path);
    let uri = percent_encode(path, NOT_IN_PATHS).to_string();
    if path.starts_with(b"/") {
        return json!({"uri": format!("file://{uri}")});
    }
    // A path outside the root is not relative to it.
    if path == b".." || path.starts_with(b"../") {
        return json!({"uri": uri});
    }
    json!({"uri": uri, "uriBaseId": ROOT})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_uris() {
        let root = json!("SRCROOT");
        for (path, uri, base) in [
            (&b"src/a b.rs"[..], "src/a%20b.rs", Some(&root)),
            (b"././x", "x", Some(&root)),
            (b"c:d\n\xff%", "c%3Ad%0A%FF%25", Some(&root)),
            (b"/srv/www/x", "file:///srv/www/x", None),
            (b"../x", "../x", None),
        ] {
            let artifact = artifact(path);
            assert_eq!(artifact["uri"], uri);
            assert_eq!(artifact.get("uriBaseId"), base);
        }
    }
}
