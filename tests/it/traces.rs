//! Traces for OpenTelemetry: what a collector gets of a run, and that the run does not depend on it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;
use serde_json::Value;

use crate::logins::generated;
use crate::testenv::{KEY, Outcome, Server, TestEnv};

/// What a collector may ask for, which no line may show.
const TOKEN: &str = "c0ll3ct0r-t0ken";
const MESSAGES: usize = 30;
const STAGES: [&str; 4] = ["seal", "transform", "load", "acknowledge"];
const WARNING: &str = "the trace was not delivered to 127.0.0.1: ";

/// A POST that arrived.
struct Posted {
    head: String,
    body: Vec<u8>,
}

/// A collector that speaks OTLP over HTTP, until the tests end.
struct Collector {
    endpoint: String,
    posts: Receiver<Posted>,
}

impl Collector {
    /// Answers each POST with this status; without one it takes connections and is silent.
    fn start(status: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (sender, posts) = channel();
        thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming().map(Result::unwrap) {
                match status {
                    Some(status) => answer(stream, status, &sender),
                    None => held.push(stream),
                }
            }
        });
        Self { endpoint, posts }
    }

    /// What arrived since the last call. A command has ended: what was answered is here.
    fn posts(&self) -> Vec<Posted> {
        self.posts.try_iter().collect()
    }

    fn trace(&self) -> Trace {
        Trace::of(&self.posts())
    }
}

fn answer(mut stream: TcpStream, status: &str, posts: &Sender<Posted>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
    }
    let head = head.to_ascii_lowercase();
    let length = head.split_once("content-length: ").unwrap().1.lines().next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    // A test that has failed takes nothing any more.
    _ = posts.send(Posted { head, body });
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
}

/// The spans of one command: its root, and those below.
struct Trace {
    root: Span,
    spans: Vec<Span>,
    resource: Vec<KeyValue>,
}

