use super::fixture::{Fixture, Message, OLD_MS, counts, message};

/// Its retries met other loads of the same keys, and each might end in a deadlock again.
#[tokio::test]
async fn after_a_deadlock_a_segment_is_loaded_while_no_other_one_is() {
    let fixture = Fixture::new().await;
    let fails_then_waits = "CREATE SEQUENCE calls; CREATE TABLE gate (open boolean); INSERT INTO gate VALUES (false); \
         CREATE FUNCTION fail_then_wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF nextval('calls') = 1 THEN RAISE EXCEPTION USING ERRCODE = '40P01'; END IF; \
             PERFORM FROM gate FOR UPDATE; RETURN NEW; END $$; \
         CREATE TRIGGER fail_then_wait BEFORE INSERT ON items FOR EACH ROW WHEN (NEW.value = 1) \
             EXECUTE FUNCTION fail_then_wait()";
    fixture.client.batch_execute(fails_then_waits).await.unwrap();
    let (first, second) = (fixture.stage(&[message("a", 1)]), fixture.stage(&[message("b", 2)]));
    fixture.client.batch_execute("BEGIN; SELECT FROM gate FOR UPDATE").await.unwrap();

    let mut loaders = [fixture.loader().await, fixture.loader().await];
    let [one, other] = &mut loaders;
    let watched = async {
        // The first waits for the gate on its second attempt; then the second waits for the first.
        fixture.wait_for_waiting("transactionid").await;
        let waiting = fixture.wait_for_waiting("advisory");
        let second = other.load(&fixture.staging, &second);
        tokio::pin!(second);
        tokio::select! {
            () = waiting => {}
            loaded = &mut second => panic!("it did not wait: {loaded:?}"),
        }
        fixture.client.batch_execute("COMMIT").await.unwrap();
        second.await.unwrap()
    };
    let (first, second) = tokio::join!(one.load(&fixture.staging, &first), watched);
    assert_eq!((counts(&first.unwrap()), counts(&second)), ((1, 0, 0), (1, 0, 0)));
    assert_eq!(one.take_retries(), 1);
}

#[tokio::test]
async fn loads_that_met_no_deadlock_do_not_wait_for_each_other() {
    let fixture = Fixture::new().await;
    let gate = "CREATE TABLE gate (open boolean); INSERT INTO gate VALUES (false); \
         CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM FROM gate FOR UPDATE; RETURN NEW; END $$; \
         CREATE TRIGGER wait BEFORE INSERT ON items FOR EACH ROW WHEN (NEW.value = 1) EXECUTE FUNCTION wait()";
    fixture.client.batch_execute(gate).await.unwrap();
    let held: Message = ("a".to_owned(), OLD_MS, message("a", 1).2);
    let (first, second) = (fixture.stage(&[held]), fixture.stage(&[message("b", 2)]));
    fixture.client.batch_execute("BEGIN; SELECT FROM gate FOR UPDATE").await.unwrap();
    let mut loader = fixture.loader().await;
    let beside = async {
        fixture.wait_for_waiting("transactionid").await;
        assert_eq!(counts(&fixture.load(&second).await), (1, 0, 0));
        fixture.client.batch_execute("COMMIT").await.unwrap();
    };
    let (first, ()) = tokio::join!(loader.load(&fixture.staging, &first), beside);
    assert_eq!(counts(&first.unwrap()), (1, 0, 0));
}
