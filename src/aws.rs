//! Region, credentials and endpoint as all AWS tools find them, and the client of HTTP that asks with them.

use std::time::Duration;

use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_smithy_http_client::{Builder as HttpClientBuilder, tls};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer may take as long as what it waits for, and this.
const ANSWER_MARGIN: Duration = Duration::from_secs(10);

/// Looks for what AWS needs in environment, profile and instance. `wait`: how long a server may wait before it answers.
/// `region`: the one that the queue's URL or ARN tells, for where the user says none. What the machine that this runs on
/// says of its own region is asked last, because that is another matter.
pub(crate) async fn load_config(wait: Duration, region: Option<&str>) -> SdkConfig {
    let http = HttpClientBuilder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(wait + ANSWER_MARGIN)
        .operation_attempt_timeout(wait + ANSWER_MARGIN)
        .build();
    let said = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::new())
        .region()
        .await;
    let defaults = aws_config::defaults(BehaviorVersion::latest()).http_client(http).timeout_config(timeouts);
    match (said, region) {
        (None, Some(region)) => defaults.region(Region::new(region.to_owned())).load().await,
        _ => defaults.load().await,
    }
}
