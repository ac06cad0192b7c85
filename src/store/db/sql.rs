//! Runs one SQL text on either database: typed arguments in, decoded rows out.
//!
//! A statement is declared once, in a [`statements!`] block of its table family. Where the two databases differ, it has
//! a hole that is filled before the statement is sent:
//!
//! | hole | SQLite | PostgreSQL |
//! | --- | --- | --- |
//! | `{now}` | the database's clock in microseconds | likewise |
//! | `{for update}` | nothing, since the transaction holds the only write lock | `FOR UPDATE` |
//! | `{for no key update}` | nothing | `FOR NO KEY UPDATE`, which lets rows that refer to it be added meanwhile |
//! | `{for update skip locked}` | nothing | `FOR UPDATE SKIP LOCKED` |
//! | `{list:3}` | `$3, $4, …` for the items of a list | likewise |
//! | `{rows:5}` | `($1, …, $5), ($6, …, $10), …` for several rows | likewise |
//!
//! A statement has at most one list or block of rows. If it has no other placeholders, SQLite gets `?`.

mod hole;
mod row;

use std::borrow::Cow;
use std::fmt::Write as _;

use jiff::Timestamp;
use sqlx::Arguments as _;
use sqlx::postgres::PgArguments;
use sqlx::sqlite::SqliteArguments;
use uuid::Uuid;

use crate::keyformat::{PepperId, StoredDigest};
use hole::Hole;
pub(in crate::store) use row::{Row, one};

/// Maximum number of items in a list, and thus of its placeholders.
pub(in crate::store) const LIST_MAX: usize = 1024;

/// Maximum number of rows that most statements write at a time.
pub(in crate::store) const ROWS_MAX: usize = 128;

/// Database that a statement is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Dialect {
    Sqlite,
    Postgres,
}

/// A statement, possibly with holes.
#[derive(Debug, Clone)]
pub(in crate::store) struct Sql {
    text: Cow<'static, str>,
    repeat: usize,
}

impl Sql {
    /// Creates a statement. One with an unknown hole does not compile, as all statements are constants.
    pub(in crate::store) const fn new(text: &'static str) -> Self {
        assert!(Hole::all_known(text.as_bytes()), "unknown hole");
        Self {
            text: Cow::Borrowed(text),
            repeat: 1,
        }
    }

    /// Creates a statement that was put together at run time.
    pub(in crate::store) fn built(text: String) -> Self {
        Self {
            text: Cow::Owned(text),
            repeat: 1,
        }
    }

    /// Returns the statement for a list of `n` items, or for `n` rows.
    pub(in crate::store) fn of(mut self, n: usize) -> Self {
        self.repeat = n;
        self
    }

    /// Returns the text to be sent, with every hole filled. An unknown hole is left as it is, which no database takes.
    pub(in crate::store) fn text(&self, dialect: Dialect) -> Cow<'static, str> {
        if !self.text.contains('{') {
            return self.text.clone();
        }
        let mut text = String::with_capacity(self.text.len() + 6 * self.repeat);
        let mut rest = &*self.text;
        while let Some((before, from)) = rest.split_once('{') {
            let (hole, after) = from.split_once('}').unwrap_or((from, ""));
            text.push_str(before);
            match Hole::parse(hole.as_bytes()) {
                Some(known) => self.fill(&mut text, known, dialect),
                // Writing into a String cannot fail.
                None => drop(write!(text, "{{{hole}}}")),
            }
            rest = after;
        }
        text.push_str(rest);
        Cow::Owned(text)
    }

    fn fill(&self, text: &mut String, hole: Hole, dialect: Dialect) {
        let postgres = dialect == Dialect::Postgres;
        // To bind `$n`, SQLite searches the names of all placeholders before it: with thousands of them, that costs
        // more than everything else. A statement whose placeholders are all in one hole needs no names.
        let named = postgres || self.text.contains('$');
        match hole {
            Hole::List(first) => placeholders(text, first, self.repeat, named),
            Hole::Rows(columns) => {
                for row in 0..self.repeat {
                    text.push_str(if row == 0 { "(" } else { ", (" });
                    placeholders(text, row * columns + 1, columns, named);
                    text.push(')');
                }
            }
            Hole::Now if postgres => {
                text.push_str("CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)");
            }
            Hole::Now => text.push_str("CAST(unixepoch('subsec') * 1000000 AS INTEGER)"),
            Hole::Lock(lock) if postgres => text.push_str(lock),
            Hole::Lock(_) => {}
        }
    }
}

