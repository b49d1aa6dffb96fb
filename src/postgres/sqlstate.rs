//! What an SQLSTATE means for a load, and what a person can do about it: the only table of them.
//!
//! Source: PostgreSQL documentation, appendix A, for 14 to 18.

use tokio_postgres::error::DbError;

/// What an error of Postgres is about.
///
/// A trigger, or a function that it calls, may raise any SQLSTATE. So most of them only say what is likely; a load
/// looks first at what becomes of other rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The moment: the same may succeed later.
    Moment,
    /// Likely a row: the same fails again, but other rows may succeed.
    Row,
    /// Likely the table, the rights, the set-up: nothing succeeds until a person does something.
    Setup,
    /// Certainly the set-up, whatever becomes of other rows.
    CertainSetup,
}

/// The meaning of an SQLSTATE, and the hint for the person who meets it.
pub(crate) fn judge(sqlstate: &str) -> (Meaning, &'static str) {
    use Meaning::{CertainSetup, Moment, Row, Setup};
    match sqlstate {
        "53100" => (Moment, "make room on the database server's disk and run again; what is loaded is recognised"),
        "53200" => (Moment, "the database server is out of memory; run again later, or with fewer load.connections"),
        "53300" => (Moment, "lower load.connections, or raise the limit of the server, the database or the role"),
        "53400" => (CertainSetup, "a limit in the database server's configuration is reached; see the server's log"),
        "57P03" => {
            (Moment, "the database server is starting up or shutting down; run again when it accepts connections")
        }
        "57014" => (Moment, "raise statement_timeout for this role, or ask who cancelled the statement"),
        "55P03" => (Moment, "raise lock_timeout for this role, or find who holds the lock in pg_locks"),
        // Sessions that were ended: by an administrator, a crash, or the server's timeouts of idle ones.
        "57P01" | "57P02" | "57P05" | "25P03" | "25P04" => {
            (Moment, "see who or what ends this role's sessions; run again, what is loaded is recognised")
        }
        "25006" => {
            (CertainSetup, "this server is read-only: connect to the primary, or add target_session_attrs=read-write")
        }
        "42P05" => (
            Moment,
            "a connection pooler gave this statement a session that other clients left statements in; \
             let it reset sessions (PgBouncer: server_reset_query_always), or connect to Postgres itself",
        ),
        "28P01" => (CertainSetup, "check user and password in DATABASE_URL or PGPASSWORD"),
        "28000" => (CertainSetup, "check user and sslmode in DATABASE_URL, and the server's pg_hba.conf"),
        "3D000" => (CertainSetup, "check the database in DATABASE_URL, or create it"),
        "2200H" => {
            (CertainSetup, "a sequence of the table has no number left: widen it (ALTER SEQUENCE) and run again")
        }
        "22P04" => (
            CertainSetup,
            "the chunk was made for other columns: remove its files from chunks/, then transform and load again",
        ),
        // A policy of row-level security refuses a row by the same code as a missing right.
        "42501" => {
            (Setup, "grant the role what `pgsluice init --role loader --print` prints; of `rekey`, --role rekeyer")
        }
        "54000" => (Row, ROW_HINT),                       // a value too large for an index
        "XX001" | "XX002" => (CertainSetup, SERVER_HINT), // corrupted data, a corrupted index
        code => match code.get(..2) {
            Some("08") => (Moment, "check the network, and a connection pooler if there is one; see its log"),
            Some("40") => (Moment, "other transactions were in the way each time; run again later"),
            Some("53") => (Moment, "the database server is short of something; see its log and run again"),
            Some("58") => (CertainSetup, SERVER_HINT), // an error of the server's system, such as of its disk
            // A CASE without a branch for the value, a subquery that finds several rows; data exceptions; constraints;
            // an exception of Python or another language; a view's check option; RAISE in a trigger.
            Some("20" | "21" | "22" | "23" | "38" | "44" | "P0") => (Row, ROW_HINT),
            _ if is_user_defined(code) => (Row, ROW_HINT),
            _ => (Setup, SERVER_HINT),
        },
    }
}

const ROW_HINT: &str = "see the database server's log for the row that it refused";
const SERVER_HINT: &str = "see the database server's log; nothing of this segment was committed";

/// The SQL standard leaves classes that begin with 5–9 or I–Z to implementations. Those that Postgres does not use
/// come from a trigger's `RAISE … USING ERRCODE`.
fn is_user_defined(sqlstate: &str) -> bool {
    let own = ["53", "54", "55", "57", "58", "72", "HV", "P0", "XX"];
    sqlstate.starts_with(|first| matches!(first, '5'..='9' | 'I'..='Z'))
        && !sqlstate.get(..2).is_some_and(|class| own.contains(&class))
}

/// Whether a partitioned table has no partition for a row, or a partition is not the one that the row belongs to.
///
/// Postgres gives this the SQLSTATE of a violated check constraint. A check constraint is always named, and a partition's
/// bounds have no name. The server also names its function that found the error, in no language but its own; that tells
/// a trigger's `RAISE` of the same SQLSTATE apart, which may name a table and no constraint.
pub(crate) fn is_missing_partition(error: &DbError) -> bool {
    let found_by = |routine: &str| error.routine() == Some(routine);
    error.code().code() == "23514"
        && error.constraint().is_none()
        && (found_by("ExecFindPartition") || error.table().is_some() && !found_by("exec_stmt_raise"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_sqlstate_decides_what_becomes_of_a_load() {
        let moments = [
            "08006", "08P01", "25P03", "25P04", "40001", "40P01", "53100", "53200", "53300", "55P03", "57014", "57P01",
            "57P02", "57P03", "57P05",
        ];
        let rows = [
            "20000", "21000", "22001", "22P02", "23505", "23514", "38000", "44000", "54000", "P0001", "LG001", "90001",
        ];
        let setups = ["42501", "42P01", "54001", "57P04", "XX000", "F0000", "0A000"];
        let certain_setups =
            ["2200H", "22P04", "25006", "28000", "28P01", "3D000", "53400", "58030", "58P01", "XX001", "XX002"];
        for (expected, codes) in [
            (Meaning::Moment, &moments[..]),
            (Meaning::Row, &rows[..]),
            (Meaning::Setup, &setups[..]),
            (Meaning::CertainSetup, &certain_setups[..]),
        ] {
            for code in codes {
                assert_eq!(judge(code).0, expected, "{code}");
            }
        }
    }

    #[test]
    fn each_refusal_that_has_a_cure_of_its_own_names_it() {
        let cures = [
            ("53100", "disk"),
            ("53300", "load.connections"),
            ("57P03", "starting up"),
            ("28P01", "password"),
            ("3D000", "database"),
            ("42501", "grant"),
            ("25006", "primary"),
            ("2200H", "ALTER SEQUENCE"),
            ("22P04", "transform"),
        ];
        for (code, cure) in cures {
            assert!(judge(code).1.contains(cure), "{code}");
        }
    }
}
