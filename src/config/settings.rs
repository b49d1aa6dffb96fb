//! What each setting is, and where it comes from: for a person who asks why.
//!
//! Always true: no password, no key and no argument of a key command is in it.

use std::env;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::environment::setting;
use super::file::built_in;
use super::lines::Lines;
use super::tables::{ColumnTable, ConfigFile};
use super::{Config, ConfigError, KeySource, Overrides};

/// Shown in place of a secret.
pub const HIDDEN: &str = "(hidden)";

/// A setting with its effective value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// As in `queue.pollers`; a column of the mapping is `column.NAME`.
    pub name: String,
    /// Null where it is not set. A secret is replaced.
    pub value: Value,
    /// Where the value comes from.
    pub place: SettingSource,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingSource {
    /// Nothing sets it.
    Default,
    /// The configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line in it, from 1.
        line: usize,
    },
    /// The environment variable of this name.
    Variable(String),
    /// The flag of this name.
    Flag(String),
}

impl Setting {
    /// A setting with this value, or that is not set.
    #[must_use]
    pub fn new(name: &str, value: Option<impl Into<Value>>, place: SettingSource) -> Self {
        Self { name: name.to_owned(), value: value.map_or(Value::Null, Into::into), place }
    }
}

impl Config {
    /// Each setting of a configuration that is right, except the URL of the database. `given` tells whether a flag or a
    /// variable gave what overrides the file.
    pub fn settings(overrides: &Overrides, given: impl Fn(&str) -> SettingSource) -> Result<Vec<Setting>, ConfigError> {
        let read = overrides.read_file()?;
        let places = Places { lines: read.lines.clone() };
        let mut file = read.with_environment(env::vars_os())?;
        let command = file.key_command.take();
        let config = Self::resolve(overrides.clone())?;
        let value = |path: &Path| path.display().to_string();
        let overridden =
            [("queue_url", overrides.queue_url.clone()), ("staging_dir", overrides.staging_dir.as_deref().map(value))];
        let mut settings = file.flat(&places)?;
        for (name, text) in overridden.into_iter().filter_map(|(name, text)| Some((name, text?))) {
            settings.retain(|setting| setting.name != name);
            settings.push(Setting::new(name, Some(text), given(name)));
        }
        for setting in settings.iter_mut().filter(|setting| setting.name == "staging_dir") {
            setting.value = value(&config.staging_dir).into();
        }
        let command = command.as_deref().map(shown_command);
        settings.push(Setting::new("key_command", command, places.of("key_command")));
        let file = overrides.key_file.as_deref();
        let place = if file.is_some() { given("key_file") } else { SettingSource::Default };
        settings.push(Setting::new("key_file", file.map(value), place));
        let [key, fixed_iv] = match &config.keys {
            KeySource::Environment { fixed_iv, .. } => [true, fixed_iv.is_some()],
            _ => [false, false],
        };
        for (name, variable, is_set) in [("key", "PGSLUICE_KEY", key), ("fixed_iv", "PGSLUICE_FIXED_IV", fixed_iv)] {
            let place = if is_set { SettingSource::Variable(variable.to_owned()) } else { SettingSource::Default };
            settings.push(Setting::new(name, is_set.then_some(HIDDEN), place));
        }
        Ok(settings)
    }

    /// Where the URL of the database stands in the configuration file.
    pub fn place_of_database_url(overrides: &Overrides) -> Result<SettingSource, ConfigError> {
        Ok(Places { lines: overrides.read_file()?.lines }.of("database_url"))
    }
}

/// The program alone: an argument may be a secret.
fn shown_command(command: &[String]) -> String {
    let [program, arguments @ ..] = command else { return String::new() };
    if arguments.is_empty() { program.clone() } else { format!("{program} {HIDDEN}") }
}

/// Where the settings of the file and of its variables come from.
struct Places {
    lines: Option<(PathBuf, Lines)>,
}

impl Places {
    fn of(&self, name: &str) -> SettingSource {
        let variable = env::vars_os().find_map(|(variable, text)| {
            let variable = variable.into_string().ok()?;
            let (section, key) = setting(&variable)?;
            let is_it = format!("{section}.{key}") == name && !text.to_string_lossy().trim().is_empty();
            is_it.then_some(variable)
        });
        let in_file = || {
            let (path, lines) = self.lines.as_ref()?;
            Some(SettingSource::File { path: path.clone(), line: lines.get(name)? })
        };
        variable.map(SettingSource::Variable).or_else(in_file).unwrap_or(SettingSource::Default)
    }
}

impl ConfigFile {
    /// The settings of the file, with defaults in place of what it leaves out.
    fn flat(mut self, places: &Places) -> Result<Vec<Setting>, ConfigError> {
        let built_in = built_in()?;
        self.pipeline.name = self.pipeline.name.or(built_in.pipeline.name);
        self.pipeline.table = self.pipeline.table.or(built_in.pipeline.table);
        let columns = if self.columns.is_empty() { built_in.columns } else { std::mem::take(&mut self.columns) };
        let mut settings = Vec::new();
        for (key, value) in object(&self).into_iter().filter(|(key, _)| key != "column") {
            match value {
                Value::Object(table) => settings.extend(table.into_iter().map(|(name, value)| {
                    let name = format!("{key}.{name}");
                    Setting { place: places.of(&name), name, value }
                })),
                value => settings.push(Setting { place: places.of(&key), name: key, value }),
            }
        }
        settings.extend(columns.iter().map(|column| {
            let name = format!("column.{}", column.name);
            Setting { place: places.of(&name), name, value: declared(column) }
        }));
        Ok(settings)
    }
}

/// What a column's declaration says, without its name.
fn declared(column: &ColumnTable) -> Value {
    let says = |(key, value): &(String, Value)| key != "name" && !value.is_null() && *value != Value::Bool(false);
    Value::Object(object(column).into_iter().filter(says).collect())
}

fn object(table: &impl serde::Serialize) -> Map<String, Value> {
    match serde_json::to_value(table) {
        Ok(Value::Object(object)) => object,
        _ => Map::new(),
    }
}
