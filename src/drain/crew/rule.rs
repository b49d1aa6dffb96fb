//! How many pollers there should be, by what their receives bring.
//!
//! An empty receive takes one poller away, at once. Otherwise the number is judged by windows: at least `WINDOW` long,
//! with `RECEIVES_A_POLLER` receives for each poller, none of them begun before the number was what it is.
//!
//! | in | when | then |
//! |---|---|---|
//! | `Ready` | receives are full | `Trying` twice as many |
//! | `Trying` | it pays: twice as many bring a tenth more, or half as many bring at least nineteen twentieths | `Trying` the same once more; at the most `Resting`, at the fewest `Ready` |
//! | `Trying` | it does not pay | back to the number before, `Resting` |
//! | `Resting` | `REST` has passed, and receives are full | `Trying` the other direction |
//! | any | receives bring less than half of what they ask for | `Trying` half as many; once that did not pay, after `REST` |
//! | any | something waits for the stages behind: a receive for room in flight or in memory, a sealed segment for the next stage | a trial is undone, `Ready`: its rate says nothing about the queue |
//! | any | a receive comes back empty | `Ready`, with one poller less |
//!
//! Always true: the number is never above the most, and below `FEWEST` only where that is the most; the same receives at
//! the same times lead to the same number.

use std::time::Duration;

use tokio::time::Instant;

/// A drain begins with this number of pollers, and an empty queue keeps this number: an empty receive costs as much as a
/// full one.
pub(crate) const FEWEST: usize = 2;

pub(crate) const WINDOW: Duration = Duration::from_millis(200);
pub(crate) const RECEIVES_A_POLLER: usize = 2;
const REST: Duration = Duration::from_secs(10);

/// One receive that came back.
#[derive(Debug, Clone, Copy)]
pub(in crate::drain) struct Receive {
    pub(in crate::drain) began: Instant,
    pub(in crate::drain) ended: Instant,
    /// Messages that it asked for.
    pub(in crate::drain) asked: usize,
    /// Messages that it brought.
    pub(in crate::drain) brought: usize,
}

#[derive(Debug)]
pub(super) struct CrewRule {
    most: usize,
    pollers: usize,
    phase: Phase,
    window: Window,
    /// What waits for the stages behind the receives now.
    held_up: usize,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// The next window with full receives begins a trial of twice as many.
    Ready,
    /// The last trial did not pay, or there was none to make: the next one is the other way, and not before.
    Resting { until: Instant, then: Direction },
    /// A trial, after `from` pollers. It pays if the messages a second hold their own against this rate.
    Trying { direction: Direction, from: usize, rate: f64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Twice,
    Half,
}

/// How much of what they asked for the receives of a window brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fill {
    /// Four fifths, or more: with thousands of messages SQS sometimes gives fewer than it has.
    Full,
    Partial,
    /// Less than half.
    Low,
}

/// What receives brought that were begun after it was opened.
#[derive(Debug, Clone, Copy)]
struct Window {
    opened: Instant,
    receives: usize,
    asked: usize,
    brought: usize,
    /// How long the receives took, added up.
    polling: Duration,
    held_up: bool,
}

impl CrewRule {
    pub(super) fn of_at_most(most: usize, now: Instant) -> Self {
        let most = most.max(1);
        Self { most, pollers: FEWEST.min(most), phase: Phase::Ready, window: Window::open(now), held_up: 0 }
    }

    /// How many pollers there should be.
    pub(super) const fn pollers(&self) -> usize {
        self.pollers
    }

    pub(super) fn hold_up_begins(&mut self) {
        self.held_up += 1;
        self.window.held_up = true;
    }

    pub(super) fn hold_up_ends(&mut self) {
        self.held_up -= 1;
    }

    pub(super) fn came_back(&mut self, receive: Receive) {
        if receive.brought == 0 {
            self.set_pollers(self.pollers - 1);
            self.phase = Phase::Ready;
        } else {
            if receive.began < self.window.opened {
                return;
            }
            self.window.add(receive);
            if !self.window.is_complete(self.pollers, receive.ended) {
                return;
            }
            self.judge(receive.ended);
        }
        self.window = Window { held_up: self.held_up > 0, ..Window::open(receive.ended) };
    }

