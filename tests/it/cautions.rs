//! What works and is not safe: one warning each, without the secret.

use crate::testenv::{Outcome, Server, TestEnv};

const PASSWORD: &str = "S3cr3t-PART";

fn times(outcome: &Outcome, warning: &str) -> usize {
    assert!(!outcome.stderr.contains(PASSWORD), "{outcome}");
    outcome.stderr.lines().filter(|line| line.contains("WARN") && line.contains(warning)).count()
}

#[test]
fn a_password_on_the_command_line_is_warned_of_once() {
    let warning = "--database-url has a password";
    let env = TestEnv::without_tables(Server::Embedded);
    let url = format!("postgres://u:{PASSWORD}@127.0.0.1:1/d");
    let pairs = format!("host=127.0.0.1 port=1 password={PASSWORD}");
    for arguments in
        [["status", "--database-url", &url], ["--database-url", &url, "status"], ["status", "--database-url", &pairs]]
    {
        assert_eq!(times(&env.pgsluice(&arguments), warning), 1, "{arguments:?}");
    }
    let without = env.pgsluice(&["status", "--database-url", "postgres://u@127.0.0.1:1/d"]);
    assert_eq!(times(&without, warning), 0);
    // The environment is no command line.
    assert_eq!(times(&env.pgsluice(&["status"]), warning), 0);
}

#[test]
fn a_password_that_crosses_a_network_to_an_unverified_server_is_warned_of_once() {
    let warning = "the password of Postgres crosses a network to a server that is not verified";
    let mut env = TestEnv::without_tables(Server::Embedded);
    // A name that leads nowhere, RFC 2606.
    env.set("DATABASE_URL", format!("postgres://u:{PASSWORD}@db.invalid/d"));
    assert_eq!(times(&env.pgsluice(&["run"]), warning), 1);
    env.set("DATABASE_URL", format!("postgres://u:{PASSWORD}@db.invalid/d?sslrootcert=system"));
    assert_eq!(times(&env.pgsluice(&["run"]), warning), 0);
    env.set("DATABASE_URL", "postgres://u@db.invalid/d");
    std::fs::write(env.path(".pgpass"), format!("db.invalid:*:*:*:{PASSWORD}\n")).unwrap();
    let mut command = env.command("sh");
    let script = "chmod 600 .pgpass; exec \"$@\"";
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_pgsluice"), "run"]);
    assert_eq!(times(&env.run_to_end(command), warning), 1);
}

#[test]
fn a_queue_without_encryption_on_another_host_is_warned_of_once() {
    let warning = "the queue's URL or endpoint is http://";
    let mut env = TestEnv::new(Server::Embedded);
    assert_eq!(times(&env.run().succeeds(), warning), 0, "the queue is on this host");
    env.set("AWS_ENDPOINT_URL", "http://sqs.invalid");
    env.set("AWS_MAX_ATTEMPTS", "1");
    assert_eq!(times(&env.pgsluice(&["run"]), warning), 1);
}

#[test]
fn a_password_file_of_a_run_opens_the_database_unless_others_may_read_it() {
    let mut env = TestEnv::new(Server::Embedded);
    let url = env.database.url();
    let (credentials, place) = url.strip_prefix("postgres://").unwrap().split_once('@').unwrap();
    let (user, password) = credentials.split_once(':').unwrap();
    let (address, database) = place.split_once('/').unwrap();
    let (host, port) = address.split_once(':').unwrap();
    std::fs::write(env.path("passwords"), format!("{host}:{port}:{database}:{user}:{password}\n")).unwrap();
    std::fs::write(
        env.path("services"),
        format!("[loads]\nhost={host}\nport={port}\nuser={user}\ndbname={database}\n"),
    )
    .unwrap();
    env.unset("DATABASE_URL");
    env.set("PGSERVICE", "loads");
    env.set("PGSERVICEFILE", "services");
    env.set("PGPASSFILE", "passwords");
    env.queue.send(&crate::logins::generated(20));
    let run_with_mode = |mode: &str| {
        let mut command = env.command("sh");
        let script = format!("chmod {mode} passwords; exec \"$@\"");
        command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_pgsluice"), "run"]);
        env.run_to_end(command)
    };
    let refused = run_with_mode("644").ends_with(1);
    assert_eq!(times(&refused, "password file passwords is not used: group or others have access to it"), 1);
    run_with_mode("600").succeeds();
    assert!(env.queue.is_empty());
}