fn placeholders(text: &mut String, first: usize, count: usize, named: bool) {
    for at in first..first + count {
        text.push_str(if at == first { "" } else { ", " });
        if named {
            // Writing into a String cannot fail.
            let _ = write!(text, "${at}");
        } else {
            text.push('?');
        }
    }
}

/// Declares the statements of a table family, and the list of all of them, which
/// [`Store::check_statements`](super::super::Store::check_statements) prepares.
macro_rules! statements {
    ($($(#[$meta:meta])* $name:ident = $text:expr;)*) => {
        $($(#[$meta])* pub(in crate::store) const $name: $crate::store::db::sql::Sql = $crate::store::db::sql::Sql::new($text);)*
        /// All statements of this family, with their names.
        pub(in crate::store) const ALL: &[(&str, $crate::store::db::sql::Sql)] = &[$((stringify!($name), $name)),*];
    };
}
pub(in crate::store) use statements;

/// Value for a placeholder of a statement.
#[derive(Debug, Clone)]
pub(in crate::store) enum Arg {
    Text(Option<String>),
    Int(Option<i64>),
    Bytes(Vec<u8>),
    Bool(bool),
}

/// Creates the values of a statement, in the order of its placeholders.
macro_rules! args {
    ($($value:expr),* $(,)?) => { vec![$($crate::store::db::sql::Arg::from($value)),*] };
}
pub(in crate::store) use args;

impl From<&str> for Arg {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}
impl From<&String> for Arg {
    fn from(value: &String) -> Self {
        Self::Text(Some(value.clone()))
    }
}
impl From<String> for Arg {
    fn from(value: String) -> Self {
        Self::Text(Some(value))
    }
}
impl From<Option<String>> for Arg {
    fn from(value: Option<String>) -> Self {
        Self::Text(value)
    }
}
impl From<Uuid> for Arg {
    fn from(value: Uuid) -> Self {
        Self::Text(Some(value.to_string()))
    }
}
impl From<Option<Uuid>> for Arg {
    fn from(value: Option<Uuid>) -> Self {
        Self::Text(value.map(|id| id.to_string()))
    }
}
impl From<i64> for Arg {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}
impl From<Option<i64>> for Arg {
    fn from(value: Option<i64>) -> Self {
        Self::Int(value)
    }
}
impl From<u64> for Arg {
    fn from(value: u64) -> Self {
        Self::Int(Some(i64::try_from(value).unwrap_or(i64::MAX)))
    }
}
impl From<Option<u64>> for Arg {
    fn from(value: Option<u64>) -> Self {
        Self::Int(value.map(|value| i64::try_from(value).unwrap_or(i64::MAX)))
    }
}
impl From<u32> for Arg {
    fn from(value: u32) -> Self {
        Self::Int(Some(i64::from(value)))
    }
}
impl From<Timestamp> for Arg {
    fn from(value: Timestamp) -> Self {
        Self::Int(Some(value.as_microsecond()))
    }
}
impl From<Option<Timestamp>> for Arg {
    fn from(value: Option<Timestamp>) -> Self {
        Self::Int(value.map(Timestamp::as_microsecond))
    }
}
impl From<StoredDigest> for Arg {
    fn from(value: StoredDigest) -> Self {
        Self::Bytes(value.0.to_vec())
    }
}
impl From<PepperId> for Arg {
    fn from(value: PepperId) -> Self {
        Self::Int(Some(value.0))
    }
}
impl From<[u8; 32]> for Arg {
    fn from(value: [u8; 32]) -> Self {
        Self::Bytes(value.to_vec())
    }
}
impl From<bool> for Arg {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

pub(in crate::store) fn sqlite_args(args: Vec<Arg>) -> Result<SqliteArguments, sqlx::Error> {
    let mut all = SqliteArguments::default();
    for arg in args {
        match arg {
            Arg::Text(value) => all.add(value),
            Arg::Int(value) => all.add(value),
            Arg::Bytes(value) => all.add(value),
            Arg::Bool(value) => all.add(value),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(all)
}

pub(in crate::store) fn postgres_args(args: Vec<Arg>) -> Result<PgArguments, sqlx::Error> {
    let mut all = PgArguments::default();
    for arg in args {
        match arg {
            Arg::Text(value) => all.add(value),
            Arg::Int(value) => all.add(value),
            Arg::Bytes(value) => all.add(value),
            Arg::Bool(value) => all.add(value),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(all)
}

/// Pads a list to a power of two by repeating its last item, so that few different statements are prepared, whatever
/// the lengths of the lists. The first `fixed` arguments do not belong to the list. Returns its new length.
pub(in crate::store) fn pad(args: &mut Vec<Arg>, fixed: usize) -> usize {
    let length = args.len() - fixed;
    let padded = length.next_power_of_two();
    if let Some(last) = args.last().cloned() {
        args.resize(fixed + padded, last);
    }
    padded
}

/// Splits `len` rows into runs whose lengths are `largest` or a smaller power of two, for the same reason: rows to be
/// inserted cannot be repeated.
pub(in crate::store) fn runs(
    len: usize,
    largest: usize,
) -> impl Iterator<Item = std::ops::Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let left = len - at;
        if left == 0 {
            return None;
        }
        let run = if left >= largest {
            largest
        } else {
            1 << left.ilog2()
        };
        at += run;
        Some(at - run..at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_the_holes() {
        let sql = Sql::new("SELECT x FROM t WHERE a = $1 AND id IN ({list:2}) {for update}");
        assert_eq!(
            sql.clone().of(3).text(Dialect::Postgres),
            "SELECT x FROM t WHERE a = $1 AND id IN ($2, $3, $4) FOR UPDATE"
        );
        assert_eq!(
            sql.text(Dialect::Sqlite),
            "SELECT x FROM t WHERE a = $1 AND id IN ($2) "
        );
        let rows = Sql::new("INSERT INTO t VALUES {rows:2} RETURNING a");
        assert_eq!(
            rows.clone().of(2).text(Dialect::Postgres),
            "INSERT INTO t VALUES ($1, $2), ($3, $4) RETURNING a"
        );
        assert_eq!(
            rows.of(2).text(Dialect::Sqlite),
            "INSERT INTO t VALUES (?, ?), (?, ?) RETURNING a"
        );
    }

    #[test]
    fn an_unknown_hole_is_left_for_the_database_to_refuse() {
        for text in [
            "SELECT x FROM t {for updte}",
            "SELECT x FROM t WHERE id IN ({list})",
        ] {
            let sql = Sql::built(text.to_owned());
            assert_eq!(sql.text(Dialect::Postgres), text);
            assert_eq!(sql.text(Dialect::Sqlite), text);
        }
    }

    #[test]
    fn lists_and_rows_come_in_few_lengths() {
        let mut list = args![1_i64, 7_i64, 8_i64, 9_i64, 10_i64, 11_i64];
        assert_eq!(pad(&mut list, 1), 8);
        assert_eq!(list.len(), 9);
        let runs: Vec<_> = runs(300, 128).collect();
        assert_eq!(runs, [0..128, 128..256, 256..288, 288..296, 296..300]);
        assert_eq!(super::runs(0, 128).count(), 0);
    }
}
