//! Random histories of one queue and one staging directory, on the real spool, transform, load and acknowledgement,
//! against a model that knows nothing but lists of deliveries. After each step both must agree on what is visible, in
//! flight, in the table and rejected. PGSLUICE_MODEL_SEED repeats a run.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::env;
use std::fs;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use pgsluice::ack::{self, Deletes, RejectRoute};
use pgsluice::config::Pipeline;
use pgsluice::keyring::{Keyring, SecretKey};
use pgsluice::load::{Committed, Loader};
use pgsluice::queue::{Depth, FailedEntry, Message, Queue, QueueError, ReceiveAttempt};
use pgsluice::segment::SegmentId;
use pgsluice::spool::{self, Origin, Record, SegmentWriter};
use pgsluice::staging::Staging;
use pgsluice::transform::{Plan, transform};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use tokio::runtime::Runtime;

use crate::logins::login;
use crate::testenv::{KEY, Server, TestEnv};

const HISTORIES: u32 = 24;
const STEPS: std::ops::Range<usize> = 1..40;
/// One in this number of messages cannot become a row.
const BAD_EVERY: u32 = 5;
const SENT_AT_MS: i64 = 1_782_907_200_000;

#[derive(Debug, Clone, Copy)]
enum Step {
    Send,
    Receive(usize),
    Seal,
    Load,
    /// The process dies after COMMIT and before it learns of it.
    LostCommit,
    Acknowledge,
    /// The visibility timeout passes.
    Redeliver,
    /// The process dies. This number of whole lines of the open segment is on the disk, and a part of one more.
    Crash(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Send),
        3 => (1..6_usize).prop_map(Step::Receive),
        2 => Just(Step::Seal),
        2 => Just(Step::Load),
        1 => Just(Step::LostCommit),
        2 => Just(Step::Acknowledge),
        1 => Just(Step::Redeliver),
        1 => (0..6_usize).prop_map(Step::Crash),
    ]
}

// The model ----------------------------------------------------------------------------------------------------------

/// A message's number, and the number of its delivery.
type Delivery = (u32, u32);

#[derive(Debug, Default)]
struct Model {
    sent: u32,
    delivered: u32,
    visible: VecDeque<u32>,
    in_flight: BTreeMap<u32, u32>,
    open: Vec<Delivery>,
    sealed: VecDeque<Vec<Delivery>>,
    committed: VecDeque<Vec<Delivery>>,
    recorded: BTreeSet<u32>,
}

impl Model {
    fn step(&mut self, step: Step) {
        match step {
            Step::Send => {
                self.visible.push_back(self.sent);
                self.sent += 1;
            }
            Step::Receive(most) => {
                for message in self.visible.drain(..most.min(self.visible.len())) {
                    self.in_flight.insert(self.delivered, message);
                    self.open.push((message, self.delivered));
                    self.delivered += 1;
                }
            }
            Step::Seal => self.sealed.extend(Some(std::mem::take(&mut self.open)).filter(|open| !open.is_empty())),
            Step::Load => {
                if let Some(segment) = self.sealed.pop_front() {
                    self.recorded.extend(segment.iter().map(|(message, _)| message));
                    self.committed.push_back(segment);
                }
            }
            Step::LostCommit => {
                self.step(Step::Load);
                self.step(Step::Crash(0));
            }
            Step::Acknowledge => {
                for (_, delivery) in self.committed.pop_front().into_iter().flatten() {
                    self.in_flight.remove(&delivery);
                }
            }
            Step::Redeliver => self.visible.extend(std::mem::take(&mut self.in_flight).into_values()),
            Step::Crash(kept) => {
                self.open.truncate(kept);
                self.step(Step::Seal);
            }
        }
    }

    /// A message that is not recorded is in the queue.
    fn loses_nothing(&self) -> bool {
        let in_queue =
            |message: &u32| self.visible.contains(message) || self.in_flight.values().any(|held| held == message);
        (0..self.sent).all(|message| self.recorded.contains(&message) || in_queue(&message))
    }
}

// The real thing -----------------------------------------------------------------------------------------------------

struct Real<'a> {
    env: &'a TestEnv,
    runtime: &'a Runtime,
    loader: &'a mut Loader,
    plan: &'a Plan,
    queue: ModelQueue,
    sent: u32,
    staging: Staging,
    open: Option<SegmentWriter>,
    sealed: VecDeque<SegmentId>,
    committed: VecDeque<Committed>,
}

