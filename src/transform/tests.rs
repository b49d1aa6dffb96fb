//! The whole stage over real files: what is counted, in which order it stands, and what an error leaves.

use std::fs;

use proptest::prelude::*;
use rayon::ThreadPoolBuilder;
use tempfile::TempDir;

use super::*;
use crate::config::Pipeline;
use crate::durable::Place;
use crate::keyring::{Keyring, SecretKey};
use crate::spool::{Record, SegmentWriter, origin, read_rejects};

struct TestEnv {
    root: TempDir,
    staging: Staging,
    plan: Plan,
}

impl TestEnv {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let staging = Staging::open(root.path()).unwrap();
        let key = SecretKey::from_hex("key", &"07".repeat(16)).unwrap();
        let keys = Keyring::of_one_key(key, None);
        Self { root, staging, plan: Plan::compile(&Pipeline::user_logins().unwrap(), &keys, None).unwrap() }
    }

    fn seal<'a>(&self, bodies: impl IntoIterator<Item = &'a str>) -> SegmentId {
        let mut writer = SegmentWriter::create(&self.staging, &origin()).unwrap();
        for (index, body) in bodies.into_iter().enumerate() {
            writer
                .append(&Record {
                    message_id: format!("m{index}").into(),
                    sent_at: 1_767_323_045_678 + i64::try_from(index).unwrap(),
                    ..Record::with_body(body)
                })
                .unwrap();
        }
        writer.seal().unwrap().id
    }

    fn transform(&self, segment: SegmentId) -> Result<Manifest, SpoolError> {
        let threads = ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        threads.install(|| transform(&self.staging, segment, &self.plan))
    }

    /// Index of the message, for each row: by its user, and by its id.
    fn rows_and_ids(&self, segment: SegmentId) -> (Vec<String>, Vec<String>) {
        let records = |path: &Place, field: usize, prefix: char| {
            let mut reader = ::csv::ReaderBuilder::new().has_headers(false).from_path(path).unwrap();
            let records = reader.records().map(Result::unwrap);
            records.map(|record| record[field].trim_start_matches(prefix).to_owned()).collect()
        };
        (records(&self.staging.chunk(segment), 0, 'u'), records(&self.staging.ids(segment), 1, 'm'))
    }

    fn files(&self, part: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.path().join(part)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn login(index: usize) -> String {
    format!(r#"{{"user_id":"u{index}","app_version":"1.2","device_type":"ios","ip":"10.0.0.1","device_id":"d"}}"#)
}

#[test]
fn rows_ids_and_rejects_keep_the_order_of_the_spool_over_many_blocks_and_threads() {
    let env = TestEnv::new();
    let is_good = |index: usize| !index.is_multiple_of(7);
    let bodies: Vec<String> = (0..30_000)
        .map(|index| match index {
            _ if !is_good(index) => "{}".to_owned(),
            // Blocks of very different cost, so that threads overtake each other.
            _ if index % 1000 < 3 => login(index).replace("\"d\"", &format!("\"d\",\"x\":[{}0]", "{},".repeat(40_000))),
            _ => login(index),
        })
        .collect();
    let segment = env.seal(bodies.iter().map(String::as_str));

    let staged = env.transform(segment).unwrap();

    let expected: Vec<String> =
        (0..bodies.len()).filter(|&index| is_good(index)).map(|index| index.to_string()).collect();
    let (rows, ids) = env.rows_and_ids(segment);
    assert!(rows == expected && ids == expected);
    let rejects: Vec<String> =
        read_rejects(&env.staging.chunk_rejects(segment)).unwrap().map(|entry| entry.unwrap().message_id).collect();
    let refused = (0..bodies.len()).filter(|&index| !is_good(index));
    assert!(rejects == refused.map(|index| format!("m{index}")).collect::<Vec<_>>());
    assert_eq!(staged.messages, 30_000);
    assert_eq!(staged.rows(), expected.len() as u64);
    assert_eq!(staged.rejects, 30_000 - staged.rows());
    assert_eq!(staged.row_bytes(), fs::metadata(env.staging.chunk(segment)).unwrap().len());
    assert_eq!(Manifest::read(&env.staging, segment).unwrap(), staged);
    staged.verify(&env.staging).unwrap();
    assert_eq!((env.files("chunks").len(), env.files("rejects").len()), (4, 0));
}

#[test]
fn ids_carry_the_instant_to_the_millisecond() {
    let env = TestEnv::new();
    let segment = env.seal([login(0).as_str()]);
    env.transform(segment).unwrap();
    assert_eq!(fs::read_to_string(env.staging.ids(segment)).unwrap(), "2026-01-02T03:04:05.678Z,m0\n");
}

#[test]
fn a_reject_says_why_and_keeps_the_message() {
    let env = TestEnv::new();
    let segment = env.seal([r#"{"user_id":"secret"}"#]);
    env.transform(segment).unwrap();
    assert_eq!(
        fs::read_to_string(env.staging.chunk_rejects(segment)).unwrap(),
        concat!(
            r#"{"message_id":"m0","sent_at":1767323045678,"received_at":2,"receive_count":1,"receipt_handle":"r","#,
            r#""body":"{\"user_id\":\"secret\"}","source":{"queue_url":"http://localhost/000000000000/login-queue"},"#,
            r#""pipeline":"user_logins","stage":"transform","reason":"device_type is missing","field":"device_type"}"#,
            "\n"
        )
    );
}

/// `drain, transform, load, transform, load, ack` removed the body of a row that the first load had rejected.
#[test]
fn a_transform_touches_no_kept_reject() {
    let env = TestEnv::new();
    let segment = env.seal([login(0).as_str()]);
    fs::write(env.staging.rejects(segment), "kept by a load\n").unwrap();
    assert_eq!(env.transform(segment).unwrap().rejects, 0);
    assert_eq!(fs::read_to_string(env.staging.rejects(segment)).unwrap(), "kept by a load\n");
}

#[test]
fn a_part_that_was_changed_is_not_what_its_manifest_says() {
    let env = TestEnv::new();
    let segment = env.seal([login(0).as_str(), "no login"]);
    let staged = env.transform(segment).unwrap();
    staged.verify(&env.staging).unwrap();
    for part in [env.staging.chunk(segment), env.staging.ids(segment), env.staging.chunk_rejects(segment)] {
        let content = fs::read(&part).unwrap();
        fs::write(&part, [&content[..], b"\n"].concat()).unwrap();
        assert!(staged.verify(&env.staging).is_err(), "longer: {}", part.path().display());
        fs::remove_file(&part).unwrap();
        assert!(staged.verify(&env.staging).is_err(), "missing: {}", part.path().display());
        fs::write(&part, content).unwrap();
        staged.verify(&env.staging).unwrap();
    }
}

#[test]
fn an_archived_segment_and_an_empty_one_are_transformed_too() {
    let env = TestEnv::new();
    let archived = env.seal([login(0).as_str()]);
    fs::rename(env.staging.spool(archived), env.staging.archive(archived)).unwrap();
    assert_eq!(env.transform(archived).unwrap().rows(), 1);
    let empty = env.seal([]);
    assert_eq!(env.transform(empty).unwrap().messages, 0);
    assert_eq!(env.staging.staged_segments().unwrap(), [archived, empty]);
}

#[test]
fn damage_is_an_error_with_the_first_offset_and_leaves_no_chunk() {
    let env = TestEnv::new();
    let bodies: Vec<String> = (0..20_000).map(login).collect();
    let segment = env.seal(bodies.iter().map(String::as_str));
    env.transform(segment).unwrap();
    let path = env.staging.spool(segment);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    let line = bytes[..middle].iter().rposition(|&byte| byte == b'\n').unwrap() + 1;
    for position in [line + 20, bytes.len() - 100] {
        bytes[position] ^= 1;
    }
    fs::write(&path, bytes).unwrap();

    let error = env.transform(segment).unwrap_err();

    assert!(matches!(error, SpoolError::Damaged { offset, .. } if offset == line as u64), "{error}");
    assert!(env.files("chunks").is_empty() && env.files("rejects").is_empty());
}

#[test]
fn a_cut_segment_and_an_impossible_instant_are_damage() {
    let env = TestEnv::new();
    let segment = env.seal([login(0).as_str(), login(1).as_str()]);
    let path = env.staging.spool(segment);
    let whole = fs::read_to_string(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 10]).unwrap();
    assert!(matches!(env.transform(segment).unwrap_err(), SpoolError::Damaged { .. }));
    let line = r#"{"message_id":"m","sent_at":9223372036854775807,"received_at":2,"receive_count":1,"receipt_handle":"","body":"{}"}"#;
    fs::write(&path, format!("{line}\n")).unwrap();
    assert!(matches!(env.transform(segment).unwrap_err(), SpoolError::Damaged { offset: 0, .. }));
    assert!(env.files("chunks").is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_message_is_counted_once_whatever_its_neighbours_hold(
        bodies in proptest::collection::vec(
            prop_oneof![(0..9_usize).prop_map(login), any::<String>(), "[{\\[\"a:,0]{0,12}"], 0..40,
        ),
    ) {
        let env = TestEnv::new();
        let segment = env.seal(bodies.iter().map(String::as_str));
        let staged = env.transform(segment).unwrap();
        prop_assert_eq!(staged.messages, bodies.len() as u64);
        let good = bodies.iter().filter(|body| body.starts_with("{\"user_id\"")).count();
        prop_assert_eq!(staged.rows(), good as u64);
        prop_assert_eq!(Manifest::read(&env.staging, segment).unwrap(), staged);
        let (rows, ids) = env.rows_and_ids(segment);
        prop_assert_eq!(rows.len(), ids.len());
    }
}
