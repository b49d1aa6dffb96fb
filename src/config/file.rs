//! The configuration file as written, and its checks: TOML in, checked settings out.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::column_type::ColumnType;
use super::environment::overlaid;
use super::lines::{Lines, line_of};
use super::mistake;
use super::pipeline::{Column, Mask, MessageValue, Pipeline, Source, TableName};
use super::rejects::RejectPolicy;
use super::tables::{ColumnTable, ConfigFile, LoadTable, QueueTable, SpoolTable, VersionForm};
use super::{ConfigError, LoadSettings, QueueSettings, SpoolSettings};

/// The annotated `pgsluice.toml`, which declares the built-in pipeline. It is part of the program, because neither
/// `cargo install` nor the container image has the file.
pub const ANNOTATED_FILE: &str = include_str!("../../pgsluice.toml");
const GIB: u64 = 1 << 30;

/// A configuration file that was read, and is right by itself.
#[derive(Debug, Default)]
pub(super) struct Read {
    table: toml::Table,
    /// Where its settings stand: the file, and the line of each by `table.key`.
    pub(super) lines: Option<(PathBuf, Lines)>,
}

impl Read {
    /// The file, with what the environment says in place of its settings.
    pub(super) fn with_environment(
        self,
        variables: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<ConfigFile, ConfigError> {
        let texts = variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        overlaid(self.table, texts)
    }
}

/// Reads a configuration file.
pub(super) fn read(path: &Path) -> Result<Read, ConfigError> {
    let text = fs::read_to_string(path).map_err(ConfigError::of_given_file(
        "read",
        path,
        "check --config and PGSLUICE_CONFIG",
    ))?;
    // For the error, which names the line.
    parse(path, &text)?;
    let lines = Some((path.to_owned(), Lines::of(&text)));
    Ok(Read { table: text.parse().unwrap_or_default(), lines })
}

fn parse(path: &Path, text: &str) -> Result<ConfigFile, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        let problem = match text.parse() {
            // The error's own text quotes a wrong value, which may be a password.
            Ok(table) => mistake::read::<ConfigFile>(table).err(),
            Err::<_, toml::de::Error>(error) => Some(error.message().to_owned()),
        };
        let problem = problem.unwrap_or_else(|| "this value is not valid here".to_owned());
        ConfigError::Invalid { path: path.to_owned(), line, problem }
    })
}

impl Pipeline {
    /// The pipeline that pgsluice ships with, from the text of `pgsluice.toml` that is built in.
    pub fn user_logins() -> Result<Self, ConfigError> {
        built_in()?.pipeline()
    }

    /// The rows of this pipeline are what the table `user_logins` of `sql/` is made for: it maps that table, and the
    /// same columns of the same types and lengths. Where the values come from does not matter.
    pub fn fits_user_logins(&self) -> Result<bool, ConfigError> {
        let built_in = Self::user_logins()?;
        let has_same_table = self.table.table == built_in.table.table
            && (self.table.schema.is_none() || self.table.schema == built_in.table.schema);
        let shapes = |pipeline: &Self| -> BTreeSet<_> {
            let columns = pipeline.columns.iter();
            columns.map(|column| (column.name.clone(), column.kind.name(), column.max_length)).collect()
        };
        Ok(has_same_table && shapes(self) == shapes(&built_in))
    }
}

pub(super) fn built_in() -> Result<ConfigFile, ConfigError> {
    parse(Path::new("the built-in pgsluice.toml"), ANNOTATED_FILE)
}

impl ConfigFile {
    /// The declared pipeline; what is not declared is as in the built-in one.
    pub(super) fn pipeline(&self) -> Result<Pipeline, ConfigError> {
        let built_in = built_in()?;
        let name = self.pipeline.name.as_ref().or(built_in.pipeline.name.as_ref());
        let table = self.pipeline.table.as_ref().or(built_in.pipeline.table.as_ref());
        let columns = if self.columns.is_empty() { &built_in.columns } else { &self.columns };
        let columns = columns.iter().map(ColumnTable::checked).collect::<Result<Vec<_>, _>>()?;
        for (index, column) in columns.iter().enumerate() {
            if columns[..index].iter().any(|earlier| earlier.name == column.name) {
                return Err(invalid_column(&column.name, "declared twice"));
            }
        }
        Ok(Pipeline {
            name: name.filter(|name| !name.is_empty()).cloned().ok_or_else(|| ConfigError::InvalidSetting {
                setting: "pipeline.name",
                problem: "expected a name".to_owned(),
            })?,
            table: TableName::parse(table.map_or("", String::as_str))?,
            dedupe: self.pipeline.dedupe,
            rejects: RejectPolicy {
                on_reject: self.pipeline.on_reject.with_dlq_url(self.pipeline.dlq_url.as_deref())?,
                max_rejects: self.pipeline.max_rejects,
            },
            columns,
        })
    }
}