impl Real<'_> {
    fn step(&mut self, step: Step) {
        match step {
            Step::Send => {
                self.queue.lock().visible.push_back(self.sent);
                self.sent += 1;
            }
            Step::Receive(most) => self.receive(most),
            Step::Seal => self.sealed.extend(self.open.take().map(|open| open.seal().unwrap().id)),
            Step::Load => self.load(),
            Step::LostCommit => {
                self.load();
                self.crash(0);
            }
            Step::Acknowledge => {
                if let Some(committed) = self.committed.pop_front() {
                    let (deletes, route) = (Deletes::at_most(2), RejectRoute::default());
                    let acknowledged =
                        ack::acknowledge(&self.queue, &self.staging, &committed, &deletes, &route, &|_| {});
                    self.runtime.block_on(acknowledged).unwrap();
                }
            }
            Step::Redeliver => self.queue.redeliver(),
            Step::Crash(kept) => self.crash(kept),
        }
    }

    fn receive(&mut self, most: usize) {
        let origin = Origin::of_queue("user_logins", "http://localhost/queue");
        for message in self.queue.deliver(most) {
            let open = self.open.get_or_insert_with(|| SegmentWriter::create(&self.staging, &origin).unwrap());
            open.append(&Record::from(&message)).unwrap();
        }
    }

    fn load(&mut self) {
        let Some(segment) = self.sealed.pop_front() else { return };
        let staged = transform(&self.staging, segment, self.plan).unwrap();
        let load = self.loader.load(&self.staging, &staged);
        let committed = self.runtime.block_on(load).unwrap();
        assert!(!committed.was_known());
        assert_eq!(committed.received(), committed.loaded() + committed.duplicates() + committed.rejected());
        self.staging.commit_segment(segment).unwrap();
        self.committed.push_back(committed);
    }

    /// Memory is gone; the next process starts from files and ledger.
    fn crash(&mut self, kept: usize) {
        if let Some(open) = self.open.take() {
            let segment = open.seal().unwrap().id;
            let path = self.staging.spool(segment);
            let content = fs::read(&path).unwrap();
            let lines: Vec<&[u8]> = content.split_inclusive(|&byte| byte == b'\n').collect();
            // The header stands before the first.
            let torn = lines.get(kept + 1).map_or(0, |line| line.len() / 2);
            let whole: usize = lines.iter().take(kept + 1).map(|line| line.len()).sum();
            fs::write(self.staging.open_segment(segment), &content[..whole + torn]).unwrap();
            fs::remove_file(path).unwrap();
        }
        spool::recover(&self.staging).unwrap();
        let sealed = self.staging.sealed_segments().unwrap();
        let unfinished = [self.staging.committed_segments().unwrap(), sealed].concat();
        let mut known = self.runtime.block_on(self.loader.known(&unfinished)).unwrap();
        self.committed = unfinished.iter().filter_map(|segment| known.remove(segment)).collect();
        self.sealed = unfinished.into();
        self.sealed.retain(|segment| self.committed.iter().all(|committed| committed.segment() != *segment));
    }

    fn agrees_with(&self, model: &Model) {
        assert!(model.loses_nothing());
        let queue = self.queue.lock();
        assert_eq!(queue.visible, model.visible, "visible");
        assert_eq!(queue.in_flight, model.in_flight, "in flight");
        let (bad, good): (Vec<u32>, Vec<u32>) = model.recorded.iter().partition(|message| is_bad(**message));
        let rows = self.env.database.texts("select user_id from user_logins order by user_id::integer");
        assert_eq!(rows, good.iter().map(u32::to_string).collect::<Vec<_>>(), "rows");
        assert_eq!(self.env.database.count("pgsluice.reject"), bad.len() as u64, "rejects");
    }
}

fn is_bad(message: u32) -> bool {
    message % BAD_EVERY == BAD_EVERY - 1
}

fn message(number: u32, delivery: u32) -> Message {
    let body = if is_bad(number) { "not JSON".to_owned() } else { login(&number.to_string()).to_string() };
    Message {
        message_id: uuid::Uuid::from_u128(number.into()).to_string(),
        sent_at: SENT_AT_MS,
        sent_at_is_stable: true,
        received_at: SENT_AT_MS,
        receive_count: 1,
        receipt_handle: delivery.to_string(),
        body,
        attributes: None,
        group_id: None,
        sequence_number: None,
    }
}

/// A queue whose visibility timeout passes when the test says so. A handle is good until then.
#[derive(Clone, Default)]
struct ModelQueue(Arc<Mutex<QueueState>>);

