//! The keys: for masking, by each of its methods, and for the spool.
//!
//! Always true:
//! - order is meaning: of each algorithm, the first key encrypts and all decrypt;
//! - an id names key and algorithm. It follows from the key, so the same key has the same id from every source;
//! - a key is wiped from memory when it is dropped, and appears in no error and in no `Debug` output.
//!
//! Keys have one source: a file, a command, the environment or AWS Secrets Manager ([`read`]). A file and what the others
//! give are TOML, see [`Keyring::parse`]; only the environment gives a bare key.

#[cfg(feature = "aws-secretsmanager")]
mod aws;
mod command;
mod error;
mod file;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz;
mod ids;
mod permissions;
mod secret;
mod source;
mod text;

use jiff::Timestamp;

pub use error::KeyringError;
pub use file::{create_file, read_file, replace_file};
pub use secret::SecretKey;
pub use source::read;

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// `mask = "siv"`.
    Siv,
    /// `mask = "fixed"`: the key comes with the one IV of the tables that it is for.
    Fixed,
    /// The spool, encrypted at rest.
    Spool,
}

/// A key, and what it is for.
#[derive(Debug, Clone)]
pub struct Key {
    id: String,
    algorithm: Algorithm,
    created: Option<Timestamp>,
    secret: SecretKey,
    iv: Option<[u8; 16]>,
}

/// All keys, in their order.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    keys: Vec<Key>,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Siv, Self::Fixed, Self::Spool];

    /// The name, as a keyring has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Siv => "siv",
            Self::Fixed => "fixed",
            Self::Spool => "spool",
        }
    }
}

impl Key {
    /// A key of `siv`: 16 or 32 bytes.
    #[must_use]
    pub fn siv(secret: SecretKey, created: Option<Timestamp>) -> Self {
        Self { id: ids::siv(&secret), algorithm: Algorithm::Siv, created, secret, iv: None }
    }

    /// The key and the IV of `fixed`. 16 bytes mean AES-128, 32 bytes AES-256.
    #[must_use]
    pub fn fixed(secret: SecretKey, iv: [u8; 16], created: Option<Timestamp>) -> Self {
        Self { id: ids::fixed(&secret, iv), algorithm: Algorithm::Fixed, created, secret, iv: Some(iv) }
    }

    /// A key of the spool, of 32 bytes.
    #[must_use]
    pub fn spool(secret: SecretKey, created: Option<Timestamp>) -> Self {
        Self { id: ids::spool(&secret), algorithm: Algorithm::Spool, created, secret, iv: None }
    }

    /// A new key of 32 random bytes; for `fixed` with a random IV.
    pub fn random(algorithm: Algorithm) -> Result<Self, KeyringError> {
        let (secret, created) = (SecretKey::random()?, Some(now_in_seconds()));
        Ok(match algorithm {
            Algorithm::Siv => Self::siv(secret, created),
            Algorithm::Spool => Self::spool(secret, created),
            Algorithm::Fixed => Self::fixed(secret, secret::random_iv()?, created),
        })
    }

    /// Eight hexadecimal digits that say nothing about the key.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it is for.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key itself.
    #[must_use]
    pub const fn secret(&self) -> &SecretKey {
        &self.secret
    }

    /// The IV of a `fixed` key.
    #[must_use]
    pub const fn iv(&self) -> Option<[u8; 16]> {
        self.iv
    }
}

impl Keyring {
    /// The ring that the environment's key is: for `siv`, and with an IV for `fixed` too. Only one of them may mask.
    #[must_use]
    pub fn of_one_key(secret: SecretKey, fixed_iv: Option<[u8; 16]>) -> Self {
        let fixed = fixed_iv.map(|iv| Key::fixed(secret.clone(), iv, None));
        Self { keys: [Key::siv(secret, None)].into_iter().chain(fixed).collect() }
    }

    /// The key that encrypts.
    #[must_use]
    pub fn first(&self, algorithm: Algorithm) -> Option<&Key> {
        self.all(algorithm).next()
    }

