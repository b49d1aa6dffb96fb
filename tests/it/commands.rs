//! The commands around the main job.

use std::fs;
use std::path::Path;

use crate::logins::{generated, login};
use crate::testenv::{Server, TestEnv, project_path};

#[test]
fn init_can_be_repeated_and_changes_nothing() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&generated(20));
    let loaded = env.run().succeeds().counts().loaded;
    env.pgsluice(&["init"]).succeeds();
    assert_eq!(env.database.count("user_logins"), loaded);
    assert_eq!(env.database.count("pgsluice.segment"), 1);
}

#[test]
fn the_table_is_the_documented_one() {
    let env = TestEnv::new(Server::Embedded);
    let columns = env.database.texts(
        "select attname || ' ' || format_type(atttypid, atttypmod) from pg_attribute
         where attrelid = 'public.user_logins'::regclass and attnum > 0 order by attnum",
    );
    let expected = [
        "user_id character varying(128)",
        "device_type character varying(32)",
        "masked_ip character varying(256)",
        "masked_device_id character varying(256)",
        "locale character varying(32)",
        "app_version integer",
        "create_date date",
    ];
    assert_eq!(columns, expected);
}

#[test]
fn the_sql_that_init_prints_is_what_init_does() {
    let mut env = TestEnv::without_tables(Server::Embedded);
    env.unset("DATABASE_URL");
    let printed = env.pgsluice(&["init", "--print"]).succeeds().stdout;
    env.database.execute(&printed);
    env.set("DATABASE_URL", env.database.url());
    env.queue.send(&generated(20));
    env.run().succeeds();
    assert!(env.queue.is_empty());
}

#[test]
fn keygen_makes_a_new_key_that_works() {
    let mut env = TestEnv::new(Server::Embedded);
    let keys = [(); 2].map(|()| env.pgsluice(&["keygen"]).succeeds().stdout.trim_end().to_owned());
    assert_ne!(keys[0], keys[1]);
    assert_eq!(hex::decode(&keys[0]).unwrap().len(), 32);

    env.set("PGSLUICE_KEY", &keys[0]);
    env.queue.send(&[login("a").to_string()]);
    env.run().succeeds();
    let masked = env.database.texts("select masked_ip from user_logins").remove(0);
    assert_eq!(env.pgsluice(&["reveal", &masked]).succeeds().stdout, "199.172.111.135\n");
}

/// Equal values stay equal, so that they can be counted and joined without the key.
#[test]
fn equal_values_have_equal_masks() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&[login("a").to_string(), login("b").to_string()]);
    env.run().succeeds();
    let distinct = "select count(distinct masked_ip) + count(distinct masked_device_id) from user_logins";
    assert_eq!(env.database.number(distinct), 2);
}

#[test]
fn status_says_what_it_cannot_reach() {
    let mut env = TestEnv::new(Server::Embedded);
    env.set("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
    env.set("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nowhere");
    let outcome = env.pgsluice(&["status"]).succeeds();
    assert_eq!(outcome.stdout.matches("not reachable").count(), 2, "{outcome}");
}

#[test]
fn an_import_skips_empty_lines_and_needs_no_last_line_feed() {
    let env = TestEnv::new(Server::Embedded);
    fs::write(env.path("logins.ndjson"), format!("{}\r\n\n{}", login("a"), login("b"))).unwrap();
    env.pgsluice(&["import", "logins.ndjson"]).succeeds();
    let counts = env.job(&["replay"]).succeeds().counts();
    assert_eq!((counts.received, counts.loaded), (2, 2));
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let mut env = TestEnv::new(Server::Embedded);
    env.unset("PGSLUICE_QUEUE_URL");
    env.configure(&format!("queue_url = \"{}\"\nstaging_dir = \"from-file\"\n", env.queue.url()));
    env.run().succeeds();
    assert!(env.path("from-file").is_dir());
    env.set("PGSLUICE_STAGING_DIR", "from-environment");
    env.run().succeeds();
    assert!(env.path("from-environment").is_dir());
    env.job(&["run", "--staging-dir", "from-flag"]).succeeds();
    assert!(env.path("from-flag").is_dir());
}

/// The annotated file says of itself that it holds the defaults.
#[test]
fn the_annotated_configuration_is_the_default_one() {
    let env = TestEnv::new(Server::Embedded);
    let bodies = generated(20);
    env.queue.send(&bodies);
    env.run().succeeds();
    let rows = "select * from user_logins order by user_id";
    let by_default = env.database.rows(rows);

    env.database.execute("truncate user_logins");
    env.configure(include_str!("../../pgsluice.toml"));
    env.job(&["replay", "--again"]).succeeds();
    assert_eq!(env.database.rows(rows), by_default);
}

/// What the README says happens is proved by the tests that it names; a name that ends in `*` is a group or a start.
#[test]
fn the_readme_names_tests_that_exist() {
    let readme = fs::read_to_string(project_path("README.md")).unwrap();
    let sources = sources_below(&project_path("tests/it")) + &sources_below(&project_path("src"));
    let table = readme.split("## What happens when").nth(1).unwrap().split("\n## ").next().unwrap();
    let cells = table.lines().filter(|line| line.starts_with("| ") && line.contains("::"));
    let names: Vec<&str> = cells
        .flat_map(|line| line.rsplit("| ").next().unwrap().split('`'))
        .filter(|name| name.contains("::"))
        .collect();
    assert!(names.len() > 50, "{names:?}");
    for name in names {
        let path = name.trim_end_matches("::*");
        let test = path.rsplit("::").next().unwrap().trim_end_matches('*');
        // A test stands as a function, as a module of them, or as an entry of a table that a macro makes tests of.
        let items = [format!("fn {test}"), format!("mod {test}"), format!("    {test}: ")];
        let exists = items.iter().any(|item| sources.contains(item));
        assert!(exists, "the README names {name}, and there is none");
    }
}

fn sources_below(directory: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text += &sources_below(&path);
        } else {
            text += &fs::read_to_string(path).unwrap();
        }
    }
    text
}
