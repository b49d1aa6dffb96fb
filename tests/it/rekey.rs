//! `rekey`: every value ends under the first key, whatever kills it, and nothing that cannot be revealed is touched.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::logins::{generated, login};
use crate::testenv::{FIXED_IV, KEY, Outcome, Server, TestEnv, wait_until};

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const IP: &str = "199.172.111.135";
/// Texts of no key: plaintext, and one of a key that nobody has.
const PLAINTEXT: &str = "10.9.8.7";

/// A new key masks from now on. Its id.
fn rotate(env: &TestEnv) -> String {
    env.pgsluice(&["keygen", "--add"]).succeeds();
    let new = env.key_ids("siv").pop().unwrap();
    env.pgsluice(&["keygen", "--promote", &new]).succeeds();
    new
}

/// The keyring with its first key alone.
fn forget_older_keys(env: &TestEnv) {
    let ring = fs::read_to_string(env.path("keys.toml")).unwrap();
    let first = ring.split("[[key]]").nth(1).unwrap();
    fs::write(env.path("keys.toml"), format!("[[key]]{first}")).unwrap();
}

fn load(env: &TestEnv, bodies: &[String]) {
    fs::write(env.path("bodies.ndjson"), bodies.join("\n")).unwrap();
    env.pgsluice(&["import", "bodies.ndjson"]).succeeds();
    env.job(&["replay"]).succeeds();
}

