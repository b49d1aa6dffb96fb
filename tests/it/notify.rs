//! `--notify-url`: one POST of the report at the end, which changes nothing of how the run ends.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::Value;

use crate::logins::generated;
use crate::testenv::{Outcome, Server, TestEnv};

const SECRETS: [&str; 4] = ["robot", "p4ssw0rd", "T0KEN", "hook-path"];

/// A POST that arrived.
pub(crate) struct Posted {
    head: String,
    pub(crate) body: Vec<u8>,
}

/// A server that answers requests with these statuses, one after the other; then it is gone.
pub(crate) fn server(statuses: &'static [&'static str]) -> (String, Receiver<Posted>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, posts) = channel();
    thread::spawn(move || {
        for status in statuses {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                reader.read_line(&mut head).unwrap();
            }
            let length = head.to_ascii_lowercase().split_once("content-length: ").unwrap().1.to_owned();
            let mut body = vec![0; length.lines().next().unwrap().parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
            sender.send(Posted { head, body }).unwrap();
        }
    });
    (format!("http://robot:p4ssw0rd@127.0.0.1:{port}/hook-path?token=T0KEN"), posts)
}

fn run(env: &mut TestEnv, url: &str) -> Outcome {
    env.set("PGSLUICE_NOTIFY_URL", url);
    let outcome = env.job(&["run", "-vv"]);
    for secret in SECRETS {
        assert!(!outcome.stderr.contains(secret), "{secret}: {outcome}");
    }
    outcome
}

#[test]
fn the_report_is_posted_once_it_is_taken_however_often_that_has_to_be_tried() {
    let mut env = TestEnv::new(Server::Embedded);
    env.queue.send(&generated(20));
    let (url, posts) = server(&["503 Busy", "429 Slow Down", "204 Thanks"]);
    let outcome = run(&mut env, &url).succeeds();
    assert!(!outcome.stderr.contains("not delivered"), "{outcome}");
    let posts: Vec<Posted> = posts.iter().collect();
    assert_eq!(posts.len(), 3);
    let report = fs::read(env.path("report.json")).unwrap();
    for Posted { head, body } in posts {
        assert!(head.starts_with("POST /hook-path?token=T0KEN HTTP/1.1\r\n"), "{head}");
        let head = head.to_ascii_lowercase();
        assert!(head.contains("content-type: application/json"), "{head}");
        assert!(head.contains("authorization: basic cm9ib3q6cdrzc3cwcmq="), "{head}");
        assert_eq!(body, report);
    }
}

#[test]
fn a_report_that_nobody_takes_is_a_warning_and_no_failure() {
    let mut env = TestEnv::new(Server::Embedded);
    env.queue.send(&generated(20));
    let (url, posts) = server(&["404 Gone"]);
    let outcome = run(&mut env, &url).succeeds();
    assert_eq!(posts.iter().count(), 1, "it would be refused again");
    assert!(outcome.stderr.contains("not delivered to 127.0.0.1: it answered 404"), "{outcome}");

    // The server is gone.
    let outcome = run(&mut env, &url).succeeds();
    assert!(outcome.stderr.contains("not delivered to 127.0.0.1: it cannot be reached"), "{outcome}");
}

#[test]
fn a_run_that_failed_before_it_began_is_told_of_too() {
    let mut env = TestEnv::new(Server::Embedded);
    env.configure("[queue]\npolers = 3\n");
    let (url, posts) = server(&["200 OK"]);
    run(&mut env, &url).ends_with(2);
    let report: Value = serde_json::from_slice(&posts.iter().next().unwrap().body).unwrap();
    assert_eq!((&report["exit_code"], &report["ended_by"]), (&2.into(), &"error".into()));
}

#[test]
fn a_wrong_url_is_found_before_anything_moves_and_not_shown() {
    let mut env = TestEnv::new(Server::Embedded);
    env.queue.send(&generated(20));
    run(&mut env, "ftp://robot:p4ssw0rd@host/T0KEN").fails(2, "--notify-url is not valid", "correct the setting");
    assert_eq!(env.queue.counts().visible, 20);
}
