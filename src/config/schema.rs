//! The JSON Schema of `pgsluice.toml`, by which editors complete and check it.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use serde_json::Value;

use super::tables::ConfigFile;

/// The schema: JSON Schema draft 7, which the common TOML editors read.
#[must_use]
pub fn schema() -> Schema {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<ConfigFile>();
    RecursiveTransform(without_what_toml_lacks).transform(&mut schema);
    schema
}

/// TOML has no null: what may be left out is simply not required. And no editor knows Rust's formats of numbers.
fn without_what_toml_lacks(schema: &mut Schema) {
    schema.remove("format");
    if schema.get("default").is_some_and(|default| default.is_null() || default.is_object() || default.is_array()) {
        schema.remove("default");
    }
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [one] = &types[..] {
            let one = one.clone();
            schema.insert("type".to_owned(), one);
        }
    }
    for choice in ["anyOf", "oneOf"] {
        if let Some(Value::Array(choices)) = schema.get_mut(choice) {
            choices.retain(|choice| choice.get("type").is_none_or(|kind| kind != "null"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Settings without a description, a type, or with a null that TOML cannot write.
    fn poor(schema: &Value, name: &str, found: &mut Vec<String>) {
        let properties = [schema, &schema["items"]].into_iter().filter_map(|schema| schema["properties"].as_object());
        for (key, property) in properties.flatten() {
            let is_typed = ["type", "anyOf", "oneOf"].iter().any(|word| property.get(word).is_some());
            if !property["description"].is_string() || !is_typed || property.to_string().contains("\"null\"") {
                found.push(format!("{name}{key}: {property}"));
            }
            poor(property, &format!("{key}."), found);
        }
    }

    #[test]
    fn each_setting_is_described_and_none_may_be_null() {
        let mut found = Vec::new();
        poor(schema().as_value(), "", &mut found);
        assert_eq!(found, Vec::<String>::new());
    }
}
