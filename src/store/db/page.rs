//! Paged lists: newest first, each page continuing after the last row of the previous one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use uuid::Uuid;

use super::super::StoreError;

/// Request for a page of a list.
#[derive(Debug, Clone, Default)]
pub struct PageRequest {
    limit: usize,
    cursor: Option<String>,
}

impl PageRequest {
    /// Maximum number of rows in a page.
    pub const LIMIT: usize = 200;

    /// Requests at most `limit` rows (clamped to between 1 and [`PageRequest::LIMIT`]) after the row that `cursor`
    /// points to. The cursor is the `next_cursor` of the previous page.
    pub fn new(limit: usize, cursor: Option<String>) -> Self {
        Self {
            limit: limit.clamp(1, Self::LIMIT),
            cursor,
        }
    }

    /// Requests the first page at its maximum size.
    pub fn first() -> Self {
        Self::new(Self::LIMIT, None)
    }

    /// Returns a request for a later page, to prepare the statement of a list with.
    pub(in crate::store) fn sample() -> Self {
        let cursor = URL_SAFE_NO_PAD.encode(position(Timestamp::UNIX_EPOCH, Uuid::nil()));
        Self::new(1, Some(cursor))
    }

    /// Like [`PageRequest::sample`], for a list ordered by a number.
    pub(in crate::store) fn sample_number() -> Self {
        Self::new(1, Some(URL_SAFE_NO_PAD.encode("1")))
    }

    /// Returns the number of rows to fetch: one more than is returned, to see whether there is a next page.
    pub(in crate::store) fn fetch(&self) -> i64 {
        i64::try_from(self.limit.max(1) + 1).unwrap_or(i64::MAX)
    }

    /// Returns the position after which to continue, in a list ordered by time and identifier.
    pub(in crate::store) fn after(&self) -> Result<Option<(Timestamp, Uuid)>, StoreError> {
        let Some(text) = self.plain()? else {
            return Ok(None);
        };
        let parse = || {
            let (micros, id) = text.split_once(' ')?;
            let at = Timestamp::from_microsecond(micros.parse().ok()?).ok()?;
            Some((at, Uuid::try_parse(id).ok()?))
        };
        parse().map(Some).ok_or(StoreError::Cursor)
    }

    /// Returns the position after which to continue, in a list ordered by a number.
    pub(in crate::store) fn after_number(&self) -> Result<Option<i64>, StoreError> {
        self.plain()?
            .map(|text| text.parse().map_err(|_| StoreError::Cursor))
            .transpose()
    }

    fn plain(&self) -> Result<Option<String>, StoreError> {
        self.cursor
            .as_ref()
            .map(|cursor| {
                let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
                bytes
                    .and_then(|bytes| String::from_utf8(bytes).ok())
                    .ok_or(StoreError::Cursor)
            })
            .transpose()
    }

    /// Makes a page of the rows that were fetched.
    pub(in crate::store) fn page<T>(
        &self,
        mut items: Vec<T>,
        position: fn(&T) -> String,
    ) -> Page<T> {
        let more = items.len() > self.limit.max(1);
        items.truncate(self.limit.max(1));
        let next_cursor = items
            .last()
            .filter(|_| more)
            .map(|last| URL_SAFE_NO_PAD.encode(position(last)));
        Page { items, next_cursor }
    }
}

/// Formats the position of a row for a cursor, in a list ordered by time and identifier.
pub(in crate::store) fn position(at: Timestamp, id: Uuid) -> String {
    format!("{} {id}", at.as_microsecond())
}

/// A page of a list.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// Rows of the page, newest first.
    pub items: Vec<T>,
    /// Cursor of the next page. `None` if this is the last one.
    pub next_cursor: Option<String>,
}

/// Conditions of a list, combined from those that were requested.
#[derive(Debug)]
pub(in crate::store) struct Conditions {
    text: String,
    pub(in crate::store) args: Vec<super::sql::Arg>,
}

impl Conditions {
    pub(in crate::store) fn new() -> Self {
        Self {
            text: String::new(),
            args: Vec::new(),
        }
    }

    /// Adds a condition. Each `?` in it becomes the placeholder of the next of `args`. If there is only one argument,
    /// every `?` stands for it.
    pub(in crate::store) fn and(&mut self, condition: &str, args: Vec<super::sql::Arg>) {
        self.text.push_str(if self.text.is_empty() {
            "WHERE "
        } else {
            " AND "
        });
        let first = self.args.len() + 1;
        let single = args.len() == 1;
        for (at, part) in condition.split('?').enumerate() {
            if at > 0 {
                let number = if single { first } else { first + at - 1 };
                self.text.push('$');
                self.text.push_str(&number.to_string());
            }
            self.text.push_str(part);
        }
        self.args.extend(args);
    }

    /// Returns `{select} WHERE … {order} LIMIT $n` and its arguments.
    pub(in crate::store) fn finish(
        mut self,
        select: &str,
        order: &str,
        limit: i64,
    ) -> (super::sql::Sql, Vec<super::sql::Arg>) {
        self.args.push(limit.into());
        let text = format!("{select} {} {order} LIMIT ${}", self.text, self.args.len());
        (super::sql::Sql::built(text), self.args)
    }
}

/// Returns a pattern for `LIKE … ESCAPE '\'` that matches `text` anywhere.
pub(in crate::store) fn anywhere(text: &str) -> String {
    let mut pattern = String::from("%");
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_leads_on_and_a_made_up_one_is_refused() {
        let id = Uuid::now_v7();
        let at = Timestamp::from_microsecond(1_700_000_000_123_456).unwrap();
        let request = PageRequest::new(1, None);
        let page = request.page(vec![(at, id), (at, Uuid::nil())], |row| {
            position(row.0, row.1)
        });
        assert_eq!(page.items.len(), 1);
        let next = PageRequest::new(500, page.next_cursor);
        assert_eq!(next.after().unwrap(), Some((at, id)));
        assert_eq!(next.fetch(), 201);
        for bad in ["", "!", "AAAA", "MQ", "OTk5OTk5OTk5OTk5OTk5OTk5OTkgeA"] {
            let request = PageRequest::new(1, Some(bad.to_owned()));
            assert!(matches!(request.after(), Err(StoreError::Cursor)), "{bad}");
        }
    }

    #[test]
    fn conditions_are_numbered() {
        let mut conditions = Conditions::new();
        conditions.and("a = ?", super::super::sql::args!["x"]);
        conditions.and("(b LIKE ? OR c LIKE ?)", super::super::sql::args!["y"]);
        conditions.and("(d, e) < (?, ?)", super::super::sql::args![1_i64, 2_i64]);
        let (sql, args) = conditions.finish("SELECT 1 FROM t", "ORDER BY a", 5);
        assert_eq!(
            sql.text(super::super::sql::Dialect::Sqlite),
            "SELECT 1 FROM t WHERE a = $1 AND (b LIKE $2 OR c LIKE $2) AND (d, e) < ($3, $4) ORDER BY a LIMIT $5"
        );
        assert_eq!(args.len(), 5);
        assert_eq!(anywhere(r"50%_\"), r"%50\%\_\\%");
    }
}
