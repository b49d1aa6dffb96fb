use super::super::*;
use super::fixture::{Fixture, bad_message, counts, messages};
use crate::postgres::tests::hostile;

/// Once a role with CREATE on a schema of `search_path` had its operators called by the loader, with the loader's rights.
#[tokio::test]
async fn a_load_calls_no_operator_or_function_that_others_put_into_its_search_path() {
    let fixture = Fixture::new().await;
    // So that one row is searched for, and the catalog asked about the constraint.
    fixture.client.batch_execute("ALTER TABLE items ADD CONSTRAINT not_five CHECK (value <> 5)").await.unwrap();
    hostile::plant(&fixture.client).await;
    let mut loader = fixture.loader().await;
    loader.check_mapping().await.unwrap();
    let staged = fixture.stage(&[messages(0..20), vec![bad_message("bad")]].concat());
    let load = async |loader: &mut Loader, staged| loader.load(&fixture.staging, staged).await.unwrap();
    assert_eq!(counts(&load(&mut loader, &staged).await), (19, 0, 2));
    assert!(load(&mut loader, &staged).await.was_known());
    // Half of its messages are known, so the messages are claimed one by one.
    assert_eq!(counts(&load(&mut loader, &fixture.stage(&messages(10..30))).await), (10, 10, 0));
    loader.known(&[staged.segment]).await.unwrap();
    loader.totals().await.unwrap();
    assert_eq!(hostile::calls(&fixture.client).await, 0);
}
