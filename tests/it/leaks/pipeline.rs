//! A pipeline with a secret in each place that has one, its table, and the messages for it.

use pgsluice::local::Faults;
use serde_json::{Value, json};

use super::search::{FIXED_IV, KEY, PERSONAL, REFUSED, SECRET};
use crate::logins::login;
use crate::rejects;
use crate::testenv::{Queue, QueueKind, Server, TestEnv};

/// A pipeline whose rejects go to a queue, with a secret in each place that has one.
pub(super) fn env_of_secrets() -> (TestEnv, Queue) {
    let mut env = TestEnv::new(Server::Faulty(Faults::default()));
    let dead_letters = env.queue.beside(QueueKind::Standard);
    env.configure(&format!(
        "[pipeline]\non_reject = \"dlq\"\ndlq_url = \"{}\"\n[queue]\nvisibility_seconds = 3\n\
         [spool]\nsegment_max_messages = 40\n",
        dead_letters.url()
    ));
    env.grant("loader");
    let login = env.log_in_as("loader");
    env.database.execute(&format!("alter role {login} password '{SECRET}-password'"));
    let url = env.database.url();
    let (_, address) = url.rsplit_once('@').unwrap();
    env.set("DATABASE_URL", format!("postgres://{login}:{SECRET}-password@{address}"));
    env.set("AWS_SECRET_ACCESS_KEY", format!("{SECRET}-access-key"));
    env.set("AWS_SESSION_TOKEN", format!("{SECRET}-session"));
    env.set("PGSLUICE_KEY", KEY);
    env.set("PGSLUICE_FIXED_IV", FIXED_IV);
    (env, dead_letters)
}

/// Postgres' own text for the constraint quotes the row, and the trigger raises this error with what the row holds in each
/// of its fields.
pub(super) fn make_the_table_talk(env: &TestEnv, sqlstate: &str) {
    env.database.execute(&format!(
        "alter table user_logins drop constraint if exists known_device;
         alter table user_logins add constraint known_device check (device_type <> 'toaster');
         create or replace function tell() returns trigger language plpgsql as $$ begin
             raise exception using errcode = '{sqlstate}', message = new.user_id, column = new.user_id,
                 constraint = new.user_id, table = new.user_id, hint = new.user_id, detail = new.user_id;
         end $$;
         create or replace trigger tell before insert on user_logins
             for each row when (new.device_type = 'kettle') execute function tell()"
    ));
}

/// A login of this user, whose masked fields are personal.
fn personal(user_id: &str, field: &str, value: Value) -> String {
    let mut body = login(user_id);
    body["ip"] = json!(PERSONAL);
    body["device_id"] = json!(PERSONAL);
    body[field] = value;
    body.to_string()
}

/// Bodies that become rows; their columns that are not masked say nothing.
pub(super) fn good(count: usize) -> Vec<String> {
    (0..count).map(|index| personal(&format!("user {index}"), "locale", json!("RU"))).collect()
}

/// Bodies that become rejects, here and in Postgres.
pub(crate) fn hostile_bodies() -> Vec<String> {
    vec![
        PERSONAL.to_owned(),
        format!("{{\"user_id\": {PERSONAL}}}"),
        format!("[\"{PERSONAL}\"]"),
        json!({ PERSONAL: PERSONAL }).to_string(),
        personal(PERSONAL, "ip", json!({ PERSONAL: PERSONAL })),
        personal(PERSONAL, "app_version", json!(PERSONAL)),
        personal(PERSONAL, "locale", json!(PERSONAL.repeat(9))),
        personal(PERSONAL, "user_id", json!(format!("{PERSONAL}\0"))),
        personal(REFUSED, "device_type", json!("toaster")),
        personal(REFUSED, "device_type", json!("kettle")),
    ]
}

/// Everything at once, many times over.
pub(super) fn send_all(env: &TestEnv) {
    let others = rejects::hostile_bodies().into_iter().map(|(.., body)| body).collect();
    env.queue.send(&[good(60), hostile_bodies(), others].concat());
    env.queue.send_with_attributes(
        &personal(PERSONAL, "locale", json!(PERSONAL.repeat(9))),
        ("trace", "t-1"),
        ("digest", &[0, 255]),
    );
}
