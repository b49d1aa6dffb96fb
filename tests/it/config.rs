//! `config show` and `config schema`, and what an error says of a setting.

use serde_json::Value;

use crate::testenv::{Outcome, Server, TestEnv};

const SECRET: &str = "S3cr3t-PART";
const USAGE: i32 = 2;

/// The line of `config show` that begins with this name, its words with one space between them.
fn line(shown: &Outcome, name: &str) -> String {
    let begins = |line: &&str| line.split_whitespace().next() == Some(name);
    let line = shown.stdout.lines().find(begins).unwrap_or_else(|| panic!("no {name} in {shown}"));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn each_setting_is_shown_with_its_value_and_where_it_comes_from() {
    let mut env = TestEnv::without_tables(Server::Embedded);
    env.configure(
        "staging_dir = \"of-the-file\"\n[queue]\n# more\npollers = 3\nwait_seconds = 2\n[pipeline]\ntable = \"orders\"\n\
         [[column]]\nname = \"id\"\ntype = \"bigint\"\nrequired = true\n",
    );
    env.set("PGSLUICE_QUEUE_WAIT_SECONDS", "4");
    env.set("PGSLUICE_QUEUE_URL", "login-queue");
    let shown = env.pgsluice(&["config", "show", "--metrics-file", "metrics.prom"]).succeeds();
    for (name, said) in [
        ("queue_url", "queue_url login-queue PGSLUICE_QUEUE_URL"),
        ("staging_dir", "staging_dir of-the-file pgsluice.toml:1"),
        ("metrics_file", "metrics_file metrics.prom --metrics-file"),
        ("notify_url", "notify_url - default"),
        ("queue.pollers", "queue.pollers 3 pgsluice.toml:4"),
        ("queue.wait_seconds", "queue.wait_seconds 4 PGSLUICE_QUEUE_WAIT_SECONDS"),
        ("queue.visibility_seconds", "queue.visibility_seconds 300 default"),
        ("pipeline.name", "pipeline.name user_logins default"),
        ("pipeline.table", "pipeline.table orders pgsluice.toml:7"),
        ("pipeline.dedupe", "pipeline.dedupe message default"),
        ("pipeline.max_rejects", "pipeline.max_rejects - default"),
        ("column.id", "column.id required, type bigint pgsluice.toml:9"),
    ] {
        assert_eq!(line(&shown, name), said, "{shown}");
    }
    assert!(!shown.stdout.contains("column.user_id"), "{shown}");

    let flags = ["--staging-dir", "of-the-flag", "--config", "pgsluice.toml"];
    let flagged = env.pgsluice(&[&["config", "show"], &flags[..]].concat()).succeeds();
    assert_eq!(line(&flagged, "staging_dir"), "staging_dir of-the-flag --staging-dir");
    let json: Value = serde_json::from_str(&env.pgsluice(&["config", "show", "--json"]).succeeds().stdout).unwrap();
    let find =
        |name: &str| json["settings"].as_array().unwrap().iter().find(|setting| setting["name"] == name).cloned();
    let pollers = serde_json::json!({
        "name": "queue.pollers", "value": 3, "source": "file", "path": "pgsluice.toml", "line": 4,
    });
    assert_eq!(find("queue.pollers").unwrap(), pollers);
    assert_eq!(find("queue.wait_seconds").unwrap()["variable"], "PGSLUICE_QUEUE_WAIT_SECONDS");
    assert_eq!(find("pipeline.max_rejects").unwrap()["value"], Value::Null);
}

#[test]
fn no_password_and_no_key_is_shown_wherever_it_comes_from() {
    let mut env = TestEnv::without_tables(Server::Embedded);
    env.set("PGSLUICE_NOTIFY_URL", format!("https://hooks.example.com/{SECRET}"));
    let url = format!("postgres://loader:{SECRET}@db.example.com/app?sslrootcert=system");
    let shown = |env: &TestEnv| {
        let [text, json] = [&["config", "show"][..], &["config", "show", "--json"]].map(|arguments| {
            let shown = env.pgsluice(arguments).succeeds();
            assert!(!shown.stdout.contains(SECRET) && !shown.stderr.contains(SECRET), "{shown}");
            shown
        });
        assert!(json.stdout.contains("\"database_url\""), "{json}");
        text
    };
    let database = "database_url user=loader password=(hidden) host=db.example.com";
    env.set("DATABASE_URL", &url);
    let of_variable = shown(&env);
    assert!(line(&of_variable, "database_url").starts_with(database), "{of_variable}");
    assert_eq!(line(&of_variable, "notify_url"), "notify_url (hidden) PGSLUICE_NOTIFY_URL");
    assert_eq!(line(&of_variable, "key"), "key (hidden) PGSLUICE_KEY");

    env.unset("DATABASE_URL");
    env.unset("PGSLUICE_KEY");
    env.configure(&format!("database_url = \"{url}\"\nkey_command = [\"vault\", \"--token={SECRET}\"]\n"));
    let of_file = shown(&env);
    assert!(line(&of_file, "database_url").starts_with(database), "{of_file}");
    assert!(line(&of_file, "database_url").ends_with("pgsluice.toml:1"), "{of_file}");
    assert_eq!(line(&of_file, "key_command"), "key_command vault (hidden) pgsluice.toml:2");

    // Where its password ends cannot be told.
    env.configure(&format!("database_url = \"postgres://loader:{SECRET}@x@db.example.com/app\"\n"));
    assert_eq!(line(&shown(&env), "database_url"), "database_url (hidden) pgsluice.toml:1");
}

#[test]
fn a_wrong_file_is_told_by_key_and_line_with_a_near_name_and_without_its_values() {
    let env = TestEnv::without_tables(Server::Embedded);
    for (toml, said) in [
        ("[queue]\npolers = 3\n", "pgsluice.toml line 2: queue.polers: unknown key `polers`; did you mean `pollers`?"),
        ("\n[pipeline]\ndedupe = \"S3cr3t-PART\"\n", "line 3: pipeline.dedupe: expected `message` or `segment`"),
        ("[[column]]\nname = \"a\"\nmask = \"S3cr3t-PART\"\n", "line 3: column.mask: expected `siv` or `fixed`"),
        (
            "[[column]]\nname = \"a\"\nmax_lenght = 3\n",
            "line 3: column.max_lenght: unknown key `max_lenght`; did you mean `max_length`?",
        ),
        (
            "[load]\nconnections = \"S3cr3t-PART\"\n",
            "line 2: load.connections: expected a whole number, not negative, got a string",
        ),
        ("database_url = S3cr3t-PART\n", "line 1: "),
        ("database_url = \"x\" S3cr3t-PART\n", "line 1: "),
    ] {
        env.configure(toml);
        for command in [&["config", "show"][..], &["transform"]] {
            let refused = env.pgsluice(command).ends_with(USAGE);
            assert!(refused.stderr.contains(said) && !refused.stderr.contains(SECRET), "{toml}: {refused}");
        }
    }
}

#[test]
fn a_variable_with_a_wrong_value_is_named_and_the_value_is_not() {
    let mut env = TestEnv::without_tables(Server::Embedded);
    env.set("PGSLUICE_PIPELINE_DEDUPE", SECRET);
    let refused = env.pgsluice(&["config", "show"]).ends_with(USAGE);
    assert!(refused.stderr.contains("PGSLUICE_PIPELINE_DEDUPE is not valid: pipeline.dedupe: expected `message` or"));
    assert!(!refused.stderr.contains(SECRET), "{refused}");
}

#[test]
fn a_column_that_the_table_lacks_comes_with_the_one_that_was_meant() {
    let env = TestEnv::new(Server::Embedded);
    env.configure("[[column]]\nname = \"user_idd\"\nfrom = \"/user_id\"\nrequired = true\n");
    let refused = env.run().ends_with(USAGE);
    assert!(refused.stderr.contains("there is no column user_idd (did you mean user_id?)"), "{refused}");
}
