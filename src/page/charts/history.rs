//! Several runs beside each other: what became of their messages, and how fast they were.

use maud::{Markup, html};

use super::super::axis::{self, LEFT, RIGHT, Scale, WIDTH, at, number};
use super::super::read::ReadReport;
use super::{bar, framed, legend};
use crate::report::grouped;

const TOP: f64 = 34.0;
const BOTTOM: f64 = 230.0;
const WIDEST: f64 = 60.0;
/// What a message may become, by the class of its bar.
const OUTCOMES: [(&str, &str); 4] =
    [("load", "loaded"), ("transform", "duplicates"), ("ack", "rejected"), ("drain", "pending")];

/// A bar for each run, from the first to the last.
#[allow(clippy::cast_precision_loss, reason = "counts for people")]
pub(in crate::page) fn history(reports: &[ReadReport]) -> Markup {
    let id = "history";
    let most = reports.iter().map(|report| report.received).max().unwrap_or_default() as f64;
    let upwards = Scale::upwards(most, BOTTOM, TOP);
    let step = (WIDTH - LEFT - RIGHT) / reports.len().max(1) as f64;
    let width = (step * 0.7).min(WIDEST);
    let description = format!("{} runs, the oldest first; at most {} messages.", reports.len(), number(most));
    let mut x = LEFT + (step - width) / 2.0;
    let content = html! {
        (legend(id, &OUTCOMES, 4.0))
        (axis::rows(&upwards))
        @for (index, report) in reports.iter().enumerate() {
            @let outcomes = [report.loaded, report.duplicates, report.rejected, report.pending];
            @let mut below = 0;
            @for ((class, name), count) in OUTCOMES.into_iter().zip(outcomes) {
                @if count > 0 {
                    @let (foot, head) = (upwards.place(below as f64), upwards.place(below as f64 + count as f64));
                    (bar(id, class, [x, head, width, foot - head], &format!("run {}: {} {name}", index + 1, grouped(count))))
                }
                @let () = below = count.saturating_add(below);
            }
            text.quiet x=(at(x + width / 2.0)) y=(at(BOTTOM + 16.0)) text-anchor="middle" { (index + 1) }
            @let () = x += step;
        }
        line.axis x1=(at(LEFT)) x2=(at(WIDTH - RIGHT)) y1=(at(BOTTOM)) y2=(at(BOTTOM)) {}
    };
    html! {
        p.quiet { (description) }
        (framed(id, BOTTOM + 26.0, "Messages of each run", &description, &content))
    }
}
