//! The draft: `[[column]]` for each field that was seen, and the table.

use serde_json::Value;

use super::seen::Seen;
use crate::config::{Column, ColumnType, Dedupe, OnReject, Pipeline, RejectPolicy, Source, TableName, escape_pointer};
use crate::load::create_table;
use crate::report::grouped;

/// Postgres cuts names that are longer.
const MAX_NAME_BYTES: usize = 63;

/// A mapping drafted from a sample.
#[derive(Debug)]
pub struct Draft {
    pipeline: Pipeline,
    /// What was seen of each column.
    seen: Vec<String>,
    messages: u64,
    not_objects: u64,
    origin: String,
}

impl Draft {
    /// Drafts a mapping from bodies. `name`: of the queue or file that they came from, which becomes that of the table;
    /// `origin` says the same to a person.
    #[must_use]
    pub fn of<'a>(bodies: impl Iterator<Item = &'a str>, name: &str, origin: &str) -> Self {
        let (mut all, mut messages, mut not_objects) = (Seen::default(), 0, 0);
        for body in bodies {
            messages += 1;
            match serde_json::from_str(body) {
                Ok(Value::Object(object)) => all.look(&object),
                _ => not_objects += 1,
            }
        }
        let mut columns: Vec<Column> = Vec::new();
        let mut seen = Vec::new();
        for leaf in all.leaves() {
            let column = column(leaf, &columns);
            columns.push(column);
            seen.push(describe(leaf, messages - not_objects));
        }
        let name = sql_name(name);
        let pipeline = Pipeline {
            table: TableName { schema: Some("public".to_owned()), table: name.clone() },
            name,
            dedupe: Dedupe::default(),
            rejects: RejectPolicy { on_reject: OnReject::Keep, max_rejects: None },
            columns,
        };
        Self { pipeline, seen, messages, not_objects, origin: origin.to_owned() }
    }

    /// `CREATE TABLE`.
    #[must_use]
    pub fn sql(&self) -> String {
        create_table(&self.pipeline)
    }

    /// The mapping as TOML, with `CREATE TABLE` as comments.
    #[must_use]
    pub fn toml(&self) -> String {
        let Pipeline { name, table, columns, .. } = &self.pipeline;
        let messages = grouped(self.messages);
        let mut lines =
            vec![format!("# Drafted from {messages} messages of {}. What was not in them is not here.", self.origin)];
        if self.not_objects > 0 {
            let others = grouped(self.not_objects);
            lines.push(format!("# {others} of them are no JSON objects: they would be rejects."));
        }
        lines.extend([
            String::new(),
            "[pipeline]".to_owned(),
            format!("name = {}", quoted(name)),
            format!("table = {}", quoted(&table.to_string())),
        ]);
        for (column, seen) in columns.iter().zip(&self.seen) {
            lines.extend([String::new(), format!("# {seen}"), "[[column]]".to_owned()]);
            lines.push(format!("name = {}", quoted(&column.name)));
            if let Source::Body(pointer) = &column.source
                && *pointer != format!("/{}", column.name)
            {
                lines.push(format!("from = {}", quoted(pointer)));
            }
            if column.kind != ColumnType::Text {
                lines.push(format!("type = {}", quoted(column.kind.name())));
            }
        }
        lines.extend([String::new(), "# The table:".to_owned(), "#".to_owned()]);
        lines.extend(self.sql().lines().map(|line| format!("# {line}")));
        lines.join("\n") + "\n"
    }
}

fn column(leaf: &Seen, others: &[Column]) -> Column {
    let base = sql_name(&leaf.path.join("_"));
    let is_free = |name: &String| !others.iter().any(|other| other.name == *name);
    let numbered = (2..).map(|number| {
        let suffix = format!("_{number}");
        base[..base.len().min(MAX_NAME_BYTES - suffix.len())].to_owned() + &suffix
    });
    let name = std::iter::once(base.clone()).chain(numbered).find(is_free);
    let escaped = leaf.path.iter().map(|name| format!("/{}", escape_pointer(name)));
    Column::of(name.unwrap_or_default(), Source::Body(escaped.collect()), leaf.column_type())
}

