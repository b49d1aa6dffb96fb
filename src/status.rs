//! What lies in a staging directory, how the last run ended, and whether something waits for too long. Changes nothing,
//! needs no lock.
//!
//! Always true: a file that vanishes while it is looked at, because a run moves it on, is no failure; it is just not
//! counted in the state that it left.

mod age;
mod states;

pub use age::{QueueStatus, stale};
pub use states::{DamagedSegment, StagingStatus, State, StateStatus};
