//! `pgsluice report`: an HTML page about one run, or about several.
//!
//! Always true: the page is one file that asks no network for anything; whatever a report says is text in it, never
//! markup; and each chart has its values in a table.

mod axis;
mod charts;
mod read;
mod run;

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::report::grouped;
use axis::{duration, number};

pub use read::ReadReport;

const STYLE: &str = include_str!("page/style.css");
/// Should a mistake let markup through, the browser loads and runs nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// The page about these runs.
#[must_use]
pub fn page(mut reports: Vec<ReadReport>) -> String {
    reports.sort_by_key(|report| report.started_at);
    let title = match &reports[..] {
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
            body { main { @if let [report] = &reports[..] { (run::whole(report)) } @else { (several(&reports)) } } }
        }
    };
    page.into_string()
}

fn several(reports: &[ReadReport]) -> Markup {
    html! {
        h1 { "History of " (reports.len()) " runs" }
        (charts::history(reports))
        (runs_table(reports))
        @for (index, report) in reports.iter().enumerate().rev() {
            details.run id={ "run-" (index + 1) } open[index + 1 == reports.len()] {
                summary { "Run " (index + 1) ": " (name(report)) ", " (time(report.started_at)) }
                (run::body(report, index + 1))
            }
        }
    }
}

fn runs_table(reports: &[ReadReport]) -> Markup {
    let sum = |count: fn(&ReadReport) -> u64| grouped(reports.iter().map(count).fold(0, u64::saturating_add));
    html! {
        div.scroll role="region" aria-label="All runs" tabindex="0" {
            table {
                thead { tr {
                    th.t scope="col" { "run" } th.t scope="col" { "began" } th.t scope="col" { "ended by" }
                    @for head in ["received", "loaded", "duplicates", "rejected", "pending", "took", "a second"] { th scope="col" { (head) } }
                } }
                tbody {
                    @for (index, report) in reports.iter().enumerate() {
                        tr {
                            th.t scope="row" { a href={ "#run-" (index + 1) } { (index + 1) " " (name(report)) } }
                            td.t.when { (time(report.started_at)) } td.t { (run::end(report)) }
                            @for count in [report.received, report.loaded, report.duplicates, report.rejected, report.pending] {
                                td { (grouped(count)) }
                            }
                            td { (duration(report.seconds)) } td { (number(report.rate())) }
                        }
                    }
                }
                tfoot { tr {
                    th.t scope="row" colspan="3" { "all" }
                    td { (sum(|report| report.received)) } td { (sum(|report| report.loaded)) } td { (sum(|report| report.duplicates)) }
                    td { (sum(|report| report.rejected)) } td {} td {} td {}
                } }
            }
        }
    }
}

fn name(report: &ReadReport) -> &str {
    report.pipeline.as_deref().unwrap_or("a run")
}

fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "at an unknown time".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}
