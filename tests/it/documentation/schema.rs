//! The JSON Schema of `pgsluice.toml` beside the annotated file, the guide and the program.

use serde_json::{Value, json};

use super::markdown::{blocks, table_rows};
use super::{GUIDE, number, page, settings_of};
use crate::testenv::{Server, TestEnv};

fn schema() -> Value {
    let env = TestEnv::without_tables(Server::Embedded);
    serde_json::from_str(&env.pgsluice(&["config", "schema"]).succeeds().stdout).unwrap()
}

fn as_json(toml: &str) -> Value {
    serde_json::to_value(toml.parse::<toml::Table>().unwrap_or_else(|error| panic!("{error} in {toml}"))).unwrap()
}

#[test]
fn the_annotated_file_and_each_example_fit_the_schema_and_mistakes_do_not() {
    let schema = jsonschema::validator_for(&schema()).unwrap();
    let (readme, guide) = (page("README.md"), page(GUIDE));
    let examples = [&readme, &guide].into_iter().flat_map(|page| blocks(page)).filter(|block| block.language == "toml");
    let annotated = page("pgsluice.toml");
    let texts: Vec<&str> = examples.map(|block| block.text).chain([annotated.as_str()]).collect();
    assert!(texts.len() > 15, "{texts:?}");
    for text in texts {
        let problems: Vec<String> = schema.iter_errors(&as_json(text)).map(|error| error.to_string()).collect();
        assert_eq!(problems, Vec::<String>::new(), "{text}");
    }
    for wrong in [
        "[queue]\npolers = 3",
        "[queue]\npollers = 0",
        "[queue]\npollers = \"3\"",
        "[pipeline]\non_reject = \"drop\"",
        "[pipeline]\nmax_rejects = \"5\"",
        "[[column]]\nfrom = \"/a\"",
        "[[column]]\nname = \"a\"\ntype = \"int\"",
        "[[column]]\nname = \"a\"\nfrom = \"a\"",
        "key_source = \"vault:x\"",
    ] {
        assert!(!schema.is_valid(&as_json(wrong)), "{wrong}");
    }
}

/// The README says that the guide has every option of the mapping.
#[test]
fn each_key_of_a_column_has_a_heading_in_the_guide() {
    let schema = schema();
    let keys = schema["properties"]["column"]["items"]["properties"].as_object().unwrap();
    assert!(keys.len() > 8, "{keys:?}");
    let guide = page(GUIDE);
    let headings: Vec<&str> = guide.lines().filter(|line| line.starts_with("### ")).collect();
    for key in keys.keys() {
        let is_headed = headings.iter().any(|heading| heading.contains(&format!("`{key}`")));
        assert!(is_headed, "{GUIDE} has no heading for {key}");
    }
}

/// An editor shows these, and the guide's are proved against the program.
#[test]
fn the_schema_has_the_defaults_and_ranges_of_the_guide() {
    let schema = schema();
    let guide = page(GUIDE);
    let mut ranges = 0;
    for (name, default) in settings_of(&page("pgsluice.toml").parse().unwrap()) {
        let mut place = &schema;
        for key in name.split('.') {
            place = &place["properties"][key];
        }
        assert_eq!(place["default"], serde_json::to_value(&default).unwrap(), "the default of {name} in {place}");
        let toml::Value::Integer(_) = default else { continue };
        let row = format!("`{name}`");
        let cells = table_rows(&guide).find(|cells| cells[0] == row).unwrap_or_default();
        let (first, last) = cells[2].split_once(" to ").unwrap_or((cells[2].trim_start_matches("from "), ""));
        let last = number(last).map_or(Value::Null, |last| json!(last));
        assert_eq!((&place["minimum"], &place["maximum"]), (&json!(number(first)), &last), "the range of {name}");
        ranges += 1;
    }
    assert!(ranges > 5);
}
