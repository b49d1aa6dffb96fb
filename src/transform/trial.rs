//! One message at a time, to show what the mapping makes of it.

use super::plan::{Plan, RowSource, Scratch};
use crate::chunk::UtcText;
use crate::reason::{Reason, Stage};
use crate::spool::Record;

/// What a message becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriedRow {
    /// The line of the chunk, line feed included.
    pub line: Vec<u8>,
    /// The value of each column as Postgres gets it; `None` is null.
    pub fields: Vec<Option<String>>,
}

impl Plan {
    /// Makes the row of one message, or says why it has none. `queue`: the name of the queue that it came from.
    pub fn try_message(&self, record: &Record<'_>, queue: Option<&str>) -> Result<TriedRow, Reason> {
        let refused = |text: &str| Reason { stage: Stage::Transform, field: None, text: text.to_owned() };
        let sent = UtcText::from_milliseconds(record.sent_at)
            .ok_or_else(|| refused("sent_at is outside the years 0001 to 9999"))?;
        let mut memory = String::new();
        let body = record.body.text(&mut memory).map_err(refused)?;
        let mut line = Vec::new();
        let message = RowSource { record, body, sent, queue, source: None };
        self.push_row(&message, &mut Scratch::default(), &mut line)?;
        Ok(TriedRow { fields: fields(&line), line })
    }
}

/// The fields of a line that [`crate::chunk::csv`] wrote.
fn fields(line: &[u8]) -> Vec<Option<String>> {
    let mut rest = line.strip_suffix(b"\n").unwrap_or(line);
    let mut fields = Vec::new();
    loop {
        let mut field = Vec::new();
        let is_quoted = rest.first() == Some(&b'"');
        let mut position = usize::from(is_quoted);
        while let Some(&byte) = rest.get(position) {
            match (byte, is_quoted) {
                (b'"', true) if rest.get(position + 1) == Some(&b'"') => position += 1,
                (b'"', true) | (b',', false) => break,
                _ => {}
            }
            field.push(byte);
            position += 1;
        }
        let is_null = !is_quoted && field.is_empty();
        fields.push((!is_null).then(|| String::from_utf8_lossy(&field).into_owned()));
        match rest.get(position + usize::from(is_quoted)) {
            Some(_) => rest = &rest[position + usize::from(is_quoted) + 1..],
            None => return fields,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::chunk::csv;

    proptest! {
        #[test]
        fn a_line_gives_back_its_fields(
            expected in proptest::collection::vec(proptest::option::of("[a,\"\n\\\\.é]{0,4}"), 1..6)
        ) {
            let mut line = Vec::new();
            for (position, field) in expected.iter().enumerate() {
                csv::push_separator(&mut line, position);
                if let Some(field) = field {
                    csv::push_field(&mut line, field.as_bytes());
                }
            }
            line.push(b'\n');
            prop_assert_eq!(fields(&line), expected);
        }
    }
}
