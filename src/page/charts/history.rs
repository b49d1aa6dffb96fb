//! Runs, or days, beside each other: what became of their messages.

use maud::{Markup, html};

use super::super::axis::{self, LEFT, RIGHT, Scale, WIDTH, at};
use super::{bar, framed, legend};
use crate::report::grouped;

const TOP: f64 = 34.0;
const BOTTOM: f64 = 230.0;
const WIDEST: f64 = 60.0;
/// More labels would run into each other.
const LABELS: usize = 15;
/// What a message may become, by the class of its bar.
const OUTCOMES: [(&str, &str); 4] =
    [("load", "loaded"), ("transform", "duplicates"), ("ack", "rejected"), ("drain", "pending")];

/// One bar.
pub(in crate::page) struct Column {
    /// Below it.
    pub(in crate::page) label: String,
    /// What a person who points at it is told: `run 3`.
    pub(in crate::page) name: String,
    /// As many as [`OUTCOMES`], in their order.
    pub(in crate::page) counts: [u64; 4],
}

/// A bar for each, from the first to the last. `id` is unique in the page.
#[allow(clippy::cast_precision_loss, reason = "counts for people")]
pub(in crate::page) fn history(id: &str, title: &str, description: &str, columns: &[Column]) -> Markup {
    let total = |column: &Column| column.counts.into_iter().fold(0, u64::saturating_add);
    let most = columns.iter().map(total).max().unwrap_or_default() as f64;
    let upwards = Scale::upwards(most, BOTTOM, TOP);
    let step = (WIDTH - LEFT - RIGHT) / columns.len().max(1) as f64;
    let width = (step * 0.7).min(WIDEST);
    let labelled = columns.len().div_ceil(LABELS).max(1);
    let occurs = |outcome: usize| columns.iter().any(|column| column.counts[outcome] > 0);
    let found: Vec<_> =
        OUTCOMES.into_iter().enumerate().filter(|(index, _)| occurs(*index)).map(|(_, of)| of).collect();
    let mut x = LEFT + (step - width) / 2.0;
    let content = html! {
        (legend(id, &found, 4.0))
        (axis::rows(&upwards))
        @for (index, column) in columns.iter().enumerate() {
            @let mut below = 0;
            @for ((class, outcome), count) in OUTCOMES.into_iter().zip(column.counts) {
                @if count > 0 {
                    @let (foot, head) = (upwards.place(below as f64), upwards.place(below as f64 + count as f64));
                    (bar(id, class, [x, head, width, foot - head], &format!("{}: {} {outcome}", column.name, grouped(count))))
                }
                @let () = below = count.saturating_add(below);
            }
            @if index % labelled == 0 {
                text.quiet x=(at(x + width / 2.0)) y=(at(BOTTOM + 16.0)) text-anchor="middle" { (column.label) }
            }
            @let () = x += step;
        }
        line.axis x1=(at(LEFT)) x2=(at(WIDTH - RIGHT)) y1=(at(BOTTOM)) y2=(at(BOTTOM)) {}
    };
    html! {
        p.quiet { (description) }
        (framed(id, BOTTOM + 26.0, title, description, &content))
    }
}
