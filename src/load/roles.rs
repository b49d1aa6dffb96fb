//! What each role may do in the database, as SQL that a DBA runs: for one pipeline's table, and the ledger.
//!
//! Running it again changes nothing. Each role is a group without a login: `grant pgsluice_loader to nightly` makes it one.

use super::target::quoted_table;
use crate::config::{Column, ConfigError, Pipeline};
use crate::postgres::quote_identifier;

/// What a role is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Loads: run, replay, import, load, ack, rejects, prune, status
    Loader,
    /// Looks: status, rejects list, and the table's rows
    Reader,
    /// Encrypts masked columns under another key
    Rekeyer,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Loader => "pgsluice_loader",
            Self::Reader => "pgsluice_reader",
            Self::Rekeyer => "pgsluice_rekeyer",
        }
    }
}

/// The SQL that makes a role for a pipeline. Ledger and table must be there when it runs.
pub fn role_sql(role: Role, pipeline: &Pipeline) -> Result<String, ConfigError> {
    let table = quoted_table(&pipeline.table);
    let own = match role {
        Role::Loader => loader(&table, &names(pipeline.columns.iter())),
        Role::Reader => format!("grant select on {table} to pgsluice_reader;\n"),
        Role::Rekeyer => {
            let masked = names(pipeline.columns.iter().filter(|column| column.mask.is_some()));
            if masked.is_empty() {
                let problem = "no column of the mapping is masked, so there is nothing to encrypt again".to_owned();
                return Err(ConfigError::InvalidSetting { setting: "--role", problem });
            }
            format!(
                "grant insert on pgsluice.masking to pgsluice_rekeyer;
grant select, update ({masked}) on {table} to pgsluice_rekeyer;
"
            )
        }
    };
    let name = role.name();
    let schema = pipeline.table.schema.as_deref().map(quote_identifier);
    let usage = schema.map_or_else(String::new, |schema| format!("grant usage on schema {schema} to {name};\n"));
    Ok(format!(
        "-- A group: `grant {name} to LOGIN` gives its rights to a role that logs in.
do $$
begin
    create role {name} nologin;
exception when duplicate_object or unique_violation then
    null;
end
$$;

grant usage on schema pgsluice to {name};
grant select on all tables in schema pgsluice to {name};
{usage}{own}"
    ))
}

fn loader(table: &str, columns: &str) -> String {
    let literal = table.replace('\'', "''");
    format!(
        "grant insert on pgsluice.pipeline, pgsluice.segment, pgsluice.message, pgsluice.reject, pgsluice.masking
    to pgsluice_loader;
grant usage on sequence pgsluice.segment_no to pgsluice_loader;
grant execute on function pgsluice.ensure_message_partitions(integer[]), pgsluice.prune() to pgsluice_loader;
grant insert ({columns}) on {table} to pgsluice_loader;

-- on_reject = \"leave\", `rejects retry`, `rejects drop` and `replay --again` need these, too.
grant update, delete on pgsluice.segment, pgsluice.message, pgsluice.reject to pgsluice_loader;
grant update on pgsluice.pipeline to pgsluice_loader;

-- `replay --again` asks whether the table is empty.
grant select on {table} to pgsluice_loader;

-- The sequences of the table's own columns, such as a bigserial's.
do $$
declare
    sequence pg_catalog.regclass;
begin
    for sequence in
        select objid from pg_catalog.pg_depend join pg_catalog.pg_class on pg_class.oid = objid
        where refobjid = pg_catalog.to_regclass('{literal}') and deptype = 'a' and relkind = 'S'
    loop
        execute pg_catalog.format('grant usage on sequence %s to pgsluice_loader', sequence);
    end loop;
end
$$;
"
    )
}

fn names<'a>(columns: impl Iterator<Item = &'a Column>) -> String {
    columns.map(|column| quote_identifier(&column.name)).collect::<Vec<_>>().join(", ")
}
