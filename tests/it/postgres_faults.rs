//! Postgres fails at every step of a load while `run` goes on. Whatever breaks, each message sent is in the end one
//! row with the right values or one reject, and the queue is empty.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::Path;
use std::process::Command;
use std::thread;

use pgsluice::local::{LocalPostgres, LocalPostgresOptions, Shutdown};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use crate::logins::{PLAIN_COLUMNS, expected_rows, login};
use crate::testenv::{Break, Database, Outcome, Point, Proxy, Server, TestEnv, Traffic, postgres};

const MESSAGES: usize = 40;
/// How many connections a test breaks; more with `PGSLUICE_FAULT_ROUNDS`.
const ROUNDS: u64 = 8;
/// How many of them at once: a run mostly waits for the queue.
const PARALLEL: usize = 6;
/// Of a run, by default.
const CONNECTIONS: usize = 2;

/// An environment that remembers what was sent.
struct Books {
    env: TestEnv,
    sent: RefCell<Vec<String>>,
}

impl Books {
    fn open() -> Self {
        Self { env: TestEnv::new(Server::Embedded), sent: RefCell::default() }
    }

    /// Lets `run` reach Postgres through a proxy, with further parameters of its connection string.
    fn connect_through_proxy(&mut self, parameters: &str) -> Proxy {
        let proxy = Proxy::before(postgres().port());
        self.env.set("DATABASE_URL", proxy.url(&self.env.database.url()) + parameters);
        proxy
    }

    /// Goes on in another cluster.
    fn move_to(&mut self, postgres: &LocalPostgres) {
        let url = postgres.url("postgres");
        self.env.database = Database::connect(url.clone());
        self.env.set("DATABASE_URL", url);
        self.env.pgsluice(&["init"]).succeeds();
    }

