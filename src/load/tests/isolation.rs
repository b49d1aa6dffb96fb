use proptest::prelude::ProptestConfig;
use proptest::test_runner::TestRunner;
use serde_json::json;

use super::super::*;
use super::fixture::{Fixture, Message, OLD_MS, bad_message, counts, message, messages};
use crate::advice::Advised;
use crate::config::MaxRejects;

fn item(id: &str, name: &str, value: i64) -> Message {
    (id.to_owned(), OLD_MS, json!({ "name": name, "value": value }).to_string())
}

#[tokio::test]
async fn rows_that_a_check_constraint_refuses_are_rejected_alone() {
    let fixture = Fixture::new().await;
    fixture.client.batch_execute("ALTER TABLE items ADD CONSTRAINT small CHECK (value < 1000)").await.unwrap();
    let mut all = messages(0..300);
    for index in [0, 1, 150, 299] {
        all[index] = message(&format!("big{index}"), 5000);
    }
    all.push(bad_message("bad"));
    let staged = fixture.stage(&all);
    let committed = fixture.load(&staged).await;
    assert_eq!(counts(&committed), (296, 0, 5));
    assert_eq!(fixture.rows().await, 296);
    let recorded = "SELECT count(*) FROM pgsluice.reject WHERE stage = 'load' AND field = 'small' \
                    AND reason = 'violates a check constraint (SQLSTATE 23514)'";
    assert_eq!(fixture.number(recorded).await, 4);

    let lines = fixture.reject_lines(&staged);
    let ids: Vec<&str> = lines.iter().map(|line| line["message_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["bad", "big0", "big1", "big150", "big299"]);
    assert_eq!((&lines[1]["stage"], &lines[1]["field"]), (&json!("load"), &json!("small")));
    assert!(lines[1]["body"].as_str().unwrap().contains("5000"), "the message itself is kept");
    let redelivered = fixture.load(&fixture.stage(&all)).await;
    assert_eq!(counts(&redelivered), (0, 301, 0));
}

#[tokio::test]
async fn each_way_to_refuse_a_row_is_named_without_its_value() {
    let setups = [
        ("ALTER TABLE items ALTER name TYPE varchar(9)", Some("name"), "too long for the column (SQLSTATE 22001)"),
        (
            "ALTER TABLE items ALTER name TYPE inet USING NULL",
            Some("name"),
            "not a value of the column's type (SQLSTATE 22P02)",
        ),
        ("CREATE UNIQUE INDEX once ON items (name)", Some("once"), "violates a unique constraint (SQLSTATE 23505)"),
        (
            "CREATE TABLE known (name text PRIMARY KEY); INSERT INTO known VALUES ('10.0.0.1'), ('10.0.0.2'), ('10.0.0.3'); \
             ALTER TABLE items ADD CONSTRAINT known FOREIGN KEY (name) REFERENCES known DEFERRABLE INITIALLY DEFERRED",
            Some("known"),
            "violates a foreign key (SQLSTATE 23503)",
        ),
        (
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF NEW.name LIKE '%secret%' THEN RAISE 'no: %', NEW.name; END IF; RETURN NEW; END $$; \
             CREATE TRIGGER refuse BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION refuse()",
            None,
            "refused by a trigger (SQLSTATE P0001)",
        ),
        (
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF NEW.name LIKE '%secret%' THEN RAISE 'no: %', NEW.name; END IF; RETURN NEW; END $$; \
             CREATE TRIGGER refuse AFTER INSERT ON items FOR EACH ROW EXECUTE FUNCTION refuse()",
            None,
            "refused by a trigger (SQLSTATE P0001)",
        ),
    ];
    for (setup, field, reason) in setups {
        let fixture = Fixture::new().await;
        fixture.client.batch_execute(setup).await.unwrap();
        let names =
            ["10.0.0.1", "COPY items, line 99 secret\nCOPY items, line 1, column value: ", "10.0.0.2", "10.0.0.3"];
        let mut all: Vec<_> =
            (0_i64..).zip(names).map(|(number, name)| item(&format!("m{number}"), name, number)).collect();
        if field == Some("once") {
            all.push(item("m4", names[1], 4));
        }
        let staged = fixture.stage(&all);
        let committed = fixture.load(&staged).await;
        assert_eq!(committed.rejected(), 1, "{setup}");
        assert_eq!(fixture.rows().await.cast_unsigned(), all.len() as u64 - 1, "{setup}");
        let lines = fixture.reject_lines(&staged);
        assert_eq!(
            (lines.len(), &lines[0]["reason"], &lines[0]["field"]),
            (1, &json!(reason), &json!(field)),
            "{setup}"
        );
    }
}

#[tokio::test]
async fn refused_rows_among_claimed_ones_are_found() {
    let fixture = Fixture::new().await;
    fixture.client.batch_execute("ALTER TABLE items ADD CHECK (value < 1000)").await.unwrap();
    fixture.load(&fixture.stage(&messages(0..20))).await;
    let mut all = messages(10..40);
    all[5].2 = json!({ "name": "known already, so never copied", "value": 5000 }).to_string();
    all.insert(25, message("big", 5000));
    let committed = fixture.load(&fixture.stage(&all)).await;
    assert_eq!(counts(&committed), (20, 10, 1));
    assert_eq!(fixture.number("SELECT count(DISTINCT value) FROM items").await, 40);
}

#[tokio::test]
async fn rows_that_a_trigger_skips_are_an_error_and_change_nothing() {
    let fixture = Fixture::new().await;
    let skip = "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
                CREATE TRIGGER skip BEFORE INSERT ON items FOR EACH ROW WHEN (NEW.value = 5) EXECUTE FUNCTION skip()";
    fixture.client.batch_execute(skip).await.unwrap();
    fixture.load(&fixture.stage(&messages(0..3))).await;
    // Once as a whole chunk, once as the rows that are new.
    for (first, expected) in [(3, (7, 6)), (0, (7, 6))] {
        let staged = fixture.stage(&messages(first..10));
        let mut loader = fixture.loader().await;
        let error = loader.load(&fixture.staging, &staged).await.unwrap_err();
        let LoadError::RowsSkipped { sent, taken, .. } = error else { panic!("{error}") };
        assert_eq!((sent, taken), expected);
        assert_eq!(fixture.rows().await, 3);
    }
}

#[tokio::test]
async fn an_attempt_again_drops_what_an_earlier_one_wrote_in_the_reject_file() {
    let fixture = Fixture::new().await;
    fixture.client.batch_execute("ALTER TABLE items ADD CONSTRAINT small CHECK (value < 1000)").await.unwrap();
    let staged = fixture.stage(&[message("a", 1), message("b", 5000), bad_message("c")]);
    let mut loader = fixture.loader().await;
    for _ in 0..2 {
        fixture.client.batch_execute("TRUNCATE items").await.unwrap();
        loader.forget(&[staged.segment], false).await.unwrap();
        let committed = loader.load(&fixture.staging, &staged).await.unwrap();
        assert_eq!(counts(&committed), (1, 0, 2));
        assert_eq!(fixture.reject_lines(&staged).len(), 2);
    }
    fixture.client.batch_execute("TRUNCATE items; ALTER TABLE items DROP CONSTRAINT small").await.unwrap();
    loader.forget(&[staged.segment], false).await.unwrap();
    let committed = loader.load(&fixture.staging, &staged).await.unwrap();
    assert_eq!(counts(&committed), (2, 0, 1));
    assert_eq!(fixture.reject_lines(&staged).len(), 1);
    assert_eq!(fixture.number("SELECT count(*) FROM pgsluice.reject").await, 1);
}

/// 20,000 of 20,000 messages were rejected and deleted from the queue, with exit code 0, because a CHECK was wrong.
#[tokio::test]
async fn a_table_that_refuses_everything_stops_the_load_before_anything_is_rejected() {
    for dedupe in [Dedupe::Message, Dedupe::Segment] {
        let mut fixture = Fixture::new().await;
        fixture.pipeline.dedupe = dedupe;
        fixture.pipeline.rejects.max_rejects = Some(MaxRejects::Count(0));
        fixture.client.batch_execute("ALTER TABLE items ADD CONSTRAINT never CHECK (value IS NULL)").await.unwrap();
        let staged = fixture.stage(&messages(0..200));
        let error = fixture.refusal(&staged).await;
        let LoadError::RowsRefused { rows, ref reason, .. } = error else { panic!("{error}") };
        assert_eq!((rows, reason.field.as_deref()), (20, Some("never")));
        assert!(error.to_string().contains("SQLSTATE 23514), never"), "{error}");
        assert_eq!(fixture.decided().await, 0);
    }
}

#[tokio::test]
async fn a_few_bad_messages_at_the_start_are_rejects_once_a_row_is_taken() {
    let fixture = Fixture::new().await;
    fixture.client.batch_execute("ALTER TABLE items ADD CHECK (value >= 19)").await.unwrap();
    assert_eq!(counts(&fixture.load(&fixture.stage(&messages(0..100))).await), (81, 0, 19));
}

/// A producer's 20 bad messages in a row stopped each run at the same place, until somebody changed the table.
#[tokio::test]
async fn many_bad_messages_at_the_start_are_rejects_where_the_table_takes_a_row_of_the_rest() {
    let mut fixture = Fixture::new().await;
    fixture.client.batch_execute("ALTER TABLE items ADD CHECK (value >= 150)").await.unwrap();
    assert_eq!(counts(&fixture.load(&fixture.stage(&messages(100..200))).await), (50, 0, 50));
    assert_eq!(fixture.rows().await, 50, "a probe leaves no row");

    // After the first twenty, each fourth row is probed: 122, 126, … 198.
    fixture = Fixture::new().await;
    fixture.client.batch_execute("ALTER TABLE items ADD CHECK (value = 151)").await.unwrap();
    let error = fixture.refusal(&fixture.stage(&messages(100..200))).await;
    assert!(matches!(error, LoadError::RowsRefused { .. }), "{error}");
    assert_eq!(fixture.decided().await, 0);
}

/// A trigger that raises one SQLSTATE for some names, and counts how often it is called: sequences are not rolled back.
fn poison(sqlstate: &str) -> String {
    format!(
        "CREATE SEQUENCE calls; CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         PERFORM nextval('calls'); \
         IF NEW.name LIKE 'poison%' THEN \
             RAISE 'no: %', NEW.name USING ERRCODE = '{sqlstate}', COLUMN = NEW.name, CONSTRAINT = NEW.name, \
             TABLE = NEW.name, DATATYPE = NEW.name; \
         END IF; RETURN NEW; END $$; \
         CREATE TRIGGER poison BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION poison()"
    )
}

/// A trigger whose CASE had no branch for one message, or whose subquery found two rows, stopped every run: only some
/// classes of SQLSTATEs made rejects.
#[tokio::test]
async fn one_poisonous_row_is_rejected_alone_whatever_its_trigger_raises() {
    for sqlstate in ["20000", "21000", "38000", "42501", "42P01", "54001", "P0001", "XX000", "LG001", "23514"] {
        let fixture = Fixture::new().await;
        fixture.client.batch_execute(&poison(sqlstate)).await.unwrap();
        let mut all = messages(0..50);
        for index in [0, 30] {
            all[index] = item(&format!("p{index}"), "poison: a secret", 0);
        }
        let staged = fixture.stage(&all);
        assert_eq!(counts(&fixture.load(&staged).await), (48, 0, 2), "{sqlstate}");
        let lines = fixture.reject_lines(&staged);
        assert!(lines[0]["reason"].as_str().unwrap().contains(sqlstate), "{}", lines[0]);
    }
}

/// A reject's field, and the text of an error, held whatever a trigger gave as `COLUMN` or `CONSTRAINT`.
#[tokio::test]
async fn a_name_that_a_trigger_makes_up_is_not_repeated() {
    let recorded = "SELECT count(*) FROM pgsluice.reject WHERE field IS NULL AND reason NOT LIKE '%secret%'";
    let fixture = Fixture::new().await;
    fixture.client.batch_execute(&poison("P0001")).await.unwrap();
    let staged = fixture.stage(&[item("m1", "poison: a secret", 0), item("m2", "fine", 0)]);
    fixture.load(&staged).await;
    assert_eq!(fixture.number(recorded).await, 1);
    assert_eq!(fixture.reject_lines(&staged)[0]["field"], json!(null));
    for sqlstate in ["42501", "58030"] {
        let fixture = Fixture::new().await;
        fixture.client.batch_execute(&poison(sqlstate)).await.unwrap();
        let error = fixture.refusal(&fixture.stage(&[item("m1", "poison: a secret", 0)])).await.to_string();
        assert!(error.contains(sqlstate) && !error.contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn where_a_segment_is_too_small_for_evidence_the_sqlstate_decides() {
    for (sqlstate, is_reject) in [("P0001", true), ("20000", true), ("38000", true), ("42501", false), ("42P01", false)]
    {
        let fixture = Fixture::new().await;
        fixture.client.batch_execute(&poison(sqlstate)).await.unwrap();
        let staged = fixture.stage(&[item("m1", "poison", 0), item("m2", "poison", 0)]);
        if is_reject {
            assert_eq!(counts(&fixture.load(&staged).await), (0, 0, 2), "{sqlstate}");
        } else {
            let error = fixture.refusal(&staged).await;
            assert!(error.to_string().contains(sqlstate), "{error}");
            assert_eq!(fixture.decided().await, 0);
        }
    }
}

/// A missing partition, an exhausted sequence and a chunk of other columns made rejects of 20,000 of 20,000 messages.
#[tokio::test]
async fn what_is_always_the_set_up_stops_the_load_even_where_other_rows_are_taken() {
    let no_partition = "DROP TABLE items; CREATE TABLE items (name text, value integer, sent date) \
         PARTITION BY RANGE (value); CREATE TABLE items_0 PARTITION OF items FOR VALUES FROM (0) TO (5)";
    let no_number = "CREATE SEQUENCE ids MAXVALUE 5; ALTER TABLE items ADD id bigint NOT NULL DEFAULT nextval('ids')";
    for (setup, hint) in [(no_partition, "create the partition"), (no_number, "ALTER SEQUENCE")] {
        let fixture = Fixture::new().await;
        fixture.client.batch_execute(setup).await.unwrap();
        let error = fixture.refusal(&fixture.stage(&messages(0..10))).await;
        assert!(error.advice().hint.unwrap().contains(hint), "{error}");
        assert_eq!(fixture.decided().await, 0);
    }
    let fixture = Fixture::new().await;
    let staged = fixture.stage(&messages(0..3));
    let other_columns = "a,1,2026-07-01\nb,2,2026-07-01,more\nc,3,2026-07-01\n";
    std::fs::write(fixture.staging.chunk(staged.segment), other_columns).unwrap();
    let error = fixture.refusal(&staged).await;
    assert!(error.advice().hint.unwrap().contains("transform"), "{error}");
    assert_eq!(fixture.decided().await, 0);
}

#[tokio::test]
async fn a_partition_that_is_itself_the_table_stops_the_load_by_a_row_of_another_one() {
    let mut fixture = Fixture::new().await;
    let create = "CREATE TABLE days (LIKE items) PARTITION BY RANGE (value); \
                  CREATE TABLE day PARTITION OF days FOR VALUES FROM (0) TO (5)";
    fixture.client.batch_execute(create).await.unwrap();
    fixture.pipeline.name = "day".to_owned();
    fixture.pipeline.table.table = "day".to_owned();
    let error = fixture.refusal(&fixture.stage(&messages(0..10))).await;
    assert!(matches!(error, LoadError::NoPartition { .. }), "{error}");
}

#[tokio::test]
async fn a_key_that_the_table_has_is_a_reject_and_one_that_a_sequence_repeats_is_the_set_up() {
    for (key, is_reject) in [
        ("ADD CONSTRAINT key UNIQUE (name, value)", true),
        ("ADD CONSTRAINT key EXCLUDE (value WITH =)", true),
        ("ADD id integer DEFAULT 7, ADD CONSTRAINT key UNIQUE (name, value, id)", false),
        ("ADD id integer GENERATED BY DEFAULT AS IDENTITY CONSTRAINT key PRIMARY KEY", false),
    ] {
        let fixture = Fixture::new().await;
        fixture.client.batch_execute(&format!("ALTER TABLE items {key}")).await.unwrap();
        fixture.load(&fixture.stage(&messages(0..100))).await;
        // As after a restore that left the sequence out.
        let restored = "SELECT setval(pg_get_serial_sequence('items', 'id'), 1, false)";
        _ = fixture.client.batch_execute(restored).await;
        let again: Vec<Message> =
            messages(0..30).into_iter().map(|(id, sent_at, body)| (format!("again {id}"), sent_at, body)).collect();
        let staged = fixture.stage(&again);
        if is_reject {
            assert_eq!(counts(&fixture.load(&staged).await), (0, 0, 30), "{key}");
        } else {
            let error = fixture.refusal(&staged).await;
            assert!(matches!(error, LoadError::RowsRefused { .. }), "{key}: {error}");
        }
    }
    let fixture = Fixture::new().await;
    fixture.client.batch_execute("CREATE UNIQUE INDEX key ON items (lower(name))").await.unwrap();
    fixture.load(&fixture.stage(&[item("m1", "one", 1)])).await;
    let same: Vec<Message> = (0..25).map(|number| item(&format!("s{number}"), "ONE", number)).collect();
    assert_eq!(counts(&fixture.load(&fixture.stage(&same)).await), (0, 0, 25));
}

/// `max_rejects` was looked at only after every row had been tried.
#[tokio::test]
async fn rows_are_isolated_no_further_than_max_rejects_allows() {
    for dedupe in [Dedupe::Message, Dedupe::Segment] {
        let mut fixture = Fixture::new().await;
        fixture.pipeline.dedupe = dedupe;
        fixture.pipeline.rejects.max_rejects = Some(MaxRejects::Count(3));
        fixture.client.batch_execute(&poison("P0001")).await.unwrap();
        let mut all: Vec<Message> = (0..2000).map(|number| item(&format!("p{number}"), "poison", number)).collect();
        all[0] = bad_message("bad");
        all[10] = message("good", 10);
        let staged = fixture.stage(&all);
        let error = fixture.refusal(&staged).await;
        let LoadError::TooManyRejects { rejects, messages: 2000, .. } = error else { panic!("{error}") };
        assert_eq!(rejects, 10, "nine were refused before the first that was taken");
        assert!(fixture.number("SELECT last_value FROM calls").await < 20);
        assert_eq!(fixture.reject_lines(&staged).len(), 10, "their reasons are there to be read");
        assert_eq!(fixture.decided().await, 0);
    }
}

/// By `dedupe = "segment"`, what is refused twice may be one message, which is one reject and one duplicate.
#[tokio::test]
async fn a_message_that_is_refused_twice_counts_once_for_max_rejects() {
    let mut fixture = Fixture::new().await;
    fixture.pipeline.dedupe = Dedupe::Segment;
    fixture.pipeline.rejects.max_rejects = Some(MaxRejects::Count(3));
    fixture.client.batch_execute(&poison("P0001")).await.unwrap();
    let twice = |number: i64| item(&format!("p{}", number % 3), "poison", number % 3);
    let all: Vec<Message> = [vec![message("good", 10)], (0..6).map(twice).collect()].concat();
    assert_eq!(counts(&fixture.load(&fixture.stage(&all)).await), (1, 3, 3));
}

#[test]
fn whatever_lines_the_rows_take_only_the_refused_ones_are_rejected() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fixture = runtime.block_on(async {
        let fixture = Fixture::new().await;
        fixture.client.batch_execute("ALTER TABLE items ADD CHECK (value >= 0)").await.unwrap();
        fixture
    });
    let row = ("[a\r\n\",]{0,6}", proptest::bool::weighted(0.2));
    let mut runner = TestRunner::new(ProptestConfig::with_cases(64));
    let tested = runner.run(&proptest::collection::vec(row, 1..40), |rows| {
        let bad = rows.iter().filter(|(_, bad)| *bad).count() as u64;
        let good = rows.len() as u64 - bad;
        let items = rows.iter().enumerate();
        let all: Vec<_> =
            items.map(|(index, (name, bad))| item(&format!("m{index}"), name, if *bad { -1 } else { 1 })).collect();
        runtime.block_on(async {
            fixture.client.batch_execute("TRUNCATE items, pgsluice.message, pgsluice.reject").await.unwrap();
            assert_eq!(counts(&fixture.load(&fixture.stage(&all)).await), (good, 0, bad));
            assert_eq!(fixture.rows().await.cast_unsigned(), good);
        });
        Ok(())
    });
    tested.unwrap();
}
