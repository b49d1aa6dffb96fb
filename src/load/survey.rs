//! What a database says of itself, of the role, of the ledger and of the table, for `check`. Reads only.

use std::time::SystemTime;

use jiff::Timestamp;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::LoadError;
use super::ledger::{PipelineRow, check_version};
use super::preflight::{Misfit, misfits, qualified_name};
use super::target::quoted_table;
use crate::config::{DatabaseUrl, OnReject, Pipeline};
use crate::postgres::{PostgresError, connect, quote_identifier};

const SERVER: &str = "SELECT current_user::pg_catalog.text, \
     (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) current_user), \
     pg_catalog.current_setting('server_version'), pg_catalog.pg_is_in_recovery(), \
     (SELECT version FROM pg_catalog.pg_stat_ssl WHERE pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND ssl), \
     coalesce(pg_catalog.inet_client_addr() OPERATOR(pg_catalog.=) pg_catalog.inet_server_addr() \
         OR pg_catalog.inet_client_addr() OPERATOR(pg_catalog.<<=) '127.0.0.0/8' \
         OR pg_catalog.inet_client_addr() OPERATOR(pg_catalog.=) '::1', true), \
     pg_catalog.clock_timestamp()";
/// Each right on the ledger, and whether the role has it. The names hold no quotes.
const GRANTS: &str = "SELECT kind, what, name, CASE kind \
     WHEN 'schema' THEN pg_catalog.has_schema_privilege(name, what) \
     WHEN 'table' THEN pg_catalog.has_table_privilege(name, what) \
     WHEN 'sequence' THEN pg_catalog.has_sequence_privilege(name, what) \
     ELSE pg_catalog.has_function_privilege(name, what) END \
     FROM unnest($1, $2, $3) AS right_of (kind, what, name)";
const TABLE: &str = "SELECT relkind::pg_catalog.text, pg_catalog.row_security_active(oid), \
     ARRAY(SELECT tgname::pg_catalog.text FROM pg_catalog.pg_trigger \
         WHERE tgrelid OPERATOR(pg_catalog.=) pg_class.oid AND NOT tgisinternal \
         AND tgenabled OPERATOR(pg_catalog.<>) 'D' \
         AND (tgtype OPERATOR(pg_catalog.&) 4::pg_catalog.int2) OPERATOR(pg_catalog.<>) 0::pg_catalog.int2 \
         ORDER BY tgname), \
     EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid OPERATOR(pg_catalog.=) pg_class.oid \
         AND (tgtype OPERATOR(pg_catalog.&) 68::pg_catalog.int2) OPERATOR(pg_catalog.=) 68::pg_catalog.int2), \
     ARRAY(SELECT rulename::pg_catalog.text FROM pg_catalog.pg_rewrite \
         WHERE ev_class OPERATOR(pg_catalog.=) pg_class.oid AND ev_type OPERATOR(pg_catalog.=) '3' ORDER BY rulename), \
     pg_catalog.pg_get_partkeydef(oid), \
     ARRAY(SELECT pg_catalog.pg_get_expr(child.relpartbound, child.oid) FROM pg_catalog.pg_inherits \
         JOIN pg_catalog.pg_class AS child ON child.oid OPERATOR(pg_catalog.=) inhrelid \
         WHERE inhparent OPERATOR(pg_catalog.=) pg_class.oid) \
     FROM pg_catalog.pg_class WHERE oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1)";
const MASKING: &str = "SELECT column_name, method, key_id FROM pgsluice.masking JOIN pgsluice.pipeline \
     ON pipeline.id OPERATOR(pg_catalog.=) masking.pipeline WHERE pipeline.name OPERATOR(pg_catalog.=) $1";

/// What a database says of itself and of the role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The role.
    pub role: String,
    /// It may do everything.
    pub is_superuser: bool,
    /// The server's version.
    pub version: String,
    /// It is a standby, which takes no rows.
    pub is_standby: bool,
    /// The version of TLS; `None`: the connection is not encrypted.
    pub tls: Option<String>,
    /// The server is on this host.
    pub is_local: bool,
    /// Its clock.
    pub clock: Timestamp,
}

/// What the ledger says.
#[derive(Debug)]
pub struct LedgerSurvey {
    /// SQL for the rights that the role does not have; run by the ledger's owner.
    pub missing_grants: Vec<String>,
    /// The table that the ledger knows for the pipeline, if it knows the pipeline.
    pub known_target: Option<String>,
    /// Each masked column that was written: column, method, key id.
    pub masking: Vec<(String, String, String)>,
}

/// What the table says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSurvey {
    /// Its name as `schema.table`.
    pub name: String,
    /// `pg_class.relkind`.
    pub kind: char,
    /// Policies decide which rows the role may write.
    pub has_row_security: bool,
    /// Its own triggers that an insert fires.
    pub insert_triggers: Vec<String>,
    /// A view can be written through such a trigger.
    pub has_instead_trigger: bool,
    /// Rules for INSERT, which COPY ignores.
    pub insert_rules: Vec<String>,
    /// `RANGE (create_date)`, where it is partitioned.
    pub partition_key: Option<String>,
    /// The bounds of its partitions, as SQL.
    pub partition_bounds: Vec<String>,
    /// What does not fit the mapping.
    pub misfits: Vec<Misfit>,
}

