//! What the run did over time: messages a second, and messages in flight.

use maud::{Markup, html};

use super::super::axis::{self, LEFT, RIGHT, Scale, WIDTH, at, number, seconds_below};
use super::super::read::{ReadReport, ReadSample};
use super::framed;

const TOP: f64 = 12.0;
const BOTTOM: f64 = 220.0;
const HEIGHT: f64 = 244.0;
/// Over a shorter time, in seconds or as a share of the run, a rate says more about single segments than about the run.
const SHORTEST: f64 = 0.5;
const SMALLEST_SHARE: f64 = 1.0 / 30.0;
/// Names at the ends of lines stand apart by this.
const NAME_HEIGHT: f64 = 15.0;

/// A line: class, name, dashes, and its points as seconds and values.
struct Series {
    class: &'static str,
    name: &'static str,
    dashes: &'static str,
    points: Vec<(f64, f64)>,
}

/// Rates between samples: each from and to in seconds since the first sample, and messages a second.
fn steps(samples: &[ReadSample]) -> Vec<(f64, [f64; 3])> {
    let Some(first) = samples.first() else { return Vec::new() };
    let counts = |sample: &ReadSample| [sample.received, sample.loaded, sample.acknowledged];
    let span = samples.last().map_or(0.0, |last| seconds_since(first, last));
    let shortest = SHORTEST.max(span * SMALLEST_SHARE);
    let (mut before, mut steps) = (first, Vec::new());
    for sample in &samples[1..] {
        let passed = (sample.at - before.at).total(jiff::Unit::Second).unwrap_or_default();
        if passed < shortest {
            continue;
        }
        let (now, then) = (counts(sample), counts(before));
        #[allow(clippy::cast_precision_loss, reason = "rates for people")]
        let rates = [0, 1, 2].map(|index| now[index].saturating_sub(then[index]) as f64 / passed);
        steps.push((seconds_since(first, sample), rates));
        before = sample;
    }
    steps
}

fn seconds_since(first: &ReadSample, sample: &ReadSample) -> f64 {
    (sample.at - first.at).total(jiff::Unit::Second).unwrap_or_default().max(0.0)
}

/// Messages a second, and their table. `None`: the run was too short to have any.
pub(in crate::page) fn rates(id: &str, report: &ReadReport) -> Option<Markup> {
    let steps = steps(&report.samples);
    if steps.len() < 2 {
        return None;
    }
    let of = |index: usize| steps.iter().map(|(second, rates)| (*second, rates[index])).collect();
    let series = [
        Series { class: "drain", name: "received", dashes: "none", points: of(0) },
        Series { class: "load", name: "loaded", dashes: "7 3", points: of(1) },
        Series { class: "ack", name: "acknowledged", dashes: "2 3", points: of(2) },
    ];
    let most = series.iter().flat_map(|series| &series.points).fold(0.0_f64, |most, point| most.max(point.1));
    let title = "Messages a second";
    let description = format!("Received, loaded and acknowledged over time; the highest rate was {}/s.", number(most));
    let table = html! {
        thead { tr { th scope="col" { "at, s" } @for series in &series { th scope="col" { (series.name) "/s" } } } }
        tbody { @for (second, rates) in &steps { tr { th scope="row" { (number(*second)) } @for rate in rates { td { (number(*rate)) } } } } }
    };
    Some(html! { (chart(id, title, &description, &series, most, None)) (values(title, &table)) })
}

