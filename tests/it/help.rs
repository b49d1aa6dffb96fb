//! What `--help` says of each command. Names of commands, flags and environment variables are a contract, so a change
//! is to be seen in a review: in the files `snapshots/help*.snap`.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use insta::{Settings, assert_snapshot};

use crate::testenv::project_path;

#[test]
fn each_command_explains_itself_as_its_snapshot_says() {
    let mut settings = Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let _bound = settings.bind_to_scope();

    let shared = shared_options(&help_of(&[]));
    let (mut names, mut commands) = (BTreeSet::new(), vec![Vec::new()]);
    while let Some(command) = commands.pop() {
        let help = help_of(&command);
        let name = [&["help".to_owned()], &command[..]].concat().join("-");
        // What all commands share is in the snapshot of the whole alone.
        let own = if command.is_empty() { help.clone() } else { help.replace(&shared, "") };
        assert_snapshot!(name.as_str(), own);
        commands.extend(commands_in(&help).map(|below| [command.clone(), vec![below]].concat()));
        names.insert(name);
    }
    assert_eq!(snapshots(), names, "a command that is gone needs no snapshot");
}

/// An error sends to `--help` for the source of each setting.
#[test]
fn each_help_names_every_variable_that_is_read() {
    let mut variables = BTreeSet::new();
    for source in ["src/config.rs", "src/config/key_source.rs", "src/cli.rs", "src/postgres/parameters.rs"] {
        let text = fs::read_to_string(project_path(source)).unwrap();
        let is_name = |text: &&str| text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
        // Of libpq's variables many only say what is refused.
        let read = text.lines().filter(|line| !line.trim_start().starts_with("row(") || line.contains("Honoured"));
        let quoted = read
            .flat_map(|line| line.split('"'))
            .filter(is_name)
            .filter(|name| name.starts_with("PG") || *name == "DATABASE_URL");
        variables.extend(quoted.map(str::to_owned));
    }
    assert!(variables.len() > 20 && variables.contains("PGSLUICE_FIXED_IV"), "{variables:?}");
    for command in [&[][..], &["run"], &["rejects"], &["rejects", "list"], &["keygen"]] {
        let help = help_of(&command.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        let (_, environment) = help.split_once("\nEnvironment:\n").unwrap();
        let missing: Vec<_> = variables.iter().filter(|variable| !environment.contains(variable.as_str())).collect();
        assert!(missing.is_empty(), "{command:?} does not name {missing:?}");
        assert!(environment.contains("AWS_REGION") && environment.contains("`pgsluice config example`"), "{help}");
    }
}

/// In a fixed width, and without an environment, which it would show.
fn help_of(command: &[String]) -> String {
    let mut help = Command::new(env!("CARGO_BIN_EXE_pgsluice"));
    let output = help.args(command).arg("--help").env_clear().env("COLUMNS", "100").output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{command:?}: {output:?}");
    let help = String::from_utf8(output.stdout).unwrap();
    help.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// With the environment, and without the examples of each command.
fn shared_options(help: &str) -> String {
    help[help.find("Shared options:").unwrap()..help.find("Examples:").unwrap()].to_owned()
}

/// The commands that a help lists: between its usage and its flags, in one list or in several.
pub(crate) fn commands_in(help: &str) -> impl Iterator<Item = String> {
    let begins_flags = |line: &&str| ["Arguments:", "Options:"].contains(line);
    let listed =
        help.lines().skip_while(|line| !line.starts_with("Usage:")).take_while(move |line| !begins_flags(line));
    let names = listed.filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next());
    names.filter(|name| *name != "help" && !name.starts_with('<')).map(str::to_owned)
}

/// The names of the snapshots of helps.
fn snapshots() -> BTreeSet<String> {
    let entries = fs::read_dir(project_path("tests/it/snapshots")).unwrap();
    let files = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    files
        .filter_map(|file| Some(file.strip_suffix(".snap")?.to_owned()))
        .filter(|name| name.starts_with("help"))
        .collect()
}