/// What a database says for one pipeline.
#[derive(Debug)]
pub struct Survey {
    /// The server and the role.
    pub server: Server,
    /// The ledger, or why it cannot be used.
    pub ledger: Result<LedgerSurvey, LoadError>,
    /// The table, or why it cannot be used.
    pub table: Result<TableSurvey, LoadError>,
}

impl Survey {
    /// Asks a database. The error is that it cannot be asked at all.
    pub async fn take(database: &DatabaseUrl, pipeline: &Pipeline) -> Result<Self, LoadError> {
        let client = connect(database).await?;
        let server = client.query_typed_one(SERVER, &[]).await.and_then(|row| read_server(&row));
        let server = server.map_err(failed("looking at the server"))?;
        Ok(Self { server, ledger: ask_ledger(&client, pipeline).await, table: ask_table(&client, pipeline).await })
    }
}

fn read_server(row: &Row) -> Result<Server, tokio_postgres::Error> {
    Ok(Server {
        role: row.try_get(0)?,
        is_superuser: row.try_get::<_, Option<bool>>(1)?.unwrap_or(false),
        version: row.try_get(2)?,
        is_standby: row.try_get(3)?,
        tls: row.try_get(4)?,
        is_local: row.try_get(5)?,
        clock: row.try_get::<_, SystemTime>(6)?.try_into().unwrap_or_default(),
    })
}

async fn ask_ledger(client: &Client, pipeline: &Pipeline) -> Result<LedgerSurvey, LoadError> {
    check_version(client).await?;
    let mut rights = vec![
        ("sequence", "USAGE", "pgsluice.segment_no"),
        ("function", "EXECUTE", "pgsluice.ensure_message_partitions(integer[])"),
        ("function", "EXECUTE", "pgsluice.prune()"),
    ];
    let written = ["pgsluice.pipeline", "pgsluice.segment", "pgsluice.message", "pgsluice.reject", "pgsluice.masking"];
    rights.extend(written.iter().flat_map(|table| [("table", "SELECT", *table), ("table", "INSERT", *table)]));
    rights.push(("table", "SELECT", "pgsluice.ledger_version"));
    if pipeline.rejects.on_reject == OnReject::Leave {
        for table in ["pgsluice.segment", "pgsluice.message", "pgsluice.reject"] {
            rights.extend([("table", "UPDATE", table), ("table", "DELETE", table)]);
        }
    }
    let kinds: Vec<&str> = rights.iter().map(|(kind, ..)| *kind).collect();
    let whats: Vec<&str> = rights.iter().map(|(_, what, _)| *what).collect();
    let names: Vec<&str> = rights.iter().map(|(.., name)| *name).collect();
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&kinds, Type::TEXT_ARRAY), (&whats, Type::TEXT_ARRAY), (&names, Type::TEXT_ARRAY)];
    let role: String = {
        let row = client.query_typed_one("SELECT current_user::pg_catalog.text", &[]).await;
        row.and_then(|row| row.try_get(0)).map_err(failed("looking at the role"))?
    };
    let rows = client.query_typed(GRANTS, &parameters).await.map_err(failed("looking at the ledger"))?;
    let mut missing_grants = Vec::new();
    for row in rows {
        let (kind, what, name): (String, String, String) = (read(&row, 0)?, read(&row, 1)?, read(&row, 2)?);
        if !read::<bool>(&row, 3)? {
            let role = quote_identifier(&role);
            missing_grants.push(format!("grant {} on {kind} {name} to {role};", what.to_lowercase()));
        }
    }
    let known_target = PipelineRow::find(client, &pipeline.name).await?.and_then(|row| row.target);
    let masking = client.query_typed(MASKING, &[(&pipeline.name, Type::TEXT)]).await;
    let masking = masking
        .and_then(|rows| rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect());
    Ok(LedgerSurvey { missing_grants, known_target, masking: masking.map_err(failed("reading pgsluice.masking"))? })
}

async fn ask_table(client: &Client, pipeline: &Pipeline) -> Result<TableSurvey, LoadError> {
    let name = qualified_name(client, &pipeline.table).await?;
    let row = client.query_typed_one(TABLE, &[(&quoted_table(&pipeline.table), Type::TEXT)]).await;
    let row = row.map_err(failed("looking at the table"))?;
    Ok(TableSurvey {
        name,
        kind: read::<String>(&row, 0)?.chars().next().unwrap_or(' '),
        has_row_security: read(&row, 1)?,
        insert_triggers: read(&row, 2)?,
        has_instead_trigger: read(&row, 3)?,
        insert_rules: read(&row, 4)?,
        partition_key: read(&row, 5)?,
        partition_bounds: read(&row, 6)?,
        misfits: misfits(client, pipeline).await?,
    })
}

fn read<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, LoadError> {
    row.try_get(column).map_err(failed("reading the catalog")).map_err(LoadError::from)
}

fn failed(action: &'static str) -> impl FnOnce(tokio_postgres::Error) -> PostgresError {
    move |error| PostgresError::of_statement(action, error)
}