    /// Sends logins that nobody sent before, and one message of another kind.
    fn send(&self, logins: usize) {
        let mut sent = self.sent.borrow_mut();
        let first = sent.len();
        sent.extend((first..first + logins).map(|number| login(&format!("user {number}")).to_string()));
        sent.push(format!(r#"{{"another kind":{first}}}"#));
        self.env.queue.send(&sent[first..]);
    }

    /// Runs; where that fails, it must say why, and the next run must do the rest.
    fn run_and_balance(&self, fault: &dyn Debug) -> Outcome {
        let outcome = self.env.run();
        if outcome.code != Some(0) {
            assert!(outcome.code == Some(1) && outcome.stderr.contains("error: "), "{fault:?}: {outcome}");
            self.env.run().succeeds();
        }
        self.balance(fault);
        outcome
    }

    /// Each message sent is one row with its values or one reject, and no more is in the queue.
    fn balance(&self, fault: &dyn Debug) {
        let (database, sent) = (&self.env.database, self.sent.borrow());
        let rows = database.rows(&format!("select {PLAIN_COLUMNS} from user_logins"));
        let expected = expected_rows(&sent);
        assert_eq!(rows.len(), expected.len(), "{fault:?}");
        assert_eq!(rows.into_iter().collect::<BTreeSet<_>>(), expected, "{fault:?}");
        assert_eq!(database.count("pgsluice.reject"), (sent.len() - expected.len()) as u64, "{fault:?}");
        assert!(self.env.queue.is_empty(), "{fault:?}: {:?}", self.env.queue.counts());
    }
}

/// Until a load waits for the table, which this session has locked.
fn wait_for_a_waiting_load(database: &Database) {
    database
        .wait_until("select exists (select from pg_locks where relation = 'user_logins'::regclass and not granted)");
}

/// Points spread over a conversation of `length` bytes, other ones each time; printed where a test fails.
fn points(length: u64) -> Vec<u64> {
    let variable = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seed = variable("PGSLUICE_SEED").unwrap_or_else(rand::random);
    let rounds = variable("PGSLUICE_FAULT_ROUNDS").unwrap_or(ROUNDS);
    eprintln!("PGSLUICE_SEED={seed} PGSLUICE_FAULT_ROUNDS={rounds}");
    let mut random = StdRng::seed_from_u64(seed);
    (0..rounds).map(|round| (length * round + random.random_range(0..length)) / rounds).collect()
}

/// What a run without faults sends and gets.
fn traffic_without_faults() -> Traffic {
    let mut books = Books::open();
    let proxy = books.connect_through_proxy("");
    books.send(MESSAGES);
    books.run_and_balance(&"none");
    proxy.traffic()
}

/// Breaks a connection at each point, side by side.
fn break_at(points: &[Point], what: Break, parameters: &str) {
    let met = thread::scope(|scope| {
        let workers: Vec<_> = points
            .chunks(points.len().div_ceil(PARALLEL))
            .map(|points| scope.spawn(|| break_one_by_one(points, what, parameters)))
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum::<usize>()
    });
    assert!(met * 2 > points.len(), "only {met} of {} points were met", points.len());
}

fn break_one_by_one(points: &[Point], what: Break, parameters: &str) -> usize {
    let mut books = Books::open();
    let proxy = books.connect_through_proxy(parameters);
    let broken = |&point: &Point| {
        books.send(MESSAGES);
        proxy.arm(point, what);
        books.run_and_balance(&point);
        !proxy.is_armed()
    };
    points.iter().filter(|point| broken(point)).count()
}

#[test]
fn a_connection_cut_after_any_number_of_bytes_sent_loses_and_repeats_nothing() {
    let points: Vec<_> = points(traffic_without_faults().sent).into_iter().map(Point::Sent).collect();
    break_at(&points, Break::Cut, "");
}

#[test]
fn a_connection_cut_after_any_number_of_bytes_answered_loses_and_repeats_nothing() {
    let points: Vec<_> = points(traffic_without_faults().answered).into_iter().map(Point::Answered).collect();
    break_at(&points, Break::Cut, "");
}

#[test]
fn a_commit_that_is_lost_or_whose_answer_is_lost_counts_once() {
    break_at(&[Point::Commit, Point::CommitAnswer], Break::Cut, "");
}

#[test]
fn a_connection_that_is_held_for_ever_is_given_up_and_its_work_done_over() {
    let Traffic { sent, answered } = traffic_without_faults();
    // In the midst of: the start, the ids or rows, the answers to them, COMMIT.
    let points =
        [Point::Sent(200), Point::Sent(sent / 3), Point::Sent(sent * 3 / 4), Point::Answered(answered * 9 / 10)];
    let commits = [Point::Commit, Point::CommitAnswer];
    break_at(&[&points[..], &commits].concat(), Break::Hold, "?connect_timeout=2&keepalives_idle=1");
}

#[test]
fn a_slow_transaction_is_not_taken_for_a_lost_one() {
    let mut books = Books::open();
    let proxy = books.connect_through_proxy("?keepalives_idle=1");
    books.send(MESSAGES);
    let database = &books.env.database;
    database.execute("begin; lock table user_logins in access exclusive mode");
    let outcome = thread::scope(|scope| {
        let run = scope.spawn(|| books.env.run());
        wait_for_a_waiting_load(database);
        // Each look at the load is a connection; three of them are more than it takes to give one up.
        proxy.wait_for_connections(CONNECTIONS + 3);
        database.execute("commit");
        run.join().unwrap()
    });
    let outcome = outcome.succeeds();
    assert!(!outcome.stderr.contains("trying Postgres again"), "{outcome}");
    books.balance(&"a lock");
}

#[test]
fn a_session_that_an_administrator_ends_is_opened_again() {
    let books = Books::open();
    books.send(MESSAGES);
    let database = &books.env.database;
    thread::scope(|scope| {
        let run = scope.spawn(|| books.env.run());
        for _ in 0..2 {
            database.execute("begin; lock table user_logins in access exclusive mode");
            wait_for_a_waiting_load(database);
            database.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity
                 where datname = current_database() and pid <> pg_backend_pid(); commit",
            );
        }
        run.join().unwrap().succeeds();
    });
    books.balance(&"pg_terminate_backend");
}

#[test]
fn a_server_that_is_restarted_fast_or_immediately_costs_nothing_that_was_committed() {
    let mut postgres = LocalPostgres::start(LocalPostgresOptions { durable: true }).unwrap();
    let mut books = Books::open();
    books.move_to(&postgres);
    for how in [Shutdown::Fast, Shutdown::Immediate] {
        books.send(MESSAGES);
        books.env.run().succeeds();
        books.send(MESSAGES);
        books.env.database.execute("begin; lock table user_logins in access exclusive mode");
        thread::scope(|scope| {
            let run = scope.spawn(|| books.env.run());
            wait_for_a_waiting_load(&books.env.database);
            // This session's lock ends with the server.
            postgres.restart(how).unwrap();
            run.join().unwrap().succeeds();
        });
        books.env.database = Database::connect(postgres.url("postgres"));
        books.balance(&how);
    }
}

/// A trigger raises each of them once, whatever is rolled back: sequences are not.
#[test]
fn errors_of_the_moment_are_tried_again_until_they_pass() {
    let passing = ["40001", "40P01", "53100", "53200", "55P03", "57014", "08006"];
    let books = Books::open();
    let raise = |(index, sqlstate): (usize, &&str)| {
        format!("when {} then raise exception using errcode = '{sqlstate}';", 1 + index * MESSAGES * 2)
    };
    books.env.database.execute(&format!(
        "create sequence calls;
         create function fail() returns trigger language plpgsql as $$ begin
             case nextval('calls') {}
             when 20 then perform pg_terminate_backend(pg_backend_pid());
             else null; end case;
             return new; end $$;
         create trigger fail before insert on user_logins for each row execute function fail()",
        passing.iter().enumerate().map(raise).collect::<String>()
    ));
    books.env.configure(&format!("[load]\nconnections = 1\n[spool]\nsegment_max_messages = {MESSAGES}\n"));
    books.send(MESSAGES * 20);
    let outcome = books.env.run().succeeds();
    for sqlstate in passing {
        assert!(outcome.stderr.contains(&format!("SQLSTATE {sqlstate}")), "{sqlstate}: {outcome}");
    }
    books.balance(&passing);
}

#[test]
fn a_real_deadlock_is_tried_again() {
    let books = Books::open();
    let database = &books.env.database;
    // The load looks for the deadlock, once, this long after it began to wait; the other session never does.
    database.execute(
        "alter database :this set deadlock_timeout = '3s'; set deadlock_timeout = '1h';
         create table locks (name text primary key); insert into locks values ('one'), ('two');
         create function take_two_locks() returns trigger language plpgsql as $$ begin
             perform from locks where name = 'one' for update;
             perform from locks where name = 'two' for update;
             return new; end $$;
         create trigger take_two_locks before insert on user_logins
             for each row when (new.user_id = 'user 0') execute function take_two_locks()"
            .replace(":this", &database.texts("select quote_ident(current_database())")[0])
            .as_str(),
    );
    books.send(MESSAGES);
    database.execute("begin; select from locks where name = 'two' for update");
    let outcome = thread::scope(|scope| {
        let run = scope.spawn(|| books.env.run());
        database.wait_until("select exists (select from pg_locks where not granted)");
        database.execute("select from locks where name = 'one' for update; commit");
        run.join().unwrap().succeeds()
    });
    assert!(outcome.stderr.contains("40P01"), "{outcome}");
    books.balance(&"deadlock");
}

#[test]
fn a_server_without_a_free_connection_is_asked_again() {
    let mut books = Books::open();
    let proxy = books.connect_through_proxy("");
    books.env.configure("[load]\nconnections = 1\n");
    books.send(MESSAGES);
    // A superuser would not be limited.
    let role = format!("busy_{}", uuid::Uuid::now_v7().simple());
    books.env.database.execute(&format!(
        "create role {role} login password '{role}' connection limit 1;
         grant usage on schema pgsluice to {role};
         grant select, insert on all tables in schema pgsluice to {role};
         grant execute on all functions in schema pgsluice to {role};
         grant insert on user_logins to {role}"
    ));
    let direct = books.env.database.url();
    let (_, address) = direct.split_once('@').unwrap();
    let limited = format!("postgres://{role}:{role}@{address}");
    books.env.set("DATABASE_URL", proxy.url(&limited));
    let other = Database::connect(limited);
    thread::scope(|scope| {
        let run = scope.spawn(|| books.env.run());
        proxy.wait_for_error("53300");
        drop(other);
        run.join().unwrap().succeeds();
    });
    books.balance(&"too many connections");
    books.env.database.execute(&format!("drop owned by {role}; drop role {role}"));
}

#[test]
fn a_full_disk_of_the_server_is_waited_for() {
    let postgres = LocalPostgres::start(LocalPostgresOptions::default()).unwrap();
    let mut books = Books::open();
    books.move_to(&postgres);
    let database = &books.env.database;
    let data = database.texts("show data_directory").remove(0);
    let Some(disk) = SmallDisk::mount(Path::new(&data)) else {
        eprintln!("skipped: this user may not mount a file system for the server");
        return;
    };
    database.execute(&format!("create tablespace small location '{}'", disk.path.path().display()));
    database.execute("alter table user_logins set tablespace small");
    let proxy = Proxy::before(postgres.port());
    books.env.set("DATABASE_URL", proxy.url(&postgres.url("postgres")));
    books.send(2000);
    let outcome = thread::scope(|scope| {
        let run = scope.spawn(|| books.env.run());
        proxy.wait_for_error("53100");
        disk.enlarge();
        run.join().unwrap().succeeds()
    });
    assert!(outcome.stderr.contains("53100"), "{outcome}");
    books.balance(&"a full disk");
}

/// A trigger that returns NULL would make messages vanish: neither rows nor rejects.
#[test]
fn rows_that_a_trigger_skips_stop_the_run_and_stay_in_the_spool() {
    let books = Books::open();
    books.send(MESSAGES);
    let database = &books.env.database;
    database.execute(
        "create function skip() returns trigger language plpgsql as 'begin return null; end';
         create trigger skip before insert on user_logins
             for each row when (new.user_id = 'user 7') execute function skip()",
    );
    books.env.run().fails(1, "took 39 of the 40 rows", "trigger");
    assert_eq!(database.count("user_logins") + database.count("pgsluice.message"), 0);
    database.execute("drop trigger skip on user_logins");
    books.env.run().succeeds();
    books.balance(&"a trigger");
}

/// A tmpfs that belongs to the server's user, unmounted when dropped.
struct SmallDisk {
    path: TempDir,
}

impl SmallDisk {
    fn mount(owned_by_the_server: &Path) -> Option<Self> {
        // The server's user may not look into the directories of tests.
        let disk = Self { path: TempDir::with_prefix_in("pgsluice-disk-", "/tmp").unwrap() };
        let mount = disk.run("mount", &["-t", "tmpfs", "-o", "size=128k", "tmpfs"]);
        let reference = format!("--reference={}", owned_by_the_server.display());
        (mount && disk.run("chown", &[&reference])).then_some(disk)
    }

    fn enlarge(&self) {
        assert!(self.run("mount", &["-o", "remount,size=64m"]));
    }

    fn run(&self, program: &str, arguments: &[&str]) -> bool {
        let ended = Command::new(program).args(arguments).arg(self.path.path()).output();
        ended.is_ok_and(|ended| ended.status.success())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server that still runs may hold a file.
        self.run("umount", &["--lazy"]);
    }
}
