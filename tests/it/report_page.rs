//! `pgsluice report`: a page that parses, asks no network for anything, shows hostile text as text, and is drawn by a
//! real browser.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use scraper::{Html, Selector};
use serde_json::{Value, json};

use crate::logins::generated;
use crate::reject_policy::misfit;
use crate::testenv::{Server, TestEnv};

const HOSTILE: &str = "<script>alert('x')</script>\"'><img src=https://example.org/x onerror=alert(1)>&amp;]]>";

fn count(page: &Html, selector: &str) -> usize {
    page.select(&Selector::parse(selector).unwrap()).count()
}

fn text(page: &Html, selector: &str) -> String {
    page.select(&Selector::parse(selector).unwrap()).flat_map(|element| element.text()).collect()
}

/// The page parses without an error, and nothing in it is loaded from anywhere, or run.
fn parsed(page: &str) -> Html {
    let parsed = Html::parse_document(page);
    assert!(parsed.errors.is_empty(), "{:?}", parsed.errors);
    for forbidden in ["script", "link", "img", "iframe", "object", "embed", "base", "form", "foreignObject"] {
        assert_eq!(count(&parsed, forbidden), 0, "{forbidden}");
    }
    for element in parsed.select(&Selector::parse("*").unwrap()) {
        for (name, value) in element.value().attrs() {
            assert!(!name.starts_with("on"), "{name}={value}");
            let is_link = ["href", "src", "xlink:href", "action", "data", "srcset", "poster"].contains(&name);
            assert!(!is_link || value.starts_with('#'), "{name}={value}");
            assert!(!value.contains("url(") || value.starts_with("url(#"), "{name}={value}");
        }
    }
    assert!(!text(&parsed, "style").contains("url(") && !text(&parsed, "style").contains("@import"));
    // Whoever hears the page hears what each chart is, and finds its values in a table.
    let charts = count(&parsed, "svg[role=img]");
    assert_eq!((count(&parsed, "svg[role=img] > title"), count(&parsed, "svg[role=img] > desc")), (charts, charts));
    let mut ids: Vec<_> =
        parsed.select(&Selector::parse("[id]").unwrap()).filter_map(|element| element.attr("id")).collect();
    ids.sort_unstable();
    assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "an id stands twice: {ids:?}");
    for element in parsed.select(&Selector::parse("[aria-labelledby]").unwrap()) {
        let named = element.attr("aria-labelledby").unwrap().split(' ').all(|id| ids.binary_search(&id).is_ok());
        assert!(named, "{:?}", element.value());
    }
    parsed
}

/// Each text in a report becomes hostile, and each list longer than it can be.
fn hostile(value: &mut Value, key: &str) {
    match value {
        Value::String(text) if !["at", "started_at", "finished_at"].contains(&key) => *text += HOSTILE,
        Value::Array(items) => items.iter_mut().for_each(|item| hostile(item, key)),
        Value::Object(fields) => fields.iter_mut().for_each(|(key, value)| hostile(value, key)),
        _ => {}
    }
}

/// A run of some segments with rejects, and its report.
fn with_report() -> (TestEnv, Value) {
    let env = TestEnv::new(Server::Embedded);
    env.configure("[spool]\nsegment_max_messages = 20\n");
    env.queue.send(&[generated(60), vec![misfit("bad")]].concat());
    env.job(&["run"]).succeeds();
    let report = serde_json::from_slice(&fs::read(env.path("report.json")).unwrap()).unwrap();
    (env, report)
}

fn write(env: &TestEnv, name: &str, report: &Value) {
    fs::write(env.path(name), report.to_string()).unwrap();
}

fn page_of(env: &TestEnv, arguments: &[&str]) -> String {
    env.pgsluice(&[&["report"], arguments].concat()).succeeds().stdout
}

#[test]
fn a_page_shows_the_run_and_needs_nothing_but_itself() {
    let (env, report) = with_report();
    let page = parsed(&page_of(&env, &[]));
    assert_eq!(text(&page, "h1"), "user_logins");
    let tiles = text(&page, ".tiles");
    for key in ["received", "loaded", "rejected", "acknowledged"] {
        assert!(tiles.contains(&format!("{key}{}", report[key])), "{key}: {tiles}");
    }
    let body = text(&page, "body");
    for rejects in report["rejects_by_reason"].as_array().unwrap() {
        assert!(body.contains(rejects["reason"].as_str().unwrap()), "{rejects}: {body}");
    }
    for segment in report["segment_times"].as_array().unwrap() {
        assert!(text(&page, "details td, details th").contains(segment["segment"].as_str().unwrap()), "{segment}");
    }
    env.pgsluice(&["report", "report.json", "--output", "page.html"]).succeeds();
    assert_eq!(fs::read_to_string(env.path("page.html")).unwrap(), page_of(&env, &["report.json"]));
}

#[test]
fn what_a_report_says_is_text_in_the_page() {
    let (env, mut report) = with_report();
    report["error"] = json!({"code": "load", "message": "m", "hint": "h"});
    hostile(&mut report, "");
    write(&env, "hostile.json", &report);
    let page = page_of(&env, &["hostile.json"]);
    let text = text(&parsed(&page), "h1");
    assert_eq!(text, format!("user_logins{HOSTILE}"));
}

