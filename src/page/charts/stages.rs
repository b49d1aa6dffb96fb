//! Where the time went: each stage's workers, busy and waiting.

use maud::{Markup, html};

use super::super::axis::{LEFT, RIGHT, WIDTH, at, number};
use super::super::read::ReadReport;
use super::{bar, framed};

const ROW: f64 = 34.0;
const TOP: f64 = 10.0;

/// The share of busy time in each stage, and the table of its seconds.
pub(in crate::page) fn stages(id: &str, report: &ReadReport) -> Markup {
    let stages: Vec<_> = report.stages.named().into_iter().filter(|(_, stage)| stage.items > 0).collect();
    let pace = stages.iter().max_by(|a, b| a.1.share_busy().total_cmp(&b.1.share_busy()));
    let description = match pace {
        Some((name, stage)) => format!("{name} was busy most, {:.0} % of its time.", 100.0 * stage.share_busy()),
        None => "No stage had anything to do.".to_owned(),
    };
    let full = WIDTH - RIGHT - LEFT;
    let mut y = TOP;
    let content = html! {
        @for (name, stage) in &stages {
            @let busy = full * stage.share_busy();
            text x=(at(LEFT - 8.0)) y=(at(y + 16.0)) text-anchor="end" { (name) }
            rect.wait x=(at(LEFT)) y=(at(y)) width=(at(full)) height="24" { title { (name) " waiting " (number(stage.seconds_waiting)) " s" } }
            (bar(id, name, [LEFT, y, busy, 24.0], &format!("{name} busy {} s", number(stage.seconds_busy))))
            text x=(at(WIDTH - RIGHT + 8.0)) y=(at(y + 16.0)) { (format!("{:.0} % busy", 100.0 * stage.share_busy())) }
            @let () = y += ROW;
        }
    };
    html! {
        p.quiet { (description) " A stage's workers are busy or wait for the stage before and behind it; the stage that is busy most sets the pace." }
        @if !stages.is_empty() {
            (framed(id, y + 4.0, "Busy share of each stage", &description, &content))
        }
        table {
            thead { tr { th.t scope="col" { "stage" } th scope="col" { "busy, s" } th scope="col" { "waiting, s" } th scope="col" { "busy" } th scope="col" { "messages" } th scope="col" { "MB written" } } }
            tbody {
                @for (name, stage) in report.stages.named() {
                    tr {
                        th.t scope="row" { (name) }
                        td { (number(stage.seconds_busy)) } td { (number(stage.seconds_waiting)) }
                        td { (format!("{:.0} %", 100.0 * stage.share_busy())) }
                        td { (crate::report::grouped(stage.items)) }
                        td { (megabytes(stage.bytes)) }
                    }
                }
            }
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn megabytes(bytes: u64) -> String {
    number(bytes as f64 / 1e6)
}
