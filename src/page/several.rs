//! The page's part about several runs.

use maud::{Markup, html};

use super::axis::{duration, number};
use super::charts::{Column, history};
use super::read::ReadReport;
use super::{name, run, time};
use crate::report::grouped;

/// From the oldest run to the newest in the chart and the table; the newest first below.
pub(super) fn whole(reports: &[ReadReport]) -> Markup {
    let most = reports.iter().map(|report| report.received).max().unwrap_or_default();
    let description = format!("{} runs, the oldest first; at most {} messages.", reports.len(), grouped(most));
    let columns: Vec<Column> = reports.iter().enumerate().map(|(index, report)| column(index + 1, report)).collect();
    html! {
        h1 { "History of " (reports.len()) " runs" }
        (history("history", "Messages of each run", &description, &columns))
        (table(reports))
        @for (index, report) in reports.iter().enumerate().rev() {
            details.run id={ "run-" (index + 1) } open[index + 1 == reports.len()] {
                summary { "Run " (index + 1) ": " (name(report)) ", " (time(report.started_at)) }
                (run::body(report, index + 1))
            }
        }
    }
}

fn column(number: usize, report: &ReadReport) -> Column {
    Column {
        label: number.to_string(),
        name: format!("run {number}"),
        counts: [report.loaded, report.duplicates, report.rejected, report.pending],
    }
}

fn table(reports: &[ReadReport]) -> Markup {
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