    fn judge(&mut self, now: Instant) {
        if self.window.held_up {
            if let Phase::Trying { from, .. } = self.phase {
                self.set_pollers(from);
                self.phase = Phase::Ready;
            }
            return;
        }
        let rate = self.window.messages_a_second(self.pollers);
        match self.phase {
            Phase::Ready => self.try_other(Direction::Twice, rate, now),
            Phase::Resting { then: Direction::Half, .. } if self.window.fill() == Fill::Low => {
                self.try_other(Direction::Half, rate, now);
            }
            Phase::Resting { until, .. } if now < until => {}
            Phase::Resting { then, .. } => self.try_other(then, rate, now),
            Phase::Trying { direction, from, rate: before } if !direction.pays(before, rate) => {
                tracing::debug!(
                    pollers = self.pollers,
                    back_to = from,
                    before,
                    rate,
                    "this number of pollers does not pay"
                );
                self.set_pollers(from);
                self.rest(direction.opposite(), now);
            }
            // Against the best rate so far: small losses must not add up.
            Phase::Trying { direction, rate: before, .. } => self.try_other(direction, rate.max(before), now),
        }
    }

    /// Begins a trial in this direction, if the receives are full; if they are far from it, of half as many.
    fn try_other(&mut self, direction: Direction, rate: f64, now: Instant) {
        let direction = match self.window.fill() {
            Fill::Full => direction,
            Fill::Partial => return self.phase = Phase::Ready,
            Fill::Low => Direction::Half,
        };
        let from = self.pollers;
        self.set_pollers(match direction {
            Direction::Twice => from * 2,
            Direction::Half => from / 2,
        });
        match direction {
            _ if self.pollers != from => {
                self.phase = Phase::Trying { direction, from, rate };
                tracing::debug!(pollers = self.pollers, from, rate, "trying another number of pollers");
            }
            Direction::Twice => self.rest(Direction::Half, now),
            // More may come at any time, so the fewest are ready for it.
            Direction::Half => self.phase = Phase::Ready,
        }
    }

    fn rest(&mut self, then: Direction, now: Instant) {
        self.phase = Phase::Resting { until: now + REST, then };
    }

    fn set_pollers(&mut self, pollers: usize) {
        self.pollers = pollers.clamp(FEWEST.min(self.most), self.most);
    }
}

impl Direction {
    const fn opposite(self) -> Self {
        match self {
            Self::Twice => Self::Half,
            Self::Half => Self::Twice,
        }
    }

    /// More pollers must earn what they cost; fewer may cost what a measurement is inexact by.
    fn pays(self, before: f64, rate: f64) -> bool {
        match self {
            Self::Twice => rate >= before * 1.1,
            Self::Half => rate >= before * 0.95,
        }
    }
}

impl Window {
    const fn open(now: Instant) -> Self {
        Self { opened: now, receives: 0, asked: 0, brought: 0, polling: Duration::ZERO, held_up: false }
    }

    fn add(&mut self, receive: Receive) {
        self.receives += 1;
        self.asked += receive.asked;
        self.brought += receive.brought;
        self.polling += receive.ended - receive.began;
    }

    fn is_complete(&self, pollers: usize, now: Instant) -> bool {
        self.receives >= pollers * RECEIVES_A_POLLER && now - self.opened >= WINDOW
    }

    const fn fill(&self) -> Fill {
        if self.brought * 10 >= self.asked * 8 {
            Fill::Full
        } else if self.brought * 2 >= self.asked {
            Fill::Partial
        } else {
            Fill::Low
        }
    }

