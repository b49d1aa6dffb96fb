//! How a queue is named: by its URL, its ARN, or its name in the region and account that the credentials are of.

/// A queue as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueAddress {
    /// `https://sqs.eu-west-1.amazonaws.com/123456789012/login-queue`.
    Url(String),
    /// `arn:aws:sqs:eu-west-1:123456789012:login-queue`.
    Arn {
        /// The region.
        region: String,
        /// The number of the account that owns the queue.
        account: String,
        /// The queue's name.
        name: String,
    },
    /// `login-queue`.
    Name(String),
}

impl QueueAddress {
    /// Reads one of the three; `None`: it is none of them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if is_url(text) {
            return Some(Self::Url(text.to_owned()));
        }
        if let Some(arn) = text.strip_prefix("arn:") {
            let [_partition, "sqs", region, account, name] = arn.split(':').collect::<Vec<_>>()[..] else {
                return None;
            };
            let (region, account) = (region.to_owned(), account.to_owned());
            let is_whole = !region.is_empty() && !account.is_empty() && is_name(name);
            return is_whole.then(|| Self::Arn { region, account, name: name.to_owned() });
        }
        is_name(text).then(|| Self::Name(text.to_owned()))
    }

    /// The queue's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Url(url) => url.rsplit('/').next().unwrap_or_default(),
            Self::Arn { name, .. } | Self::Name(name) => name,
        }
    }

    /// The region that the address tells. The host of a URL has it in one of these forms: `sqs.REGION.amazonaws.com`,
    /// `REGION.queue.amazonaws.com`, `queue.amazonaws.com` (us-east-1), `….sqs.REGION.vpce.amazonaws.com`; in China
    /// followed by `.cn`. Source: AWS's list of SQS endpoints.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        match self {
            Self::Arn { region, .. } => Some(region),
            Self::Name(_) => None,
            Self::Url(url) => {
                let host = url.split_once("://")?.1.split(['/', ':']).next()?;
                let host = host.strip_suffix(".cn").unwrap_or(host).strip_suffix(".amazonaws.com")?;
                let host = host.strip_suffix(".vpce").unwrap_or(host);
                match host.rsplit_once('.') {
                    None if host == "queue" => Some("us-east-1"),
                    Some((region, "queue")) => Some(region),
                    Some((before, region)) if matches!(before.rsplit('.').next(), Some("sqs" | "sqs-fips")) => {
                        Some(region)
                    }
                    _ => None,
                }
            }
        }
    }
}

/// A queue's URL ends in its name, after a host at least.
pub(super) fn is_url(url: &str) -> bool {
    let address = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let parts = address.and_then(|address| address.rsplit_once('/'));
    parts.is_some_and(|(before, name)| !before.is_empty() && !name.is_empty())
}

/// Up to 80 letters, digits, hyphens and underscores; a FIFO queue's ends in `.fifo`. Source: SQS's quotas.
fn is_name(text: &str) -> bool {
    let stem = text.strip_suffix(".fifo").unwrap_or(text);
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !stem.is_empty() && text.len() <= 80 && stem.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_named_by_url_arn_or_name() {
        for (text, name) in [
            ("https://sqs.eu-west-1.amazonaws.com/123456789012/login-queue", "login-queue"),
            ("http://127.0.0.1:4566/0/q.fifo", "q.fifo"),
            ("arn:aws:sqs:eu-west-1:123456789012:login-queue", "login-queue"),
            ("arn:aws-cn:sqs:cn-north-1:123456789012:q.fifo", "q.fifo"),
            ("login-queue", "login-queue"),
            ("q_1.fifo", "q_1.fifo"),
        ] {
            assert_eq!(QueueAddress::parse(text).unwrap().name(), name, "{text}");
        }
        for text in [
            "ftp://host/0/q",
            "https://",
            "http://host",
            "https://host/",
            "https:///q",
            "",
            ".fifo",
            "login queue",
            "a.b",
            "arn:aws:sns:eu-west-1:123456789012:topic",
            "arn:aws:sqs:eu-west-1:123456789012",
            "arn:aws:sqs::123456789012:q",
        ] {
            assert_eq!(QueueAddress::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_region_is_in_the_url_and_in_the_arn() {
        let region = |text: &str| QueueAddress::parse(text).unwrap().region().map(str::to_owned);
        for url in [
            "https://sqs.eu-west-1.amazonaws.com/1/q",
            "https://eu-west-1.queue.amazonaws.com/1/q",
            "https://vpce-0a1-b2.sqs.eu-west-1.vpce.amazonaws.com/1/q",
            "https://sqs-fips.eu-west-1.amazonaws.com/1/q",
            "arn:aws:sqs:eu-west-1:1:q",
        ] {
            assert_eq!(region(url).as_deref(), Some("eu-west-1"), "{url}");
        }
        assert_eq!(region("https://sqs.cn-north-1.amazonaws.com.cn/1/q").as_deref(), Some("cn-north-1"));
        assert_eq!(region("https://queue.amazonaws.com/1/q").as_deref(), Some("us-east-1"));
        for other in ["http://127.0.0.1:4566/0/q", "https://sqs.example.com/1/q", "q"] {
            assert_eq!(region(other), None, "{other}");
        }
    }
}
