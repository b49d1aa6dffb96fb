//! Where a value stands in a chart: scales, round ticks, and numbers as people write them.

use maud::{Markup, html};

use crate::report::grouped;

/// All charts have this width, in the units of their `viewBox`.
pub(super) const WIDTH: f64 = 900.0;
/// Room for the labels on the left and for names on the right.
pub(super) const LEFT: f64 = 70.0;
pub(super) const RIGHT: f64 = 130.0;
const TICKS: f64 = 5.0;

/// From values to places.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    /// The highest value.
    pub(super) most: f64,
    /// Where 0 stands, and where `most` does.
    pub(super) from: f64,
    pub(super) to: f64,
}

impl Scale {
    /// The horizontal scale of a chart up to `most`.
    pub(super) fn across(most: f64) -> Self {
        Self { most: positive(most), from: LEFT, to: WIDTH - RIGHT }
    }

    /// A vertical scale up to a round number that is not below `most`.
    pub(super) fn upwards(most: f64, bottom: f64, top: f64) -> Self {
        let step = step(positive(most));
        Self { most: (positive(most) / step).ceil() * step, from: bottom, to: top }
    }

    pub(super) fn place(&self, value: f64) -> f64 {
        let share = if value.is_finite() { (value / self.most).clamp(0.0, 1.0) } else { 0.0 };
        self.from + share * (self.to - self.from)
    }

    /// Round values from 0 to the highest.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let step = step(self.most);
        let (mut ticks, mut tick) = (Vec::new(), 0.0);
        while tick <= self.most * 1.0001 && ticks.len() < 20 {
            ticks.push(tick);
            tick += step;
        }
        ticks
    }
}

fn positive(value: f64) -> f64 {
    if value.is_finite() && value > 0.0 { value } else { 1.0 }
}

/// 1, 2 or 5 times a power of ten.
fn step(most: f64) -> f64 {
    let rough = most / TICKS;
    let unit = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * unit).find(|step| *step >= rough).unwrap_or(unit)
}

/// A place, as a `viewBox` has it.
pub(super) fn at(place: f64) -> String {
    format!("{place:.1}")
}

/// `1,234`, `0.5`.
pub(super) fn number(value: f64) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts, rates and seconds of a run")]
    let whole = value.max(0.0).round() as u64;
    if value >= 10.0 || (value - value.round()).abs() < 0.005 { grouped(whole) } else { format!("{value:.2}") }
}

/// `0.42 s`, `3 min 20 s`, `2 h 5 min`.
pub(super) fn duration(seconds: f64) -> String {
    if seconds < 100.0 {
        return format!("{seconds:.1} s");
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of a run")]
    let whole = seconds.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{} h {minutes} min", grouped(hours)),
    }
}

/// Horizontal lines with their values.
pub(super) fn rows(scale: &Scale) -> Markup {
    html! {
        @for tick in scale.ticks() {
            @let y = at(scale.place(tick));
            line.grid x1=(at(LEFT)) x2=(at(WIDTH - RIGHT)) y1=(y) y2=(y) {}
            text.quiet x=(at(LEFT - 8.0)) y=(at(scale.place(tick) + 4.0)) text-anchor="end" { (number(tick)) }
        }
    }
}

/// Seconds below a chart that ends at `bottom`.
pub(super) fn seconds_below(scale: &Scale, top: f64, bottom: f64) -> Markup {
    html! {
        @for tick in scale.ticks() {
            @let x = at(scale.place(tick));
            line.grid x1=(x) x2=(x) y1=(at(top)) y2=(at(bottom)) {}
            text.quiet x=(x) y=(at(bottom + 16.0)) text-anchor="middle" { (number(tick)) " s" }
        }
        line.axis x1=(at(LEFT)) x2=(at(WIDTH - RIGHT)) y1=(at(bottom)) y2=(at(bottom)) {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_and_numbers_read_well() {
        assert_eq!([0.42, 61.3, 200.0, 7500.0].map(duration), ["0.4 s", "61.3 s", "3 min 20 s", "2 h 5 min"]);
        assert_eq!([0.0, 0.5, 3.0, 1234.4].map(number), ["0", "0.50", "3", "1,234"]);
    }

    proptest! {
        #[test]
        fn a_scale_holds_its_values_and_has_a_few_round_ticks(most in 1e-6..1e12_f64, share in 0.0..1.0_f64) {
            let scale = Scale::upwards(most, 200.0, 10.0);
            prop_assert!(scale.most >= most * 0.9999);
            prop_assert!((10.0..=200.0).contains(&scale.place(most * share)));
            let ticks = scale.ticks();
            prop_assert!((2..=8).contains(&ticks.len()), "{:?}", ticks);
            prop_assert!(ticks.windows(2).all(|pair| pair[0] < pair[1]));
        }

        #[test]
        fn no_value_leaves_the_chart(value in any::<f64>(), most in any::<f64>()) {
            let scale = Scale::across(most);
            prop_assert!((LEFT..=WIDTH - RIGHT).contains(&scale.place(value)), "{} of {}", value, most);
        }
    }
}
