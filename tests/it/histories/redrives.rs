//! Messages move to a dead-letter queue and back.

use rand::rngs::StdRng;

use super::Verdict;
use super::acts::RUN;
use super::calls::Call;
use super::holdings::PARTS;
use super::step::Step;
use super::world::{MAX_RECEIVES, World};

/// Longer than it takes to send a message again.
const HELD_SECONDS: i32 = 30;

/// Another consumer receives and fails, again and again.
pub(super) fn redrive(world: &mut World, step: Step) {
    let source = world.source(step.place.pipeline);
    if source.dead_letters.is_none() {
        return;
    }
    let mut receives = 0;
    for _ in 0..=2 * MAX_RECEIVES {
        receives += source.queue.receive(0);
    }
    let dead = source.dead_letters.as_ref().map(|queue| queue.counts().visible);
    world.note(format!("     {receives} receives by others, dead letters: {dead:?}"));
}

/// The dead-letter queue is emptied like any queue.
pub(super) fn run_dead_letters(world: &mut World, step: Step, random: &mut StdRng) -> Verdict {
    let Some(queue) = &world.source(step.place.pipeline).dead_letters else { return Ok(()) };
    let url = queue.url().to_owned();
    let call = Call::right(step.place, &RUN).on_dead_letters(&url).maybe_disturbed(world, random);
    world.call(call).map(|_| ())
}

/// Messages that nobody else holds are sent to their queue as new ones; those that some host holds stay.
pub(super) fn resend(world: &mut World, step: Step) -> Verdict {
    let books = world.books()?;
    let pipeline = step.place.pipeline;
    let mut resent = 0;
    let letters = match &world.source(pipeline).dead_letters {
        Some(queue) => queue.take(HELD_SECONDS),
        None => return Ok(()),
    };
    for letter in letters {
        let (body, handle) = (letter.body().unwrap_or_default(), letter.receipt_handle().unwrap_or_default());
        let index = world.messages.iter().position(|message| message.body == body).expect("a message of this history");
        let message = world.messages.at(index);
        let is_single = message.copies == 1;
        let is_elsewhere = books.recorded.rows(body) > 0 || books.files.0.iter().any(|file| file.holds(body));
        let is_recorded = letter.message_id().is_some_and(|id| books.recorded.rejects.contains(id));
        let source = world.source(pipeline);
        let dead_letters = source.dead_letters.as_ref().expect("the queue that the letter is from");
        if is_single && !is_elsewhere && !is_recorded && !books.files.holders(body, &PARTS).any(|_| true) {
            let id = source.queue.send_one(body);
            dead_letters.delete(handle);
            world.messages.sent(index, id);
            resent += 1;
        } else {
            dead_letters.release(handle);
        }
    }
    world.note(format!("     {resent} messages sent again"));
    Ok(())
}