/// Messages in flight and the cap on them, and their table. `None`: no queue was drained.
pub(in crate::page) fn in_flight(id: &str, report: &ReadReport) -> Option<Markup> {
    let first = report.samples.first()?;
    #[allow(clippy::cast_precision_loss, reason = "a count for people")]
    let points: Vec<(f64, f64)> = report
        .samples
        .iter()
        .filter_map(|sample| Some((seconds_since(first, sample), sample.in_flight? as f64)))
        .collect();
    if points.len() < 2 {
        return None;
    }
    let most = points.iter().fold(0.0_f64, |most, point| most.max(point.1));
    #[allow(clippy::cast_precision_loss, reason = "a count for people")]
    let cap = report.in_flight.as_ref().map(|in_flight| in_flight.cap as f64);
    // A cap that is far away would press the line to the ground.
    let shown_cap = cap.filter(|cap| *cap <= 4.0 * most);
    let title = "Messages in flight";
    let of_cap = cap.map_or_else(String::new, |cap| format!(" The cap is {}.", number(cap)));
    let description = format!("Received and not yet deleted; at most {}.{of_cap}", number(most));
    let table = html! {
        thead { tr { th scope="col" { "at, s" } th scope="col" { "in flight" } } }
        tbody { @for (second, messages) in &points { tr { th scope="row" { (number(*second)) } td { (number(*messages)) } } } }
    };
    let series = [Series { class: "drain", name: "in flight", dashes: "none", points }];
    let most = most.max(shown_cap.unwrap_or_default());
    Some(
        html! { p.quiet { (description) } (chart(id, title, &description, &series, most, shown_cap)) (values(title, &table)) },
    )
}

fn values(title: &str, table: &Markup) -> Markup {
    html! { details { summary { (title) ", as a table" } table { (table) } } }
}

fn chart(id: &str, title: &str, description: &str, series: &[Series], most: f64, cap: Option<f64>) -> Markup {
    let last = series.iter().filter_map(|series| series.points.last()).fold(0.0_f64, |last, point| last.max(point.0));
    let (across, upwards) = (Scale::across(last), Scale::upwards(most, BOTTOM, TOP));
    let names = names(series, &upwards);
    let content = html! {
        (axis::rows(&upwards))
        (seconds_below(&across, TOP, BOTTOM))
        @if let Some(cap) = cap {
            line.axis x1=(at(LEFT)) x2=(at(WIDTH - RIGHT)) y1=(at(upwards.place(cap))) y2=(at(upwards.place(cap))) stroke-dasharray="4 4" {}
            text.quiet x=(at(WIDTH - RIGHT + 8.0)) y=(at(upwards.place(cap) + 4.0)) { "cap" }
        }
        @for (series, name_y) in series.iter().zip(names) {
            g class=(series.class) {
                path.series d=(path(&series.points, &across, &upwards)) stroke-dasharray=(series.dashes) { title { (series.name) } }
                line.series x1=(at(WIDTH - RIGHT + 6.0)) x2=(at(WIDTH - RIGHT + 24.0)) y1=(at(name_y)) y2=(at(name_y)) stroke-dasharray=(series.dashes) {}
                text.name x=(at(WIDTH - RIGHT + 28.0)) y=(at(name_y + 4.0)) { (series.name) }
            }
        }
    };
    framed(id, HEIGHT, title, description, &content)
}

fn path(points: &[(f64, f64)], across: &Scale, upwards: &Scale) -> String {
    let place = |(second, value): &(f64, f64)| format!("{} {}", at(across.place(*second)), at(upwards.place(*value)));
    format!("M{}", points.iter().map(place).collect::<Vec<_>>().join("L"))
}

/// Where the name of each line stands: near its end, and below the one above.
fn names(series: &[Series], upwards: &Scale) -> Vec<f64> {
    let ends: Vec<f64> =
        series.iter().map(|series| upwards.place(series.points.last().map_or(0.0, |point| point.1))).collect();
    let mut order: Vec<usize> = (0..ends.len()).collect();
    order.sort_by(|a, b| ends[*a].total_cmp(&ends[*b]));
    #[allow(clippy::cast_precision_loss, reason = "a few names")]
    let lowest = |below: usize| BOTTOM - NAME_HEIGHT * below as f64;
    let (mut places, mut above) = (ends.clone(), f64::NEG_INFINITY);
    for (position, index) in order.iter().enumerate() {
        above = ends[*index].min(lowest(order.len() - position - 1)).max(above + NAME_HEIGHT);
        places[*index] = above;
    }
    places
}
