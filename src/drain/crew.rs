//! Which pollers receive: as many as `rule` finds right have a seat, the others are parked.
//!
//! Always true: a poller that receives has a seat, and gives it up between two receives only, because a receive that is
//! broken off hides its messages for a visibility timeout. So a parked poller has nothing under way and holds no room in
//! flight. The first poller that finds nothing left to do dismisses the parked ones.

mod rule;

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use rule::CrewRule;
pub(super) use rule::Receive;
pub(crate) use rule::{FEWEST, RECEIVES_A_POLLER, WINDOW};

/// The seats of the pollers of one drain.
#[derive(Debug)]
pub(super) struct Crew {
    seats: Semaphore,
    roster: Mutex<Roster>,
}

#[derive(Debug)]
struct Roster {
    rule: CrewRule,
    /// Seats, taken or free. More than the rule wants, until some poller's receive comes back.
    seats: usize,
}

/// The right to receive.
#[derive(Debug)]
pub(super) struct Seat<'a> {
    permit: SemaphorePermit<'a>,
    /// The first receive may open a connection, which says nothing about the next ones.
    is_new: bool,
}

/// While it lives, something waits for a stage behind the receives, and there will not be more pollers.
#[derive(Debug)]
pub(super) struct HeldUp<'a> {
    crew: &'a Crew,
}

impl Crew {
    /// Seats for `most` pollers at most.
    pub(super) fn of_at_most(most: usize) -> Self {
        let rule = CrewRule::of_at_most(most, Instant::now());
        let seats = rule.pollers();
        Self { seats: Semaphore::new(seats), roster: Mutex::new(Roster { rule, seats }) }
    }

    /// Waits, parked, for a seat; `None` where the parked are dismissed.
    pub(super) async fn seat(&self) -> Option<Seat<'_>> {
        let permit = self.seats.acquire().await.ok()?;
        Some(Seat { permit, is_new: true })
    }

    /// Nothing is left to do for a poller without a seat.
    pub(super) fn dismiss_parked(&self) {
        self.seats.close();
    }

    /// A receive came back: the number of pollers may change, and this one may lose its seat.
    pub(super) fn came_back<'a>(&self, seat: Seat<'a>, receive: Receive) -> Option<Seat<'a>> {
        let mut roster = self.roster();
        if !seat.is_new || receive.brought == 0 {
            roster.rule.came_back(receive);
        }
        let wanted = roster.rule.pollers();
        if roster.seats > wanted {
            roster.seats -= 1;
            seat.permit.forget();
            return None;
        }
        self.seats.add_permits(wanted - roster.seats);
        roster.seats = wanted;
        Some(Seat { is_new: false, ..seat })
    }

    /// Something waits for a stage behind the receives.
    pub(super) fn held_up(&self) -> HeldUp<'_> {
        self.roster().rule.hold_up_begins();
        HeldUp { crew: self }
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HeldUp<'_> {
    fn drop(&mut self) {
        self.crew.roster().rule.hold_up_ends();
    }
}
