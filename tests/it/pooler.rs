//! Postgres behind PgBouncer, which gives each transaction any of its sessions. Where PgBouncer follows prepared
//! statements (from 1.21 on), it is told not to: then it behaves as the releases before.

use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::{env, fs, thread};

use crate::books::assert_balanced;
use crate::logins::generated;
use crate::testenv::{Database, Server, TestEnv, postgres, wait_until};

const MESSAGES: usize = 300;
/// Several, so that neither a session nor a segment is the only one.
const SEGMENT: &str = "[spool]\nsegment_max_messages = 50\n";

/// A PgBouncer before the cluster of the tests; dropped, it is stopped.
struct Pooler {
    /// A shell that stops it when this process ends, however it ends.
    guard: Child,
    port: u16,
}

impl Pooler {
    /// `None`, with a message, where it is not installed.
    fn start(env: &TestEnv, sessions: usize) -> Option<Self> {
        let Some(program) = installed() else {
            eprintln!("skipped: PgBouncer is not installed (Debian and Ubuntu: apt-get install pgbouncer)");
            return None;
        };
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let settings = env.path("pgbouncer.ini");
        fs::write(&settings, settings_of(&program, port, sessions)).unwrap();
        let script = r#""$0" --quiet "$1" & read -r _; kill "$!"; wait "$!""#;
        let guard = Command::new("sh")
            .args(["-c", script])
            .arg(program)
            .arg(settings)
            .stdin(Stdio::piped())
            .stderr(fs::File::create(env.path("pgbouncer.log")).unwrap())
            .spawn()
            .unwrap();
        let pooler = Self { guard, port };
        wait_until(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(pooler)
    }

    /// The connection string of a database, changed to go through here.
    fn url(&self, direct: &str) -> String {
        direct.replace(&format!(":{}/", postgres().port()), &format!(":{}/", self.port))
    }

    /// Its own console.
    fn console(&self) -> Database {
        Database::connect(self.url(&postgres().url("pgbouncer")))
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        _ = self.guard.stdin.take().unwrap().write_all(b"\n");
        _ = self.guard.wait();
    }
}

fn installed() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    places.map(|place| place.join("pgbouncer")).find(|program| program.is_file())
}

fn settings_of(program: &PathBuf, port: u16, sessions: usize) -> String {
    let direct = postgres().url("");
    let (_, password) = direct.split_once("//").unwrap().1.split_once('@').unwrap().0.split_once(':').unwrap();
    let help = Command::new(program).arg("--version").output().unwrap();
    let version = String::from_utf8(help.stdout).unwrap();
    let number = version.split([' ', '\n']).nth(1).unwrap_or_else(|| panic!("{version}"));
    let mut parts = number.split('.').map(|part| part.parse::<u32>().unwrap());
    let follows_statements = (parts.next().unwrap(), parts.next().unwrap()) >= (1, 21);
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout.trim_ascii() == b"0";
    format!(
        "[databases]\n* = host=127.0.0.1 port={} user=postgres password={password}\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = any\nadmin_users = postgres\npool_mode = transaction\ndefault_pool_size = {sessions}\n{}{}",
        postgres().port(),
        if follows_statements { "max_prepared_statements = 0\n" } else { "" },
        // It refuses to be root.
        if is_root { "user = nobody\n" } else { "" },
    )
}

fn env_with_pooler(sessions: usize) -> Option<(TestEnv, Pooler)> {
    let mut env = TestEnv::without_tables(Server::Embedded);
    let pooler = Pooler::start(&env, sessions)?;
    env.set("DATABASE_URL", pooler.url(&env.database.url()) + "?keepalives_idle=1");
    env.configure(SEGMENT);
    env.pgsluice(&["init"]).succeeds();
    Some((env, pooler))
}

/// Once each statement was a named one, and what one transaction had named the next client found in its session: "prepared
/// statement already exists".
#[test]
fn every_command_works_behind_a_pooler_that_gives_each_transaction_another_session() {
    let Some((env, _pooler)) = env_with_pooler(3) else { return };
    let mut sent = generated(MESSAGES);
    sent.push(r#"{"another kind":1}"#.to_owned());
    for half in [&sent[..MESSAGES / 2], &sent[MESSAGES / 2..]] {
        env.queue.send(half);
        // Two processes at once share the sessions.
        thread::scope(|scope| {
            let other = scope.spawn(|| env.pgsluice(&["rejects", "list", "--entries"]));
            env.run().succeeds();
            other.join().unwrap().succeeds();
        });
    }
    assert_balanced(&env, &sent);
    let replayed = env.job(&["replay"]).succeeds().counts();
    assert_eq!((replayed.loaded, replayed.duplicates + replayed.rejected), (0, sent.len() as u64));
    env.database.execute("truncate user_logins");
    env.job(&["replay", "--again"]).succeeds();
    assert_balanced(&env, &sent);
    let listed = env.pgsluice(&["rejects", "list"]).succeeds();
    assert_eq!(listed.stdout.lines().count(), 1, "{listed}");
    env.job(&["rejects", "retry"]);
    let status = env.pgsluice(&["status"]).succeeds();
    assert!(!status.stdout.contains("not reachable"), "{status}");
}

/// Once a load that waited in the line of a pooler was taken for a lost one after two looks, and gave up its place.
#[test]
fn a_load_that_waits_for_a_free_session_of_a_pooler_is_not_given_up() {
    let Some((env, pooler)) = env_with_pooler(1) else { return };
    let sent = generated(MESSAGES);
    env.queue.send(&sent);
    env.database.execute("begin; lock table user_logins in access exclusive mode");
    let outcome = thread::scope(|scope| {
        let run = scope.spawn(|| env.run());
        // One load holds the only session and waits for the table, another waits for the session: for three looks.
        let console = pooler.console();
        wait_until(|| console.records("show pools").iter().any(|pool| pool["maxwait"].parse::<u32>().unwrap() > 3));
        env.database.execute("commit");
        run.join().unwrap().succeeds()
    });
    assert!(!outcome.stderr.contains("trying Postgres again"), "{outcome}");
    assert_balanced(&env, &sent);
}

/// The driver names each COPY, `s0`, `s1` and so on in each process, and other programs that use it leave such names.
#[test]
fn a_statement_that_others_left_in_a_session_costs_a_retry() {
    let Some((env, pooler)) = env_with_pooler(1) else { return };
    let other = Database::connect(pooler.url(&env.database.url()));
    other.execute("prepare s0 as select 1; prepare s1 as select 1");
    let sent = generated(MESSAGES);
    env.queue.send(&sent);
    let outcome = env.run().succeeds();
    assert!(outcome.stderr.contains("SQLSTATE 42P05"), "{outcome}");
    assert_balanced(&env, &sent);
}
