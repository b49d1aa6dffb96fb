//! When each segment was in each stage.

use maud::{Markup, html};

use super::super::axis::{LEFT, Scale, at, number, seconds_below};
use super::super::read::{ReadReport, ReadSegment};
use super::{bar, framed, legend};
use crate::report::grouped;

const TOP: f64 = 30.0;
/// All rows together, unless that made them too low or too high.
const ROWS: f64 = 340.0;
const LOWEST: f64 = 3.0;
const HIGHEST: f64 = 20.0;
const STAGES: [(&str, &str); 4] =
    [("drain", "drain"), ("transform", "transform"), ("load", "load"), ("ack", "acknowledge")];

/// A bar for each segment and stage, and their table. `None`: there was no segment.
pub(in crate::page) fn timeline(id: &str, report: &ReadReport) -> Option<Markup> {
    let segments = &report.segment_times;
    #[allow(clippy::cast_precision_loss, reason = "some hundred segments")]
    let row = (ROWS / segments.len().max(1) as f64).clamp(LOWEST, HIGHEST);
    let last = segments.iter().flat_map(ReadSegment::stages).fold(0.0_f64, |last, (_, [_, to])| last.max(to));
    if last <= 0.0 {
        return None;
    }
    let across = Scale::across(last);
    let description = format!(
        "{} segments, each a row from its first message to its last delete. A gap between bars is waiting.",
        grouped(segments.len() as u64)
    );
    let mut y = TOP;
    let content = html! {
        (legend(id, &STAGES, 4.0))
        @let bottom = TOP + bottom(row, segments.len());
        (seconds_below(&across, TOP, bottom))
        @for (index, segment) in segments.iter().enumerate() {
            @if row >= 12.0 { text.quiet x=(at(LEFT - 8.0)) y=(at(y + row * 0.7)) text-anchor="end" { (index + 1) } }
            @for (stage, [from, to]) in segment.stages() {
                @let says = format!("segment {}, {stage}: {} s to {} s", segment.segment, number(from), number(to));
                (bar(id, stage, [across.place(from), y + row * 0.1, across.place(to) - across.place(from), row * 0.8], &says))
            }
            @let () = y += row;
        }
    };
    let sampled = u64::try_from(segments.len()).unwrap_or_default() < report.segments;
    Some(html! {
        p.quiet {
            (description)
            @if sampled { " They stand for " (grouped(report.segments)) "." }
        }
        (framed(id, TOP + bottom(row, segments.len()) + 22.0, "Segments over time", &description, &content))
        details {
            summary { "Segments over time, as a table" }
            table {
                thead { tr { th scope="col" { "" } th.t scope="col" { "segment" } th scope="col" { "messages" } @for (_, name) in STAGES { th scope="col" { (name) ", s" } } } }
                tbody {
                    @for (index, segment) in segments.iter().enumerate() {
                        tr {
                            td { (index + 1) } th.t scope="row" { (segment.segment) } td { (grouped(segment.messages)) }
                            @for times in [segment.drain, segment.transform, segment.load, segment.ack] {
                                td { @if let Some([from, to]) = times { (number(from)) "–" (number(to)) } }
                            }
                        }
                    }
                }
            }
        }
    })
}

#[allow(clippy::cast_precision_loss, reason = "some hundred segments")]
fn bottom(row: f64, segments: usize) -> f64 {
    row * segments as f64
}