fn describe(leaf: &Seen, messages: u64) -> String {
    let missing = messages.saturating_sub(leaf.values + leaf.nulls);
    let characters = match leaf.characters {
        Some((shortest, longest)) if shortest == longest => format!(" of {longest} characters"),
        Some((shortest, longest)) => format!(" of {shortest} to {longest} characters"),
        None => String::new(),
    };
    let kinds = if leaf.kinds.is_empty() { String::new() } else { format!("; {}", leaf.kinds.join(" and ")) };
    format!(
        "{} values, {} distinct; {} null, {} missing{kinds}{characters}",
        grouped(leaf.values),
        grouped(leaf.distinct() as u64),
        grouped(leaf.nulls),
        grouped(missing)
    )
}

/// Lowercase ASCII letters, digits and underscores, which Postgres needs no quotes for.
fn sql_name(text: &str) -> String {
    let mut name = String::new();
    for character in text.chars().flat_map(char::to_lowercase) {
        match character {
            'a'..='z' | '0'..='9' | '_' => name.push(character),
            _ if name.ends_with('_') => {}
            _ => name.push('_'),
        }
    }
    name.truncate(MAX_NAME_BYTES - 1);
    if name.trim_matches('_').is_empty() {
        return "field".to_owned();
    }
    if name.starts_with(|first: char| first.is_ascii_digit()) { format!("_{name}") } else { name }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn types(bodies: &[&str]) -> Vec<(String, &'static str)> {
        let draft = Draft::of(bodies.iter().copied(), "orders", "a test");
        draft.pipeline.columns.iter().map(|column| (column.name.clone(), column.kind.name())).collect()
    }

    #[test]
    fn each_type_is_the_narrowest_that_takes_every_value() {
        for (values, expected) in [
            (&["1", "-7"][..], "integer"),
            (&["1", "9007199254740993"], "bigint"),
            (&["1", "1.5"], "numeric"),
            (&["true", "null"], "boolean"),
            (&["\"a\""], "text"),
            (&["\"007\""], "text"),
            (&["\"2026-01-02\""], "date"),
            (&["\"2026-01-02\"", "\"2026-02-30\""], "text"),
            (&["\"2026-01-02T03:04:05Z\""], "timestamptz"),
            (&["\"2026-01-02T03:04:05.1234567Z\""], "text"),
            (&["\"67e55044-10b1-426f-9247-bb680e5fe0c8\""], "uuid"),
            (&["1", "\"a\""], "jsonb"),
            (&["[1]"], "jsonb"),
            (&["{}"], "jsonb"),
            (&["null"], "text"),
        ] {
            let bodies: Vec<String> = values.iter().map(|value| format!("{{\"a\": {value}}}")).collect();
            let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
            assert_eq!(types(&bodies), [("a".to_owned(), expected)], "{values:?}");
        }
    }

    #[test]
    fn an_object_becomes_a_column_for_each_member_unless_it_is_not_always_one() {
        let found = types(&["{\"Customer Id\": {\"a/b\": 1, \"c\": [2]}, \"x\": {\"y\": 1}}", "{\"x\": 7}"]);
        let expected = [("customer_id_a_b", "integer"), ("customer_id_c", "jsonb"), ("x", "jsonb")];
        assert_eq!(found, expected.map(|(name, kind)| (name.to_owned(), kind)));
    }

    #[test]
    fn names_are_unique_and_short_enough_for_postgres() {
        let long = "n".repeat(80);
        let found = types(&[&format!("{{\"A\": 1, \"a\": 1, \"{long}1\": 1, \"{long}2\": 1, \"7\": 1, \"é\": 1}}")]);
        let names: HashSet<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert!(["a", "a_2", "_7", "field"].iter().all(|name| names.contains(name)), "{names:?}");
        assert!(names.len() == 6 && names.iter().all(|name| name.len() <= MAX_NAME_BYTES), "{names:?}");
    }

    #[test]
    fn the_draft_says_what_was_seen_and_no_value() {
        let bodies = ["{\"a\": \"secret\"}", "{\"a\": null}", "{}", "no"];
        let toml = Draft::of(bodies.into_iter(), "orders", "a file").toml();
        assert!(toml.contains("\n# 1 values, 1 distinct; 1 null, 1 missing; text of 6 characters\n"), "{toml}");
        assert!(toml.contains("# 1 of them are no JSON objects") && !toml.contains("secret"), "{toml}");
        assert!(toml.contains("\n#     \"a\" text\n"), "{toml}");
    }
}
