//! Tokens that Amazon RDS takes as passwords: a request to connect, signed by AWS credentials. Each is good for one host,
//! port and user for fifteen minutes, so each connection gets a new one.
//!
//! Source: Amazon RDS User Guide, "IAM database authentication"; Signature Version 4 with query parameters.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_sdk_sqs::config::{Credentials, ProvideCredentials};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::OnceCell;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use super::error::invalid_setting as invalid;
use crate::advice::BoxedError;
use crate::aws;
use crate::config::ConfigError;

/// What RDS takes at most.
const VALID: Duration = Duration::from_mins(15);
/// RFC 3986's unreserved characters stay as they are.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Makes the tokens for one user of one server.
#[derive(Debug, Clone)]
pub(super) struct Tokens {
    host: String,
    port: u16,
    user: String,
    aws: Arc<OnceCell<SdkConfig>>,
}

impl Tokens {
    /// For the server of a connection string, whose password they replace.
    pub(super) fn of(config: &Config) -> Result<Self, ConfigError> {
        let refused = |problem: &str| Err(invalid(format!("with password_source = \"rds-iam\" it must {problem}")));
        let [Host::Tcp(host)] = config.get_hosts() else { return refused("name one host") };
        let Some(user) = config.get_user() else { return refused("name the user") };
        if config.get_password().is_some() {
            return refused("have no password, nor may PGPASSWORD or a service");
        }
        if config.get_ssl_mode() != SslMode::Require {
            return refused("have an sslmode from require on");
        }
        let port = config.get_ports().first().copied().unwrap_or(5432);
        Ok(Self { host: host.clone(), port, user: user.to_owned(), aws: Arc::default() })
    }

    /// A new token.
    pub(super) async fn token(&self) -> Result<String, BoxedError> {
        let config = self.aws.get_or_init(|| aws::load_config(Duration::ZERO)).await;
        let region = config.region().map(AsRef::as_ref).filter(|region: &&str| !region.is_empty());
        let region = region.ok_or("no AWS region is set")?;
        let provider = config.credentials_provider().ok_or("there are no AWS credentials")?;
        self.sign(provider.provide_credentials().await?, region, SystemTime::now())
    }

    fn sign(&self, credentials: Credentials, region: &str, now: SystemTime) -> Result<String, BoxedError> {
        let mut settings = SigningSettings::default();
        settings.expires_in = Some(VALID);
        settings.signature_location = SignatureLocation::QueryParams;
        let identity = credentials.into();
        let parameters = v4::SigningParams::builder().identity(&identity).region(region).name("rds-db").time(now);
        let parameters = parameters.settings(settings).build()?.into();
        let Self { host, port, user, .. } = self;
        let user = utf8_percent_encode(user, RESERVED);
        let mut url = format!("https://{host}:{port}/?Action=connect&DBUser={user}");
        let request = SignableRequest::new("GET", &url, std::iter::empty(), SignableBody::empty())?;
        let (_, parameters) = sign(request, &parameters)?.into_parts().0.into_parts();
        for (name, value) in parameters {
            url.extend(["&", name, "="]);
            url.extend(utf8_percent_encode(&value, RESERVED));
        }
        Ok(url.split_off("https://".len()))
    }
}

#[cfg(test)]
impl Tokens {
    /// With an AWS that no environment has.
    pub(super) fn signed_by(self, config: SdkConfig) -> Self {
        Self { aws: Arc::new(OnceCell::new_with(Some(config))), ..self }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn token(session: Option<&str>) -> String {
        let tokens = Tokens {
            host: "db.example.eu-west-1.rds.amazonaws.com".to_owned(),
            port: 5432,
            user: "loader+1".to_owned(),
            aws: Arc::default(),
        };
        let key = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let credentials = Credentials::new("AKIDEXAMPLE", key, session.map(str::to_owned), None, "a test");
        // 2026-01-02T03:04:05Z
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045);
        tokens.sign(credentials, "eu-west-1", now).unwrap()
    }

    fn parts(token: &str) -> (&str, BTreeSet<&str>) {
        let (place, query) = token.split_once('?').unwrap();
        (place, query.split('&').collect())
    }

    /// Made by botocore 1.44.5's `generate_db_auth_token`, with its clock at that instant. The order of parameters is no
    /// part of what is signed.
    #[test]
    fn a_token_is_what_awss_own_library_makes() {
        let start = "db.example.eu-west-1.rds.amazonaws.com:5432/?Action=connect&DBUser=loader%2B1\
             &X-Amz-Algorithm=AWS4-HMAC-SHA256\
             &X-Amz-Credential=AKIDEXAMPLE%2F20260102%2Feu-west-1%2Frds-db%2Faws4_request\
             &X-Amz-Date=20260102T030405Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host";
        let end = "&X-Amz-Signature=903f0fc43c69af82b3ea13206424d6a18225841c356093dacd2a6fec296b2346";
        assert_eq!(parts(&token(None)), parts(&format!("{start}{end}")));
        let end = "&X-Amz-Security-Token=IQoJb3JpZ2luX2VjEXAMPLE%2B%2Ftoken%3D%3D\
             &X-Amz-Signature=d83273be7590438f6c44d8ff87e18a2ae5adae09197d66fa257dc25eeaceb5d4";
        assert_eq!(parts(&token(Some("IQoJb3JpZ2luX2VjEXAMPLE+/token=="))), parts(&format!("{start}{end}")));
    }
}