    /// Of this number of pollers, by what one of them brings while it receives: that is the same wherever in a receive a
    /// window begins or ends.
    #[allow(clippy::cast_precision_loss, reason = "these are small numbers")]
    fn messages_a_second(&self, pollers: usize) -> f64 {
        (pollers * self.brought) as f64 / self.polling.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets every poller of a rule receive again and again: `answer` says for how many pollers how long a receive takes,
    /// and how many messages of ten it brings.
    struct Rounds<F> {
        rule: CrewRule,
        now: Instant,
        answer: F,
    }

    impl<F: Fn(usize) -> (Duration, usize)> Rounds<F> {
        fn new(most: usize, answer: F) -> Self {
            let now = Instant::now();
            Self { rule: CrewRule::of_at_most(most, now), now, answer }
        }

        fn pass(&mut self, time: Duration) -> usize {
            let end = self.now + time;
            while self.now < end {
                let pollers = self.rule.pollers();
                let (took, brought) = (self.answer)(pollers);
                let (began, ended) = (self.now, self.now + took);
                self.now = ended;
                for _ in 0..pollers {
                    self.rule.came_back(Receive { began, ended, asked: 10, brought });
                }
            }
            self.rule.pollers()
        }
    }

    /// A server that answers after `latency_ms` at the earliest, and gives `ceiling` messages a second at most.
    fn server(latency_ms: u64, ceiling: u64) -> impl Fn(usize) -> (Duration, usize) {
        move |pollers| {
            let busy = Duration::from_millis(10 * 1000 * pollers as u64 / ceiling);
            (busy.max(Duration::from_millis(latency_ms)), 10)
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn twice_as_many_must_bring_a_tenth_more() {
        for (latency_ms, ceiling, expected) in [(1, 5000, 2), (20, 5000, 16), (20, 4200, 8), (100, 5000, 64)] {
            assert_eq!(Rounds::new(64, server(latency_ms, ceiling)).pass(3 * SECOND), expected, "{latency_ms} ms");
        }
    }

    #[test]
    fn the_most_are_reached_in_less_than_two_seconds() {
        assert_eq!(Rounds::new(64, server(100, u64::MAX)).pass(2 * SECOND), 64);
        assert_eq!(Rounds::new(50, server(100, u64::MAX)).pass(2 * SECOND), 50);
        assert_eq!(Rounds::new(1, server(100, u64::MAX)).pass(2 * SECOND), 1);
    }

    #[test]
    fn pollers_that_a_faster_server_makes_useless_go() {
        let mut rounds = Rounds::new(64, server(100, 5000));
        assert_eq!(rounds.pass(3 * SECOND), 64);
        let mut rounds = Rounds { rule: rounds.rule, now: rounds.now, answer: server(1, 5000) };
        assert_eq!(rounds.pass(2 * REST), 2);
    }

    #[test]
    fn an_empty_receive_takes_one_poller_away_down_to_the_fewest() {
        let mut rounds = Rounds::new(64, server(100, u64::MAX));
        rounds.pass(3 * SECOND);
        let empty = Receive { began: rounds.now, ended: rounds.now + SECOND, asked: 10, brought: 0 };
        rounds.rule.came_back(empty);
        assert_eq!(rounds.rule.pollers(), 63);
        (0..100).for_each(|_| rounds.rule.came_back(empty));
        assert_eq!(rounds.rule.pollers(), FEWEST);
    }

    #[test]
    fn receives_that_are_far_from_full_shrink_the_crew_unless_that_costs_messages() {
        // What there is comes at its own pace, and is shared.
        let shared = |pollers: usize| (Duration::from_millis(100), (64 / pollers).min(10));
        let mut rounds = Rounds::new(64, server(100, u64::MAX));
        rounds.pass(3 * SECOND);
        let mut rounds = Rounds { rule: rounds.rule, now: rounds.now, answer: shared };
        assert_eq!(rounds.pass(5 * SECOND), 8);

        // Every receive brings one, however many there are.
        let single = |_: usize| (Duration::from_millis(100), 1);
        let mut many = Rounds::new(64, server(100, u64::MAX));
        many.pass(3 * SECOND);
        let mut many = Rounds { rule: many.rule, now: many.now, answer: single };
        assert_eq!(many.pass(SECOND), 64);
    }

    #[test]
    fn receives_that_were_under_way_when_the_number_changed_do_not_count() {
        let mut rounds = Rounds::new(64, server(100, u64::MAX));
        let pollers = rounds.pass(SECOND);
        let long_ago = Receive { began: rounds.now - 10 * SECOND, ended: rounds.now, asked: 10, brought: 10 };
        (0..1000).for_each(|_| rounds.rule.came_back(long_ago));
        assert_eq!(rounds.rule.pollers(), pollers);
    }

    #[test]
    fn while_something_waits_for_the_stages_behind_the_number_stays() {
        let mut rounds = Rounds::new(64, server(1, u64::MAX));
        rounds.rule.hold_up_begins();
        assert_eq!(rounds.pass(SECOND), FEWEST);
        rounds.rule.hold_up_ends();
        assert!(rounds.pass(SECOND) > FEWEST);
    }

    #[test]
    fn a_trial_in_which_something_had_to_wait_is_given_up() {
        let mut rounds = Rounds::new(64, server(100, u64::MAX));
        while rounds.rule.pollers() < 8 {
            rounds.pass(Duration::from_millis(1));
        }
        rounds.rule.hold_up_begins();
        assert_eq!(rounds.pass(SECOND), 4);
    }
}
