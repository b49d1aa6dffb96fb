//! The server fails: it ends sessions, restarts, is out of connections or disk, refuses for a moment.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::thread;

use pgsluice::local::{LocalPostgres, LocalPostgresOptions, Shutdown};
use tempfile::TempDir;

use super::MESSAGES;
use super::books::{Books, wait_for_a_waiting_load};
use crate::logins::login;
use crate::testenv::{Database, Proxy, wait_until};

#[test]
fn a_session_that_an_administrator_ends_is_opened_again() {
    let books = Books::open();
    books.send(MESSAGES);
    let database = &books.env.database;
    let run = books.env.start(&["run"]);
    for _ in 0..2 {
        database.execute("begin; lock table user_logins in access exclusive mode");
        wait_for_a_waiting_load(database);
        database.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where datname = current_database() and pid <> pg_backend_pid(); commit",
        );
    }
    run.wait().succeeds();
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
        let run = books.env.start(&["run"]);
        wait_for_a_waiting_load(&books.env.database);
        // This session's lock ends with the server.
        postgres.restart(how).unwrap();
        run.wait().succeeds();
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
    // The load looks for the deadlock, once, after it has waited for `deadlock_timeout`; the other session never does.
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
    let run = books.env.start(&["run"]);
    wait_for_a_waiting_load(database);
    database.execute("select from locks where name = 'one' for update; commit");
    let outcome = run.wait().succeeds();
    assert!(outcome.stderr.contains("40P01"), "{outcome}");
    books.balance(&"deadlock");
}

/// Loads with the same business keys in another order waited for each other in the unique index: Postgres ended one,
/// whose next attempt met others, and after a few attempts the run failed.
#[test]
fn loads_that_deadlock_with_each_other_take_turns() {
    const KEYS: usize = 60;
    const CONNECTIONS: u64 = 8;
    let books = Books::open();
    let database = &books.env.database;
    database.execute(
        "alter database :this set deadlock_timeout = '20ms';
         alter table user_logins add constraint once unique (user_id);
         create function take_time() returns trigger language plpgsql as
             $$ begin perform pg_sleep(0.005); return new; end $$;
         create trigger take_time before insert on user_logins for each row execute function take_time()"
            .replace(":this", &database.texts("select quote_ident(current_database())")[0])
            .as_str(),
    );
    let spool = format!("[spool]\nsegment_max_messages = {KEYS}\n");
    books.env.configure(&format!("[load]\nconnections = {CONNECTIONS}\n{spool}"));
    // Each step is prime to the number of keys, so each segment has every key, in an order of its own.
    let steps = [1, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 49, 53, 59];
    let orders = steps.iter().flat_map(|step| (0..KEYS).map(move |index| (index + 1) * step % KEYS));
    let bodies: Vec<String> = orders.map(|key| login(&format!("user {key}")).to_string()).collect();
    books.env.queue.send(&bodies);
    for stage in ["drain", "transform"] {
        books.env.job(&[stage]).succeeds();
    }
    // All of them begin to insert at the same time.
    database.execute("begin; lock table user_logins in share mode");
    let outcome = thread::scope(|scope| {
        let load = scope.spawn(|| books.env.job(&["load"]));
        let waiting = "select count(*) from pg_locks where not granted and relation = 'user_logins'::regclass";
        wait_until(|| database.number(waiting) == CONNECTIONS);
        database.execute("commit");
        load.join().unwrap().succeeds()
    });
    let deadlocks: Vec<&str> = outcome.stderr.lines().filter_map(|line| segment_of_deadlock(line)).collect();
    let segments: BTreeSet<&str> = deadlocks.iter().copied().collect();
    assert!(!deadlocks.is_empty() && segments.len() == deadlocks.len(), "one at most for a segment: {outcome}");
    let counts = outcome.counts();
    assert_eq!((counts.loaded, counts.rejected), (KEYS as u64, (bodies.len() - KEYS) as u64));
    assert_eq!(database.number("select count(distinct user_id) from user_logins"), KEYS as u64);
    assert_eq!(database.count("pgsluice.reject"), counts.rejected);
}

/// The segment that a log line says met a deadlock.
fn segment_of_deadlock(line: &str) -> Option<&str> {
    let (_, from) = line.split_once("segment=").filter(|_| line.contains("40P01"))?;
    from.split(['}', ' ']).next()
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
         grant usage on all sequences in schema pgsluice to {role};
         grant execute on all functions in schema pgsluice to {role};
         grant insert on user_logins to {role}"
    ));
    let direct = books.env.database.url();
    let (_, address) = direct.split_once('@').unwrap();
    let limited = format!("postgres://{role}:{role}@{address}");
    books.env.set("DATABASE_URL", proxy.url(&limited));
    let other = Database::connect(limited);
    let run = books.env.start(&["run"]);
    proxy.wait_for_error("53300");
    drop(other);
    run.wait().succeeds();
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
    let run = books.env.start(&["run"]);
    proxy.wait_for_error("53100");
    disk.enlarge();
    let outcome = run.wait().succeeds();
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
