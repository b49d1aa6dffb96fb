//! The page's charts, as SVG. Each has a title and a description for those who hear it, names beside its lines and
//! patterns in its bars for those who see no colours, and a table of its values below it.

mod history;
mod lines;
mod stages;
mod timeline;

use maud::{Markup, html};

use super::axis::{WIDTH, at};

pub(super) use history::{Column, history};
pub(super) use lines::{in_flight, rates};
pub(super) use stages::stages;
pub(super) use timeline::timeline;

/// A chart in its frame. `id` is unique in the page.
fn framed(id: &str, height: f64, title: &str, description: &str, content: &Markup) -> Markup {
    html! {
        figure {
            div.scroll role="region" aria-label=(title) tabindex="0" {
                svg viewBox={ "0 0 " (at(WIDTH)) " " (at(height)) } role="img" aria-labelledby={ (id) "-t " (id) "-d" } {
                    title id={ (id) "-t" } { (title) }
                    desc id={ (id) "-d" } { (description) }
                    (patterns(id))
                    (content)
                }
            }
        }
    }
}

/// What tells stages and outcomes apart without their colours.
fn patterns(id: &str) -> Markup {
    html! {
        defs {
            @for (name, lines) in [("transform", "M0 6L6 0"), ("load", "M3 0V6"), ("ack", "M0 3H6M3 0V6"), ("wait", "M0 0L6 6")] {
                pattern id={ (id) "-" (name) } width="6" height="6" patternUnits="userSpaceOnUse" {
                    path.over d=(lines) stroke-width="1.2" {}
                }
            }
        }
    }
}

/// A bar in the colour and the pattern of a stage.
fn bar(id: &str, class: &str, [x, y, width, height]: [f64; 4], says: &str) -> Markup {
    let (x, y, width, height) = (at(x), at(y), at(width.max(1.0)), at(height));
    html! {
        g class=(class) {
            title { (says) }
            rect.bar x=(x) y=(y) width=(width) height=(height) {}
            @if class != "drain" { rect x=(x) y=(y) width=(width) height=(height) fill={ "url(#" (id) "-" (class) ")" } {} }
        }
    }
}

/// Names with a sample of each bar, from the left.
fn legend(id: &str, entries: &[(&str, &str)], y: f64) -> Markup {
    html! {
        @for (index, (class, name)) in entries.iter().enumerate() {
            @let x = super::axis::LEFT + 150.0 * f64::from(u32::try_from(index).unwrap_or_default());
            (bar(id, class, [x, y, 22.0, 12.0], name))
            text x=(at(x + 28.0)) y=(at(y + 10.5)) { (name) }
        }
    }
}
