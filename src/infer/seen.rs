//! What was seen of each field in a sample.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use serde_json::{Map, Value};

use crate::config::ColumnType;
use crate::transform::takes;

/// From the narrowest on; any JSON where none of them takes every value.
const TYPES: [ColumnType; 8] = [
    ColumnType::Boolean,
    ColumnType::Integer,
    ColumnType::Bigint,
    ColumnType::Numeric,
    ColumnType::Uuid,
    ColumnType::Timestamptz,
    ColumnType::Date,
    ColumnType::Text,
];

/// What was seen at one place in the bodies.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The names on the way to it.
    pub(super) path: Vec<String>,
    /// Messages in which it is there and not null.
    pub(super) values: u64,
    /// Messages in which it is null.
    pub(super) nulls: u64,
    /// Characters of the shortest and the longest text.
    pub(super) characters: Option<(usize, usize)>,
    /// The kinds of JSON values that it had.
    pub(super) kinds: Vec<&'static str>,
    distinct: HashSet<u64>,
    /// Types that take every value so far.
    types: Vec<ColumnType>,
    members: Vec<Seen>,
}

impl Seen {
    /// Looks at the members of an object.
    pub(super) fn look(&mut self, object: &Map<String, Value>) {
        for (name, value) in object {
            let known = self.members.iter().position(|member| member.path.last() == Some(name));
            let position = known.unwrap_or_else(|| {
                let path = self.path.iter().chain([name]).cloned().collect();
                self.members.push(Self { path, types: TYPES.to_vec(), ..Self::default() });
                self.members.len() - 1
            });
            self.members[position].see(value);
        }
    }

    fn see(&mut self, value: &Value) {
        if value.is_null() {
            self.nulls += 1;
            return;
        }
        self.values += 1;
        let kind = kind(value);
        if !self.kinds.contains(&kind) {
            self.kinds.push(kind);
        }
        let json = value.to_string();
        // A text of digits is no number: it may have zeros in front that count.
        let is_kept = |kind: &ColumnType| !(value.is_string() && *kind == ColumnType::Numeric) && takes(*kind, &json);
        self.types.retain(is_kept);
        if let Value::String(text) = value {
            let length = text.chars().count();
            let (shortest, longest) = self.characters.unwrap_or((length, length));
            self.characters = Some((shortest.min(length), longest.max(length)));
        }
        let mut hasher = DefaultHasher::new();
        json.hash(&mut hasher);
        self.distinct.insert(hasher.finish());
        if let Value::Object(members) = value {
            self.look(members);
        }
    }

    /// The fields that become columns: an object that is one in every message gives way to its members.
    pub(super) fn leaves(&self) -> Vec<&Self> {
        let leaves = self.members.iter().flat_map(|member| {
            let is_object = member.kinds == ["object"] && !member.members.is_empty();
            if is_object { member.leaves() } else { vec![member] }
        });
        leaves.collect()
    }

    /// The narrowest type that takes every value.
    pub(super) fn column_type(&self) -> ColumnType {
        if self.values == 0 {
            return ColumnType::Text;
        }
        self.types.first().copied().unwrap_or(ColumnType::Jsonb)
    }

    /// The number of different values.
    pub(super) fn distinct(&self) -> usize {
        self.distinct.len()
    }
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
