//! CSV with a header, as psql and COPY write it. What is not revealed is copied byte for byte, so null (an empty field)
//! and the empty string (`""`) stay apart.

use std::io::{self, BufRead};

use super::Filter;
use crate::chunk::csv;
use crate::config::{Column, ConfigError};
use crate::error::Error;

/// A record beyond this has a quote that does not end.
const MAX_RECORD_BYTES: usize = 64 << 20;

/// Records one by one, each with its line feed.
struct Records<R> {
    input: R,
    lines_read: u64,
}

pub(super) fn reveal(filter: &mut Filter<'_>, names: &[String]) -> Result<(), Error> {
    let columns = filter.columns(names)?;
    let mut records = Records { input: io::stdin().lock(), lines_read: 0 };
    let mut record = Vec::new();
    if records.next(&mut record)?.is_none() {
        return Ok(());
    }
    let selected = positions(&record, columns)?;
    filter.lines.bytes(&record)?;
    let mut out = Vec::new();
    while let Some(line) = records.next(&mut record)?
        && !filter.lines.is_closed()
    {
        out.clear();
        for (position, field) in fields(&record).enumerate() {
            csv::push_separator(&mut out, position);
            let column = selected.iter().find(|(selected, _)| *selected == position && !field.is_empty());
            let masked = column.map(|(_, column)| (column, String::from_utf8_lossy(&unquoted(field)).into_owned()));
            match masked.and_then(|(column, masked)| filter.field(column, line, &masked)) {
                Some(value) => csv::push_field(&mut out, filter.lines.shown(&value).as_bytes()),
                None => out.extend_from_slice(field),
            }
        }
        out.extend_from_slice(end_of(&record));
        filter.lines.bytes(&out)?;
    }
    Ok(())
}

/// Where the columns stand, by the header.
fn positions(header: &[u8], columns: Vec<Column>) -> Result<Vec<(usize, Column)>, Error> {
    let names: Vec<Vec<u8>> = fields(header).map(unquoted).collect();
    let find = |column: Column| {
        let position = names.iter().position(|name| name == column.name.as_bytes());
        let problem = || format!("the header of the CSV has no column {}", column.name);
        let missing = || ConfigError::InvalidSetting { setting: "--columns", problem: problem() };
        Ok((position.ok_or_else(missing)?, column))
    };
    columns.into_iter().map(find).collect()
}

impl<R: BufRead> Records<R> {
    /// Reads a record over the last one. Returns the number of the line that it begins in.
    fn next(&mut self, record: &mut Vec<u8>) -> Result<Option<u64>, Error> {
        record.clear();
        let begins = self.lines_read + 1;
        loop {
            let read = self.input.read_until(b'\n', record).map_err(Error::system("read stdin"))?;
            // A line feed within quotes belongs to a field: quotes come in pairs.
            let is_whole = memchr::memchr_iter(b'"', record).count().is_multiple_of(2);
            if !is_whole && (read == 0 || record.len() > MAX_RECORD_BYTES) {
                let unfinished =
                    io::Error::new(io::ErrorKind::InvalidData, format!("the quote in line {begins} does not end"));
                return Err(Error::system("read the CSV")(unfinished));
            }
            self.lines_read += u64::from(read > 0);
            if is_whole {
                return Ok((!record.is_empty()).then_some(begins));
            }
        }
    }
}

/// The line end of a record.
fn end_of(record: &[u8]) -> &[u8] {
    let line_feed = record.strip_suffix(b"\n").unwrap_or(record);
    let content = line_feed.strip_suffix(b"\r").unwrap_or(line_feed);
    &record[content.len()..]
}

/// The fields of a record as they are written.
fn fields(record: &[u8]) -> impl Iterator<Item = &[u8]> {
    let content = &record[..record.len() - end_of(record).len()];
    let mut is_quoted = false;
    content.split(move |&byte| {
        is_quoted ^= byte == b'"';
        byte == b',' && !is_quoted
    })
}

fn unquoted(field: &[u8]) -> Vec<u8> {
    let Some(quoted) = field.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else {
        return field.to_vec();
    };
    let mut was_quote = false;
    let is_kept = |byte: &u8| {
        was_quote = *byte == b'"' && !was_quote;
        !was_quote
    };
    quoted.iter().copied().filter(is_kept).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Commas, quotes and line breaks within fields included.
        #[test]
        fn records_and_fields_are_read_as_they_were_written(
            table in prop::collection::vec(prop::collection::vec(prop::option::of("[a,\"\r\n\\\\.ü]{0,4}"), 2..4), 0..5),
        ) {
            let mut text = Vec::new();
            for row in &table {
                for (position, field) in row.iter().enumerate() {
                    csv::push_separator(&mut text, position);
                    if let Some(field) = field {
                        csv::push_field(&mut text, field.as_bytes());
                    }
                }
                text.push(b'\n');
            }
            let mut records = Records { input: text.as_slice(), lines_read: 0 };
            let (mut read, mut record) = (Vec::new(), Vec::new());
            while records.next(&mut record).unwrap().is_some() {
                let field = |field: &[u8]| (!field.is_empty()).then(|| String::from_utf8(unquoted(field)).unwrap());
                read.push(fields(&record).map(field).collect::<Vec<_>>());
            }
            prop_assert_eq!(read, table);
        }
    }

    #[test]
    fn a_quote_that_does_not_end_is_an_error_with_its_line() {
        let mut records = Records { input: &b"a,b\n1,\"2\n3,4\n"[..], lines_read: 0 };
        let mut record = Vec::new();
        assert_eq!(records.next(&mut record).unwrap(), Some(1));
        assert!(records.next(&mut record).unwrap_err().one_line().contains("line 2"));
    }
}
