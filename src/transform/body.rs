//! Finds the mapped fields in a message's body, in one walk over its text.
//!
//! JSON pointers are compiled to a tree of member names; the walk descends where the tree does, and what it finds is
//! a slice of the body: numbers keep every digit, and a string is not copied. What no pointer names is checked to be
//! JSON and skipped.
//!
//! Where a member name occurs twice in an object, the last one counts, as in Postgres' `jsonb`. A pointer through
//! something that is neither an object nor an array finds nothing; so does a pointer past an array's end.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

/// The levels of nesting that a body may have: the limit of `serde_json`, which raw values do not count against.
const MAX_DEPTH: usize = 127;

/// What is wrong with a body as a whole. The text follows "the body".
#[derive(Debug)]
pub(super) enum BodyProblem {
    Empty,
    NotJson(serde_json::Error),
    NotAnObject,
    TooDeep,
}

impl fmt::Display for BodyProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => formatter.write_str("is empty"),
            // Only these categories have fixed texts; others may quote what was read.
            Self::NotJson(error) if matches!(error.classify(), Category::Syntax | Category::Eof) => {
                write!(formatter, "is not JSON: {error}")
            }
            Self::NotJson(_) => formatter.write_str("is not JSON"),
            Self::NotAnObject => formatter.write_str("is not a JSON object"),
            Self::TooDeep => write!(formatter, "is nested deeper than {MAX_DEPTH} levels"),
        }
    }
}

/// The pointers of a pipeline's columns, compiled. Each distinct pointer has a slot for what is found.
#[derive(Debug, Clone)]
pub(super) struct Pointers {
    paths: Vec<Vec<String>>,
    root: Node,
}

#[derive(Debug, Clone)]
struct Node {
    /// The slots of this node and of all below it.
    slots: Range<usize>,
    /// The slot of the pointer that ends here.
    slot: Option<usize>,
    /// Sorted by [`by_length`].
    members: Vec<Member>,
}

#[derive(Debug, Clone)]
struct Member {
    name: String,
    /// The name as an array index.
    index: Option<usize>,
    node: Node,
}

impl Pointers {
    /// Compiles JSON pointers; an error says what is wrong with one of them.
    pub(super) fn compile<'a>(pointers: impl Iterator<Item = &'a str>) -> Result<Self, &'static str> {
        let mut paths = pointers.map(parse_pointer).collect::<Result<Vec<_>, _>>()?;
        paths.sort();
        paths.dedup();
        let root = Node::build(&paths, 0, 0);
        Ok(Self { paths, root })
    }

    /// How many slots a walk fills.
    pub(super) const fn slots(&self) -> usize {
        self.paths.len()
    }

    /// The slot of a pointer that was compiled.
    pub(super) fn slot(&self, pointer: &str) -> Option<usize> {
        self.paths.binary_search(&parse_pointer(pointer).ok()?).ok()
    }

    /// Fills `found`, which holds [`Self::slots`] times `None`, with the text of each value that is there.
    pub(super) fn find<'de>(&self, body: &'de str, found: &mut [Option<&'de str>]) -> Result<(), BodyProblem> {
        let body = body.trim_matches([' ', '\t', '\n', '\r']);
        if body.is_empty() {
            return Err(BodyProblem::Empty);
        }
        if is_deeper_than(body, MAX_DEPTH) {
            return Err(BodyProblem::TooDeep);
        }
        if !body.starts_with('{') {
            serde_json::from_str::<IgnoredAny>(body).map_err(BodyProblem::NotJson)?;
            return Err(BodyProblem::NotAnObject);
        }
        self.root.find(body, found).map_err(BodyProblem::NotJson)
    }
}

impl Node {
    /// `paths` are sorted and share their first `depth` names; the first one has slot `first_slot`.
    fn build(paths: &[Vec<String>], first_slot: usize, depth: usize) -> Self {
        let slot = paths.first().is_some_and(|path| path.len() == depth).then_some(first_slot);
        let below = &paths[usize::from(slot.is_some())..];
        let mut next_slot = first_slot + usize::from(slot.is_some());
        let members = below.chunk_by(|one, other| one[depth] == other[depth]).map(|group| {
            let name = group[0][depth].clone();
            let node = Self::build(group, next_slot, depth + 1);
            next_slot = node.slots.end;
            Member { index: array_index(&name), name, node }
        });
        let mut members: Vec<_> = members.collect();
        members.sort_by(|one, other| by_length(&one.name, &other.name));
        Self { slot, members, slots: first_slot..first_slot + paths.len() }
    }