impl QueueTable {
    pub(super) fn checked(&self) -> Result<QueueSettings, ConfigError> {
        Ok(QueueSettings {
            pollers: within("queue.pollers", self.pollers, 1..=256)?,
            wait_seconds: within("queue.wait_seconds", self.wait_seconds, 1..=20)?,
            visibility_seconds: within("queue.visibility_seconds", self.visibility_seconds, 1..=43_200)?,
            max_in_flight: within("queue.max_in_flight", self.max_in_flight, 10..=120_000)?,
            shutdown_grace: Duration::from_millis(within(
                "queue.shutdown_grace_ms",
                self.shutdown_grace_ms,
                0..=3_600_000,
            )?),
        })
    }
}

impl SpoolTable {
    pub(super) fn checked(&self) -> Result<SpoolSettings, ConfigError> {
        Ok(SpoolSettings {
            segment_max_messages: within("spool.segment_max_messages", self.segment_max_messages, 1..=u64::MAX)?,
            segment_max_bytes: within("spool.segment_max_bytes", self.segment_max_bytes, 1..=GIB)?,
            segment_max_age_ms: within("spool.segment_max_age_ms", self.segment_max_age_ms, 1..=86_400_000)?,
            archive_days: within("spool.archive_days", self.archive_days, 0..=36_500)?,
            rejects_days: within("spool.rejects_days", self.rejects_days, 1..=36_500)?,
            encryption: self.encryption.unwrap_or_default(),
        })
    }
}

impl LoadTable {
    pub(super) fn checked(&self) -> Result<LoadSettings, ConfigError> {
        Ok(LoadSettings { connections: within("load.connections", self.connections, 1..=64)? })
    }
}

impl ColumnTable {
    fn checked(&self) -> Result<Column, ConfigError> {
        let invalid = |problem: &str| Err(invalid_column(&self.name, problem));
        if self.name.is_empty() {
            return invalid("a column needs a name");
        }
        if self.version.is_some() && self.kind != Some(ColumnType::Version) {
            return invalid("`version` goes with type = \"version\"");
        }
        if let Some(value) = self.value {
            return self.message_column(value);
        }
        let pointer = self.from.clone().unwrap_or_else(|| format!("/{}", escape_pointer(&self.name)));
        if !pointer.is_empty() && !pointer.starts_with('/') {
            return invalid("`from` is a JSON pointer, such as \"/user/id\"");
        }
        let kind = self.column_type();
        if kind != ColumnType::Text && (self.mask.is_some() || self.max_length.is_some()) {
            return invalid("`mask` and `max_length` go with type = \"text\"");
        }
        if self.mask_name.is_some() && self.mask != Some(Mask::Siv) {
            return invalid("`mask_name` goes with mask = \"siv\"");
        }
        if kind != ColumnType::Numeric && self.scale.is_some() {
            return invalid("`scale` goes with type = \"numeric\"");
        }
        Ok(Column {
            name: self.name.clone(),
            source: Source::Body(pointer),
            kind,
            required: self.required,
            max_length: self.max_length,
            scale: self.scale,
            mask: self.mask,
            mask_name: self.mask_name.clone(),
        })
    }

    fn message_column(&self, value: MessageValue) -> Result<Column, ConfigError> {
        let is_told_more = self.from.is_some()
            || self.max_length.is_some()
            || self.scale.is_some()
            || self.mask.is_some()
            || self.mask_name.is_some();
        if is_told_more {
            let problem = "`value` excludes `from`, `max_length`, `scale`, `mask` and `mask_name`";
            return Err(invalid_column(&self.name, problem));
        }
        // Whether the type fits the value is found when the mapping is compiled.
        let kind = if self.kind.is_some() { self.column_type() } else { value.column_type() };
        Ok(Column { required: self.required, ..Column::of(&self.name, Source::Message(value), kind) })
    }

    fn column_type(&self) -> ColumnType {
        match (self.kind.unwrap_or_default(), self.version) {
            (ColumnType::Version, Some(VersionForm::Packed)) => ColumnType::PackedVersion,
            (kind, _) => kind,
        }
    }
}

