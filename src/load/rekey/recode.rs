//! From a text under any key to the text of the same value under the first one.

use zeroize::Zeroizing;

use crate::config::{Column, ConfigError, Mask, Pipeline};
use crate::keyring::{Algorithm, Keyring};
use crate::mask::{Masker, RevealError, reveal_of};

/// Masks the values of one column anew.
#[derive(Debug)]
pub(super) struct Recoder {
    pub(super) column: Column,
    masker: Masker,
}

impl Recoder {
    /// The id of the key that masks.
    pub(super) fn key_id(&self) -> &str {
        self.masker.key_id()
    }

    /// What the texts of the key begin with.
    pub(super) fn prefix(&self) -> String {
        format!("{}:", self.key_id())
    }

    /// The text of the same value under the first key; `None` where it is that.
    pub(super) fn recode(&self, keys: &Keyring, masked: &str) -> Result<Option<String>, RevealError> {
        if masked.starts_with(&self.prefix()) {
            return Ok(None);
        }
        let value = Zeroizing::new(reveal_of(&self.column, keys, masked)?);
        let mut text = Vec::new();
        self.masker.mask(&value, &mut text);
        Ok(String::from_utf8(text).ok())
    }
}

/// The recoder of this column, or of all that are masked by `siv`.
pub(super) fn of_columns(
    pipeline: &Pipeline,
    keys: &Keyring,
    column: Option<&str>,
) -> Result<Vec<Recoder>, ConfigError> {
    if let Some(name) = column {
        let found = pipeline.columns.iter().find(|column| column.name == name);
        let problem = match found.map(|column| column.mask) {
            Some(Some(Mask::Siv)) => None,
            Some(Some(Mask::Fixed)) => Some(
                "a text of `fixed` does not say which key masked it, so its key cannot be changed step by step: let \
                 the mapping say mask = \"siv\"",
            ),
            _ => Some("the mapping does not mask a column of this name"),
        };
        if let Some(problem) = problem {
            return Err(ConfigError::InvalidColumn { column: name.to_owned(), problem: problem.to_owned() });
        }
    }
    // What `fixed` leaks of a value would be known of the values of `siv` too.
    if let Some(siv) = keys.first(Algorithm::Siv)
        && keys.all(Algorithm::Fixed).any(|fixed| fixed.secret().as_bytes() == siv.secret().as_bytes())
    {
        return Err(ConfigError::SharedKey);
    }
    let chosen = pipeline.masked_columns(Mask::Siv).filter(|found| column.is_none_or(|name| found.name == name));
    let recoders = chosen.map(|column| {
        Ok(Recoder { masker: Masker::new(Mask::Siv, column.masked_as(), keys)?, column: column.clone() })
    });
    let recoders = recoders.collect::<Result<Vec<_>, _>>()?;
    if recoders.is_empty() {
        let problem = "no column of the mapping is masked by siv, so there is nothing to rekey".to_owned();
        return Err(ConfigError::InvalidSetting { setting: "column.mask", problem });
    }
    Ok(recoders)
}