/// Each row's user with its revealed values, sorted.
fn revealed(env: &TestEnv, table: &str) -> Vec<String> {
    let rows = env.database.rows(&format!("select user_id, masked_ip, masked_device_id from {table}"));
    let mut csv = "user_id,masked_ip,masked_device_id\n".to_owned();
    for row in rows {
        csv += &row.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().join(",");
        csv.push('\n');
    }
    let reveal = ["reveal", "--csv", "--columns", "masked_ip,masked_device_id"];
    let mut lines: Vec<String> =
        env.pgsluice_with_input(&reveal, &csv).succeeds().stdout.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

/// Values of another key than this one.
fn stale(env: &TestEnv, id: &str) -> u64 {
    env.database.number(&format!(
        "select count(*) from user_logins where masked_ip not like '{id}:%' or masked_device_id not like '{id}:%'"
    ))
}

/// With the keys of the ring's first place alone, the values are these, and equal ones are equal.
fn assert_rekeyed(env: &TestEnv, id: &str, values: &[String]) {
    assert_eq!(stale(env, id), 0);
    forget_older_keys(env);
    assert_eq!(revealed(env, "user_logins"), values);
    let plain: std::collections::BTreeSet<_> =
        values.iter().skip(1).map(|line| line.split(',').nth(1).unwrap()).collect();
    let masks = env.database.number("select count(distinct masked_ip) from user_logins where masked_ip <> ''");
    let empty = usize::from(plain.contains(""));
    assert_eq!(masks, (plain.len() - empty) as u64);
}

fn says(outcome: &Outcome, text: &str) {
    assert!(outcome.stderr.contains(text), "no {text:?}: {outcome}");
}

#[test]
fn a_rekey_that_is_killed_again_and_again_ends_with_every_value_under_the_first_key() {
    const ROWS: usize = 50_000;
    let env = TestEnv::with_keyring();
    load(&env, &generated(ROWS));
    let before = revealed(&env, "user_logins");
    let new = rotate(&env);
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    eprintln!("seed {seed}");
    let (mut random, mut kills, mut last) = (seed, 0, u64::MAX);
    loop {
        let rekey = env.start_without_report(&["rekey"]);
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // After it has written something, so that each attempt gets further.
        if kills < 4 {
            let observer = env.database.again();
            wait_until(|| {
                let id = &new;
                let left =
                    observer.number(&format!("select count(*) from user_logins where masked_ip not like '{id}:%'"));
                let advanced = left < last;
                if advanced {
                    last = left;
                }
                advanced || left == 0
            });
            rekey.ends_within(Duration::from_millis(u64::from(random >> 22)));
            if rekey.kill().was_killed() {
                kills += 1;
            }
            assert_eq!(revealed(&env, "user_logins"), before, "every value reveals in the middle");
            last = stale(&env, &new);
            if last == 0 {
                break;
            }
        } else {
            rekey.ended().succeeds();
            break;
        }
    }
    assert!(kills > 0, "it was never killed");
    let outcome = env.pgsluice(&["rekey"]).succeeds();
    says(&outcome, &format!("is masked with key {new}"));
    assert_rekeyed(&env, &new, &before);
    let known = env.database.texts("select distinct key_id from pgsluice.masking order by 1");
    assert!(known.len() == 2 && known.contains(&new), "{known:?}");
}

/// As the role that `init --role rekeyer` makes, beside a run of a loader.
#[test]
fn a_rekeyer_needs_no_other_rights_and_works_beside_a_load() {
    let mut env = TestEnv::with_keyring();
    let bodies = generated(6_000);
    load(&env, &bodies[..3_000]);
    let new = rotate(&env);
    env.queue.send(&bodies[3_000..]);
    let run = env.start(&["run"]);
    env.grant("rekeyer");
    env.log_in_as("rekeyer");
    let outcome = env.pgsluice(&["rekey"]).succeeds();
    says(&outcome, "may double, until VACUUM");
    says(&outcome, "a value may have two texts");
    run.wait().succeeds();
    env.pgsluice(&["rekey"]).succeeds();
    let values = revealed(&env, "user_logins");
    assert_eq!(values.len() as u64, env.database.count("user_logins") + 1);
    assert_rekeyed(&env, &new, &values);
}

#[test]
fn partitions_are_rekeyed_through_their_table() {
    let mut env = TestEnv::with_keyring();
    env.database.execute(
        "create table whole (like user_logins) partition by list (device_type);
         create table android partition of whole for values in ('android');
         create table others partition of whole default partition by hash (user_id);
         create table others_0 partition of others for values with (modulus 2, remainder 0);
         create table others_1 partition of others for values with (modulus 2, remainder 1);
         drop table user_logins; alter table whole rename to user_logins",
    );
    load(&env, &generated(5_000));
    let before = revealed(&env, "user_logins");
    let new = rotate(&env);
    env.grant("rekeyer");
    env.log_in_as("rekeyer");
    env.pgsluice(&["rekey", "--column", "masked_ip"]).succeeds();
    assert_eq!(
        env.database.number(&format!("select count(*) from user_logins where masked_ip like '{new}:%'")),
        env.database.number("select count(masked_ip) from user_logins")
    );
    assert_eq!(
        env.database.number(&format!("select count(*) from user_logins where masked_device_id like '{new}:%'")),
        0
    );
    env.pgsluice(&["rekey"]).succeeds();
    assert_rekeyed(&env, &new, &before);
}

#[test]
fn a_column_goes_from_fixed_to_siv() {
    let mut env = TestEnv::new(Server::Embedded);
    let mapping = |mask: &str| {
        format!(
            "[pipeline]\nname = \"moved\"\ntable = \"moved\"\n[[column]]\nname = \"user_id\"\n\
             [[column]]\nname = \"masked_ip\"\nfrom = \"/ip\"\nmask = \"{mask}\"\n\
             [[column]]\nname = \"masked_device_id\"\nfrom = \"/device_id\"\nmask = \"{mask}\"\n"
        )
    };
    env.database.execute("create table moved (user_id text, masked_ip varchar(64), masked_device_id varchar(104))");
    env.configure(&mapping("fixed"));
    env.pgsluice(&["init"]).succeeds();
    env.set("PGSLUICE_FIXED_IV", FIXED_IV);
    let long = |user: u32| {
        let mut login = login(&format!("u{user}"));
        login["device_id"] = "sixteen bytes and more".into();
        login.to_string()
    };
    load(&env, &(0..3_000).map(long).collect::<Vec<_>>());
    let before = revealed(&env, "moved");
    env.pgsluice(&["rekey"]).fails(USAGE, "with one key", "key of its own");

    env.unset("PGSLUICE_FIXED_IV");
    env.make_keyring();
    env.set("PGSLUICE_KEY", KEY);
    env.set("PGSLUICE_FIXED_IV", FIXED_IV);
    env.pgsluice(&["keygen", "--add", "--algorithm", "fixed"]).succeeds();
    env.unset("PGSLUICE_KEY");
    env.unset("PGSLUICE_FIXED_IV");
    env.pgsluice(&["rekey", "--column", "masked_ip"]).fails(USAGE, "let the mapping say mask = \"siv\"", "");
    env.configure(&mapping("siv"));
    env.pgsluice(&["rekey"]).fails(USAGE, "masked_ip holds 64 characters, and a masked value has 73 or more", "");
    env.database.execute("alter table moved alter masked_ip type varchar(73)");
    let too_long = "masked_device_id holds 104 characters, and a value of it will have 105";
    env.pgsluice(&["rekey"]).fails(USAGE, too_long, "");
    env.database.execute("alter table moved alter masked_device_id type varchar(105)");
    env.pgsluice(&["rekey"]).succeeds();
    forget_older_keys(&env);
    assert_eq!(revealed(&env, "moved"), before);
    assert_eq!(env.database.number("select count(distinct masked_ip) from moved"), 1);
    env.queue.send(&[login("later").to_string()]);
    env.run().succeeds();
    assert_eq!(env.database.number("select count(distinct masked_ip) from moved"), 1);
}

#[test]
fn what_no_key_reveals_stays_as_it_is_and_is_told_without_being_quoted() {
    let env = TestEnv::with_keyring();
    load(&env, &(0..50).map(|user| login(&format!("u{user}")).to_string()).collect::<Vec<_>>());
    let foreign = format!("00000000:{}", "ab".repeat(32));
    env.database.execute(&format!("update user_logins set masked_ip = '{PLAINTEXT}' where user_id = 'u7'"));
    env.database.execute(&format!("update user_logins set masked_ip = '{foreign}' where user_id in ('u8', 'u9')"));
    let new = rotate(&env);
    let outcome = env.pgsluice(&["rekey"]).fails(
        FAILED,
        "some values of table public.user_logins stay as they were",
        "keys that they were",
    );
    let (_, place) = outcome.stderr.split_once("; column masked_ip: 3, such as ").unwrap();
    let (ctid, _) = place.split_once(" of user_logins: ").unwrap();
    let user = env.database.texts(&format!("select user_id from user_logins where ctid = '{ctid}'")).remove(0);
    assert!(["u7", "u8", "u9"].contains(&user.as_str()), "{user}");
    assert!(!outcome.stderr.contains(PLAINTEXT) && !outcome.stderr.contains("abab"), "{outcome}");
    let texts =
        env.database.texts("select masked_ip from user_logins where user_id in ('u7', 'u8', 'u9') order by user_id");
    assert_eq!(texts, [PLAINTEXT.to_owned(), foreign.clone(), foreign]);
    let rekeyed = format!("select count(*) from user_logins where masked_ip like '{new}:%'");
    assert_eq!(env.database.number(&rekeyed), 47);
    assert_eq!(env.database.number(&rekeyed.replace("masked_ip", "masked_device_id")), 50, "of the same rows too");
}

#[test]
fn a_signal_ends_a_rekey_between_two_transactions_and_the_next_one_goes_on() {
    let env = TestEnv::with_keyring();
    load(&env, &generated(500));
    let before = revealed(&env, "user_logins");
    let new = rotate(&env);
    let other = env.database.again();
    other.execute("begin; select from user_logins for update");
    let rekey = env.start_without_report(&["rekey"]);
    wait_until(|| env.database.sessions_waiting_for_a_lock() == 1);
    rekey.terminate();
    says(&rekey.ended().ends_with(3), "stopped: every value reveals");
    other.execute("commit");
    env.pgsluice(&["rekey"]).succeeds();
    assert_rekeyed(&env, &new, &before);
}

/// In the middle of a rotation a loader may bring the same value under the new key.
#[test]
fn a_unique_index_keeps_a_row_whose_value_came_again_under_the_new_key() {
    let env = TestEnv::with_keyring();
    env.database.execute("create unique index one_login on user_logins (user_id, masked_ip)");
    load(&env, &["a", "b", "c"].map(|user| login(user).to_string()));
    let new = rotate(&env);
    load(&env, &[login("b").to_string()]);
    let outcome = env.pgsluice(&["rekey"]).fails(FAILED, "; rows: 1, such as ", "by hand");
    says(&outcome, "one_login takes these two texts for two values");
    says(&outcome, "23505");
    assert_eq!(stale(&env, &new), 1);
    assert!(!outcome.stderr.contains(IP), "{outcome}");
    env.database.execute(&format!("delete from user_logins where masked_ip not like '{new}:%'"));
    env.pgsluice(&["rekey"]).succeeds();
}

#[test]
fn what_a_trigger_skips_ends_the_rekey_and_is_told() {
    let env = TestEnv::with_keyring();
    load(&env, &["a", "b"].map(|user| login(user).to_string()));
    rotate(&env);
    env.database.execute(
        "create function keep() returns trigger language plpgsql as
         $$ begin if old.user_id = 'a' then return null; end if; return new; end $$;
         create trigger keep before update on user_logins for each row execute function keep()",
    );
    let outcome = env.pgsluice(&["rekey"]).fails(FAILED, "a trigger skipped it", "run again");
    says(&outcome, "rows rekeyed: 1\n");
}

#[test]
fn a_key_that_the_table_does_not_know_is_refused_before_anything_is_written() {
    let env = TestEnv::with_keyring();
    load(&env, &[login("a").to_string()]);
    let old = env.key_ids("siv").remove(0);
    rotate(&env);
    forget_older_keys(&env);
    env.pgsluice(&["rekey"]).fails(USAGE, "has been written with key", "keyring");
    assert_eq!(stale(&env, &old), 0);
    env.pgsluice(&["rekey", "--column", "user_id"]).fails(USAGE, "does not mask a column of this name", "");
}

/// It was called a failure, although a run records it as a rotation.
#[test]
fn check_knows_a_rotation() {
    let env = TestEnv::with_keyring();
    load(&env, &[login("a").to_string()]);
    let new = rotate(&env);
    let outcome = env.pgsluice(&["check"]);
    let lines: Vec<_> = outcome.stdout.lines().filter(|line| line.contains(&new)).collect();
    assert!(
        lines.len() == 2 && lines.iter().all(|line| line.starts_with("ok") && line.contains("a rotation")),
        "{outcome}"
    );
}
