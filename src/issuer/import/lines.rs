//! Splits a file into lines, and lines into records.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read as _};

use super::split::Splitter;
use super::{RowError, wrong};

/// Maximum length of a row, in bytes.
const MAX_ROW: u64 = 64 << 10;

/// Error for a row that could not be cut out of the file.
pub(super) struct LineError {
    pub(super) row: RowError,
    /// `true` if nothing can be read after this row.
    pub(super) is_last: bool,
}

/// The number of a line, counted from 1, and the line including its end.
type LineResult = Result<(u64, String), LineError>;

/// Reader of lines of bounded length, which counts them.
pub(super) struct Lines<R> {
    input: R,
    line: u64,
    put_back: VecDeque<LineResult>,
    pub(super) splitter: Splitter,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input,
            line: 0,
            put_back: VecDeque::new(),
            splitter: Splitter::new(),
        }
    }

    pub(super) fn next_line(&mut self) -> Option<LineResult> {
        if let Some(line) = self.put_back.pop_front() {
            return Some(line);
        }
        self.line += 1;
        let mut bytes = Vec::new();
        match (&mut self.input)
            .take(MAX_ROW + 1)
            .read_until(b'\n', &mut bytes)
        {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) => return Some(Err(self.unreadable(&error))),
        }
        if bytes.len() as u64 > MAX_ROW && bytes.last() != Some(&b'\n') {
            return Some(Err(self.skip_long_line()));
        }
        Some(
            String::from_utf8(bytes)
                .map(|text| (self.line, text))
                .map_err(|_| LineError {
                    row: wrong(self.line, None, "is not UTF-8"),
                    is_last: false,
                }),
        )
    }

    /// Returns a line, or several lines if a quoted field extends across line breaks (RFC 4180 section
    /// 2.6). An unclosed quote invalidates only its own line.
    ///
    /// Lookahead is needed only for a line with an odd number of quotation marks, and it ends at the next
    /// such line or at the maximum length of a row. Hence no line is examined more than twice.
    pub(super) fn next_csv_record(&mut self) -> Option<LineResult> {
        let (first, mut record) = match self.next_line()? {
            Ok(line) => line,
            Err(error) => return Some(Err(error)),
        };
        if !has_odd_quotes(&record) || !self.splitter.is_open(&record) {
            return Some(Ok((first, record)));
        }
        let mut taken = Vec::new();
        loop {
            let next = (record.len() as u64 <= MAX_ROW)
                .then(|| self.next_line())
                .flatten();
            let Some(Ok((line, text))) = next else {
                if let Some(error) = next {
                    self.put_back.push_front(error);
                }
                self.put_back(taken);
                return Some(Err(LineError {
                    row: wrong(first, None, "has a quotation mark that is never closed"),
                    is_last: false,
                }));
            };
            record.push_str(&text);
            let closes = has_odd_quotes(&text);
            taken.push((line, text));
            if closes {
                break;
            }
        }
        // A mark within a field that does not begin with one closes nothing: the row may be shorter.
        let mut length = record.len();
        let end = self.splitter.first_record(&record);
        while let Some((_, last)) = taken.last()
            && length - last.len() >= end
        {
            length -= last.len();
            if let Some(line) = taken.pop() {
                self.put_back.push_front(Ok(line));
            }
        }
        record.truncate(length);
        Some(Ok((first, record)))
    }

    fn put_back(&mut self, lines: Vec<(u64, String)>) {
        for line in lines.into_iter().rev() {
            self.put_back.push_front(Ok(line));
        }
    }

    fn skip_long_line(&mut self) -> LineError {
        let mut is_last = false;
        loop {
            match self.input.fill_buf() {
                Ok([]) => break,
                Ok(buffer) => {
                    let end = memchr::memchr(b'\n', buffer);
                    let used = end.map_or(buffer.len(), |at| at + 1);
                    self.input.consume(used);
                    if end.is_some() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    is_last = true;
                    break;
                }
            }
        }
        LineError {
            row: wrong(self.line, None, format!("is longer than {MAX_ROW} bytes")),
            is_last,
        }
    }

    fn unreadable(&self, error: &io::Error) -> LineError {
        LineError {
            row: wrong(self.line, None, format!("cannot be read: {}", error.kind())),
            is_last: true,
        }
    }
}

fn has_odd_quotes(line: &str) -> bool {
    memchr::memchr_iter(b'"', line.as_bytes()).count() % 2 == 1
}
