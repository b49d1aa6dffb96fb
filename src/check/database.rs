//! The database, the role, the ledger and the table against the configuration.

use super::Check;
use super::partitions::{missing_days, today};
use crate::advice::Advised;
use crate::chunk::ColumnKey;
use crate::config::Pipeline;
use crate::load::{LedgerSurvey, LoadError, Server, Survey, TableSurvey, create_table};

/// Judges what a database says. `keys`: what the masked columns are written with now. `ring`: the ids of all masking keys
/// that are at hand.
#[must_use]
pub fn check_database(survey: &Survey, pipeline: &Pipeline, keys: &[ColumnKey], ring: &[String]) -> Vec<Check> {
    let mut checks = server(&survey.server);
    match &survey.ledger {
        Ok(found) => checks.extend(ledger(found, survey.table.as_ref().ok(), pipeline, keys, ring)),
        Err(error) => checks.push(refused("ledger", error)),
    }
    match &survey.table {
        Ok(found) => checks.extend(table(found)),
        Err(error @ LoadError::NoTable { .. }) => {
            checks.push(Check::failure("table", error.to_string(), create_table(pipeline)));
        }
        Err(error) => checks.push(refused("table", error)),
    }
    checks
}

fn refused(name: &'static str, error: &LoadError) -> Check {
    Check::failure(name, error.to_string(), error.advice().hint.unwrap_or("see the error"))
}

fn server(server: &Server) -> Vec<Check> {
    let mut checks = vec![if server.is_standby {
        Check::failure("database", "it is a standby, which takes no rows", "connect to the primary")
    } else {
        Check::ok("database", format!("Postgres {}", server.version))
    }];
    checks.push(match &server.tls {
        Some(version) => Check::ok("encryption", format!("the connection is encrypted ({version})")),
        None if server.is_local => Check::ok("encryption", "none, on this host"),
        None => Check::warning(
            "encryption",
            "the connection is not encrypted",
            "set sslmode=verify-full in the database's URL",
        ),
    });
    checks.push(if server.is_superuser {
        let seen = format!("{} is a superuser", server.role);
        Check::warning("role", seen, "load as a role of its own: docs/guide.md, Rights, has its grants")
    } else {
        Check::ok("role", server.role.clone())
    });
    checks
}

fn ledger(
    found: &LedgerSurvey,
    table: Option<&TableSurvey>,
    pipeline: &Pipeline,
    keys: &[ColumnKey],
    ring: &[String],
) -> Vec<Check> {
    let mut checks = vec![if found.missing_grants.is_empty() {
        Check::ok("ledger", "it is there, of the right version, and the role has the rights that it needs")
    } else {
        let seen = format!("the role lacks {} rights on the ledger", found.missing_grants.len());
        Check::failure("ledger", seen, found.missing_grants.join(" "))
    }];
    if let (Some(known), Some(table)) = (&found.known_target, table)
        && *known != table.name
    {
        let seen =
            format!("the ledger knows pipeline {} with table {known}, and this is {}", pipeline.name, table.name);
        checks.push(Check::failure(
            "ledger",
            seen,
            "give the pipeline another name; if the table was moved or renamed, run `pgsluice init`",
        ));
    }
    checks.extend(keys.iter().map(|key| masking(found, key, ring)));
    checks
}

/// A run judges by the same rule.
fn masking(found: &LedgerSurvey, key: &ColumnKey, ring: &[String]) -> Check {
    const NAME: &str = "masking";
    let ColumnKey { column, method, key } = key;
    let written: Vec<&str> =
        found.masking.iter().filter(|(name, ..)| name == column).map(|(_, _, key)| key.as_str()).collect();
    if written.is_empty() {
        return Check::ok(NAME, format!("{column} is masked by {method} with key {key}; it was not written before"));
    }
    if written.contains(&key.as_str()) {
        return Check::ok(NAME, format!("{column} is masked by {method} with key {key}, as before"));
    }
    if written.iter().any(|known| ring.iter().any(|held| held == known)) {
        let known = written.join(", ");
        let seen = format!("{column} was masked with key {known}, and is by {method} with key {key} now: a rotation");
        return Check::ok(NAME, seen);
    }
    let seen = format!("{column} was written with key {}, and would be written with {key}", written.join(", "));
    Check::failure(NAME, seen, "use that key; equal values would no longer be equal, and could not be joined")
}

fn table(table: &TableSurvey) -> Vec<Check> {
    let mut checks = Vec::new();
    for misfit in &table.misfits {
        let advice = match &misfit.sql {
            Some(sql) => format!("correct [[column]] in pgsluice.toml, or the table: {sql}"),
            None => "correct [[column]] in pgsluice.toml, the table, or the role's rights".to_owned(),
        };
        checks.push(Check::failure("mapping", misfit.problem.clone(), advice));
    }
    if table.misfits.is_empty() {
        checks.push(Check::ok("mapping", format!("it fits {}, and the role may insert", table.name)));
    }
    checks.extend(kind(table));
    if table.has_row_security {
        checks.push(Check::failure(
            "row security",
            format!("policies of {} hold for this role, and COPY does not work with them", table.name),
            format!("alter table {} disable row level security; or give the role BYPASSRLS", table.name),
        ));
    }
    if !table.insert_triggers.is_empty() {
        checks.push(Check::warning(
            "triggers",
            format!("{} fire for each insert", table.insert_triggers.join(", ")),
            "see that they neither skip nor change rows: a skipped row stops the run, a changed one is not noticed",
        ));
    }
    if !table.insert_rules.is_empty() {
        let seen = format!("COPY ignores the rules {}", table.insert_rules.join(", "));
        checks.push(Check::warning("rules", seen, "make them triggers, if they are to hold"));
    }
    checks.extend(table.partition_key.as_ref().map(|key| partitions(table, key)));
    checks
}

fn kind(table: &TableSurvey) -> Option<Check> {
    const NAME: &str = "table";
    let name = &table.name;
    match table.kind {
        'r' | 'p' => None,
        'v' if table.has_instead_trigger => {
            let advice = "see that the trigger writes each row: the view's table is not checked";
            Some(Check::warning(NAME, format!("{name} is a view with an INSTEAD OF trigger"), advice))
        }
        'f' => Some(Check::warning(
            NAME,
            format!("{name} is a foreign table"),
            "its rows are not in the ledger's transaction if its server commits apart",
        )),
        _ => Some(Check::failure(NAME, format!("{name} is not a table, and COPY cannot write it"), "map its table")),
    }
}

fn partitions(table: &TableSurvey, key: &str) -> Check {
    const NAME: &str = "partitions";
    match missing_days(key, &table.partition_bounds, today()).as_deref() {
        None => Check::ok(NAME, format!("{} by {key}; which rows they take is not looked at", table.name)),
        Some([]) => Check::ok(NAME, format!("{} by {key}; there are some for the days to come", table.name)),
        Some([first, ..]) => Check::warning(
            NAME,
            format!("{} by {key} has no partition for {first}", table.name),
            format!(
                "create it: a row of that day stops the run. For example: create table … partition of {} \
                     for values from ('{first}') to ('…');",
                table.name
            ),
        ),
    }
}
