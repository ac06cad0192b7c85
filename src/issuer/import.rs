//! Import of digests of keys that were issued elsewhere, read from CSV or JSON Lines row by row. An
//! invalid row is reported with its line and does not affect any other row.

mod lines;
mod row;
mod split;
mod values;

use std::borrow::Cow;
use std::io::BufRead;

use jiff::Timestamp;
use uuid::Uuid;

use crate::keyformat::{FormatSet, Sha256Digest, Visibility};
use crate::scan::Redactor;
use crate::store::{NewKey, Owner};
use row::read_row;
use values::Rows;

/// Columns of a row, in the order of the documentation. The first three are required.
pub const COLUMNS: [&str; 8] = [
    "sha256",
    "owner_type",
    "owner_id",
    "description",
    "format",
    "last_four",
    "created_at",
    "expires_at",
];

/// File format of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowFormat {
    /// RFC 4180 with a header line that names the columns, in any order.
    Csv,
    /// One JSON object per line, whose fields are the columns.
    JsonLines,
}

/// A key to be imported.
#[derive(Debug, Clone)]
pub struct ImportRow {
    /// Line on which the row begins in its file, counted from 1.
    pub line: u64,
    /// SHA-256 digest of the key.
    pub digest: Sha256Digest,
    /// Owner of the key.
    pub owner: Owner,
    /// Description of the key; empty if there is none.
    pub description: String,
    /// Identifier of the key format, which need not be a loaded one.
    pub format: Option<String>,
    /// Last characters of the key, at most four.
    pub last_four: Option<String>,
    /// Time of issue.
    pub created_at: Option<Timestamp>,
    /// Time of expiry; `None` means that the key never expires.
    pub expires_at: Option<Timestamp>,
}

pub use crate::store::UNNAMED_FORMAT;

impl ImportRow {
    /// Returns the length of the texts of the row, in bytes.
    pub fn text_len(&self) -> usize {
        let format = self.format.as_ref().map_or(0, String::len);
        self.owner.id.len() + self.description.len() + format
    }

    /// Converts the row to a key for the store. A row whose format is loaded as a public one yields a
    /// public key, any other row a secret one.
    pub fn into_new_key(self, project: &str, formats: &FormatSet, now: Timestamp) -> NewKey {
        let format = self.format.as_deref().and_then(|id| formats.get(id));
        NewKey {
            id: Uuid::now_v7(),
            project: project.to_owned(),
            digest: self.digest,
            is_public: format.is_some_and(|format| format.visibility() == Visibility::Public),
            prefix: format.map_or_else(String::new, |format| format.display_prefix().to_owned()),
            format: self.format.unwrap_or_else(|| UNNAMED_FORMAT.to_owned()),
            owner: self.owner,
            description: self.description,
            last_four: self.last_four.unwrap_or_default(),
            policy: None,
            notify_emails: Vec::new(),
            created_at: self.created_at.unwrap_or(now),
            expires_at: self.expires_at,
            definition: None,
        }
    }
}

/// Error for a row that could not be read. It never repeats the contents of the row: people paste keys
/// into the wrong column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {}{problem}", .field.map(|field| format!("`{field}` ")).unwrap_or_default())]
pub struct RowError {
    /// Line on which the row begins, counted from 1.
    pub line: u64,
    /// Column concerned, if the error concerns a single one.
    pub field: Option<&'static str>,
    /// Description of the problem and of what is expected instead.
    pub problem: Cow<'static, str>,
}

/// Parses rows one by one, each of at most 64 KiB, in time and memory bounded by the length of the rows,
/// whatever they contain.
///
/// The iterator ends early only if reading fails, or if the first line of a CSV file does not name its
/// columns.
pub fn parse_rows<R: BufRead>(
    input: R,
    format: RowFormat,
    redactor: &Redactor,
) -> impl Iterator<Item = Result<ImportRow, RowError>> + use<R> {
    let redactor = redactor.clone();
    Rows::new(input, format)
        .map(move |row| row.and_then(|(line, values)| read_row(line, values, &redactor)))
}

