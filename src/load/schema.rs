//! Creates what a load needs in the database, from the files in `sql/`.

use super::connection::connect;
use super::refused;
use crate::config::DatabaseUrl;
use crate::error::LoadError;

/// The files of `sql/`, in the order in which they are applied.
const FILES: [(&str, &str); 2] = [
    ("001_ledger.sql", include_str!("../../sql/001_ledger.sql")),
    ("002_user_logins.sql", include_str!("../../sql/002_user_logins.sql")),
];
/// Two `init` at once would both find a table missing and both create it. The number is only ours: "pgsluice".
const ADVISORY_LOCK: i64 = i64::from_be_bytes(*b"pgsluice");

/// The SQL that [`init`] applies: file names and texts, in order.
pub fn init_sql() -> impl Iterator<Item = (&'static str, &'static str)> {
    FILES.into_iter()
}

/// Creates the ledger and the table `user_logins` where they are missing, in one transaction.
pub async fn init(database: &DatabaseUrl) -> Result<(), LoadError> {
    let mut client = connect(database).await?;
    let failed = |action: &str| {
        let action = action.to_owned();
        move |error| refused(&action, error)
    };
    let transaction = client.transaction().await.map_err(failed("BEGIN"))?;
    let lock = format!("SELECT pg_advisory_xact_lock({ADVISORY_LOCK})");
    transaction.batch_execute(&lock).await.map_err(failed("an advisory lock"))?;
    for (name, text) in init_sql() {
        transaction.batch_execute(text).await.map_err(failed(&format!("applying sql/{name}")))?;
    }
    transaction.commit().await.map_err(failed("COMMIT"))
}