/// `~` and `/` in a key, as RFC 6901 writes them in a pointer.
pub(crate) fn escape_pointer(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn within<T: PartialOrd + std::fmt::Display>(
    setting: &'static str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<T, ConfigError> {
    if range.contains(&value) {
        return Ok(value);
    }
    let problem = format!("expected {} to {}, got {value}", range.start(), range.end());
    Err(ConfigError::InvalidSetting { setting, problem })
}

fn invalid_column(column: &str, problem: &str) -> ConfigError {
    ConfigError::InvalidColumn { column: column.to_owned(), problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::PasswordSource;
    use super::*;

    fn parse(text: &str) -> Result<ConfigFile, ConfigError> {
        super::parse(Path::new("pgsluice.toml"), text)
    }

    fn column(text: &str) -> Result<Column, ConfigError> {
        Ok(parse(&format!("[[column]]\n{text}"))?.pipeline()?.columns.remove(0))
    }

    #[test]
    fn an_empty_file_is_the_built_in_pipeline() {
        assert_eq!(parse("").unwrap().pipeline().unwrap(), Pipeline::user_logins().unwrap());
    }

    #[test]
    fn only_a_mapping_of_the_same_columns_fits_the_table_user_logins() {
        let fits = |text: &str| parse(text).unwrap().pipeline().unwrap().fits_user_logins().unwrap();
        assert!(fits("") && fits(ANNOTATED_FILE));
        assert!(fits("[pipeline]\nname = \"others\"\ntable = \"user_logins\""));
        assert!(fits(&ANNOTATED_FILE.replace("mask       = \"siv\"", "mask = \"fixed\"")));
        assert!(fits(&ANNOTATED_FILE.replace("type     = \"version\"", "type = \"version\"\nversion = \"packed\"")));
        assert!(!fits("[pipeline]\ntable = \"app.user_logins\""));
        assert!(!fits("[pipeline]\ntable = \"orders\""));
        assert!(!fits("[[column]]\nname = \"user_id\"\nmax_length = 128"));
        assert!(!fits(&ANNOTATED_FILE.replace("max_length = 128", "max_length = 200")));
        assert!(!fits(&ANNOTATED_FILE.replace("type     = \"version\"", "type = \"text\"")));
    }

    #[test]
    fn the_annotated_file_says_what_the_default_settings_are() {
        let file = built_in().unwrap();
        assert_eq!(file.queue.checked().unwrap(), QueueTable::default().checked().unwrap());
        assert_eq!(file.spool.checked().unwrap(), SpoolTable::default().checked().unwrap());
        assert_eq!(file.load.checked().unwrap(), LoadTable::default().checked().unwrap());
    }

    #[test]
    fn the_only_other_source_of_a_password_is_rds() {
        let source = |text: &str| parse(text).map(|file| file.database.password_source);
        assert_eq!(source("[database]").unwrap(), None);
        assert_eq!(source("[database]\npassword_source = \"rds-iam\"").unwrap(), Some(PasswordSource::RdsIam));
        assert!(
            source("[database]\npassword_source = \"S3cr3t\"")
                .is_err_and(|error| !error.to_string().contains("S3cr3t"))
        );
    }

    #[test]
    fn a_column_reads_the_key_of_its_own_name_unless_told_otherwise() {
        assert_eq!(column("name = \"a/b\"").unwrap().source, Source::Body("/a~1b".to_owned()));
        assert_eq!(column("name = \"a\"\nfrom = \"/x/0\"").unwrap().source, Source::Body("/x/0".to_owned()));
    }

    #[test]
    fn a_value_has_a_type_of_its_own_unless_told_otherwise() {
        assert_eq!(column("name = \"id\"\nvalue = \"message_id\"").unwrap().kind, ColumnType::Text);
        assert_eq!(column("name = \"id\"\nvalue = \"message_id\"\ntype = \"uuid\"").unwrap().kind, ColumnType::Uuid);
        assert_eq!(column("name = \"day\"\nvalue = \"sent_date\"").unwrap().kind, ColumnType::Date);
    }

    #[test]
    fn a_version_column_is_dotless_unless_packed() {
        assert_eq!(column("name = \"v\"\ntype = \"version\"").unwrap().kind, ColumnType::Version);
        let packed = column("name = \"v\"\ntype = \"version\"\nversion = \"packed\"").unwrap();
        assert_eq!(packed.kind, ColumnType::PackedVersion);
    }

    #[test]
    fn a_mistake_is_named_with_its_line_and_never_quotes_it() {
        let error = parse("queue_url = \"x\"\ndatabase_url = \"postgres://u:secret@h/d\" oops\n").unwrap_err();
        assert!(matches!(error, ConfigError::Invalid { line: 2, .. }), "{error:?}");
        assert!(!error.to_string().contains("secret"));
    }

    #[test]
    fn contradictions_and_empty_names_are_refused() {
        for text in [
            "name = \"a\"\nfrom = \"x\"",
            "name = \"a\"\nvalue = \"sent_date\"\nfrom = \"/x\"",
            "name = \"a\"\ntype = \"integer\"\nmask = \"siv\"",
            "name = \"a\"\nversion = \"packed\"",
            "name = \"a\"\nscale = 2",
            "name = \"a\"\nvalue = \"sequence_number\"\ntype = \"numeric\"\nscale = 0",
            "name = \"a\"\n[[column]]\nname = \"a\"",
        ] {
            assert!(matches!(column(text), Err(ConfigError::InvalidColumn { .. })), "{text}");
        }
        assert!(parse("[spool]\nsegment_max_bytes = 2000000000").unwrap().spool.checked().is_err());
        for seconds in [0, 43_201] {
            let table = parse(&format!("[queue]\nvisibility_seconds = {seconds}")).unwrap().queue;
            assert!(table.checked().is_err(), "{seconds}");
        }
        assert!(parse("[queue]\npolers = 3").is_err());
        for text in [
            "name = \"\"",
            "table = \"\"",
            "on_reject = \"dlq\"",
            "dlq_url = \"https://x/y\"",
            "on_reject = \"leave\"\ndlq_url = \"https://x/y\"",
        ] {
            assert!(parse(&format!("[pipeline]\n{text}")).unwrap().pipeline().is_err(), "{text}");
        }
    }
}
