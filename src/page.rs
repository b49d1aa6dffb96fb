//! `pgsluice report`: an HTML page about one run, or about several, and about what the ledger has.
//!
//! Always true: the page is one file that asks no network for anything; whatever a report says is text in it, never
//! markup; and each chart has its values in a table.

mod axis;
mod charts;
mod ledger;
mod read;
mod run;
mod several;

use jiff::Timestamp;
use maud::{DOCTYPE, PreEscaped, html};

use crate::load::LedgerDay;

pub use read::ReadReport;

const STYLE: &str = include_str!("page/style.css");
/// Should a mistake let markup through, the browser loads and runs nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// The page about these runs, and about the days in the ledger of a pipeline.
#[must_use]
pub fn page(mut reports: Vec<ReadReport>, ledger: Option<(&str, &[LedgerDay])>) -> String {
    reports.sort_by_key(|report| report.started_at);
    let title = match &reports[..] {
        [] => "pgsluice, the ledger".to_owned(),
        [report] => format!("{} · {}", name(report), time(report.started_at)),
        reports => format!("pgsluice, {} runs", reports.len()),
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { main {
                @match &reports[..] {
                    [] => h1 { (title) },
                    [report] => (run::whole(report)),
                    reports => (several::whole(reports)),
                }
                @if let Some((pipeline, days)) = ledger { (ledger::whole(pipeline, days)) }
            } }
        }
    };
    page.into_string()
}

fn name(report: &ReadReport) -> &str {
    report.pipeline.as_deref().unwrap_or("a run")
}

fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "at an unknown time".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}
