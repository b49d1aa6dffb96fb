//! JSON objects, a line each. Members keep their order, and those that are not revealed their text.

use std::fmt::{self, Write};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Filter;
use crate::config::Column;
use crate::error::Error;
use crate::mask::RevealError;

/// The members of an object, each value as it is written.
struct Members(Vec<(String, Box<RawValue>)>);

pub(super) fn reveal(filter: &mut Filter<'_>, names: &[String]) -> Result<(), Error> {
    let columns = filter.columns(names)?;
    filter.each_line(|filter, line, text| {
        let Ok(Members(members)) = serde_json::from_slice(text) else {
            _ = filter.or_as_it_is(format!("line {line}"), Err(RevealError::NotAnObject));
            return filter.lines.value(&String::from_utf8_lossy(text));
        };
        let mut object = String::with_capacity(text.len());
        for (name, value) in &members {
            object.push(if object.is_empty() { '{' } else { ',' });
            let column = columns.iter().find(|column| column.name == *name);
            let revealed = column.and_then(|column| member(filter, column, line, value));
            let value = revealed.as_ref().map_or_else(|| value.get().to_owned(), |value| string(value));
            _ = write!(object, "{}:{value}", string(name));
        }
        object.push_str(if object.is_empty() { "{}" } else { "}" });
        filter.lines.value(&object)
    })
}

/// The value of a masked string; nothing for null, and for what cannot be revealed.
fn member(filter: &mut Filter<'_>, column: &Column, line: u64, value: &RawValue) -> Option<String> {
    match serde_json::from_str::<Option<String>>(value.get()) {
        Ok(None) => None,
        Ok(Some(masked)) => filter.field(column, line, &masked),
        Err(_) => filter.or_as_it_is(format!("column {} of line {line}", column.name), Err(RevealError::Malformed)),
    }
}

/// A text as JSON has it.
pub(super) fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}
