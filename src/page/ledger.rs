//! The page's part about the ledger: what was loaded on each day, by whichever host, with a report or without.

use maud::{Markup, html};

use super::charts::{Column, history};
use crate::load::LedgerDay;
use crate::report::grouped;

/// Days from the oldest to the newest.
pub(super) fn whole(pipeline: &str, days: &[LedgerDay]) -> Markup {
    if days.is_empty() {
        return html! { h2 { "The ledger of " (pipeline) } p.quiet { "It has no segment." } };
    }
    let most = days.iter().map(|day| day.received).max().unwrap_or_default();
    let description = format!("{} days with loads, by UTC; at most {} messages.", days.len(), grouped(most));
    let columns: Vec<Column> = days.iter().map(column).collect();
    let sum = |count: fn(&LedgerDay) -> u64| grouped(days.iter().map(count).fold(0, u64::saturating_add));
    html! {
        h2 { "The ledger of " (pipeline) }
        (history("ledger", "Messages loaded on each day", &description, &columns))
        div.scroll role="region" aria-label="The ledger's days" tabindex="0" {
            table {
                thead { tr {
                    th.t scope="col" { "day" }
                    @for head in ["segments", "received", "loaded", "duplicates", "rejected"] { th scope="col" { (head) } }
                } }
                tbody {
                    @for day in days.iter().rev() {
                        tr {
                            th.t.when scope="row" { (day.day) }
                            @for count in [day.segments, day.received, day.loaded, day.duplicates, day.rejected] { td { (grouped(count)) } }
                        }
                    }
                }
                tfoot { tr {
                    th.t scope="row" { "all" }
                    @for count in [sum(|day| day.segments), sum(|day| day.received), sum(|day| day.loaded), sum(|day| day.duplicates),
                        sum(|day| day.rejected)] { td { (count) } }
                } }
            }
        }
    }
}

fn column(day: &LedgerDay) -> Column {
    Column {
        label: day.day.get(5..).unwrap_or(&day.day).to_owned(),
        name: day.day.clone(),
        counts: [day.loaded, day.duplicates, day.rejected, 0],
    }
}
