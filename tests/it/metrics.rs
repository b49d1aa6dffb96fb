//! Metrics of a run: what a real Prometheus makes of them, the file for the node exporter, and the answers of the listener.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::logins::generated;
use crate::reject_policy::misfit;
use crate::testenv::{Running, Server, TestEnv, project_path, wait_until};

const RULES: &str = "deploy/prometheus-rules.yml";
const DASHBOARD: &str = "deploy/grafana-dashboard.json";
const MESSAGES: usize = 40;

/// Status line and headers, and the body of an answer; by HTTP/1.0, so that it comes in one piece.
pub(crate) fn get(address: &str, path: &str, headers: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// A run that follows the queue and answers at an address of its own. Its log is `log.txt`.
pub(crate) fn following(env: &TestEnv, flags: &[&str]) -> (Running, String) {
    let follow = ["run", "--follow", "--metrics-listen", "127.0.0.1:0", "--log-file", "log.txt"];
    let run = env.start(&[&follow, flags].concat());
    let log = || fs::read_to_string(env.path("log.txt")).unwrap_or_default();
    let address_in = |log: &str| Some(log.split_once("metrics are at http://")?.1.split_once('/')?.0.to_owned());
    wait_until(|| address_in(&log()).is_some());
    let address = address_in(&log()).unwrap();
    (run, address)
}

fn value_of(metrics: &str, series: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn the_listener_answers_in_the_format_asked_for_and_says_when_the_run_is_ready() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&generated(MESSAGES));
    let (run, address) = following(&env, &[]);
    wait_until(|| get(&address, "/readyz", "").0.contains(" 200 OK"));
    wait_until(|| env.queue.is_empty());
    let loaded = env.database.count("user_logins");

    let (head, classic) = get(&address, "/metrics", "");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    let series = "pgsluice_messages_loaded_total{pipeline=\"user_logins\"}";
    #[allow(clippy::cast_precision_loss, reason = "a few messages")]
    let expected = Some(loaded as f64);
    assert_eq!(value_of(&classic, series), expected, "{classic}");
    assert!(!classic.contains("pgsluice_run_exit_code"), "it has not ended: {classic}");

    let (head, open) = get(&address, "/metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n");
    assert!(head.contains("application/openmetrics-text"), "{head}");
    assert!(open.ends_with("# EOF\n"), "{open}");
    assert_eq!(value_of(&open, series), expected, "{open}");

    assert_eq!(get(&address, "/healthz", "").1, "ok\n");
    assert!(get(&address, "/", "").0.contains(" 404 "));
    run.terminate();
    run.wait().succeeds();
}

/// Clients that connect and say nothing took every place, and the run went on all the same.
#[test]
fn silent_clients_hold_up_no_run() {
    let env = TestEnv::new(Server::Embedded);
    let (run, address) = following(&env, &[]);
    let silent: Vec<TcpStream> = (0..40).filter_map(|_| TcpStream::connect(&address).ok()).collect();
    env.queue.send(&generated(MESSAGES));
    wait_until(|| env.queue.is_empty());
    run.terminate();
    run.wait().succeeds();
    drop(silent);
}

#[test]
fn a_run_that_cannot_show_its_metrics_does_not_begin() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&generated(MESSAGES));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    env.job(&["run", "--metrics-listen", &address]).fails(2, "--metrics-listen", "correct the setting");
    env.job(&["run", "--metrics-file", "missing/pgsluice.prom"]).fails(2, "pgsluice.prom", "check --metrics-file");
    assert_eq!(env.queue.counts().visible, MESSAGES, "nothing was received");
}

/// A batch job is gone before it can be scraped; and the node exporter has no other format.
#[test]
fn the_file_says_how_the_run_ended_also_where_it_failed_early() {
    let mut env = TestEnv::new(Server::Embedded);
    env.queue.send(&[generated(MESSAGES), vec![misfit("bad")]].concat());
    let counts = env.job(&["run", "--metrics-file", "pgsluice.prom"]).succeeds().counts();
    let read = |env: &TestEnv| fs::read_to_string(env.path("pgsluice.prom")).unwrap();
    let metrics = read(&env);
    #[allow(clippy::cast_precision_loss, reason = "a few messages")]
    for (name, count) in [
        ("messages_received_total", counts.received),
        ("messages_rejected_total", counts.rejected),
        ("run_exit_code", 0),
        ("messages_in_flight", 0),
    ] {
        let series = format!("pgsluice_{name}{{pipeline=\"user_logins\"}}");
        assert_eq!(value_of(&metrics, &series), Some(count as f64), "{name}: {metrics}");
    }
    assert!(!env.path("pgsluice.prom.unfinished").exists());
    if let Some(promtool) = tool("promtool") {
        let mut check = Command::new(promtool).args(["check", "metrics"]).stdin(Stdio::piped()).spawn().unwrap();
        check.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
        assert!(check.wait().unwrap().success(), "{metrics}");
    }

    env.set("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nowhere");
    env.job(&["run", "--metrics-file", "pgsluice.prom"]).ends_with(1);
    let series = "pgsluice_run_exit_code{pipeline=\"user_logins\"}";
    assert_eq!(value_of(&read(&env), series), Some(1.0));
}