impl Trace {
    /// All spans are of one trace with one root, and all others are right below it.
    fn of(posts: &[Posted]) -> Self {
        let requests = posts.iter().map(|posted| ExportTraceServiceRequest::decode(&*posted.body).unwrap());
        let resources: Vec<_> = requests.flat_map(|request| request.resource_spans).collect();
        let resource = resources.first().expect("spans").resource.clone().unwrap().attributes;
        let spans = resources.into_iter().flat_map(|spans| spans.scope_spans).flat_map(|scope| scope.spans);
        let (mut roots, spans): (Vec<_>, Vec<_>) = spans.partition(|span| span.parent_span_id.is_empty());
        assert_eq!(roots.len(), 1, "{roots:#?}");
        let root = roots.remove(0);
        for span in &spans {
            assert_eq!((&span.trace_id, &span.parent_span_id), (&root.trace_id, &root.span_id), "{span:#?}");
            assert!(root.start_time_unix_nano <= span.start_time_unix_nano, "{span:#?}");
            assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{span:#?}");
        }
        Self { root, spans, resource }
    }

    /// Stage, segment and messages of each span below the root.
    fn stages(&self) -> BTreeSet<(String, String, String)> {
        let told: BTreeSet<_> = self
            .spans
            .iter()
            .map(|span| {
                let of = |key| text(&span.attributes, key).unwrap_or_else(|| panic!("no {key}: {span:#?}"));
                (span.name.clone(), of("segment"), of("messages"))
            })
            .collect();
        assert_eq!(told.len(), self.spans.len(), "a stage has one span a segment: {:#?}", self.spans);
        told
    }

    fn stage_names(&self) -> BTreeSet<&str> {
        self.spans.iter().map(|span| span.name.as_str()).collect()
    }
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let value = attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.value.as_ref()?;
    match value {
        Any::StringValue(text) => Some(text.clone()),
        Any::IntValue(number) => Some(number.to_string()),
        other => panic!("{key} is {other:?}"),
    }
}

/// Sends to the collector with a token.
fn observed_by(endpoint: &str) -> TestEnv {
    let mut env = TestEnv::new(Server::Embedded);
    env.configure("[spool]\nsegment_max_messages = 10\n");
    env.set("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
    env.set("OTEL_EXPORTER_OTLP_HEADERS", format!("authorization=Bearer%20{TOKEN}"));
    env
}

fn report(env: &TestEnv) -> Value {
    serde_json::from_slice(&fs::read(env.path("report.json")).unwrap()).unwrap()
}

/// As the report has it, without quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[test]
fn a_run_is_one_trace_with_a_span_for_each_segment_and_stage() {
    let collector = Collector::start(Some("200 OK"));
    let env = observed_by(&collector.endpoint);
    env.queue.send(&generated(MESSAGES));
    // What is logged makes no difference.
    let outcome = env.job(&["run", "--quiet"]).succeeds();
    assert!(outcome.stderr.is_empty(), "{outcome}");
    let (trace, report) = (collector.trace(), report(&env));

    assert_eq!(trace.root.name, "pgsluice run");
    for key in [
        "run_id",
        "host",
        "pipeline",
        "queue",
        "ended_by",
        "exit_code",
        "received",
        "loaded",
        "duplicates",
        "rejected",
        "pending",
        "acknowledged",
        "segments",
    ] {
        assert_eq!(text(&trace.root.attributes, key), Some(plain(&report[key])), "{key}");
    }
    assert_eq!(report["received"], MESSAGES);
    assert_eq!(trace.root.status.clone().unwrap_or_default().code(), StatusCode::Unset);
    let segments = report["segment_times"].as_array().unwrap();
    assert!(segments.len() >= 3, "{segments:?}");
    let expected = segments
        .iter()
        .flat_map(|times| STAGES.map(|stage| (stage.to_owned(), plain(&times["segment"]), plain(&times["messages"]))));
    assert_eq!(trace.stages(), expected.collect());
}

#[test]
fn a_collector_gets_the_headers_and_names_that_the_variables_give_and_nothing_of_a_message() {
    let collector = Collector::start(Some("200 OK"));
    let mut env = observed_by(&collector.endpoint);
    let bodies = generated(MESSAGES);
    env.queue.send(&bodies);
    env.job(&["run", "-vv"]).succeeds();
    let posts = collector.posts();
    let mut secrets: Vec<String> = [TOKEN, KEY, "test-secret"].map(str::to_owned).into();
    for body in &bodies {
        let Ok(Value::Object(login)) = serde_json::from_str(body) else { continue };
        let fields = ["user_id", "ip", "device_id"].into_iter().filter_map(|field| login.get(field)?.as_str());
        secrets.extend(fields.filter(|value| value.len() > 6).map(str::to_owned));
    }
    assert!(secrets.len() > MESSAGES, "{secrets:?}");
    for Posted { head, body } in &posts {
        assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
        assert!(head.contains("content-type: application/x-protobuf\r\n"), "{head}");
        assert!(head.contains(&format!("authorization: bearer {TOKEN}\r\n")), "{head}");
        let body = String::from_utf8_lossy(body);
        for secret in &secrets {
            assert!(!body.contains(secret), "{secret}: {body}");
        }
    }
    assert_eq!(text(&Trace::of(&posts).resource, "service.name").unwrap(), "pgsluice");

    env.set("OTEL_SERVICE_NAME", "logins");
    env.set("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=staging,service.name=other");
    env.job(&["run", "--idle", "1s"]).succeeds();
    let resource = collector.trace().resource;
    assert_eq!(text(&resource, "service.name").unwrap(), "logins");
    assert_eq!(text(&resource, "deployment.environment.name").unwrap(), "staging");
}

#[test]
fn each_command_that_moves_messages_is_a_trace_of_its_own() {
    let collector = Collector::start(Some("200 OK"));
    let env = observed_by(&collector.endpoint);
    env.queue.send(&generated(MESSAGES));
    let bodies = generated(2 * MESSAGES).join("\n");
    fs::write(env.path("bodies.ndjson"), bodies).unwrap();
    let commands: [(&[&str], &[&str]); 6] = [
        (&["drain"], &["seal"]),
        (&["transform"], &["transform"]),
        (&["load"], &["load"]),
        (&["ack"], &["acknowledge"]),
        (&["import", "bodies.ndjson"], &["seal"]),
        (&["replay"], &["load", "transform"]),
    ];
    for (command, stages) in commands {
        env.job(command).succeeds();
        let trace = collector.trace();
        assert_eq!(trace.root.name, format!("pgsluice {}", command[0]));
        assert_eq!(trace.stage_names(), stages.iter().copied().collect(), "{command:?}");
        assert!(!trace.stages().is_empty(), "{command:?}");
    }
    env.pgsluice(&["status"]).succeeds();
    assert!(collector.posts().is_empty(), "status moves nothing");
}

#[test]
fn a_run_that_fails_is_a_trace_with_an_error() {
    let collector = Collector::start(Some("200 OK"));
    let mut env = observed_by(&collector.endpoint);
    env.set("PGSLUICE_QUEUE_POLLERS", "many");
    env.job(&["run"]).ends_with(2);
    let Trace { root, spans, .. } = collector.trace();
    assert!(spans.is_empty(), "{spans:#?}");
    assert_eq!(text(&root.attributes, "ended_by").unwrap(), "error");
    assert_eq!(root.status.clone().unwrap().code(), StatusCode::Error);
    assert_eq!(root.status.unwrap().message, plain(&report(&env)["error"]["message"]));
}

#[test]
fn a_signal_that_ends_a_run_ends_its_trace_in_order() {
    let collector = Collector::start(Some("200 OK"));
    let env = observed_by(&collector.endpoint);
    env.queue.send(&generated(MESSAGES));
    let run = env.start(&["run", "--follow"]);
    crate::testenv::wait_until(|| env.queue.is_empty());
    run.terminate();
    run.wait().succeeds();
    let trace = collector.trace();
    assert_eq!(text(&trace.root.attributes, "ended_by").unwrap(), "signal");
    assert_eq!(trace.stage_names(), STAGES.into_iter().collect());
}

#[test]
fn what_a_load_waits_for_is_an_event_of_its_span() {
    let collector = Collector::start(Some("200 OK"));
    let mut env = observed_by(&collector.endpoint);
    env.queue.send(&generated(5));
    let holder = env.database.again();
    holder.execute("begin; lock table user_logins");
    // A look each second.
    env.set("DATABASE_URL", env.database.url() + "?keepalives_idle=1");
    let run = env.start(&["run"]);
    run.until_stderr_contains("for a lock on user_logins");
    holder.execute("commit");
    run.wait().succeeds();
    let trace = collector.trace();
    let loads = trace.spans.iter().filter(|span| span.name == "load");
    let events: Vec<&str> = loads.flat_map(|span| &span.events).map(|event| event.name.as_str()).collect();
    assert!(events.iter().any(|event| event.contains("for a lock on user_logins held by pid")), "{events:?}");
}

/// A run whose collector does not take its trace: it loads everything, and says so once.
fn is_not_taken(endpoint: &str, why: &str) {
    let env = observed_by(endpoint);
    env.queue.send(&generated(MESSAGES));
    let outcome = env.job(&["run", "-vv"]).succeeds();
    assert_eq!(outcome.counts().acknowledged, MESSAGES as u64);
    warns_once(&outcome, WARNING);
    assert!(outcome.stderr.contains(why), "{outcome}");
}

fn warns_once(outcome: &Outcome, warning: &str) {
    assert_eq!(outcome.stderr.matches(warning).count(), 1, "{outcome}");
    assert!(!outcome.stderr.contains(TOKEN), "{outcome}");
}

#[test]
fn a_collector_that_refuses_is_one_warning_and_no_failure() {
    let collector = Collector::start(Some("500 Oops"));
    is_not_taken(&collector.endpoint, "it answered 500");
}

#[test]
fn a_collector_that_is_gone_is_one_warning_and_no_failure() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    is_not_taken(&format!("http://{free}"), "it cannot be reached");
}

#[test]
fn a_collector_that_is_silent_is_one_warning_and_holds_up_no_run() {
    let collector = Collector::start(None);
    is_not_taken(&collector.endpoint, "it did not answer within 3 s");
}

#[test]
fn without_a_valid_endpoint_or_with_traces_switched_off_nothing_is_sent() {
    let mut env = observed_by(&format!("http://user:{TOKEN}@[nowhere"));
    env.queue.send(&generated(MESSAGES));
    let outcome = env.run().succeeds();
    warns_once(&outcome, "no trace is sent");

    let collector = Collector::start(Some("200 OK"));
    env.set("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint);
    env.set("OTEL_SDK_DISABLED", "true");
    let outcome = env.job(&["run", "--idle", "1s"]).succeeds();
    assert!(!outcome.stderr.contains("trace"), "{outcome}");
    env.unset("OTEL_SDK_DISABLED");
    env.set("OTEL_EXPORTER_OTLP_ENDPOINT", "");
    env.job(&["run", "--idle", "1s"]).succeeds();
    assert!(collector.posts().is_empty());
}