    /// The key that encrypts the spool.
    pub fn spool_key(&self) -> Result<&Key, KeyringError> {
        self.first(Algorithm::Spool).ok_or_else(|| KeyringError::NoSpoolKey { known: self.ids() })
    }

    /// The keys that decrypt, in their order.
    pub fn all(&self, algorithm: Algorithm) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(move |key| key.algorithm == algorithm)
    }

    /// All keys, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }

    /// The ring with one key more, as the last of its algorithm. A second key of the same id, and a key that is there for
    /// another algorithm, are refused.
    pub fn with(mut self, key: Key) -> Result<Self, KeyringError> {
        if self.keys.iter().any(|known| known.id == key.id) {
            return Err(KeyringError::KnownKey { id: key.id });
        }
        if let Some(known) = self.keys.iter().find(|known| known.has_same_secret(&key)) {
            return Err(KeyringError::SharedKey { id: key.id, known: known.id.clone() });
        }
        self.keys.push(key);
        Ok(self)
    }

    /// The ring with this key first, so that it encrypts.
    pub fn promoting(mut self, id: &str) -> Result<Self, KeyringError> {
        let Some(position) = self.keys.iter().position(|key| key.id == id) else {
            return Err(KeyringError::NoSuchKey { id: id.to_owned(), known: self.ids() });
        };
        self.keys[..=position].rotate_right(1);
        Ok(self)
    }

    /// The ids, in their order, for an error.
    #[must_use]
    pub fn ids(&self) -> String {
        let ids: Vec<&str> = self.keys.iter().map(Key::id).collect();
        if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }
    }
}

impl Key {
    /// Whether the bytes are the same, for whatever algorithm. Two IVs may belong to one key of `fixed`.
    fn has_same_secret(&self, other: &Self) -> bool {
        self.algorithm != other.algorithm && self.secret.as_bytes() == other.secret.as_bytes()
    }
}

fn now_in_seconds() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(byte: u8) -> SecretKey {
        SecretKey::from_hex("key", &hex::encode([byte; 32])).unwrap()
    }

    fn ids(ring: &Keyring) -> Vec<&str> {
        ring.iter().map(Key::id).collect()
    }

    #[test]
    fn the_first_key_of_an_algorithm_encrypts_and_a_promoted_one_is_first() {
        let keys = [Key::siv(secret(1), None), Key::spool(secret(2), None), Key::siv(secret(3), None)];
        let [first, spool, third] = keys.clone().map(|key| key.id);
        let ring = keys.into_iter().try_fold(Keyring::default(), Keyring::with).unwrap();
        assert_eq!(ring.first(Algorithm::Siv).unwrap().id(), first);
        let ring = ring.promoting(&third).unwrap();
        assert_eq!(ids(&ring), [&third, &first, &spool]);
        assert_eq!(ring.first(Algorithm::Siv).unwrap().id(), third);
        assert_eq!(ring.first(Algorithm::Spool).unwrap().id(), spool);
        assert!(ring.first(Algorithm::Fixed).is_none());
    }

    #[test]
    fn a_key_is_in_a_ring_once_and_for_one_algorithm() {
        let ring = Keyring::default().with(Key::siv(secret(1), None)).unwrap();
        let again = ring.clone().with(Key::siv(secret(1), None));
        assert!(matches!(again, Err(KeyringError::KnownKey { .. })));
        for other in [Key::fixed(secret(1), [9; 16], None), Key::spool(secret(1), None)] {
            assert!(matches!(ring.clone().with(other), Err(KeyringError::SharedKey { .. })));
        }
        let two_ivs = Keyring::default().with(Key::fixed(secret(1), [8; 16], None)).unwrap();
        assert_eq!(two_ivs.with(Key::fixed(secret(1), [9; 16], None)).unwrap().iter().count(), 2);
    }

    #[test]
    fn debug_shows_no_key() {
        let ring = Keyring::of_one_key(secret(0xab), Some([0xcd; 16]));
        let shown = format!("{ring:?}");
        assert!(!shown.contains("abab") && !shown.contains("171"), "{shown}");
    }
}
