//! Identifiers as SQL text.

/// An identifier, quoted.
#[must_use]
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The name of a table with or without its schema, each part quoted.
#[must_use]
pub fn quote_qualified(schema: Option<&str>, name: &str) -> String {
    let name = quote_identifier(name);
    schema.map_or_else(|| name.clone(), |schema| format!("{}.{name}", quote_identifier(schema)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_in_a_name_does_not_end_it() {
        assert_eq!(quote_qualified(None, "a\"; drop"), "\"a\"\"; drop\"");
        assert_eq!(quote_qualified(Some("s.t"), "T"), "\"s.t\".\"T\"");
    }
}
