//! The examples that end each help, and the groups of commands that begin the first one.

use std::fmt::Write;

use clap::Command;

/// The commands by what a person wants. Those that a build lacks are left out.
const GROUPS: [(&str, &[&str]); 4] = [
    ("Moving data", &["run", "replay", "import", "drain", "transform", "load", "ack", "rejects", "prune"]),
    ("Asking", &["check", "status", "find", "report"]),
    ("Keys", &["keygen", "mask", "reveal", "rekey"]),
    ("Setting up", &["demo", "init", "infer", "config", "completions", "man"]),
];

/// Commands as one types them, by the words after `pgsluice`.
const EXAMPLES: [(&str, &[&str]); 31] = [
    (
        "",
        &[
            "pgsluice check                      # is all there that a run needs?",
            "pgsluice run --report report.json   # until the queue is empty",
            "pgsluice status                     # what waits, and what the last run did",
        ],
    ),
    ("init", &["pgsluice init", "pgsluice init --print > ledger.sql      # for a DBA to run"]),
    (
        "run",
        &["pgsluice run --report report.json", "pgsluice run --until started            # while others go on sending"],
    ),
    ("replay", &["pgsluice replay", "pgsluice replay --again                 # after the table was emptied"]),
    ("import", &["pgsluice import logins.ndjson --sent-at 2026-01-02T03:04:05Z"]),
    ("drain", &["pgsluice drain --max-messages 10000"]),
    ("transform", &["pgsluice transform"]),
    ("load", &["pgsluice load"]),
    ("ack", &["pgsluice ack"]),
    ("infer", &["pgsluice infer bodies.ndjson > pgsluice.toml", "pgsluice infer --peek 100 --sql"]),
    ("check", &["pgsluice check", "pgsluice check --peek 100               # tries the mapping on real messages"]),
    (
        "status",
        &["pgsluice status", "pgsluice status --check --max-age 1h    # for a monitor: exit code 1 where work waits"],
    ),
    ("find", &["pgsluice find 5fea7756-0ea4-451a-a703-a558b933e274"]),
    ("rejects", &["pgsluice rejects list", "pgsluice rejects retry                  # once the cause is corrected"]),
    ("rejects list", &["pgsluice rejects list", "pgsluice rejects list --entries --limit 20"]),
    ("rejects show", &["pgsluice rejects show 5fea7756-0ea4-451a-a703-a558b933e274"]),
    ("rejects retry", &["pgsluice rejects retry"]),
    ("rejects drop", &["pgsluice rejects drop --reason missing"]),
    ("prune", &["pgsluice prune"]),
    ("mask", &["pgsluice mask --column masked_ip 199.172.111.135"]),
    ("reveal", &["pgsluice reveal --csv --columns masked_ip < logins.csv"]),
    (
        "keygen",
        &[
            "pgsluice keygen --out keys.toml",
            "pgsluice keygen --key-file keys.toml --add      # then --promote ID, once every host has it",
        ],
    ),
    ("rekey", &["pgsluice rekey --column masked_ip"]),
    ("report", &["pgsluice report report.json --output report.html"]),
    ("config", &["pgsluice config show"]),
    ("config show", &["pgsluice config show", "pgsluice config show --json"]),
    ("config example", &["pgsluice config example > pgsluice.toml"]),
    ("config schema", &["pgsluice config schema > pgsluice.schema.json"]),
    ("completions", &["pgsluice completions bash > /etc/bash_completion.d/pgsluice"]),
    ("man", &["pgsluice man | man -l -", "pgsluice man rejects list | man -l -"]),
    ("demo", &["pgsluice demo", "pgsluice demo --messages 100000"]),
];

/// The end of the help of the command with this name.
pub(super) fn examples(name: &str) -> String {
    let lines = EXAMPLES.iter().find(|(command, _)| *command == name).map_or(&[][..], |(_, lines)| lines);
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        _ = write!(text, "{}  {line}", if index == 0 { "\n\nExamples:\n" } else { "\n" });
    }
    text
}

/// The command line as the program parses it, whose first help lists the commands in groups. Man pages and completions
/// are made of the one without, because the groups take the place of clap's own list.
pub(super) fn grouped(command: Command) -> Command {
    let mut text = String::new();
    for (group, names) in GROUPS {
        _ = write!(text, "\n{group}:\n");
        for below in names.iter().filter_map(|name| command.find_subcommand(name)) {
            let about = below.get_about().map(ToString::to_string).unwrap_or_default();
            _ = writeln!(text, "  {:<11}  {about}", below.get_name());
        }
    }
    command.mut_subcommands(|below| below.hide(true)).override_usage("pgsluice [OPTIONS] <COMMAND>").help_template(
        format!("{{about-with-newline}}\n{{usage-heading}} {{usage}}\n{text}\n{{all-args}}{{after-help}}"),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::command_line;
    use super::*;

    fn names(command: &Command, above: &str, found: &mut BTreeSet<String>) {
        for below in command.get_subcommands() {
            let name = format!("{above}{}", below.get_name());
            names(below, &format!("{name} "), found);
            found.insert(name);
        }
    }

    #[test]
    fn each_command_has_examples_and_each_example_is_a_command() {
        let mut all = BTreeSet::from([String::new()]);
        names(&command_line(), "", &mut all);
        for name in all {
            let lines = EXAMPLES.iter().find(|(command, _)| *command == name).expect(&name).1;
            assert!(!lines.is_empty(), "{name}");
            for line in lines {
                let line = ["#", ">", "<", "|"].iter().fold(*line, |line, end| line.split(end).next().unwrap());
                let words: Vec<&str> = line.split_whitespace().collect();
                let parsed = command_line().try_get_matches_from(&words);
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
                assert!(line.starts_with(format!("pgsluice {name}").trim()), "{line} is no example of {name}");
            }
        }
    }

    #[test]
    fn each_command_is_in_one_group() {
        let grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
        for command in command_line().get_subcommands() {
            let times = grouped.iter().filter(|name| **name == command.get_name()).count();
            assert_eq!(times, 1, "{}", command.get_name());
        }
    }
}
