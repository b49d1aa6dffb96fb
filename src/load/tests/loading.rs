use serde_json::json;

use super::super::*;
use super::fixture::{Fixture, OLD_MS, bad_message, counts, message, messages};
use crate::postgres::connect;

#[tokio::test]
async fn a_segment_is_loaded_once() {
    let fixture = Fixture::new().await;
    let mut all = messages(0..500);
    all.push(bad_message("bad"));
    let staged = fixture.stage(&all);

    let first = fixture.load(&staged).await;
    assert_eq!((counts(&first), first.received(), first.was_known()), ((500, 0, 1), 501, false));
    let second = fixture.load(&staged).await;
    assert_eq!((counts(&second), second.was_known()), ((500, 0, 1), true));

    assert_eq!(fixture.rows().await, 500);
    assert_eq!(fixture.number("SELECT count(*) FROM pgsluice.message").await, 501);
    assert_eq!(fixture.number("SELECT count(*) FROM pgsluice.reject WHERE stage = 'transform'").await, 1);
    let mut loader = fixture.loader().await;
    let totals = loader.totals().await.unwrap();
    assert_eq!((totals.segments, totals.loaded, totals.duplicates, totals.rejected), (1, 500, 0, 1));
    assert!(totals.last_loaded_at.is_some());
    let other = SegmentId::now();
    let committed = loader.known(&[staged.segment, other]).await.unwrap();
    assert_eq!(committed.keys().copied().collect::<Vec<_>>(), [staged.segment]);
    assert_eq!(committed[&staged.segment], second);
}

#[tokio::test]
async fn a_redelivery_in_another_segment_is_a_duplicate() {
    let fixture = Fixture::new().await;
    let mut first = messages(0..100);
    first.push(bad_message("bad"));
    let mut second = messages(90..120);
    second.push(bad_message("bad"));
    second.push(bad_message("worse"));

    fixture.load(&fixture.stage(&first)).await;
    let committed = fixture.load(&fixture.stage(&second)).await;

    assert_eq!(counts(&committed), (20, 11, 1));
    assert_eq!(fixture.rows().await, 120);
    assert_eq!(fixture.number("SELECT count(DISTINCT value) FROM items").await, 120);
    assert_eq!(fixture.number("SELECT count(*) FROM pgsluice.reject").await, 2);
}

#[tokio::test]
async fn a_message_twice_in_one_segment_counts_once() {
    let fixture = Fixture::new().await;
    let all = [message("a", 1), message("b", 2), message("a", 1), bad_message("c"), bad_message("c"), message("a", 1)];
    let committed = fixture.load(&fixture.stage(&all)).await;
    assert_eq!(counts(&committed), (2, 3, 1));
    assert_eq!(fixture.rows().await, 2);
}