/// A Prometheus that reads our rules and scrapes one address. Dropped, it is killed.
struct Prometheus {
    process: Child,
    address: String,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

impl Prometheus {
    fn start(program: &Path, directory: &Path, scraped: &str) -> Self {
        let rules = project_path(RULES);
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: [{:?}]\n\
             scrape_configs: [{{job_name: pgsluice, static_configs: [{{targets: [{scraped:?}]}}]}}]\n",
            rules.display().to_string()
        );
        fs::write(directory.join("prometheus.yml"), config).unwrap();
        let log = directory.join("prometheus.log");
        // Freed for it a moment before it starts.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let process = Command::new(program)
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=prometheus-data"])
            .arg(format!("--web.listen-address={address}"))
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let lines = || BufReader::new(File::open(&log).unwrap()).lines().map_while(Result::ok).collect::<Vec<_>>();
        wait_until(|| lines().iter().any(|line| line.contains("Server is ready to receive web requests")));
        Self { process, address }
    }

    fn ask(&self, path: &str) -> Value {
        serde_json::from_str(&get(&self.address, path, "Accept-Encoding: identity\r\n").1).unwrap()
    }

    /// The values of a query, by pipeline and stage.
    fn query(&self, query: &str) -> Vec<Value> {
        let query: Vec<String> = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        self.ask(&format!("/api/v1/query?query={}", query.concat()))["data"]["result"].as_array().unwrap().clone()
    }
}

/// A program that is installed; a test that needs it says what it did not do.
fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|directory| directory.join(name)).find(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped what needs {name}: it is not installed; `make prometheus` installs it");
    }
    found
}

/// The names of our metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|character: char| !character.is_ascii_lowercase() && !"_0123456789".contains(character));
    words.filter(|word| word.starts_with("pgsluice_")).map(str::to_owned).collect()
}

#[test]
fn a_real_prometheus_scrapes_a_run_and_loads_the_rules() {
    let (Some(program), Some(promtool)) = (tool("prometheus"), tool("promtool")) else { return };
    let checked = Command::new(promtool).args(["check", "rules"]).arg(project_path(RULES)).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");

    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&generated(MESSAGES));
    let (run, address) = following(&env, &[]);
    let prometheus = Prometheus::start(&program, &env.path(""), &address);
    wait_until(|| env.queue.is_empty());
    let loaded = env.database.count("user_logins").to_string();
    let is_loaded = |result: &Value| result["metric"]["pipeline"] == "user_logins" && result["value"][1] == *loaded;
    wait_until(|| prometheus.query("pgsluice_messages_loaded_total").iter().any(is_loaded));
    let stages = prometheus.query("sum by (stage) (pgsluice_segment_stage_seconds_count) > 0");
    assert_eq!(stages.len(), 4, "each stage had a segment: {stages:?}");

    let groups = prometheus.ask("/api/v1/rules")["data"]["groups"].clone();
    let rules = groups[0]["rules"].as_array().unwrap();
    wait_until(|| {
        let rules = prometheus.ask("/api/v1/rules")["data"]["groups"][0]["rules"].clone();
        rules.as_array().unwrap().iter().all(|rule| rule["health"] == "ok")
    });
    assert!(rules.len() >= 5, "{groups}");
    run.terminate();
    run.wait().succeeds();
}

/// A metric that is renamed would leave an alert silent and a panel empty.
#[test]
fn rules_and_dashboard_name_metrics_that_there_are() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&generated(MESSAGES));
    env.job(&["run", "--metrics-file", "pgsluice.prom"]).succeeds();
    let shown = metrics_in(&fs::read_to_string(env.path("pgsluice.prom")).unwrap());
    for file in [RULES, DASHBOARD] {
        let text = fs::read_to_string(project_path(file)).unwrap();
        let named = metrics_in(&text);
        assert!(named.len() >= 7, "{file}: {named:?}");
        let missing: Vec<_> = named.difference(&shown).collect();
        assert!(missing.is_empty(), "{file} names {missing:?}");
    }
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(project_path(DASHBOARD)).unwrap()).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 5);
}
