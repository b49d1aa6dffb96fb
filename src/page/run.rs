//! The part of the page that is about one run.

use maud::{Markup, html};

use super::axis::{duration, number};
use super::read::{ReadRejects, ReadReport};
use super::{charts, name, time};
use crate::report::grouped;

/// A page of its own.
pub(super) fn whole(report: &ReadReport) -> Markup {
    html! {
        h1 { (name(report)) }
        (body(report, 1))
    }
}

/// How the run ended, in a word and a colour.
pub(super) fn end(report: &ReadReport) -> Markup {
    let (class, text) = match (report.exit_code, report.ended_by.as_deref()) {
        (Some(0), ended_by) => ("", ended_by.unwrap_or("done")),
        (Some(3), ended_by) => ("warn", ended_by.unwrap_or("work left")),
        (Some(_), ended_by) => ("bad", ended_by.unwrap_or("failed")),
        (None, _) => ("open", "not ended, or killed"),
    };
    html! { span class={ "end " (class) } { (text.replace('_', " ")) } }
}

/// Everything about a run. `number` makes its ids unique.
pub(super) fn body(report: &ReadReport, number: usize) -> Markup {
    let id = |part: &str| format!("{part}-{number}");
    html! {
        p.quiet {
            (end(report)) " "
            @if let Some(code) = report.exit_code { "exit code " (code) " · " }
            (time(report.started_at)) " · " (duration(report.seconds))
            @if let Some(host) = &report.host { " · host " (host) }
            @if let Some(queue) = &report.queue { " · " (queue) }
            @if let Some(version) = &report.version { " · pgsluice " (version) }
            @if let Some(run_id) = &report.run_id { " · run " (run_id) }
        }
        @if let Some(error) = &report.error {
            div.error role="note" { strong { "Error: " } (error.message) @if let Some(hint) = &error.hint { br; strong { "What to do: " } (hint) } }
        }
        (tiles(report))
        section { h2 { "Where the time went" } (charts::stages(&id("stages"), report)) }
        section {
            h2 { "Messages a second" }
            @if let Some(chart) = charts::rates(&id("rates"), report) { (chart) } @else { p.quiet { "The run was too short, or has no samples." } }
        }
        @if let Some(chart) = charts::in_flight(&id("in-flight"), report) { section { h2 { "Messages in flight" } (chart) } }
        @if let Some(chart) = charts::timeline(&id("segments"), report) { section { h2 { "Segments over time" } (chart) } }
        section { h2 { "Rejects by reason" } (rejects(report)) }
    }
}

fn tiles(report: &ReadReport) -> Markup {
    let outcomes = [report.loaded, report.duplicates, report.rejected, report.pending];
    let holds = outcomes.into_iter().fold(0, u64::saturating_add) == report.received;
    let rate = format!("{}/s", number(report.rate()));
    html! {
        dl.tiles {
            @for (name, count, remark) in [
                ("received", report.received, &*rate),
                ("loaded", report.loaded, "rows committed"),
                ("duplicates", report.duplicates, "not loaded again"),
                ("rejected", report.rejected, "could not become rows"),
                ("pending", report.pending, "safe in the spool"),
                ("acknowledged", report.acknowledged, "deleted from the queue"),
            ] { div { dt { (name) } dd { (grouped(count)) small { (remark) } } } }
        }
        p.quiet {
            @if holds { "The sum holds: " } @else { strong { "The sum does not hold: " } }
            "received = loaded + duplicates + rejected + pending. "
            (grouped(report.segments)) " segments"
            @if report.retries > 0 { ", " (grouped(report.retries)) " retries" }
            @if report.throttles > 0 { ", " (grouped(report.throttles)) " throttled answers" }
            @if report.ack_failed > 0 { ", " (grouped(report.ack_failed)) " deletes that failed" }
            @if let Some(in_flight) = report.in_flight.as_ref().filter(|in_flight| in_flight.seconds_at_cap > 0.05) {
                ", " (duration(in_flight.seconds_at_cap)) " at the cap in flight"
            }
            "."
        }
    }
}

fn rejects(report: &ReadReport) -> Markup {
    if report.rejects_by_reason.is_empty() {
        return html! {
            p.quiet { @if report.rejected == 0 { "No message was rejected." } @else { "This report does not say why." } }
        };
    }
    let most = report.rejects_by_reason.iter().map(|rejects| rejects.count).max().unwrap_or(1);
    html! {
        table {
            thead { tr { th scope="col" { "messages" } th.t scope="col" { "reason" } th.t scope="col" { "field" } th.t scope="col" { "refused by" } th.t scope="col" { "share" } } }
            tbody {
                @for ReadRejects { stage, field, reason, count } in &report.rejects_by_reason {
                    tr { td { (grouped(*count)) } td.t { (reason) } td.t { (field.as_deref().unwrap_or("–")) } td.t { (stage) } td.t { (share_bar(*count, most)) } }
                }
            }
        }
    }
}

/// What the number beside it says already, for those who see it.
#[allow(clippy::cast_precision_loss, reason = "a bar for people")]
fn share_bar(count: u64, most: u64) -> Markup {
    let width = format!("{:.1}", 100.0 * count as f64 / most.max(1) as f64);
    html! {
        svg viewBox="0 0 100 10" preserveAspectRatio="none" style="min-width:60px;height:12px" aria-hidden="true" focusable="false" {
            g.reject { rect.bar x="0" y="0" width=(width) height="10" {} }
        }
    }
}
