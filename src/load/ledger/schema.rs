//! Creates what a load needs in the database, from the files in `sql/`, and checks that it is there.

use tokio_postgres::{Client, IsolationLevel};

use super::super::LoadError;
use super::super::preflight::qualified_name;
use super::pipeline::{PipelineRow, check_version};
use crate::config::{DatabaseUrl, Pipeline};
use crate::postgres::{PostgresError, connect};

const TABLE_FILE: &str = "004_user_logins.sql";
/// The files of `sql/`, in the order in which they are applied.
const FILES: [(&str, &str); 4] = [
    ("001_set_version_1_aside.sql", include_str!("../../../sql/001_set_version_1_aside.sql")),
    ("002_ledger.sql", include_str!("../../../sql/002_ledger.sql")),
    ("003_take_over_version_1.sql", include_str!("../../../sql/003_take_over_version_1.sql")),
    (TABLE_FILE, include_str!("../../../sql/004_user_logins.sql")),
];
const RIGHTS: &str = "SELECT pg_catalog.bool_and(\
     pg_catalog.has_table_privilege('pgsluice.' OPERATOR(pg_catalog.||) name, 'SELECT') \
     AND pg_catalog.has_table_privilege('pgsluice.' OPERATOR(pg_catalog.||) name, 'INSERT')) \
     AND pg_catalog.has_sequence_privilege('pgsluice.segment_no', 'USAGE') \
     AND pg_catalog.has_function_privilege('pgsluice.ensure_message_partitions(integer[])', 'EXECUTE') \
     FROM pg_catalog.unnest(ARRAY['pipeline', 'segment', 'message', 'reject', 'masking']) AS name";
/// Two `init` at once would both find a table missing and both create it. The number is only ours: "pgsluice".
const ADVISORY_LOCK: i64 = i64::from_be_bytes(*b"pgsluice");

/// The SQL that [`init`] applies: file names and texts, in order.
pub fn init_sql(with_user_logins: bool) -> impl Iterator<Item = (&'static str, &'static str)> {
    FILES.into_iter().filter(move |(name, _)| with_user_logins || *name != TABLE_FILE)
}

/// Creates the ledger, or takes over one of version 1; creates the table `user_logins` where the mapping is the built-in
/// one and the table is missing; and records which table the pipeline loads. In one transaction, except the last.
pub async fn init(database: &DatabaseUrl, pipeline: &Pipeline) -> Result<(), LoadError> {
    let mut client = connect(database).await?;
    let failed = |action: &str| {
        let action = action.to_owned();
        move |error| PostgresError::of_statement(&action, error)
    };
    match check_version(&client).await {
        Err(LoadError::NoLedger | LoadError::OlderLedger { .. }) | Ok(()) => {}
        Err(error) => return Err(error),
    }
    // Whatever the role's default is: what loads of version 1 commit while this waits for them must be seen.
    let begin = client.build_transaction().isolation_level(IsolationLevel::ReadCommitted);
    let transaction = begin.start().await.map_err(failed("BEGIN"))?;
    let lock = format!("SELECT pg_catalog.pg_advisory_xact_lock({ADVISORY_LOCK})");
    transaction.batch_execute(&lock).await.map_err(failed("an advisory lock"))?;
    for (name, text) in init_sql(pipeline.fits_user_logins()?) {
        transaction.batch_execute(text).await.map_err(failed(&format!("applying sql/{name}")))?;
    }
    transaction.commit().await.map_err(failed("COMMIT"))?;
    match qualified_name(&client, &pipeline.table).await {
        Ok(target) => PipelineRow::set_target(&client, &pipeline.name, &target).await,
        // The table's owner may make it later; a run that still misses it says so.
        Err(LoadError::NoTable { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Checks that the role may use the ledger.
pub(in crate::load) async fn check(client: &Client) -> Result<(), LoadError> {
    let allowed = client.query_typed_one(RIGHTS, &[]).await.and_then(|row| row.try_get(0));
    let allowed: bool = allowed.map_err(|error| PostgresError::of_statement("looking at the ledger", error))?;
    if !allowed {
        let action = "SELECT, INSERT, USAGE and EXECUTE on the ledger (schema pgsluice)";
        return Err(PostgresError::forbidden(action, String::new()).into());
    }
    Ok(())
}
