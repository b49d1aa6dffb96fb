//! Creates what a load needs in the database, from the files in `sql/`, and checks that it is there.

use tokio_postgres::{Client, Row};

use super::super::LoadError;
use crate::config::DatabaseUrl;
use crate::postgres::{PostgresError, connect};

/// The files of `sql/`, in the order in which they are applied.
const FILES: [(&str, &str); 2] = [
    ("001_ledger.sql", include_str!("../../../sql/001_ledger.sql")),
    ("002_user_logins.sql", include_str!("../../../sql/002_user_logins.sql")),
];
const TABLES: &str = "SELECT to_regclass('pgsluice.' || name) IS NOT NULL, \
     has_table_privilege(to_regclass('pgsluice.' || name), 'SELECT') \
     AND has_table_privilege(to_regclass('pgsluice.' || name), 'INSERT') \
     AND has_function_privilege(to_regprocedure('pgsluice.ensure_message_partitions(date, date)'), 'EXECUTE') \
     FROM unnest(ARRAY['segment', 'message', 'reject']) AS name";
/// Two `init` at once would both find a table missing and both create it. The number is only ours: "pgsluice".
const ADVISORY_LOCK: i64 = i64::from_be_bytes(*b"pgsluice");

/// The SQL that [`init`] applies: file names and texts, in order.
pub fn init_sql(with_user_logins: bool) -> impl Iterator<Item = (&'static str, &'static str)> {
    FILES.into_iter().filter(move |(name, _)| with_user_logins || !name.ends_with("user_logins.sql"))
}

/// Creates the ledger, and with it the table `user_logins` if asked for, where they are missing, in one transaction.
pub async fn init(database: &DatabaseUrl, with_user_logins: bool) -> Result<(), LoadError> {
    let mut client = connect(database).await?;
    let failed = |action: &str| {
        let action = action.to_owned();
        move |error| PostgresError::of_statement(&action, error)
    };
    let transaction = client.transaction().await.map_err(failed("BEGIN"))?;
    let lock = format!("SELECT pg_advisory_xact_lock({ADVISORY_LOCK})");
    transaction.batch_execute(&lock).await.map_err(failed("an advisory lock"))?;
    for (name, text) in init_sql(with_user_logins) {
        transaction.batch_execute(text).await.map_err(failed(&format!("applying sql/{name}")))?;
    }
    Ok(transaction.commit().await.map_err(failed("COMMIT"))?)
}

/// The ledger is there, and the role may use it.
pub(in crate::load) async fn check(client: &Client) -> Result<(), LoadError> {
    let read = |row: &Row| Ok((row.try_get(0)?, row.try_get::<_, Option<bool>>(1)?));
    let tables: Vec<(bool, Option<bool>)> = client
        .query(TABLES, &[])
        .await
        .and_then(|rows| rows.iter().map(read).collect())
        .map_err(|error| PostgresError::of_statement("looking at the ledger", error))?;
    if !tables.iter().all(|(exists, _)| *exists) {
        return Err(LoadError::NoLedger);
    }
    if !tables.iter().all(|(_, allowed)| *allowed == Some(true)) {
        return Err(PostgresError::forbidden(
            "SELECT, INSERT and EXECUTE on the ledger (schema pgsluice)",
            String::new(),
        )
        .into());
    }
    Ok(())
}
