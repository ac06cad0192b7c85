//! Splits a record of comma-separated values into fields.

use csv_core::{ReadRecordResult, Reader};

/// Splits one record after the other. To make a reader for each would cost more than all the rest of it.
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

    /// How long the first record in `text` is, in bytes, as far as `text` goes. Its line feed may be left out.
    pub(super) fn first_record(&mut self, text: &str) -> usize {
        self.split(text).0
    }

    /// Whether a quoted field goes on after the end of `line`.
    pub(super) fn is_open(&mut self, line: &str) -> bool {
        // Only within a quoted field is the second line feed part of the same record.
        let line = line.trim_end_matches(['\r', '\n']);
        let ended = format!("{line}\n\n");
        self.split(&ended).0 > line.len() + 1
    }

    /// The fields of the first record in `text`, without blanks around them.
    pub(super) fn fields<'t>(&'t mut self, text: &'t str) -> Vec<&'t str> {
        if !text.contains('"') {
            return text.split(',').map(str::trim).collect();
        }
        let (_, count) = self.split(text);
        let mut start = 0;
        let ends = self.ends[..count].iter();
        ends.map(|end| {
            let field = &self.bytes[start..*end];
            start = *end;
            // It was cut out of UTF-8 at ASCII characters.
            std::str::from_utf8(field).unwrap_or_default().trim()
        })
        .collect()
    }

    /// Reads the first record. Gives how much of `text` that was, and the number of fields.
    fn split(&mut self, text: &str) -> (usize, usize) {
        self.reader.reset();
        // Fields are never longer than what they are written as.
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
                // Asked again without any, the reader knows that there is no more.
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.bytes.resize(self.bytes.len() * 2 + 16, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record | ReadRecordResult::End => return (read, fields),
            }
        }
    }
}
