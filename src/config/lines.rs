//! On which line of a configuration file each setting stands.

use std::collections::HashMap;

use toml::de::{DeTable, DeValue};

/// The lines of a file's settings, from 1: by `key`, `table.key`, and `column.NAME` for a column of the mapping.
#[derive(Debug, Clone, Default)]
pub(super) struct Lines(HashMap<String, usize>);

impl Lines {
    /// Those of this text; none where it is no TOML.
    pub(super) fn of(text: &str) -> Self {
        let mut lines = HashMap::new();
        let Ok(table) = DeTable::parse(text) else { return Self::default() };
        for (key, value) in table.get_ref() {
            let (key, line) = (key.get_ref(), line_of(text, key.span().start));
            match value.get_ref() {
                DeValue::Table(table) => lines.extend(
                    table
                        .iter()
                        .map(|(name, _)| (format!("{key}.{}", name.get_ref()), line_of(text, name.span().start))),
                ),
                DeValue::Array(tables) => {
                    for (name, value) in tables.iter().filter_map(|table| table.get_ref().as_table()).flatten() {
                        if let ("name", DeValue::String(column)) = (name.get_ref().as_ref(), value.get_ref()) {
                            lines.insert(format!("{key}.{column}"), line_of(text, name.span().start));
                        }
                    }
                    lines.insert(key.to_string(), line);
                }
                _ => _ = lines.insert(key.to_string(), line),
            }
        }
        Self(lines)
    }

    pub(super) fn get(&self, setting: &str) -> Option<usize> {
        self.0.get(setting).copied()
    }
}

/// The line of a byte offset, from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_is_found_where_it_stands() {
        let lines = Lines::of(
            "queue_url = \"x\"\nkey_command = [\"a\",\n\"b\"]\n[queue]\n# more\npollers = 3\n\
             [[column]]\nname = \"a\"\n[[column]]\ntype = \"date\"\nname = \"b\"\n",
        );
        for (setting, line) in
            [("queue_url", 1), ("key_command", 2), ("queue.pollers", 6), ("column.a", 8), ("column.b", 11)]
        {
            assert_eq!(lines.get(setting), Some(line), "{setting}");
        }
        assert_eq!(lines.get("queue.wait_seconds"), None);
    }
}
