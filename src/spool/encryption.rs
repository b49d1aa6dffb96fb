//! What a message says, encrypted at rest: its body, attributes and FIFO group. What recovers, loads and acknowledges a
//! segment needs none of it, so it needs no key.
//!
//! In a line, `"enc":"KEY.STREAM.N.TEXT"` stands in place of these fields. TEXT is base64 without padding of
//! AES-256-GCM(stream key, nonce, them as a JSON object), tag included:
//!
//! ```text
//! stream key     HKDF-SHA-256 of the spool key that KEY names, without salt, info "pgsluice spool stream" ‖ STREAM, 32 bytes
//! nonce          4 zero bytes ‖ N, 8 bytes, big-endian
//! authenticated  the message's id ‖ sent_at, 8 bytes, big-endian
//! ```
//!
//! Always true: no nonce is used twice under one key. STREAM is a new UUID for each [`Sealer`], and so for each writing of
//! a segment, also where an import gives a segment its name again; N counts what that sealer sealed. A segment that was left
//! open is sealed, and never appended to.
//!
//! So a line says itself how to open it, and keeps that wherever it is moved: to the rejects, to the archive.
//!
//! A message of a group has `"group_tag"`, which keeps the deletes of its group in order: 8 bytes in hex of
//! HMAC-SHA-256(HKDF-SHA-256 of the spool key, info "pgsluice spool group" ‖ STREAM, 32 bytes; the group's id).

use std::borrow::Cow;
use std::sync::Arc;
use std::{fmt, io};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::Sha256;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Body, Record};
use crate::keyring::{Algorithm, Key, Keyring};

const STREAM_INFO: &[u8] = b"pgsluice spool stream";
const GROUP_INFO: &[u8] = b"pgsluice spool group";
const TAG_BYTES: usize = 8;
const CHANGED: &str = "what is encrypted was changed, or belongs to another message";

/// The keys of the spool, all of which decrypt.
#[derive(Debug, Clone, Default)]
pub struct SpoolKeys(Arc<[Key]>);

/// Why a message cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unopened {
    /// The line is damaged.
    Damaged(&'static str),
    /// The key of this id is not among the keys.
    UnknownKey(String),
}

/// The encrypted fields, as a line in clear has them.
#[derive(Serialize, Deserialize)]
struct Content<'a> {
    #[serde(borrow)]
    body: Body<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    attributes: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    group_id: Option<Cow<'a, str>>,
}

/// Encrypts the messages of one segment, one after the other.
pub(super) struct Sealer {
    /// `KEY.STREAM.`
    prefix: String,
    key: LessSafeKey,
    groups: Hmac<Sha256>,
    sealed: u64,
    memory: Vec<u8>,
}

/// Decrypts messages. Keeps what the messages of a segment have in common.
#[derive(Default)]
pub struct Opener {
    stream: Option<(String, LessSafeKey)>,
    memory: Vec<u8>,
}

impl SpoolKeys {
    /// Those of a keyring.
    #[must_use]
    pub fn of(ring: &Keyring) -> Self {
        Self(ring.all(Algorithm::Spool).cloned().collect())
    }
}

impl Sealer {
    pub(super) fn new(key: &Key) -> io::Result<Self> {
        let stream = Uuid::now_v7();
        let groups = derived(key, GROUP_INFO, stream).and_then(|key| Hmac::new_from_slice(&*key).ok());
        let (Some(groups), Some(stream_key)) = (groups, stream_key(key, stream)) else {
            return Err(io::Error::other("the spool's key cannot be used"));
        };
        Ok(Self { prefix: format!("{}.{stream}.", key.id()), key: stream_key, groups, sealed: 0, memory: Vec::new() })
    }

