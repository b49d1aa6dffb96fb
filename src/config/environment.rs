//! Settings of the configuration file from the environment: `PGSLUICE_QUEUE_POLLERS` is `pollers` in `[queue]`.
//!
//! The sections are those below; a variable that begins like one and names no setting is an error, as an unknown key of
//! the file is. A value is taken as `true` or `false`, as text, or as a number, whichever the setting takes.

use toml::{Table, Value};

use super::ConfigError;
use super::mistake;
use super::tables::ConfigFile;

const SECTIONS: [&str; 4] = ["queue", "spool", "load", "pipeline"];
/// A setting of its own, which has a flag beside it.
const NOT_OF_A_SECTION: &str = "PGSLUICE_QUEUE_URL";

/// The file with what the environment says in place of its settings.
pub(super) fn overlaid(
    mut file: Table,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<ConfigFile, ConfigError> {
    for (variable, text) in variables {
        let Some((section, key)) = setting(&variable) else { continue };
        let text = text.trim();
        // An empty variable is one that is not set, as everywhere.
        if text.is_empty() {
            continue;
        }
        let number = text.parse().map(Value::Integer).ok();
        let truth = text.parse().map(Value::Boolean).ok();
        let values = [truth, Some(Value::String(text.to_owned())), number];
        let overlaid = values.into_iter().flatten().map(|value| with(&file, section, &key, value)).reduce(Result::or);
        file = overlaid.unwrap_or(Ok(file)).map_err(|problem| ConfigError::InvalidVariable { variable, problem })?;
    }
    mistake::read(file).map_err(|problem| ConfigError::InvalidVariable { variable: "PGSLUICE_*".to_owned(), problem })
}

/// The section and key that a variable names.
pub(super) fn setting(variable: &str) -> Option<(&'static str, String)> {
    let name = variable.strip_prefix("PGSLUICE_").filter(|_| variable != NOT_OF_A_SECTION)?;
    SECTIONS.into_iter().find_map(|section| {
        let key = name.strip_prefix(&section.to_uppercase())?.strip_prefix('_')?;
        Some((section, key.to_lowercase()))
    })
}

/// The file with one value more; the error does not quote it.
fn with(file: &Table, section: &str, key: &str, value: Value) -> Result<Table, String> {
    let mut file = file.clone();
    let table = file.entry(section).or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(table) = table {
        table.insert(key.to_owned(), value);
    }
    mistake::read::<ConfigFile>(file.clone()).map(|_| file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(file: &str, variables: &[(&str, &str)]) -> Result<ConfigFile, ConfigError> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        overlaid(file.parse().unwrap(), variables)
    }

    #[test]
    fn a_variable_wins_over_the_file_and_leaves_the_rest() {
        let file = "[queue]\npollers = 3\nwait_seconds = 7\n[[column]]\nname = \"a\"";
        let file =
            overlay(file, &[("PGSLUICE_QUEUE_POLLERS", "5"), ("PGSLUICE_QUEUE_URL", "x"), ("PATH", "y")]).unwrap();
        let queue = file.queue.checked().unwrap();
        assert_eq!((queue.pollers, queue.wait_seconds, queue.visibility_seconds), (5, 7, 300));
        assert_eq!(file.pipeline().unwrap().columns.len(), 1);
    }

    #[test]
    fn text_numbers_and_shares_are_read_as_the_setting_wants_them() {
        let named = overlay("", &[("PGSLUICE_PIPELINE_NAME", "17"), ("PGSLUICE_PIPELINE_MAX_REJECTS", "5%")]).unwrap();
        let named = named.pipeline().unwrap();
        assert_eq!((named.name.as_str(), named.rejects.max_rejects.unwrap().to_string().as_str()), ("17", "5%"));
        let counted = overlay("", &[("PGSLUICE_PIPELINE_MAX_REJECTS", "5"), ("PGSLUICE_SPOOL_ARCHIVE_DAYS", "")]);
        assert_eq!(counted.unwrap().pipeline().unwrap().rejects.max_rejects.unwrap().to_string(), "5");
    }

    #[test]
    fn a_variable_that_names_no_setting_or_no_value_of_it_is_an_error() {
        for (name, value) in
            [("PGSLUICE_QUEUE_POLERS", "5"), ("PGSLUICE_QUEUE_POLLERS", "many"), ("PGSLUICE_PIPELINE_DEDUPE", "none")]
        {
            let error = overlay("", &[(name, value)]).unwrap_err();
            assert!(matches!(&error, ConfigError::InvalidVariable { variable, .. } if variable == name), "{error:?}");
        }
    }
}
