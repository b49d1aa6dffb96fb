//! The commands around the main job.

use std::fs;

use crate::logins::{generated, login};
use crate::testenv::{Server, TestEnv, files_below, project_path};

const FAILED: i32 = 1;
const USAGE: i32 = 2;

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

/// `init` once created `user_logins` beside whatever table the mapping names, and said so.
#[test]
fn init_creates_user_logins_for_the_built_in_mapping_alone() {
    let env = TestEnv::without_tables(Server::Embedded);
    env.configure("[pipeline]\nname = \"orders\"\ntable = \"public.orders\"\n[[column]]\nname = \"id\"\n");
    let outcome = env.pgsluice(&["init"]).succeeds();
    assert_eq!(outcome.stderr, "the ledger is in place; init does not create the table public.orders\n");
    assert!(!env.pgsluice(&["init", "--print"]).succeeds().stdout.contains("create table if not exists public"));
    assert_eq!(env.database.count("pg_tables where tablename = 'user_logins'"), 0);
    env.job(&["run"]).fails(FAILED, "table public.orders does not exist", "create the table");

    env.database.execute("create table orders (id text)");
    env.queue.send(&["{\"id\": \"1\"}".to_owned()]);
    env.run().succeeds();
    assert_eq!(env.database.texts("select id from orders"), ["1"]);

    env.configure("[pipeline]\nname = \"logins\"\n");
    let outcome = env.pgsluice(&["init"]).succeeds();
    assert_eq!(outcome.stderr, "the ledger and user_logins are in place\n");
    assert!(
        env.pgsluice(&["init", "--print"]).succeeds().stdout.contains("create table if not exists public.user_logins")
    );
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

/// `status` once created the directories that it was asked about.
#[test]
fn status_changes_nothing() {
    let env = TestEnv::new(Server::Embedded);
    let outcome = env.pgsluice(&["status", "--staging-dir", "elsewhere"]).succeeds();
    assert!(outcome.stdout.starts_with("staging elsewhere\n"), "{outcome}");
    assert!(!env.path("elsewhere").exists());

    env.queue.send(&[login("a").to_string()]);
    env.run().succeeds();
    let listed = || {
        let files = files_below(&env.path("staging")).into_iter();
        files.map(|path| (fs::metadata(&path).unwrap().modified().unwrap(), path)).collect::<Vec<_>>()
    };
    let before = listed();
    let outcome = env.pgsluice(&["status"]).succeeds();
    let mut lines = outcome.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert!(lines.any(|line| line == ["acknowledged", "1", "segments"]), "{outcome}");
    assert_eq!(listed(), before);
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

/// Neither `cargo install` nor the container image has the file that errors point to, so the program holds it.
#[test]
fn the_printed_example_is_the_annotated_file_and_loads_as_no_file_does() {
    let mut env = TestEnv::without_tables(Server::Embedded);
    let printed = env.pgsluice(&["config", "example"]).succeeds().stdout;
    assert_eq!(printed, include_str!("../../pgsluice.toml"));

    // Without the day of sending, which may change between the two runs.
    let rows = "select user_id, device_type, masked_ip, masked_device_id, locale, app_version
                from user_logins order by user_id";
    let bodies = generated(20);
    fs::write(env.path("example.toml"), printed).unwrap();
    let loaded = [vec!["run"], vec!["run", "--config", "example.toml"]].map(|arguments| {
        env.change_database();
        env.queue.send(&bodies);
        env.job(&arguments).succeeds();
        env.database.rows(rows)
    });
    assert!(!loaded[0].is_empty());
    assert_eq!(loaded[0], loaded[1]);
}

#[test]
fn the_example_is_printed_also_where_the_file_that_is_there_is_not_valid() {
    let env = TestEnv::without_tables(Server::Embedded);
    for (toml, error) in [("[queue]\npolers = 3\n", "line 2"), ("[[column]]\nname = \"a\"\nfrom = \"x\"\n", "column a")]
    {
        env.configure(toml);
        env.job(&["run"]).fails(USAGE, error, "`pgsluice config example`");
    }
    assert!(!env.pgsluice(&["config", "example"]).succeeds().stdout.is_empty());
}

/// The image is built from what `.dockerignore` lets through; a text that is built in and is not let through breaks it.
#[test]
fn the_image_build_gets_every_text_that_is_built_in() {
    let dockerignore = fs::read_to_string(project_path(".dockerignore")).unwrap();
    let in_project = |name| fs::canonicalize(project_path(name)).unwrap();
    let let_through: Vec<_> = dockerignore.lines().filter_map(|line| line.strip_prefix('!')).map(in_project).collect();
    let mut built_in = Vec::new();
    for source in files_below(&project_path("src")) {
        let text = fs::read_to_string(&source).unwrap();
        for path in text.split("include_str!(\"").skip(1) {
            let path = source.parent().unwrap().join(path.split('"').next().unwrap());
            built_in.push(fs::canonicalize(path).unwrap());
        }
    }
    assert!(built_in.contains(&in_project("pgsluice.toml")), "{built_in:?}");
    for path in built_in {
        assert!(let_through.iter().any(|allowed| path.starts_with(allowed)), "{} is not let through", path.display());
    }
}

/// A page of each command, made of its help; and a word of advice where there is no such command.
#[test]
fn each_command_has_a_man_page() {
    let env = TestEnv::without_tables(Server::Embedded);
    let page = env.pgsluice(&["man"]).succeeds().stdout;
    assert!(page.contains(".TH pgsluice 1") && page.contains("pgsluice\\-run(1)"), "{page}");
    let page = env.pgsluice(&["man", "rejects", "list"]).succeeds().stdout;
    assert!(page.contains(".TH pgsluice-rejects-list 1") && page.contains("\\-\\-segment"), "{page}");
    let outcome = env.pgsluice(&["man", "rejects", "burn"]);
    assert_eq!(outcome.code, Some(USAGE));
    assert!(outcome.stderr.contains("no command `rejects burn`"), "{outcome}");
}

#[test]
fn bash_takes_the_completions_and_completes_a_command() {
    let env = TestEnv::without_tables(Server::Embedded);
    fs::write(env.path("completions"), env.pgsluice(&["completions", "bash"]).succeeds().stdout).unwrap();
    let mut bash = env.command("bash");
    bash.args([
        "-c",
        "source completions; COMP_WORDS=(pgsluice rej); COMP_CWORD=1; _pgsluice pgsluice rej pgsluice; echo \"${COMPREPLY[*]}\"",
    ]);
    assert_eq!(env.run_to_end(bash).succeeds().stdout, "rejects\n");
}