fn wrong(
    line: u64,
    field: Option<&'static str>,
    problem: impl Into<Cow<'static, str>>,
) -> RowError {
    RowError {
        line,
        field,
        problem: problem.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyformat::FormatSet;
    use crate::store::OwnerType;

    const DIGEST: &str = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

    fn rows(format: RowFormat, text: impl AsRef<[u8]>) -> Vec<Result<ImportRow, RowError>> {
        let redactor = Redactor::new(&FormatSet::builtin());
        parse_rows(text.as_ref(), format, &redactor).collect()
    }

    fn lines_and_problems(rows: Vec<Result<ImportRow, RowError>>) -> Vec<String> {
        rows.into_iter()
            .map(|row| match row {
                Ok(row) => format!("{} ok", row.line),
                Err(error) => error.to_string(),
            })
            .collect()
    }

    #[test]
    fn a_full_row_is_read_from_either_format() {
        let csv = format!(
            "\u{feff}owner_id,owner_type,sha256,description,format,last_four,created_at,expires_at\r\n\
             u1,user,{DIGEST},\"a, \"\"b\"\"\nc\",acme_secret,wxyz,2026-01-02T03:04:05.123456789Z,never\r\n"
        );
        let json = format!(
            r#"{{"sha256":"{DIGEST}","owner_type":"user","owner_id":"u1","description":"a, \"b\"\nc","format":"acme_secret","last_four":"wxyz","created_at":"2026-01-02T03:04:05.123456Z","expires_at":null}}"#
        );
        for (format, text, line) in [(RowFormat::Csv, csv, 2), (RowFormat::JsonLines, json, 1)] {
            let mut rows = rows(format, text);
            let row = rows.remove(0).unwrap();
            assert!(rows.is_empty());
            assert_eq!((row.line, row.digest.to_hex().as_str()), (line, DIGEST));
            assert_eq!(
                (row.owner.kind, row.owner.id.as_str()),
                (OwnerType::User, "u1")
            );
            assert_eq!(row.description, "a, \"b\"\nc");
            assert_eq!(row.format.as_deref(), Some("acme_secret"));
            assert_eq!(row.last_four.as_deref(), Some("wxyz"));
            assert_eq!(
                row.created_at.unwrap().to_string(),
                "2026-01-02T03:04:05.123456Z"
            );
            assert_eq!(row.expires_at, None);
        }
    }

    #[test]
    fn white_space_around_values_is_no_part_of_them_in_either_format() {
        let csv = format!(
            "sha256 ,owner_type, owner_id,description,expires_at\n\
             {DIGEST} ,\t user, u1 ,\" \u{a0}a b\n\", \n"
        );
        let json = format!(
            r#"{{"sha256":"{DIGEST} ","owner_type":"\t user","owner_id":" u1 ","description":" \u00a0a b\n","expires_at":" "}}"#
        );
        for (format, text) in [(RowFormat::Csv, csv), (RowFormat::JsonLines, json)] {
            let mut rows = rows(format, text);
            assert_eq!(rows.len(), 1, "{format:?}");
            let row = rows.remove(0).unwrap();
            assert_eq!(row.owner.kind, OwnerType::User);
            assert_eq!(row.owner.id, "u1");
            // Only ASCII white space is.
            assert_eq!(row.description, "\u{a0}a b");
            assert_eq!(row.expires_at, None);
        }
        let blank = format!(r#"{{"sha256":"{DIGEST}","owner_type":"user","owner_id":"  "}}"#);
        let read = lines_and_problems(rows(RowFormat::JsonLines, blank));
        assert_eq!(read, ["line 1: `owner_id` is required"]);
    }

    #[test]
    fn each_wrong_row_is_named_and_costs_no_other() {
        let good = format!("{DIGEST},team,t1,\n");
        let csv = format!(
            "sha256,owner_type,owner_id,expires_at\n\
             {good}abc,user,u,\n\
             {good}{DIGEST},robot,u,\n\
             {good}{DIGEST},user,,\n\
             {good}{DIGEST},user,u\n\
             {good}{DIGEST},user,u,tomorrow\n\
             {good}\"{DIGEST},user,u,\n\
             {good}\n{good}"
        );
        let read = lines_and_problems(rows(RowFormat::Csv, csv));
        let bad: Vec<_> = read.iter().filter(|row| !row.ends_with(" ok")).collect();
        assert_eq!(
            bad,
            [
                "line 3: `sha256` has to be 64 hexadecimal digits",
                "line 5: `owner_type` has to be `user` or `team`",
                "line 7: `owner_id` is required",
                "line 9: has 3 fields where the first line names 4",
                "line 11: `expires_at` has to be a time such as 2026-11-22T20:46:15Z",
                "line 13: has a quotation mark that is never closed",
            ]
        );
        let good: Vec<_> = read.iter().filter(|row| row.ends_with(" ok")).collect();
        assert_eq!(
            good,
            [
                "2 ok", "4 ok", "6 ok", "8 ok", "10 ok", "12 ok", "14 ok", "16 ok"
            ]
        );
    }

    #[test]
    fn a_key_that_ends_before_it_begins_is_refused() {
        let row = |begin: &str, end: &str| format!("{DIGEST},user,u,{begin},{end}\n");
        let (early, late) = ("2030-01-01T00:00:00Z", "2031-01-01T00:00:00Z");
        let csv = [
            "sha256,owner_type,owner_id,created_at,expires_at\n".to_owned(),
            row(late, early),
            row(early, early),
            row(early, late),
            row(late, "never"),
            row("", early),
        ];
        let problem = |line| format!("line {line}: `expires_at` has to be later than `created_at`");
        assert_eq!(
            lines_and_problems(rows(RowFormat::Csv, csv.concat())),
            [
                problem(2),
                problem(3),
                "4 ok".to_owned(),
                "5 ok".to_owned(),
                "6 ok".to_owned()
            ]
        );
    }

    #[test]
    fn long_and_undecodable_lines_are_skipped_over() {
        let good = format!(r#"{{"sha256":"{DIGEST}","owner_type":"user","owner_id":"u"}}"#);
        let mut text = format!("{good}\n{}\n{good}\n", "x".repeat(200_000)).into_bytes();
        text.extend_from_slice(b"\xff\xfe\n[]\n");
        text.extend_from_slice(good.as_bytes());
        assert_eq!(
            lines_and_problems(rows(RowFormat::JsonLines, text)),
            [
                "1 ok",
                "line 2: is longer than 65536 bytes",
                "3 ok",
                "line 4: is not UTF-8",
                "line 5: is not a JSON object",
                "6 ok"
            ]
        );
    }

    /// A key that is not imported is not revoked when it leaks.
    #[test]
    fn half_a_surrogate_pair_costs_no_row_where_it_is_only_shown() {
        let row = |fields: &str| format!(r#"{{"sha256":"{DIGEST}","owner_type":"user",{fields}}}"#);
        let text = [
            row(r#""owner_id":"u","description":"a \ud800 b \ud83d\ude00\udc00""#),
            row(r#""owner_id":"u\ud800""#),
            row(r#""owner_id":"u","description":"\q""#),
            row(r#""owner_id":"u","description":1"#),
            "{broken".to_owned(),
            "\"text\"".to_owned(),
        ];
        let mut read = rows(RowFormat::JsonLines, text.join("\n"));
        let first = read.remove(0).unwrap();
        assert_eq!(first.description, "a \u{fffd} b \u{1f600}\u{fffd}");
        assert_eq!(
            lines_and_problems(read),
            [
                "line 2: `owner_id` has an escape that stands for no character, half of a surrogate pair such as \\ud800",
                "line 3: is not JSON: invalid escape",
                "line 4: `description` has to be a string or null",
                "line 5: is not JSON: key must be a string",
                "line 6: is not a JSON object",
            ]
        );
    }

    /// The text of its times and of its infinities.
    #[test]
    fn times_are_taken_as_postgresql_writes_them() {
        let row = |begin: &str, end: &str| format!("{DIGEST},user,u,{begin},{end}\n");
        let begin = "2026-01-02 03:04:05.123456+00";
        let csv = [
            "sha256,owner_type,owner_id,created_at,expires_at\n".to_owned(),
            row(begin, "infinity"),
            row(begin, "9999-12-31 23:59:59"),
            row(begin, "9999-12-31 23:59:59.999999+00"),
            row(begin, "-infinity"),
            row("infinity", ""),
            row("-infinity", ""),
        ];
        let mut read = rows(RowFormat::Csv, csv.concat());
        for row in read.drain(..3) {
            let row = row.unwrap();
            let begin = row.created_at.unwrap().to_string();
            assert_eq!(begin, "2026-01-02T03:04:05.123456Z");
            assert_eq!(row.expires_at, None);
        }
        let wrong = |line, field| {
            format!("line {line}: `{field}` has to be a time such as 2026-11-22T20:46:15Z")
        };
        let expected = [
            wrong(5, "expires_at"),
            wrong(6, "created_at"),
            wrong(7, "created_at"),
        ];
        assert_eq!(lines_and_problems(read), expected);
    }

    #[test]
    fn a_csv_file_without_column_names_is_refused_at_once() {
        for first in [
            "",
            &format!("{DIGEST},user,u"),
            "sha256,owner_id",
            "sha256,sha256",
        ] {
            let read = rows(RowFormat::Csv, format!("\n{first}\n{DIGEST},user,u\n"));
            assert_eq!(read.len(), 1, "{first}");
            assert!(read[0].is_err(), "{first}");
        }
    }

    #[test]
    fn a_key_in_the_wrong_column_is_refused_and_not_repeated() {
        let key = FormatSet::builtin()
            .get("rescind_secret")
            .unwrap()
            .mint()
            .unwrap();
        let key = key.expose();
        for row in [
            format!("{key},user,u,"),
            format!("{DIGEST},user,{key},"),
            format!("{DIGEST},user,u,for {key}"),
        ] {
            let csv = format!("sha256,owner_type,owner_id,description\n{row}\n");
            let error = rows(RowFormat::Csv, csv).remove(0).unwrap_err().to_string();
            assert!(error.contains("contains an API key"), "{error}");
            assert!(!error.contains(key));
        }
    }
}