#[tokio::test]
async fn hostile_texts_come_back_as_they_were() {
    let texts = [
        "",
        "\\N",
        "\\.",
        "a\n\\.\nb",
        "\n\\.\n",
        "null",
        "NULL",
        "\"",
        "\"\"",
        "a,b",
        "a\nb",
        "a\r\nb",
        "\r",
        "\n",
        " ",
        "\t",
        "\\",
        "\u{1f980} ünï\u{301}",
        "\u{feff}",
        "\u{85}\u{2028}",
        "a;b|c",
        "'",
        "\u{1}\u{7f}",
        "\\\"",
        "end\\",
    ];
    let mut fixture = Fixture::new().await;
    let mut all: Vec<_> = (0_i64..)
        .zip(texts)
        .map(|(number, text)| (format!("m{number}"), OLD_MS, json!({ "name": text, "value": number }).to_string()))
        .collect();
    all.push(("null".to_owned(), OLD_MS, json!({ "value": -1 }).to_string()));
    // Once with other columns beside it, once alone in its line, and both ways of copying.
    for columns in [3, 1] {
        fixture.pipeline.columns.truncate(columns);
        fixture.client.batch_execute("TRUNCATE items, pgsluice.message").await.unwrap();
        assert_eq!(counts(&fixture.load(&fixture.stage(&all[1..3])).await), (2, 0, 0));
        assert_eq!(counts(&fixture.load(&fixture.stage(&all)).await), (texts.len() as u64 - 1, 2, 0));
        let rows = fixture.client.query("SELECT name FROM items", &[]).await.unwrap();
        let mut names: Vec<Option<String>> = rows.iter().map(|row| row.get(0)).collect();
        let mut expected: Vec<_> = texts.iter().map(|text| Some((*text).to_owned())).collect();
        expected.push(None);
        names.sort();
        expected.sort();
        assert_eq!(names, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn loaders_with_the_same_messages_in_opposite_order_agree() {
    let fixture = Fixture::new().await;
    let forwards = messages(0..4000);
    let backwards: Vec<_> = forwards.iter().rev().cloned().collect();
    let middle: Vec<_> = messages(2000..6000).into_iter().rev().collect();
    let staged = [&forwards, &backwards, &middle].map(|all| fixture.stage(all));
    let mut loads = Vec::new();
    for staged in staged {
        let (mut loader, staging) = (fixture.loader().await, fixture.staging.clone());
        loads.push(tokio::spawn(async move { loader.load(&staging, &staged).await.unwrap() }));
    }
    let mut loaded = 0;
    for load in loads {
        loaded += load.await.unwrap().loaded();
    }
    assert_eq!(loaded, 6000);
    assert_eq!(fixture.rows().await, 6000);
    assert_eq!(fixture.number("SELECT count(DISTINCT value) FROM items").await, 6000);
}

#[tokio::test]
async fn one_segment_loaded_by_two_at_once_is_loaded_once() {
    let mut fixture = Fixture::new().await;
    for dedupe in [Dedupe::Message, Dedupe::Segment] {
        fixture.pipeline.dedupe = dedupe;
        fixture.client.batch_execute("TRUNCATE items, pgsluice.message").await.unwrap();
        let staged = fixture.stage(&messages(0..2000));
        let (mut one, mut two) = (fixture.loader().await, fixture.loader().await);
        let (one, two) =
            tokio::try_join!(one.load(&fixture.staging, &staged), two.load(&fixture.staging, &staged),).unwrap();
        assert_ne!(one.was_known(), two.was_known());
        assert_eq!(fixture.rows().await, 2000);
    }
}

#[tokio::test]
async fn days_since_the_ledger_was_made_get_partitions_and_older_ones_do_not() {
    let fixture = Fixture::new().await;
    let now = jiff::Timestamp::now().as_millisecond();
    let day = 86_400_000;
    let times = [now, now - day, now - 14 * day, now - 40 * day, now + 40 * day, OLD_MS, 0, -5];
    let all: Vec<_> =
        times.iter().enumerate().map(|(index, time)| (format!("m{index}"), *time, "?".to_owned())).collect();
    assert_eq!(counts(&fixture.load(&fixture.stage(&all)).await), (0, 0, 8));
    assert_eq!(fixture.number("SELECT count(*) FROM pgsluice.message_default").await, 4, "40 days ago, old, 0, -5");
    // Beside those, one for each day.
    let partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'pgsluice.message'::regclass";
    assert_eq!(fixture.number(partitions).await, 1 + 4);
    // The same from another loader, which knows nothing of the first.
    assert_eq!(counts(&fixture.load(&fixture.stage(&all)).await), (0, 8, 0));
    assert_eq!(fixture.number(partitions).await, 1 + 4);
}

/// To attach the partition of a new day, Postgres locked and scanned the default one: 27 s with 4 million old rows.
#[tokio::test]
async fn a_new_day_waits_for_nothing_that_others_load() {
    let fixture = Fixture::new().await;
    let mut other = connect(&fixture.url).await.unwrap();
    let loading = other.transaction().await.unwrap();
    let insert = "INSERT INTO pgsluice.message VALUES ('1970-01-01', gen_random_uuid(), 99, 99)";
    loading.batch_execute(insert).await.unwrap();
    let now = jiff::Timestamp::now().as_millisecond();
    let committed = fixture.load(&fixture.stage(&[("m".to_owned(), now, "{}".to_owned())])).await;
    assert_eq!(counts(&committed), (1, 0, 0));
    assert_eq!(fixture.number("SELECT count(*) FROM pgsluice.message_default").await, 0);
    loading.commit().await.unwrap();
}

#[tokio::test]
async fn dedupe_by_segment_recognises_segments_only() {
    let mut fixture = Fixture::new().await;
    fixture.pipeline.dedupe = Dedupe::Segment;
    let all = [message("a", 1), message("b", 2), bad_message("c")];
    let staged = fixture.stage(&all);
    assert_eq!(counts(&fixture.load(&staged).await), (2, 0, 1));
    assert!(fixture.load(&staged).await.was_known());
    assert_eq!(counts(&fixture.load(&fixture.stage(&all)).await), (2, 0, 1));
    assert_eq!(fixture.rows().await, 4);
    assert_eq!(fixture.number("SELECT count(*) FROM pgsluice.message").await, 0);
}

#[tokio::test]
async fn again_fills_an_emptied_table_with_each_message_once() {
    let fixture = Fixture::new().await;
    let mut first = messages(0..50);
    first.push(bad_message("bad"));
    let staged = [fixture.stage(&first), fixture.stage(&messages(40..80))];
    for segment in &staged {
        fixture.load(segment).await;
    }
    for order in [[0, 1], [1, 0]] {
        fixture.client.batch_execute("TRUNCATE items").await.unwrap();
        let mut loader = fixture.loader().await;
        let ids = staged.each_ref().map(|segment| segment.segment);
        let forgotten = loader.forget(&ids, false).await.unwrap();
        assert_eq!((forgotten.segments, forgotten.goes_on), (2, false));
        for index in order {
            let committed = loader.load(&fixture.staging, &staged[index]).await.unwrap();
            let expected = if order[0] == 0 { [(50, 0, 1), (30, 10, 0)] } else { [(40, 10, 1), (40, 0, 0)] };
            assert_eq!(counts(&committed), expected[index], "whichever is first owns what both hold");
            assert!(!committed.was_known());
        }
        loader.end_again().await.unwrap();
        assert_eq!(fixture.rows().await, 80);
        assert_eq!(fixture.number("SELECT count(DISTINCT value) FROM items").await, 80);
        assert_eq!(fixture.number("SELECT count(*) FROM pgsluice.reject").await, 1);
        assert_eq!(fixture.number("SELECT count(*) FROM pgsluice.segment").await, 2);
    }
}

#[tokio::test]
async fn a_connection_that_the_server_ends_is_opened_again() {
    let fixture = Fixture::new().await;
    let mut loader = fixture.loader().await;
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                WHERE datname = current_database() AND pid <> pg_backend_pid()";
    assert_eq!(fixture.number(kill).await, 1);
    let staged = fixture.stage(&messages(0..10));
    let committed = loader.load(&fixture.staging, &staged).await.unwrap();
    assert_eq!(counts(&committed), (10, 0, 0));
}

#[tokio::test]
async fn a_chunk_that_does_not_match_its_ids_changes_nothing() {
    let fixture = Fixture::new().await;
    let staged = fixture.stage(&messages(0..10));
    let chunk = fixture.staging.chunk(staged.segment);
    let rows = std::fs::read_to_string(&chunk).unwrap();
    std::fs::write(&chunk, rows.split_once('\n').unwrap().1).unwrap();
    let mut loader = fixture.loader().await;
    let error = loader.load(&fixture.staging, &staged).await.unwrap_err();
    assert!(matches!(error, LoadError::Chunk(ChunkError::Inconsistent { .. })), "{error}");
    let tables = "SELECT (SELECT count(*) FROM items) + (SELECT count(*) FROM pgsluice.message)";
    assert_eq!(fixture.number(tables).await, 0);

    std::fs::write(&chunk, rows).unwrap();
    let mut miscounted = staged.clone();
    miscounted.rejects = 1;
    let error = loader.load(&fixture.staging, &miscounted).await.unwrap_err();
    assert!(matches!(error, LoadError::Chunk(ChunkError::Inconsistent { .. })), "{error}");
    assert_eq!(counts(&loader.load(&fixture.staging, &staged).await.unwrap()), (10, 0, 0));
}

/// `replay --again`, killed in the middle and repeated, forgot again what it had loaded: 300,000 messages became 340,000
/// rows.
#[tokio::test]
async fn again_goes_on_where_an_earlier_one_ended_and_never_fills_a_table_twice() {
    let fixture = Fixture::new().await;
    let staged = [fixture.stage(&messages(0..50)), fixture.stage(&messages(50..80))];
    for segment in &staged {
        fixture.load(segment).await;
    }
    let ids = staged.each_ref().map(|segment| segment.segment);
    let mut loader = fixture.loader().await;
    let refused = loader.forget(&ids, false).await.unwrap_err();
    assert!(matches!(refused, LoadError::TableNotEmpty { .. }), "{refused}");

    fixture.client.batch_execute("TRUNCATE items").await.unwrap();
    assert_eq!(loader.forget(&ids, false).await.unwrap().segments, 2);
    loader.load(&fixture.staging, &staged[0]).await.unwrap();
    let again = loader.forget(&ids, false).await.unwrap();
    assert_eq!((again.segments, again.goes_on), (0, true));
    for segment in &staged {
        loader.load(&fixture.staging, segment).await.unwrap();
    }
    loader.end_again().await.unwrap();
    assert_eq!(fixture.rows().await, 80);
    assert!(loader.forget(&ids, false).await.is_err(), "it has ended");
}

/// The load of a segment that began before a replay's note, and committed after it, was forgotten by the replay's next
/// attempt, and loaded twice. And what was committed while the replay waited was not seen.
#[tokio::test]
async fn again_waits_for_loads_under_way_and_forgets_none_that_end_after_its_note() {
    let fixture = Fixture::new().await;
    let staged = fixture.stage(&messages(0..10));
    // A load, as far as others see it: its turn, and later its rows.
    let mut other = connect(&fixture.url).await.unwrap();
    let loading = other.transaction().await.unwrap();
    let turn = "SELECT pg_advisory_xact_lock_shared(x'736c7569'::integer, 'items'::regclass::oid::integer)";
    loading.batch_execute(&format!("{turn}; INSERT INTO items (name) VALUES ('theirs')")).await.unwrap();
    let mut loader = fixture.loader().await;
    let segments = [staged.segment];
    let replay = tokio::spawn(async move { loader.forget(&segments, false).await });
    fixture.wait_for_waiting("advisory").await;
    loading.commit().await.unwrap();
    let refused = replay.await.unwrap().unwrap_err();
    assert!(matches!(refused, LoadError::TableNotEmpty { .. }), "{refused}");

    // `loaded_at` is when it was recorded, not when the transaction began.
    let slow = "TRUNCATE items; CREATE TABLE began (at timestamptz DEFAULT now()); \
                CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO began DEFAULT VALUES; \
                PERFORM pg_sleep(0.05); RETURN NULL; END'; \
                CREATE TRIGGER slow AFTER INSERT ON items FOR EACH STATEMENT EXECUTE FUNCTION slow()";
    fixture.client.batch_execute(slow).await.unwrap();
    fixture.load(&staged).await;
    let late = "SELECT count(*) FROM pgsluice.segment, began WHERE loaded_at >= at + interval '50 ms'";
    assert_eq!(fixture.number(late).await, 1);
}

/// What is asked after a lock was waited for did not see what its holder had done, and two loaders made a day's partition.
#[tokio::test]
async fn what_the_roles_default_isolation_is_changes_nothing() {
    let fixture = Fixture::new().await;
    let default = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = ''serializable''', \
                   current_database()); END $$";
    fixture.client.batch_execute(default).await.unwrap();
    let now = jiff::Timestamp::now().as_millisecond();
    let staged: Vec<_> = (0..6).map(|n| fixture.stage(&[(format!("m{n}"), now, "{}".to_owned())])).collect();
    let mut loads = tokio::task::JoinSet::new();
    for staged in staged {
        let (mut loader, staging) = (fixture.loader().await, fixture.staging.clone());
        loads.spawn(async move { loader.load(&staging, &staged).await });
    }
    while let Some(loaded) = loads.join_next().await {
        assert_eq!(counts(&loaded.unwrap().unwrap()), (1, 0, 0));
    }
    assert_eq!(fixture.rows().await, 6);
}

/// A segment that was known had its messages deleted, where it had been copied here without the bodies of its rejects.
#[tokio::test]
async fn the_rejects_of_a_known_segment_are_kept_where_their_bodies_are_not_here() {
    for dedupe in [Dedupe::Message, Dedupe::Segment] {
        let mut fixture = Fixture::new().await;
        fixture.pipeline.dedupe = dedupe;
        let staged = fixture.stage(&[message("a", 1), bad_message("b")]);
        fixture.load(&staged).await;
        let lines = fixture.reject_lines(&staged);
        std::fs::remove_file(fixture.staging.rejects(staged.segment)).unwrap();
        let mut loader = fixture.loader().await;
        let known = loader.known(&[staged.segment]).await.unwrap().remove(&staged.segment).unwrap();
        loader.keep_redelivered_rejects(&fixture.staging, known).await.unwrap();
        let again = fixture.reject_lines(&staged);
        assert_eq!((again.len(), &again[0]["body"]), (1, &lines[0]["body"]), "{dedupe:?}");
        assert_eq!(again[0]["reason"], lines[0]["reason"]);
    }
}

/// After a dump and restore the transaction ids of rows are others: `--again` loaded nothing, and said 0.
#[tokio::test]
async fn who_owns_a_message_survives_a_rewrite_of_its_row() {
    let fixture = Fixture::new().await;
    let staged = [fixture.stage(&messages(0..50)), fixture.stage(&messages(40..80))];
    for segment in &staged {
        fixture.load(segment).await;
    }
    let rewritten = "CREATE TABLE copy AS SELECT * FROM pgsluice.message; TRUNCATE pgsluice.message; \
                     INSERT INTO pgsluice.message SELECT * FROM copy; TRUNCATE items";
    fixture.client.batch_execute(rewritten).await.unwrap();
    let mut loader = fixture.loader().await;
    loader.forget(&[staged[1].segment], false).await.unwrap();
    assert_eq!(counts(&loader.load(&fixture.staging, &staged[1]).await.unwrap()), (30, 10, 0));
}
