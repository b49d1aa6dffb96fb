//! What `init --role` prints is enough for the commands of that role, and for no more.

use crate::logins::{generated, logins_of};
use crate::testenv::{Outcome, Server, TestEnv};

const MESSAGES: usize = 60;

fn refused(outcome: Outcome) {
    outcome.fails(1, "42501", "`pgsluice init --role loader --print`");
}

#[test]
fn a_loader_may_do_the_whole_job_and_nothing_else() {
    let mut env = TestEnv::new(Server::Embedded);
    env.grant("loader");
    env.grant("loader");
    let login = env.log_in_as("loader");
    let bodies = generated(MESSAGES);
    let rows = logins_of(&bodies).len() as u64;
    env.queue.send(&bodies);
    env.run().succeeds();
    assert!(env.queue.is_empty());
    assert_eq!(env.database.count("user_logins"), rows);
    assert_eq!(env.database.count("pgsluice.message_default"), 0, "today has a partition of its own");

    std::fs::write(env.path("more.ndjson"), bodies.join("\n")).unwrap();
    env.pgsluice(&["import", "more.ndjson"]).succeeds();
    env.job(&["replay"]).succeeds();
    assert_eq!(env.database.count("user_logins"), 2 * rows);
    env.job(&["rejects", "retry"]).succeeds();
    env.database.execute("truncate user_logins");
    env.job(&["replay", "--again"]).succeeds();
    assert_eq!(env.database.count("user_logins"), 2 * rows);
    for command in [&["status"][..], &["rejects", "list"], &["prune"]] {
        env.pgsluice(command).succeeds();
    }

    for table in ["user_logins", "pgsluice.masking"] {
        for right in ["update", "delete", "truncate"] {
            let may = format!("select has_table_privilege('{login}', '{table}', '{right}')::int");
            assert_eq!(env.database.number(&may), 0, "{right} on {table}");
        }
    }
    let may = format!("select has_schema_privilege('{login}', 'pgsluice', 'create')::int");
    assert_eq!(env.database.number(&may), 0);
}

#[test]
fn a_reader_may_look_and_not_load() {
    let mut env = TestEnv::new(Server::Embedded);
    env.queue.send(&generated(MESSAGES));
    env.run().succeeds();
    env.grant("reader");
    env.log_in_as("reader");
    env.pgsluice(&["status"]).succeeds();
    env.pgsluice(&["rejects", "list"]).succeeds();
    refused(env.run());
}

#[test]
fn a_rekeyer_may_change_masked_columns_alone() {
    let mut env = TestEnv::new(Server::Embedded);
    env.grant("rekeyer");
    let login = env.log_in_as("rekeyer");
    let may = |column: &str, right: &str| {
        env.database
            .number(&format!("select has_column_privilege('{login}', 'user_logins', '{column}', '{right}')::int"))
    };
    assert_eq!((may("masked_ip", "update"), may("masked_device_id", "update"), may("masked_ip", "select")), (1, 1, 1));
    assert_eq!((may("user_id", "update"), may("masked_ip", "insert")), (0, 0));
    refused(env.run());

    env.configure("[pipeline]\ntable = \"public.orders\"\n[[column]]\nname = \"order_id\"\ntype = \"bigint\"");
    env.pgsluice(&["init", "--role", "rekeyer", "--print"]).fails(2, "no column of the mapping is masked", "--help");
}

/// Names that must be quoted, a table that is found by `search_path`, and a sequence that its default asks.
#[test]
fn grants_are_for_the_table_of_the_mapping_whatever_it_is_called() {
    let mut env = TestEnv::without_tables(Server::Embedded);
    env.database.execute(
        r#"create table "Or'der ""s$" (number bigserial, "The name" text not null, secret text default 'x');"#,
    );
    env.configure("[pipeline]\ntable = \"Or'der \\\"s$\"\n[[column]]\nname = \"The name\"\nfrom = \"/user_id\"\n");
    env.pgsluice(&["init"]).succeeds();
    env.grant("loader");
    env.log_in_as("loader");
    let bodies = generated(MESSAGES);
    env.queue.send(&bodies);
    env.run().succeeds();
    let rows = env.database.number(r#"select count(*) from "Or'der ""s$" where number > 0"#);
    assert_eq!(rows, logins_of(&bodies).len() as u64);
}

#[test]
fn a_role_is_printed_and_never_made() {
    let env = TestEnv::without_tables(Server::Embedded);
    env.pgsluice(&["init", "--role", "loader"]).ends_with(2);
    assert_eq!(env.database.number("select count(*) from pg_namespace where nspname = 'pgsluice'"), 0);
}
