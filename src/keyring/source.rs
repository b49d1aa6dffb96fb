//! From the one source of keys to the keyring.

use super::{Algorithm, Keyring, KeyringError, SecretKey, command, read_file, secret};
use crate::config::KeySource;

/// The id of the key in docker-compose.yml.
const PUBLIC_ID: &str = "1780b315";

/// Reads the keys. Without a source the ring is empty: whoever needs a key says which one.
pub async fn read(source: &KeySource) -> Result<Keyring, KeyringError> {
    let ring = read_any(source).await?;
    if ring.first(Algorithm::Siv).is_some_and(|key| key.id() == PUBLIC_ID) {
        tracing::warn!("values are masked with the key of docker-compose.yml, which is public: make one of your own");
    }
    Ok(ring)
}

async fn read_any(source: &KeySource) -> Result<Keyring, KeyringError> {
    match source {
        KeySource::None => Ok(Keyring::default()),
        KeySource::Environment { key, fixed_iv } => {
            let key = SecretKey::from_hex("PGSLUICE_KEY", key.expose())?;
            let iv = fixed_iv.as_ref().map(|iv| secret::iv_from_hex("PGSLUICE_FIXED_IV", iv.expose()));
            Ok(Keyring::of_one_key(key, iv.transpose()?))
        }
        KeySource::File(path) => read_file(path),
        KeySource::Command(command) => command::read(command).await,
    }
}
