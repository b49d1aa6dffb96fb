//! AWS Secrets Manager: a secret that holds a keyring. Region, credentials and endpoint are found as all AWS tools do.

use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_secretsmanager::Client;
use aws_smithy_http_client::{Builder, tls};
use zeroize::Zeroizing;

use super::{Keyring, KeyringError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Reads the current version of the secret of this name or ARN.
pub(super) async fn read(id: &str) -> Result<Keyring, KeyringError> {
    let http = Builder::new().tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring)).build_https();
    let timeouts =
        TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_attempt_timeout(ANSWER_TIMEOUT).build();
    let config =
        aws_config::defaults(BehaviorVersion::latest()).http_client(http).timeout_config(timeouts).load().await;
    let answer = Client::new(&config).get_secret_value().secret_id(id).send().await;
    let unreadable = |source| KeyringError::AwsSecret { id: id.to_owned(), source };
    let answer = answer.map_err(|error| unreadable(Box::new(error.into_service_error())))?;
    let text = match (answer.secret_string, answer.secret_binary) {
        (Some(text), _) => Zeroizing::new(text),
        (None, Some(bytes)) => {
            let text = String::from_utf8(bytes.into_inner()).map_err(|_| unreadable("it is not UTF-8".into()))?;
            Zeroizing::new(text)
        }
        (None, None) => return Err(unreadable("it is empty".into())),
    };
    Keyring::parse(&format!("the secret {id}"), &text)
}