    /// `json` is the text of one value.
    fn find<'de>(&self, json: &'de str, found: &mut [Option<&'de str>]) -> serde_json::Result<()> {
        if let Some(slot) = self.slot {
            found[slot] = Some(json);
        }
        let mut deserializer = serde_json::Deserializer::from_str(json);
        match json.as_bytes().first() {
            Some(b'{') => deserializer.deserialize_map(Walk { node: self, found })?,
            Some(b'[') if !self.members.is_empty() => deserializer.deserialize_seq(Walk { node: self, found })?,
            _ => return Ok(()),
        }
        deserializer.end()
    }

    fn member(&self, name: &str) -> Option<&Self> {
        let position = self.members.binary_search_by(|member| by_length(&member.name, name)).ok()?;
        Some(&self.members[position].node)
    }

    fn element(&self, index: usize) -> Option<&Self> {
        self.members.iter().find(|member| member.index == Some(index)).map(|member| &member.node)
    }
}

/// An order of names whose comparison rarely looks at their bytes: this runs for every member of every body.
fn by_length(one: &str, other: &str) -> Ordering {
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}

/// Walks one object or array.
struct Walk<'walk, 'de> {
    node: &'walk Node,
    found: &'walk mut [Option<&'de str>],
}

impl<'de> Walk<'_, 'de> {
    fn enter<E: serde::de::Error>(&mut self, node: &Node, value: &'de RawValue) -> Result<(), E> {
        // An earlier member of the same name may have filled slots that this one has nothing for.
        self.found[node.slots.clone()].fill(None);
        if node.members.is_empty() {
            self.found[node.slots.start] = Some(value.get());
            return Ok(());
        }
        node.find(value.get(), self.found).map_err(E::custom)
    }
}

impl<'de> Visitor<'de> for Walk<'_, 'de> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(member) = map.next_key_seed(MemberOf(self.node))? {
            match member {
                Some(node) => self.enter(node, map.next_value()?)?,
                None => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        for index in 0.. {
            let node = self.node.element(index);
            match node {
                Some(node) => match elements.next_element()? {
                    Some(value) => self.enter(node, value)?,
                    None => return Ok(()),
                },
                None if elements.next_element::<IgnoredAny>()?.is_none() => return Ok(()),
                None => {}
            }
        }
        Err(A::Error::custom("an array without end"))
    }
}

/// Reads a member's name and finds its node, without keeping the name.
struct MemberOf<'walk>(&'walk Node);

impl<'de, 'walk> DeserializeSeed<'de> for MemberOf<'walk> {
    type Value = Option<&'walk Node>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'walk> Visitor<'_> for MemberOf<'walk> {
    type Value = Option<&'walk Node>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.member(name))
    }
}

/// The names of an RFC 6901 pointer: none for the empty pointer, which means the whole body.
fn parse_pointer(pointer: &str) -> Result<Vec<String>, &'static str> {
    if pointer.is_empty() {
        return Ok(Vec::new());
    }
    let names = pointer.strip_prefix('/').ok_or("a JSON pointer starts with /")?;
    let path: Vec<String> = names.split('/').map(parse_name).collect::<Result<_, _>>()?;
    if path.len() > MAX_DEPTH { Err("points deeper than a body may be nested") } else { Ok(path) }
}

fn parse_name(escaped: &str) -> Result<String, &'static str> {
    let is_escaped = |tail: &str| tail.starts_with(['0', '1']);
    if !escaped.split('~').skip(1).all(is_escaped) {
        return Err("in a JSON pointer, ~ is written ~0");
    }
    Ok(escaped.replace("~1", "/").replace("~0", "~"))
}

fn array_index(name: &str) -> Option<usize> {
    let has_leading_zero = name.len() > 1 && name.starts_with('0');
    let is_digits = name.bytes().all(|byte| byte.is_ascii_digit());
    if is_digits && !has_leading_zero { name.parse().ok() } else { None }
}

/// Whether `json` opens more than `limit` objects and arrays within each other. It need not be valid.
fn is_deeper_than(json: &str, limit: usize) -> bool {
    let bytes = json.as_bytes();
    // Nearly all bodies are settled here: they hold no more brackets than this in all.
    if memchr::memchr2_iter(b'{', b'[', bytes).nth(limit).is_none() {
        return false;
    }
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut bytes = bytes.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if in_string => _ = bytes.next(),
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > limit {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests;
