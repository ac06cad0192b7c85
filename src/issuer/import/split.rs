//! Splits a record of comma-separated values into fields.

use csv_core::{ReadRecordResult, Reader};

/// Splitter that is reused for all records. Creating a reader for each would cost more than all the rest.
pub(super) struct Splitter {
    reader: Reader,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Splitter {
    pub(super) fn new() -> Self {
        Self {
            reader: Reader::new(),
            bytes: Vec::new(),
            ends: vec![0; 16],
        }
    }

    /// Returns the length of the first record in `text` in bytes, or of all of `text` if the record is
    /// longer. Its line feed may be left out.
    pub(super) fn first_record(&mut self, text: &str) -> usize {
        self.split(text).0
    }

    /// Returns `true` if a quoted field continues after the end of `line`.
    pub(super) fn is_open(&mut self, line: &str) -> bool {
        // Only within a quoted field is the second line feed part of the same record.
        let line = line.trim_end_matches(['\r', '\n']);
        let ended = format!("{line}\n\n");
        self.split(&ended).0 > line.len() + 1
    }

    /// Returns the fields of the first record in `text`, without ASCII white space around them.
    pub(super) fn fields<'t>(&'t mut self, text: &'t str) -> Vec<&'t str> {
        if !text.contains('"') {
            return text.split(',').map(str::trim_ascii).collect();
        }
        let (_, count) = self.split(text);
        let mut start = 0;
        let ends = self.ends[..count].iter();
        ends.map(|end| {
            let field = &self.bytes[start..*end];
            start = *end;
            // The field was cut out of UTF-8 at ASCII characters.
            std::str::from_utf8(field).unwrap_or_default().trim_ascii()
        })
        .collect()
    }

    /// Splits the first record. Returns the number of bytes consumed from `text` and the number of
    /// fields.
    fn split(&mut self, text: &str) -> (usize, usize) {
        self.reader.reset();
        // A field is never longer than its encoding.
        self.bytes.resize(text.len().max(self.bytes.len()), 0);
        let (mut read, mut written, mut fields) = (0, 0, 0);
        loop {
            let (result, taken, given, ended) = self.reader.read_record(
                &text.as_bytes()[read..],
                &mut self.bytes[written..],
                &mut self.ends[fields..],
            );
            read += taken;
            written += given;
            fields += ended;
            match result {
                // Called again without input, the reader knows that there is no more.
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.bytes.resize(self.bytes.len() * 2 + 16, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record | ReadRecordResult::End => return (read, fields),
            }
        }
    }
}