    /// Appends the record as a spool line, encrypted. One that is encrypted already stays as it is.
    pub(super) fn write_line(&mut self, record: &Record<'_>, line: &mut Vec<u8>) -> io::Result<()> {
        if record.enc.is_some() {
            return Ok(record.write_line(line)?);
        }
        let Self { prefix, key, groups, sealed, memory } = self;
        let number = *sealed;
        // Also where what follows fails.
        *sealed += 1;
        memory.clear();
        let group_id = record.group_id.as_deref();
        let (body, group) = (record.body.borrowed(), group_id.map(Cow::Borrowed));
        serde_json::to_writer(&mut *memory, &Content { body, attributes: record.attributes, group_id: group })?;
        key.seal_in_place_append_tag(nonce(number), Aad::from(authenticated(record)), memory)
            .map_err(|_| io::Error::other("a message is too long to be encrypted"))?;
        let mut enc = format!("{prefix}{number}.");
        STANDARD_NO_PAD.encode_string(&*memory, &mut enc);
        let group_tag = group_id.map(|group| {
            let tag = groups.clone().chain_update(group).finalize().into_bytes();
            hex::encode(&tag[..TAG_BYTES])
        });
        let sealed = Record {
            body: Body::Encrypted,
            enc: Some(enc.into()),
            attributes: None,
            group_id: None,
            group_tag: group_tag.map(Cow::Owned),
            ..record.borrowed()
        };
        Ok(sealed.write_line(line)?)
    }
}

impl Opener {
    /// The record with its body, attributes and group; one in clear as it is.
    pub fn open<'a>(&'a mut self, record: &'a Record<'_>, keys: &SpoolKeys) -> Result<Cow<'a, Record<'a>>, Unopened> {
        let Some(enc) = &record.enc else { return Ok(Cow::Borrowed(record)) };
        let mut parts = enc.splitn(4, '.');
        let mut next = || parts.next().ok_or(Unopened::Damaged("what is encrypted cannot be read"));
        let (id, stream, number, text) = (next()?, next()?, next()?, next()?);
        let unreadable = Unopened::Damaged("what is encrypted cannot be read");
        let number = number.parse().map_err(|_| unreadable.clone())?;
        let name = &enc[..id.len() + 1 + stream.len()];
        if self.stream.as_ref().is_none_or(|(opened, _)| opened != name) {
            let key = keys.0.iter().find(|key| key.id() == id).ok_or_else(|| Unopened::UnknownKey(shown(id)))?;
            let stream = Uuid::parse_str(stream).ok().and_then(|stream| stream_key(key, stream));
            self.stream = Some((name.to_owned(), stream.ok_or_else(|| unreadable.clone())?));
        }
        let Some((_, key)) = &self.stream else { return Err(unreadable) };
        self.memory.clear();
        STANDARD_NO_PAD.decode_vec(text, &mut self.memory).map_err(|_| unreadable)?;
        let plain = key.open_in_place(nonce(number), Aad::from(authenticated(record)), &mut self.memory);
        let plain = plain.map_err(|_| Unopened::Damaged(CHANGED))?;
        let content = std::str::from_utf8(plain).ok().and_then(Content::parse);
        let Content { body, attributes, group_id } = content.ok_or(Unopened::Damaged(CHANGED))?;
        Ok(Cow::Owned(Record { body, attributes, group_id, enc: None, group_tag: None, ..record.borrowed() }))
    }
}

/// Neither shows a key or what a message says.
impl fmt::Debug for Sealer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Sealer").field("sealed", &self.sealed).finish_non_exhaustive()
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Opener").finish_non_exhaustive()
    }
}

impl<'a> Content<'a> {
    /// A body alone is read without a JSON parser, as in [`Record::parse_line`].
    fn parse(text: &'a str) -> Option<Self> {
        let alone = || text.strip_prefix("{\"body\":\"")?.strip_suffix("\"}");
        match alone().and_then(Body::alone) {
            Some(body) => Some(Self { body, attributes: None, group_id: None }),
            None => serde_json::from_str(text).ok(),
        }
    }
}

fn derived(key: &Key, info: &[u8], stream: Uuid) -> Option<Zeroizing<[u8; 32]>> {
    let mut derived = Zeroizing::new([0; 32]);
    let hkdf = Hkdf::<Sha256>::new(None, key.secret().as_bytes());
    hkdf.expand_multi_info(&[info, stream.as_bytes()], &mut *derived).ok()?;
    Some(derived)
}

fn stream_key(key: &Key, stream: Uuid) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, &*derived(key, STREAM_INFO, stream)?).ok().map(LessSafeKey::new)
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn authenticated(record: &Record<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(record.message_id.len() + 8);
    bytes.extend_from_slice(record.message_id.as_bytes());
    bytes.extend_from_slice(&record.sent_at.to_be_bytes());
    bytes
}

/// A key's id for an error; of a damaged line, no more than its beginning, and nothing that a terminal obeys.
fn shown(id: &str) -> String {
    id.chars().take(16).map(|digit| if digit.is_ascii_alphanumeric() { digit } else { '?' }).collect()
}

#[cfg(test)]
mod tests;
