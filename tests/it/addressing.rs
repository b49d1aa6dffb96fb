//! How a queue is named, and settings that come from the environment.

use crate::reject_policy::logins;
use crate::testenv::{Server, TestEnv};

const USAGE: i32 = 2;

on_each_server! { a_queue_is_found_by_its_name_and_by_its_arn }

fn a_queue_is_found_by_its_name_and_by_its_arn(server: Server) {
    let mut env = TestEnv::new(server);
    let url = env.queue.url().to_owned();
    let (before, name) = url.rsplit_once('/').unwrap();
    let (_, account) = before.rsplit_once('/').unwrap();
    env.set("PGSLUICE_QUEUE_URL", name);
    env.queue.send(&logins(5));
    env.job(&["drain"]).succeeds();
    // The segments name the URL, however the queue was named.
    env.set("PGSLUICE_QUEUE_URL", format!("arn:aws:sqs:us-east-1:{account}:{name}"));
    env.unset("AWS_REGION");
    env.queue.send(&logins(5));
    assert_eq!(env.run().succeeds().counts().received, 10);
    assert!(env.pgsluice(&["status", "--check"]).succeeds().stdout.contains(&format!("queue {name}\n")));
    env.set("AWS_REGION", "us-east-1");
    env.set("PGSLUICE_QUEUE_URL", url);
    env.queue.send(&logins(5));
    env.run().succeeds();
    assert!(env.queue.is_empty());
}

#[test]
fn a_name_alone_tells_no_region_and_must_be_one() {
    let mut env = TestEnv::new(Server::Embedded);
    env.unset("AWS_REGION");
    env.job(&["run", "--queue-url", "login-queue"]).fails(USAGE, "no AWS region", "name the queue by its URL or ARN");
    env.set("AWS_REGION", "us-east-1");
    env.job(&["run", "--queue-url", "missing"]).fails(1, "queue missing does not exist", "--queue-url");
    env.job(&["run", "--queue-url", "login queue"]).fails(USAGE, "expected a URL such as", "--help");
}

#[test]
fn every_setting_of_a_section_can_come_from_the_environment() {
    let mut env = TestEnv::new(Server::Embedded);
    env.configure("[spool]\nsegment_max_messages = 1000\narchive_days = 30\n");
    env.set("PGSLUICE_SPOOL_SEGMENT_MAX_MESSAGES", "10");
    env.set("PGSLUICE_PIPELINE_NAME", "17");
    env.queue.send(&logins(20));
    env.run().succeeds();
    assert!(env.staged_files("archive").len() >= 2);
    assert_eq!(env.database.texts("select name from pgsluice.pipeline order by id desc limit 1"), ["17"]);

    env.set("PGSLUICE_QUEUE_POLLERS", "0");
    env.job(&["run"]).fails(USAGE, "queue.pollers is not valid: expected 1 to 256, got 0", "--help");
    env.set("PGSLUICE_QUEUE_POLLERS", "many");
    env.job(&["run"]).fails(USAGE, "PGSLUICE_QUEUE_POLLERS is not valid", "pgsluice config example");
    env.unset("PGSLUICE_QUEUE_POLLERS");
    env.set("PGSLUICE_QUEUE_POLERS", "3");
    env.job(&["run"]).fails(USAGE, "PGSLUICE_QUEUE_POLERS is not valid", "pgsluice config example");
}
