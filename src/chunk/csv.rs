//! Writes CSV as Postgres reads it by default: null is an empty unquoted field, the empty string is `""`.
//!
//! Always true: what is written here, `COPY … (FORMAT csv)` reads back as the same fields, nulls and empty strings
//! apart. Quotes stand only where they must: around a comma, a quote or a line break, around the empty string, and
//! around a lone `\.`, which would end a COPY before Postgres 18.

/// Appends the separator, unless the field is the first of its row.
pub fn push_separator(row: &mut Vec<u8>, position: usize) {
    if position > 0 {
        row.push(b',');
    }
}

/// Appends a field that is not null; for null, append nothing.
pub fn push_field(row: &mut Vec<u8>, field: &[u8]) {
    if !needs_quotes(field) {
        row.extend_from_slice(field);
        return;
    }
    row.push(b'"');
    let mut rest = field;
    while let Some(position) = memchr::memchr(b'"', rest) {
        let (until_quote, after) = rest.split_at(position + 1);
        row.extend_from_slice(until_quote);
        row.push(b'"');
        rest = after;
    }
    row.extend_from_slice(rest);
    row.push(b'"');
}

fn needs_quotes(field: &[u8]) -> bool {
    // Without an early exit the compiler compares many bytes at once.
    let special = field.iter().fold(false, |found, byte| found | matches!(byte, b',' | b'"' | b'\n' | b'\r'));
    special || field.is_empty() || field == br"\."
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(table: &[Vec<Option<String>>]) -> Vec<u8> {
        let mut out = Vec::new();
        for row in table {
            for (position, field) in row.iter().enumerate() {
                push_separator(&mut out, position);
                if let Some(field) = field {
                    push_field(&mut out, field.as_bytes());
                }
            }
            out.push(b'\n');
        }
        out
    }

    fn any_field() -> impl Strategy<Value = Option<String>> {
        let awkward = proptest::sample::select(vec!["", "\\.", "\\N", "\"", "\"\"", "\r\n", " ", ",", "null", "a\rb"]);
        proptest::option::weighted(0.9, prop_oneof![any::<String>(), awkward.prop_map(str::to_owned)])
    }

    proptest! {
        #[test]
        fn any_fields_come_back_from_an_independent_reader_with_null_and_empty_apart(
            table in proptest::collection::vec(proptest::collection::vec(any_field(), 3), 0..8),
        ) {
            let bytes = rows(&table);
            let mut reader = ::csv::ReaderBuilder::new().has_headers(false).from_reader(bytes.as_slice());
            let read: Vec<::csv::StringRecord> = reader.records().map(Result::unwrap).collect();
            prop_assert_eq!(read.len(), table.len());
            for (read, row) in read.iter().zip(&table) {
                let expected: Vec<&str> = row.iter().map(|field| field.as_deref().unwrap_or_default()).collect();
                prop_assert_eq!(read.iter().collect::<Vec<_>>(), expected);
            }
            // The reader takes null and "" as one; alone in a row, they are told apart by the bytes.
            for field in table.into_iter().flatten() {
                let is_null = field.is_none();
                prop_assert_eq!(rows(&[vec![field]]) == b"\n", is_null);
            }
        }
    }

    #[test]
    fn quotes_stand_only_where_they_must() {
        let field = |text: &str| {
            let mut out = Vec::new();
            push_field(&mut out, text.as_bytes());
            String::from_utf8(out).unwrap()
        };
        assert_eq!(field(""), "\"\"");
        assert_eq!(field("\\."), "\"\\.\"");
        assert_eq!(field("a\"b"), "\"a\"\"b\"");
        for plain in ["\\N", "a b", " a ", "\\.x", "Grüße", "null", "\t"] {
            assert_eq!(field(plain), plain);
        }
    }
}
