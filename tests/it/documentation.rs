//! What the documentation says is so: its transcript, its picture, its commands and settings, its examples, the tests that it names,
//! its links.

mod examples;
mod links;
mod markdown;
mod picture;
mod schema;
mod tasks;

use std::collections::BTreeSet;
use std::fs;

use crate::help::commands_in;
use crate::testenv::{KEY, Outcome, Server, TestEnv, files_below, project_path};
use markdown::{blocks, table_rows};

const PGSLUICE: &str = env!("CARGO_BIN_EXE_pgsluice");
const USAGE: i32 = 2;
const GUIDE: &str = "docs/guide.md";
/// A number with which some are redelivered and some rejected, whatever the demo's seed.
const DEMO_MESSAGES: &str = "2000";

fn page(name: &str) -> String {
    fs::read_to_string(project_path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A newcomer sees this transcript before anything else, and nobody would notice that it is out of date.
#[test]
fn the_transcript_in_the_readme_is_what_the_demo_prints() {
    let readme = page("README.md");
    let shown = blocks(&readme).find_map(|block| block.text.strip_prefix("$ make demo\n")).expect("a transcript");
    let printed = demo();
    let (shown, lines) = (shape(shown), shape(&printed.stdout));
    for (shown, line) in shown.iter().zip(&lines) {
        assert_eq!(shown, line, "in the README, and {printed}");
    }
    assert_eq!(shown.len(), lines.len(), "lines in the README, and {printed}");
}

/// What the demo prints, of both streams, in its stdout.
fn demo() -> Outcome {
    let env = TestEnv::without_tables(Server::Embedded);
    let mut command = env.command("sh");
    command.args(["-c", "exec \"$@\" 2>&1", "sh", PGSLUICE, "demo", "--messages", DEMO_MESSAGES]);
    // PostgreSQL's server may be on PATH alone.
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    env.run_to_end(command).succeeds()
}

/// Lines without what differs from demo to demo: a word that holds a digit (counts, times, ids, addresses, masked
/// values), what a login may say, and how far columns are apart.
fn shape(transcript: &str) -> Vec<String> {
    let differs = |word: &&str| {
        let is_country = word.len() == 2 && word.bytes().all(|byte| byte.is_ascii_uppercase());
        is_country || ["android", "ios", "null"].contains(word) || word.contains(|c: char| c.is_ascii_digit())
    };
    let word = |word: &str| if differs(&word) { "#".to_owned() } else { word.to_owned() };
    transcript
        .lines()
        // A stage sets the pace or none does, as the machine is.
        .filter(|line| !line.starts_with("  pace "))
        .map(|line| {
            let words: Vec<String> = line.split_whitespace().map(word).collect();
            format!("{}{}", if line.starts_with(' ') { "  " } else { "" }, words.join(" "))
        })
        .collect()
}

#[test]
fn each_command_is_in_the_readme_and_each_flag_in_the_guide() {
    let env = TestEnv::without_tables(Server::Embedded);
    let help = |command: &str| {
        let arguments: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        env.pgsluice(&arguments).succeeds().stdout
    };
    let mut commands: BTreeSet<String> = commands_in(&help("")).collect();
    for group in commands.clone() {
        commands.extend(commands_in(&help(&group)).map(|below| format!("{group} {below}")));
    }
    assert!(commands.contains("demo"), "{commands:?}");
    let (readme, guide) = (page("README.md"), page(GUIDE));
    for command in &commands {
        let is_group = help(command).contains("<COMMAND>");
        assert!(is_group || has_code(&readme, command), "the README does not name {command}");
        let help = help(command);
        let words = help.split(|c: char| c != '-' && !c.is_ascii_lowercase());
        for flag in words.filter(|word| word.starts_with("--") && *word != "--help") {
            assert!(has_code(&guide, flag), "{GUIDE} does not name {flag} of {command}");
        }
    }
}

/// Whoever has lost pgsluice has this program.
#[test]
fn the_program_in_the_page_on_masking_reveals_what_pgsluice_masks() {
    let env = TestEnv::without_tables(Server::Embedded);
    let masking = page("docs/masking.md");
    let program = blocks(&masking).find(|block| block.language == "python").expect("a program").text;
    std::fs::write(env.path("reveal.py"), program).unwrap();
    let reveal = |key: &str, column: &str, text: &str| {
        let mut python = env.command("python3");
        python.args(["reveal.py", key, column, text]).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        env.run_to_end(python)
    };
    for value in [
        "",
        "199.172.111.135",
        "0123456789abcdef",
        "Gr\u{fc}\u{df}e, \u{6771}\u{4eac} \u{1f980}, and more than two blocks",
    ] {
        let text = env.pgsluice(&["mask", "--column", "masked_ip", value]).succeeds().stdout;
        assert_eq!(reveal(KEY, "masked_ip", text.trim()).succeeds().stdout, format!("{value}\n"));
        assert!(reveal(KEY, "masked_device_id", text.trim()).ends_with(1).stderr.contains("of another column"));
        assert!(reveal(&KEY.replace('7', "8"), "masked_ip", text.trim()).ends_with(1).stderr.contains("another key"));
    }
}

/// Whether a piece of code in `page` is `word`, or begins with it.
fn has_code(page: &str, word: &str) -> bool {
    let is_word = |code: &str| code.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
    page.split('`').skip(1).step_by(2).any(is_word)
}

/// The table in the guide has each setting of the annotated file, with its default; and the ends of a range are taken,
/// what lies beyond them is refused.
#[test]
fn the_settings_in_the_guide_have_the_defaults_and_ranges_that_it_says() {
    let env = TestEnv::without_tables(Server::Embedded);
    let guide = page(GUIDE);
    let annotated: toml::Table = page("pgsluice.toml").parse().unwrap();
    let mut numbers = 0;
    for (name, default) in settings_of(&annotated) {
        let row = format!("`{name}`");
        let cells = table_rows(&guide).find(|cells| cells[0] == row).unwrap_or_default();
        let [_, shown, range, _] = cells[..] else { panic!("{GUIDE} has no row of four cells for {name}") };
        let toml::Value::Integer(default) = default else {
            assert_eq!(shown, format!("`{default}`"), "the default of {name}");
            continue;
        };
        assert_eq!(number(shown), Some(default), "the default of {name}");
        numbers += 1;
        let (first, last) = range.split_once(" to ").unwrap_or((range.trim_start_matches("from "), ""));
        let first = number(first).unwrap_or_else(|| panic!("{name} has no range: {range}"));
        with_setting(&env, &name, first).succeeds();
        with_setting(&env, &name, first - 1).ends_with(USAGE);
        if let Some(last) = number(last) {
            with_setting(&env, &name, last).succeeds();
            with_setting(&env, &name, last + 1).ends_with(USAGE);
        }
    }
    assert!(numbers > 5, "{annotated:?}");
}

/// Names as `table.key`, except those of columns.
fn settings_of(table: &toml::Table) -> Vec<(String, toml::Value)> {
    let mut settings = Vec::new();
    for (key, value) in table.iter().filter(|(key, _)| *key != "column") {
        match value {
            toml::Value::Table(table) => {
                settings.extend(table.iter().map(|(name, value)| (format!("{key}.{name}"), value.clone())));
            }
            value => settings.push((key.clone(), value.clone())),
        }
    }
    settings
}

fn number(cell: &str) -> Option<i64> {
    cell.replace(',', "").parse().ok()
}

/// A command that reads the configuration, and finds nothing to do.
fn with_setting(env: &TestEnv, name: &str, value: i64) -> Outcome {
    let (table, key) = name.split_once('.').unwrap();
    env.configure(&format!("[{table}]\n{key} = {value}\n"));
    env.pgsluice(&["transform"])
}

/// What is said to happen is proved by the tests that are named; a name that ends in `*` is a group or a start.
#[test]
fn the_failures_name_tests_that_exist() {
    let sources = sources_below("tests/it") + &sources_below("src");
    let failures = page("docs/failures.md");
    let cells: Vec<&str> = table_rows(&failures).filter_map(|cells| cells.last().copied()).collect();
    let names: Vec<&str> = cells.iter().flat_map(|cell| cell.split('`')).filter(|code| code.contains("::")).collect();
    assert!(names.len() > 50, "{names:?}");
    for name in names {
        let path = name.trim_end_matches("::*");
        let test = path.rsplit("::").next().unwrap().trim_end_matches('*');
        // A test stands as a function, as a module of them, or as an entry of a table that a macro makes tests of.
        let items = [format!("fn {test}"), format!("mod {test}"), format!("    {test}: ")];
        assert!(items.iter().any(|item| sources.contains(item)), "docs/failures.md names {name}, and there is none");
    }
}

fn sources_below(name: &str) -> String {
    files_below(&project_path(name)).iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}
