use proptest::prelude::ProptestConfig;
use proptest::test_runner::TestRunner;
use serde_json::json;

use super::super::*;
use super::fixture::{Fixture, Message, OLD_MS, bad_message, counts, message, messages};

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

#[tokio::test]
async fn a_table_that_refuses_everything_rejects_everything() {
    let mut fixture = Fixture::new().await;
    fixture.pipeline.dedupe = Dedupe::Segment;
    fixture.client.batch_execute("ALTER TABLE items ADD CHECK (value IS NULL)").await.unwrap();
    let committed = fixture.load(&fixture.stage(&messages(0..200))).await;
    assert_eq!(counts(&committed), (0, 0, 200));
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
