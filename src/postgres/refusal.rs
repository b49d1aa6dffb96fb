//! What of a server's error may be shown: its text and the names in it, where they cannot quote a value of a row.
//!
//! A trigger may write anything into any field: `RAISE … USING ERRCODE = '42501', COLUMN = NEW.user_id`. So what counts
//! is who raised the error. Always true:
//! - a text is shown only in classes whose texts are about objects, sessions and resources; and while a function or a
//!   COPY runs (the error has a context), only where the server raised it and it can name nothing made of a value;
//! - names are shown only as the server's own code reported them, for then they are those of objects.

use tokio_postgres::error::DbError;

/// Classes of SQLSTATEs whose texts may be shown. 22, 23, 44, P0 and those of users quote values.
const CLASSES: [&str; 10] = ["08", "0A", "25", "28", "40", "42", "53", "55", "57", "58"];
/// Those whose texts name nothing that a statement of a trigger could have made of a value, where the server itself
/// raises them: transactions, deadlocks, resources, cancelled statements.
const NAMELESS_CLASSES: [&str; 4] = ["25", "40", "53", "57"];
/// Where it raises what it says of the others amid a COPY: a lock that was waited for, a disk that fails.
const NAMELESS_FILES: [&str; 5] = ["postgres.c", "proc.c", "lock.c", "md.c", "fd.c"];
/// No text that is worth reading is longer.
const MAX_CHARACTERS: usize = 300;

/// A server's error.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Refusal<'a> {
    pub(crate) sqlstate: &'a str,
    message: &'a str,
    /// What the server was at: lines of functions, of COPY.
    context: Option<&'a str>,
    /// The source file that raised it.
    file: Option<&'a str>,
    names: Names<'a>,
}

/// Names of objects that an error is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Names<'a> {
    pub(crate) table: Option<&'a str>,
    pub(crate) column: Option<&'a str>,
    pub(crate) constraint: Option<&'a str>,
}

impl<'a> From<&'a DbError> for Refusal<'a> {
    fn from(error: &'a DbError) -> Self {
        Self {
            sqlstate: error.code().code(),
            message: error.message(),
            context: error.where_().filter(|context| !context.is_empty()),
            file: error.file(),
            names: Names { table: error.table(), column: error.column(), constraint: error.constraint() },
        }
    }
}

impl<'a> Refusal<'a> {
    /// The server's text on one line, where it may be shown.
    pub(super) fn message(&self) -> Option<String> {
        let class = self.sqlstate.get(..2)?;
        let dataless = if self.context.is_none() {
            // A pooler names no file. Other languages than C are those of extensions.
            self.file.is_none_or(is_in_c)
        } else {
            let nameless = |file| NAMELESS_CLASSES.contains(&class) || NAMELESS_FILES.contains(&file);
            self.is_of_the_server() && self.file.is_some_and(nameless)
        };
        let one_line = |text: &str| {
            let characters = text.chars().map(|character| if character.is_control() { ' ' } else { character });
            characters.take(MAX_CHARACTERS).collect()
        };
        (dataless && CLASSES.contains(&class)).then(|| one_line(self.message))
    }

    /// The names that may be shown.
    pub(crate) fn names(&self) -> Names<'a> {
        if self.is_of_the_server() { self.names } else { Names::default() }
    }

    /// The server's own code raised it.
    fn is_of_the_server(&self) -> bool {
        self.file.is_some_and(|file| is_in_c(file) && !is_of_a_language(file))
    }
}

/// The server's scanner and grammar, `scan.l` and `gram.y`, become C.
fn is_in_c(file: &str) -> bool {
    [".c", ".l", ".y"].iter().any(|end| file.ends_with(end))
}

/// `pl_exec.c`, `plperl.c`, `plpy_elog.c`, `pltcl.c`: where a function in one of these languages raises an error.
fn is_of_a_language(file: &str) -> bool {
    file.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("pl"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names<'_> = Names { table: Some("items"), column: Some("user_id"), constraint: None };

    fn refusal(sqlstate: &'static str, context: Option<&'static str>, file: Option<&'static str>) -> Refusal<'static> {
        Refusal { sqlstate, message: "a text", context, file, names: NAMES }
    }

    #[test]
    fn a_text_is_shown_where_it_can_quote_no_value() {
        let (copy, function) = (Some("COPY items, line 1"), Some("PL/pgSQL function f() line 1 at RAISE"));
        let shown = [
            ("42P01", None, Some("parse_relation.c")),
            ("42501", None, Some("aclchk.c")),
            ("0A000", None, Some("plancache.c")),
            ("25006", None, Some("utility.c")),
            ("42P05", None, Some("prepare.c")),
            ("57014", copy, Some("postgres.c")),
            ("55P03", copy, Some("postgres.c")),
            ("40P01", copy, Some("deadlock.c")),
            ("53100", copy, Some("md.c")),
            ("58030", copy, Some("md.c")),
            ("25006", function, Some("utility.c")),
            // A pooler's own.
            ("08P01", None, None),
        ];
        for (sqlstate, context, file) in shown {
            assert_eq!(refusal(sqlstate, context, file).message().as_deref(), Some("a text"), "{sqlstate} {file:?}");
        }
        let withheld = [
            ("22P02", None, Some("numutils.c")),
            ("23505", None, Some("nbtinsert.c")),
            ("23514", copy, Some("execMain.c")),
            ("P0001", function, Some("pl_exec.c")),
            ("42501", function, Some("pl_exec.c")),
            ("57014", function, Some("pl_exec.c")),
            ("53000", function, Some("plpy_elog.c")),
            // pg_read_file of a value.
            ("58P01", function, Some("genfile.c")),
            // EXECUTE of a statement that a trigger made of a value.
            ("42703", function, Some("parse_relation.c")),
            // A check that casts a value to regclass.
            ("42P01", copy, Some("namespace.c")),
            // An extension in Rust, whose deferred trigger is called at COMMIT.
            ("42501", None, Some("src/lib.rs")),
            ("LG001", None, None),
        ];
        for (sqlstate, context, file) in withheld {
            assert_eq!(refusal(sqlstate, context, file).message(), None, "{sqlstate} {file:?}");
        }
    }

    #[test]
    fn a_text_is_one_line_of_a_bounded_length() {
        let message = format!("one\ntwo\u{1b}{}", "x".repeat(400));
        let shown = Refusal { message: &message, ..refusal("42601", None, Some("scan.l")) }.message().unwrap();
        assert!(shown.starts_with("one two xxx") && shown.chars().count() == MAX_CHARACTERS, "{shown}");
    }

    #[test]
    fn names_that_a_function_may_have_made_up_are_dropped() {
        for file in ["nbtinsert.c", "execMain.c", "ri_triggers.c"] {
            assert_eq!(refusal("23505", None, Some(file)).names(), NAMES, "{file}");
        }
        for file in [Some("pl_exec.c"), Some("plperl.c"), Some("plpy_elog.c"), Some("pltcl.c"), Some("plv8.cc"), None] {
            assert_eq!(refusal("23505", None, file).names(), Names::default(), "{file:?}");
        }
    }
}
