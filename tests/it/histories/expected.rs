//! What was sent and imported, and what must become of it: the model. It knows conservation and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use rand::rngs::StdRng;

use super::pipelines::Pipeline;

/// How many of a hundred messages do not fit the mapping.
const BAD_SHARE: f64 = 0.15;

/// One body, sent once or more often, or imported.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) pipeline: Pipeline,
    pub(super) number: u64,
    pub(super) body: String,
    /// It must become a row; otherwise it must be kept as a reject.
    pub(super) fits: bool,
    /// How many messages with this body there are, each of which counts.
    pub(super) copies: usize,
    /// The ids that the queue gave it. None where it was imported.
    pub(super) queue_ids: BTreeSet<String>,
    /// An import said that it has it, or a queue has taken it.
    pub(super) promised: bool,
    /// A person dropped its reject.
    pub(super) given_up: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Messages {
    all: Vec<Message>,
    by_body: BTreeMap<String, usize>,
    /// Ids of queue and import. One id of two bodies is a defect, which the judge must see and not hide.
    by_id: BTreeMap<String, BTreeSet<usize>>,
}

impl Messages {
    /// A message of its own body, which nobody has yet.
    pub(super) fn invent(&mut self, pipeline: Pipeline, random: &mut StdRng) -> usize {
        let number = self.all.len() as u64;
        let fits = !random.random_bool(BAD_SHARE);
        let body = if fits { pipeline.good_body(number) } else { pipeline.bad_body(number, random) };
        let index = self.all.len();
        self.by_body.insert(body.clone(), index);
        self.all.push(Message {
            pipeline,
            number,
            body,
            fits,
            copies: 1,
            queue_ids: BTreeSet::new(),
            promised: false,
            given_up: false,
        });
        index
    }

    pub(super) fn at(&mut self, index: usize) -> &mut Message {
        &mut self.all[index]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Message> {
        self.all.iter()
    }

    /// A queue has taken it under this id.
    pub(super) fn sent(&mut self, index: usize, id: String) {
        self.learn_id(&id, index);
        self.all[index].queue_ids.insert(id);
        self.all[index].promised = true;
    }

    /// A file says that the message with this body has this id.
    pub(super) fn learn(&mut self, id: &str, body: &str) {
        if let Some(&index) = self.by_body.get(body) {
            self.learn_id(id, index);
        }
    }

    fn learn_id(&mut self, id: &str, index: usize) {
        self.by_id.entry(id.to_owned()).or_default().insert(index);
    }

    pub(super) fn of_body(&self, body: &str) -> Option<&Message> {
        self.by_body.get(body).map(|&index| &self.all[index])
    }

    /// The message whose row has this token.
    pub(super) fn of_token(&self, pipeline: Pipeline, token: &str) -> Option<&Message> {
        let number: usize = token.strip_prefix(pipeline.name())?.strip_prefix('-')?.parse().ok()?;
        self.all.get(number).filter(|message| message.pipeline == pipeline)
    }

    /// The ids among these that are the message's.
    pub(super) fn ids_among(&self, message: &Message, ids: &BTreeSet<String>) -> usize {
        let index = self.by_body[&message.body];
        ids.iter().filter(|id| self.by_id.get(*id).is_some_and(|known| known.contains(&index))).count()
    }

    /// A person has given up the messages with these ids.
    pub(super) fn give_up(&mut self, ids: &BTreeSet<String>) {
        for index in ids.iter().filter_map(|id| self.by_id.get(id)).flatten() {
            self.all[*index].given_up = true;
        }
    }
}