#[derive(Default)]
struct QueueState {
    delivered: u32,
    visible: VecDeque<u32>,
    in_flight: BTreeMap<u32, u32>,
}

impl ModelQueue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.0.lock().unwrap()
    }

    fn deliver(&self, most: usize) -> Vec<Message> {
        let mut state = self.lock();
        let count = most.min(state.visible.len());
        let numbers: Vec<u32> = state.visible.drain(..count).collect();
        let deliver = |number| {
            let delivery = state.delivered;
            state.delivered += 1;
            state.in_flight.insert(delivery, number);
            message(number, delivery)
        };
        numbers.into_iter().map(deliver).collect()
    }

    fn redeliver(&self) {
        let mut state = self.lock();
        let in_flight = std::mem::take(&mut state.in_flight);
        state.visible.extend(in_flight.into_values());
    }
}

impl Queue for ModelQueue {
    fn visibility_timeout(&self) -> Duration {
        unreachable!("time passes when the test says so")
    }

    async fn receive(&self, max_messages: usize, _: &ReceiveAttempt) -> Result<Vec<Message>, QueueError> {
        Ok(self.deliver(max_messages))
    }

    async fn extend(&self, _: &[String], _: Duration) -> Result<Vec<FailedEntry>, QueueError> {
        unreachable!("no keeper runs here")
    }

    async fn delete(&self, receipt_handles: &[String]) -> Result<Vec<FailedEntry>, QueueError> {
        let mut state = self.lock();
        let not_held = |(index, handle): (usize, &String)| {
            let removed = state.in_flight.remove(&handle.parse().unwrap());
            let code = || "ReceiptHandleIsInvalid".to_owned();
            removed.is_none().then(|| FailedEntry { index, code: code(), sender_fault: true })
        };
        Ok(receipt_handles.iter().enumerate().filter_map(not_held).collect())
    }

    async fn release(&self, _: &[String]) -> Result<Vec<FailedEntry>, QueueError> {
        unreachable!("nothing here stops in an orderly way")
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        unreachable!("nothing here asks whether the queue is empty")
    }
}

// Both ---------------------------------------------------------------------------------------------------------------

#[test]
fn the_stages_agree_with_the_model_whatever_happens() {
    let env = TestEnv::new(Server::Embedded);
    let runtime = Runtime::new().unwrap();
    let pipeline = Pipeline::user_logins().unwrap();
    let keys = Keyring::of_one_key(SecretKey::from_hex("key", KEY).unwrap(), None);
    let plan = Plan::compile(&pipeline, &keys, None).unwrap();
    let loader = runtime.block_on(Loader::connect(&env.database.url().into(), &pipeline)).unwrap();
    let loader = Mutex::new(loader);

    let seed = env::var("PGSLUICE_MODEL_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    eprintln!("PGSLUICE_MODEL_SEED={seed}");
    let config =
        Config { cases: HISTORIES, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() };
    let histories = proptest::collection::vec(any_step(), STEPS);
    let outcome = TestRunner::new(config).run(&histories, |history| {
        env.database.execute("truncate user_logins, pgsluice.segment, pgsluice.message, pgsluice.reject");
        let root = tempfile::tempdir_in(env.path("")).unwrap();
        let mut loader = loader.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut real = Real {
            env: &env,
            runtime: &runtime,
            loader: &mut loader,
            plan: &plan,
            queue: ModelQueue::default(),
            sent: 0,
            staging: Staging::open(root.path()).unwrap(),
            open: None,
            sealed: VecDeque::new(),
            committed: VecDeque::new(),
        };
        let mut model = Model::default();
        for step in history.into_iter().chain(until_all_is_done()) {
            model.step(step);
            real.step(step);
            real.agrees_with(&model);
        }
        prop_assert_eq!(model.recorded.len(), model.sent as usize);
        prop_assert!(model.visible.is_empty() && model.in_flight.is_empty());
        prop_assert!(real.staging.sealed_segments().unwrap().is_empty());
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

/// A last process, which is not killed: it does the work that remains, then that of the redeliveries.
fn until_all_is_done() -> impl Iterator<Item = Step> {
    let segments = STEPS.end;
    let finish = move || std::iter::repeat_n([Step::Load, Step::Acknowledge], segments).flatten();
    let rest = [Step::Redeliver, Step::Receive(usize::MAX), Step::Seal];
    std::iter::once(Step::Crash(0)).chain(finish()).chain(rest).chain([Step::Load, Step::Acknowledge])
}