/// Numbers that a run cannot have, of a file that somebody edited, and reports of a version that wrote fewer keys.
#[test]
fn strange_and_old_reports_make_a_page_too() {
    let (env, report) = with_report();
    let mut strange = report.clone();
    strange["seconds"] = json!(0.0);
    strange["received"] = json!(u64::MAX);
    strange["pending"] = json!(0);
    strange["segment_times"][0]["load"] = json!([1e308, -5.0]);
    strange["samples"][0]["loaded"] = json!(u64::MAX);
    write(&env, "strange.json", &strange);
    parsed(&page_of(&env, &["strange.json"]));

    let mut old = report.clone();
    for key in
        ["run_id", "ended_by", "error", "rejects_by_reason", "samples", "segment_times", "started_at", "in_flight"]
    {
        old.as_object_mut().unwrap().remove(key);
    }
    write(&env, "old.json", &old);
    parsed(&page_of(&env, &["old.json"]));

    fs::write(env.path("no.json"), "{\"received\": \"a\"}").unwrap();
    env.pgsluice(&["report", "no.json"]).fails(2, "cannot read no.json", "--report");
    env.pgsluice(&["report", "missing.json"]).fails(2, "cannot read missing.json", "--report");
}

#[test]
fn several_reports_make_a_history_from_the_oldest_to_the_newest() {
    let (env, report) = with_report();
    for day in 1..=3 {
        let mut of_day = report.clone();
        of_day["started_at"] = json!(format!("2026-01-0{day}T02:00:00Z"));
        write(&env, &format!("{day}.json"), &of_day);
    }
    let page = parsed(&page_of(&env, &["3.json", "1.json", "2.json"]));
    assert_eq!(text(&page, "h1"), "History of 3 runs");
    let days: Vec<String> = page
        .select(&Selector::parse("main > .scroll tbody tr td:nth-child(2)").unwrap())
        .map(|cell| cell.text().collect())
        .collect();
    assert_eq!(days, [1, 2, 3].map(|day| format!("2026-01-0{day} 02:00:00 UTC")));
    assert_eq!(count(&page, "details.run"), 3);
    assert_eq!(count(&page, "details.run[open]"), 1, "the newest is open");
}

/// The ledger knows what hosts loaded whose reports are elsewhere, or gone.
#[test]
fn the_ledger_makes_a_history_of_days_with_a_report_or_without() {
    let (env, report) = with_report();
    env.database.execute("update pgsluice.segment set loaded_at = '2026-01-02 23:59:59+00' where loaded < 10");
    let cells = |page: &str| {
        let page = parsed(page);
        let row = |row: scraper::ElementRef<'_>| row.text().map(str::to_owned).collect::<Vec<_>>();
        let rows: Vec<_> =
            page.select(&Selector::parse("[aria-label=\"The ledger's days\"] tr").unwrap()).map(row).collect();
        (rows, count(&page, "svg[role=img]"))
    };
    let (rows, charts) = cells(&page_of(&env, &["--ledger"]));
    assert_eq!(charts, 1);
    assert_eq!(rows[2][0], "2026-01-02", "{rows:?}");
    let expected = ["received", "loaded", "duplicates", "rejected"].map(|key| report[key].to_string());
    assert_eq!(rows.last().unwrap()[2..], expected, "{rows:?}");
    assert_eq!(rows.len(), 4, "a head, two days, and all of them");

    let (again, charts) = cells(&page_of(&env, &["report.json", "--ledger"]));
    assert_eq!(again, rows);
    assert!(charts > 1, "and the run's own");
    env.pgsluice(&["report", "--ledger", "--database-url", "postgres://127.0.0.1:1/none"]).fails(1, "", "");
}

fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = std::env::split_paths(&path)
        .flat_map(|directory| names.map(|name| directory.join(name)))
        .find(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped: there is no Chromium to draw the page");
    }
    found
}

/// What the browser makes of the page is what was written, and it has a picture of it.
#[test]
fn a_real_browser_draws_the_page() {
    let Some(chromium) = chromium() else { return };
    let (env, _) = with_report();
    env.pgsluice(&["report", "--output", "page.html"]).succeeds();
    let url = format!("file://{}", env.path("page.html").display());
    let browser = |arguments: &[&str]| {
        let mut command = Command::new(&chromium);
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=1000"]);
        command.arg(format!("--user-data-dir={}", env.path("browser").display()));
        command.args(arguments).arg(&url).current_dir(env.path("")).output().unwrap()
    };
    let drawn = browser(&["--dump-dom"]);
    assert!(drawn.status.success(), "{drawn:?}");
    let drawn = Html::parse_document(&String::from_utf8(drawn.stdout).unwrap());
    let written = Html::parse_document(&fs::read_to_string(env.path("page.html")).unwrap());
    for selector in ["svg", "rect", "path", "table", "tr", "details", "section"] {
        assert_eq!(count(&drawn, selector), count(&written, selector), "{selector}");
    }
    assert!(count(&drawn, "svg[role=img]") >= 2);
    let pictured = browser(&["--window-size=1040,1400", "--screenshot=page.png"]);
    assert!(pictured.status.success(), "{pictured:?}");
    // A blank picture of this size has some kilobytes.
    assert!(fs::metadata(env.path("page.png")).unwrap().len() > 20_000);
}
