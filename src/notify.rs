//! Tells somebody that a run has ended: one POST of its report.
//!
//! Always true: it never changes how a run ends, and it ends itself within a bounded time. Nothing of the URL but its
//! host is ever shown, because user, path and query of a web hook are its password.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use aws_smithy_types::base64;
use backon::{ExponentialBuilder, Retryable};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::http::uri::{Parts, Scheme};
use hyper::{Request, StatusCode, Uri};
use thiserror::Error;
use tokio::time::timeout;

use crate::https::{HttpsClient, https_client, innermost};

/// Of one attempt.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Beside the first one. All together take less than a minute.
const FURTHER_ATTEMPTS: usize = 3;
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// Where to POST a report.
#[derive(Clone)]
pub struct NotifyUrl {
    uri: Uri,
    /// Of the URL's user and password.
    authorization: Option<HeaderValue>,
}

/// Why a report was not delivered.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is the documentation")]
pub enum NotifyError {
    #[error("it answered {0}")]
    Refused(StatusCode),
    #[error("it did not answer within {} s", ANSWER_LIMIT.as_secs())]
    Silent,
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
}

impl fmt::Debug for NotifyUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "NotifyUrl({})", self.host())
    }
}

impl FromStr for NotifyUrl {
    type Err = &'static str;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        const NO_URL: &str = "expected a URL such as https://host/path";
        let mut parts: Parts = url.parse::<Uri>().map_err(|_| NO_URL)?.into_parts();
        let is_http = parts.scheme == Some(Scheme::HTTPS) || parts.scheme == Some(Scheme::HTTP);
        let authority = parts.authority.take().filter(|_| is_http).ok_or(NO_URL)?;
        let (user, host) =
            authority.as_str().rsplit_once('@').map_or((None, authority.as_str()), |(user, host)| (Some(user), host));
        let authorization = user.map(|user| {
            let mut value =
                HeaderValue::from_str(&format!("Basic {}", base64::encode(unescaped(user)))).map_err(|_| NO_URL)?;
            value.set_sensitive(true);
            Ok::<_, Self::Err>(value)
        });
        parts.authority = Some(host.parse().map_err(|_| NO_URL)?);
        Ok(Self { uri: Uri::from_parts(parts).map_err(|_| NO_URL)?, authorization: authorization.transpose()? })
    }
}

/// What stands behind each `%`.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let code = behind.get(..2).filter(|_| *first == b'%').and_then(|code| hex::decode(code).ok());
        bytes.push(code.as_ref().map_or(*first, |code| code[0]));
        rest = if code.is_some() { &behind[2..] } else { behind };
    }
    bytes
}

impl NotifyUrl {
    /// The part of the URL that may be shown.
    #[must_use]
    pub fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
    }

    /// Posts a report. What may pass is tried again: no answer, a server's own fault, too many requests.
    pub async fn post(&self, report: &[u8]) -> Result<(), NotifyError> {
        let client = https_client();
        let attempt = || self.post_once(&client, report);
        attempt.retry(retries()).when(NotifyError::may_pass).await
    }

    async fn post_once(&self, client: &HttpsClient, report: &[u8]) -> Result<(), NotifyError> {
        let unreachable = |error: &dyn std::error::Error| NotifyError::Unreachable(innermost(error));
        let mut request = Request::post(&self.uri)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("pgsluice/", env!("CARGO_PKG_VERSION")));
        if let Some(host) = self.uri.authority() {
            request = request.header(HOST, host.as_str());
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Full::from(Bytes::copy_from_slice(report))).map_err(|error| unreachable(&error))?;
        match timeout(ANSWER_LIMIT, client.request(request)).await {
            Err(_) => Err(NotifyError::Silent),
            Ok(Err(error)) => Err(unreachable(&error)),
            Ok(Ok(answer)) if answer.status().is_success() => Ok(()),
            Ok(Ok(answer)) => Err(NotifyError::Refused(answer.status())),
        }
    }
}

impl NotifyError {
    fn may_pass(&self) -> bool {
        match self {
            Self::Refused(status) => {
                status.is_server_error()
                    || matches!(*status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
            }
            Self::Silent | Self::Unreachable(_) => true,
        }
    }
}

fn retries() -> ExponentialBuilder {
    ExponentialBuilder::default().with_min_delay(FIRST_WAIT).with_max_times(FURTHER_ATTEMPTS).with_jitter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_password_become_a_header_and_nothing_but_the_host_is_shown() {
        let url: NotifyUrl = "https://me:p%40ss@hooks.example.org:8443/T0/secret?token=x".parse().unwrap();
        assert_eq!(url.uri, "https://hooks.example.org:8443/T0/secret?token=x");
        // me:p@ss
        assert_eq!(url.authorization.as_ref().unwrap(), "Basic bWU6cEBzcw==");
        assert_eq!(format!("{url:?}"), "NotifyUrl(hooks.example.org)");
        for wrong in ["", "hooks.example.org", "/path", "ftp://host/", "https://", "https://a b/"] {
            assert!(wrong.parse::<NotifyUrl>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_refusal_of_the_request_itself_is_not_tried_again() {
        let refused = |code| NotifyError::Refused(StatusCode::from_u16(code).unwrap()).may_pass();
        assert_eq!([400, 401, 404, 408, 429, 500, 503].map(refused), [false, false, false, true, true, true, true]);
    }
}
