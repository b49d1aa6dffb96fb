//! Region, credentials and endpoint as all AWS tools find them, and the client of HTTP that asks with them.

use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_http_client::{Builder as HttpClientBuilder, tls};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer may take as long as what it waits for, and this.
const ANSWER_MARGIN: Duration = Duration::from_secs(10);

/// Looks for what AWS needs in environment, profile and instance. `wait`: how long a server may wait before it answers.
pub(crate) async fn load_config(wait: Duration) -> SdkConfig {
    let http = HttpClientBuilder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(wait + ANSWER_MARGIN)
        .operation_attempt_timeout(wait + ANSWER_MARGIN)
        .build();
    aws_config::defaults(BehaviorVersion::latest()).http_client(http).timeout_config(timeouts).load().await
}
