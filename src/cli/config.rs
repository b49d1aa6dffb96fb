//! `pgsluice config`: the settings and where each comes from; what a configuration file may hold, for people and for
//! editors.
//!
//! `example` and `schema` read no configuration, so they help also where the file that is there is not valid.

use std::env;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::output::DataLines;
use super::{SharedFlags, shared_flags};
use crate::config::{ANNOTATED_FILE, Config, HIDDEN, Setting, SettingSource, schema};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::postgres::without_secrets;

#[derive(Debug, Clone, Subcommand)]
pub(super) enum Command {
    /// Print each setting with its value and where it comes from; passwords and keys are hidden
    Show(ShowFlags),
    /// Print the annotated default pgsluice.toml: each setting, its range and default, and how a mapping is declared
    Example,
    /// Print the JSON Schema of pgsluice.toml, by which an editor completes and checks it
    Schema,
}

#[derive(Debug, Clone, Args)]
pub(super) struct ShowFlags {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(shared: &SharedFlags, command: &Command) -> Result<ExitCode, Error> {
    let mut lines = DataLines::new();
    match command {
        Command::Show(flags) => show(&mut lines, &settings(shared)?, flags.json)?,
        Command::Example => lines.text(ANNOTATED_FILE)?,
        Command::Schema => lines.line(format_args!("{:#}", schema().as_value()))?,
    }
    Ok(ExitCode::Done)
}

/// All settings: of the file, of flags and variables alone, and the database's URL without its password.
fn settings(shared: &SharedFlags) -> Result<Vec<Setting>, Error> {
    let overrides = shared.overrides();
    let given = |id: &str| place(shared, id);
    let mut settings = vec![database_url(shared)?];
    settings.extend(Config::settings(&overrides, given)?);
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let of_flags = [
        ("metrics_file", path(&shared.metrics_file)),
        ("metrics_listen", shared.metrics_listen.map(|address| address.to_string())),
        ("notify_url", shared.notify_url.as_ref().map(|_| HIDDEN.to_owned())),
    ];
    settings.extend(of_flags.map(|(id, value)| {
        let place = if value.is_some() { given(id) } else { SettingSource::Default };
        Setting::new(id, value, place)
    }));
    settings.sort_by_key(|setting| setting.name.contains('.'));
    Ok(settings)
}

fn database_url(shared: &SharedFlags) -> Result<Setting, Error> {
    let overrides = shared.overrides();
    let in_file = Config::place_of_database_url(&overrides)?;
    let place = if overrides.database_url.is_some() { place(shared, "database_url") } else { in_file };
    // Without a URL, libpq's variables say where the database is.
    let libpq = ["PGSERVICE", "PGHOST", "PGDATABASE"].into_iter().find(|name| env::var_os(name).is_some());
    Ok(match Config::resolve(overrides)?.database_url() {
        Ok(url) if url.expose().is_empty() => {
            let place = libpq.map_or(SettingSource::Default, |name| SettingSource::Variable(name.to_owned()));
            Setting::new("database_url", Some("as the variables of libpq say"), place)
        }
        Ok(url) => {
            let shown = without_secrets(url.expose(), HIDDEN).unwrap_or_else(|| HIDDEN.to_owned());
            Setting::new("database_url", Some(shown), place)
        }
        Err(_) => Setting::new("database_url", None::<String>, SettingSource::Default),
    })
}

/// The flag on the command line, else the variable beside it.
fn place(shared: &SharedFlags, id: &str) -> SettingSource {
    let flags = shared_flags();
    let flag = flags.get_arguments().find(|flag| flag.get_id() == id);
    let variable = flag.and_then(|flag| flag.get_env()).map(|name| name.to_string_lossy().into_owned());
    match variable {
        Some(variable) if !shared.on_command_line.contains(id) => SettingSource::Variable(variable),
        _ => SettingSource::Flag(format!("--{}", flag.and_then(clap::Arg::get_long).unwrap_or(id))),
    }
}

fn show(lines: &mut DataLines, settings: &[Setting], as_json: bool) -> Result<(), Error> {
    if as_json {
        let settings: Vec<Value> = settings.iter().map(as_object).collect();
        return lines.line(format_args!("{:#}", json!({ "settings": settings })));
    }
    let rows: Vec<[String; 3]> = settings
        .iter()
        .map(|setting| [setting.name.clone(), shown(&setting.value), shown_place(&setting.place)])
        .collect();
    // A long value moves its own line alone.
    let width = |cell: usize, at_most| rows.iter().map(|row| row[cell].chars().count().min(at_most)).max().unwrap_or(0);
    let (names, values) = (width(0, 40), width(1, 48));
    for [name, value, place] in &rows {
        let line = format!("{name:names$}  {value:values$}  {place}");
        let line = lines.shown(&line).into_owned();
        lines.line(line)?;
    }
    Ok(())
}

fn as_object(setting: &Setting) -> Value {
    let mut object =
        Map::from_iter([("name".to_owned(), setting.name.clone().into()), ("value".to_owned(), setting.value.clone())]);
    let source = match &setting.place {
        SettingSource::Default => "default",
        SettingSource::File { path, line } => {
            object.insert("path".to_owned(), path.display().to_string().into());
            object.insert("line".to_owned(), (*line).into());
            "file"
        }
        SettingSource::Variable(variable) => {
            object.insert("variable".to_owned(), variable.clone().into());
            "environment"
        }
        SettingSource::Flag(flag) => {
            object.insert("flag".to_owned(), flag.clone().into());
            "flag"
        }
    };
    object.insert("source".to_owned(), source.into());
    Value::Object(object)
}

/// A value for people: text as it is, `-` for none.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Object(object) => {
            let pair = |(key, value): (&String, &Value)| match value {
                Value::Bool(true) => key.clone(),
                value => format!("{key} {}", shown(value)),
            };
            object.iter().map(pair).collect::<Vec<_>>().join(", ")
        }
        value => value.to_string(),
    }
}

fn shown_place(place: &SettingSource) -> String {
    match place {
        SettingSource::Default => "default".to_owned(),
        SettingSource::File { path, line } => format!("{}:{line}", path.display()),
        SettingSource::Variable(name) | SettingSource::Flag(name) => name.clone(),
    }
}
