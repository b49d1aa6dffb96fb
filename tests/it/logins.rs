//! Login messages as input, and what must become of them, worked out here and not by the code under test.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;

use flate2::read::GzDecoder;
use pgsluice::local::Logins;
use serde_json::Value;

use crate::testenv::project_path;

/// The columns of `user_logins` that are not masked and do not depend on the day.
pub(crate) const PLAIN_COLUMNS: &str = "user_id, device_type, locale, app_version";

/// Real messages, where the checkout has them beside it: 99 logins and one message of another kind.
pub(crate) fn sample() -> Option<Vec<String>> {
    let directory = project_path("../shared/data");
    if !directory.exists() {
        eprintln!("skipped: the sample of real messages is not part of the project, and not beside it");
        return None;
    }
    let file = File::open(directory.join("login_queue_sample.json.gz")).expect("the sample of real messages");
    let mut json = String::new();
    GzDecoder::new(file).read_to_string(&mut json).expect("the sample, unpacked");
    let bodies: Vec<Value> = serde_json::from_str(&json).expect("an array of message bodies");
    Some(bodies.iter().map(Value::to_string).collect())
}

/// Random messages, the same every time.
pub(crate) fn generated(count: usize) -> Vec<String> {
    Logins::new(2024).take(count).collect()
}

/// Random logins, and after them a message of another kind, which becomes a reject.
pub(crate) fn generated_and_another(logins: usize) -> Vec<String> {
    let mut bodies = generated(logins);
    bodies.push(r#"{"foo": "oops_wrong_msg_type"}"#.to_owned());
    bodies
}

/// A login that is valid in every field.
pub(crate) fn login(user_id: &str) -> Value {
    serde_json::json!({
        "user_id": user_id,
        "app_version": "2.3.0",
        "device_type": "android",
        "ip": "199.172.111.135",
        "locale": "RU",
        "device_id": "593-47-5928",
    })
}

/// The bodies that are logins.
pub(crate) fn logins_of(bodies: &[String]) -> Vec<Value> {
    let parsed = bodies.iter().map(|body| serde_json::from_str::<Value>(body).expect("JSON"));
    parsed.filter(|body| body.get("user_id").is_some()).collect()
}

/// The rows that the bodies become, as [`PLAIN_COLUMNS`].
pub(crate) fn expected_rows(bodies: &[String]) -> BTreeSet<Vec<Option<String>>> {
    let row = |login: &Value| {
        let text = |field: &str| login[field].as_str().map(str::to_owned);
        vec![text("user_id"), text("device_type"), text("locale"), text("app_version").as_deref().map(version_number)]
    };
    logins_of(bodies).iter().map(row).collect()
}

/// "2.3.0" is 230 and "0.96" is 96: the digits as one number.
fn version_number(version: &str) -> String {
    version.replace('.', "").parse::<u32>().expect("digits").to_string()
}
