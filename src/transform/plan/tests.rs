//! From a body and a mapping to a row or a refusal.

use proptest::prelude::*;

use super::*;
use crate::config::{Dedupe, Mask, RejectPolicy, TableName};
use crate::keyring::SecretKey;

fn from_body(pointer: &str, kind: ColumnType) -> Column {
    Column::of("c", Source::Body(pointer.to_owned()), kind)
}

fn from_message(value: MessageValue, kind: ColumnType) -> Column {
    Column::of("c", Source::Message(value), kind)
}

fn pipeline(columns: Vec<Column>) -> Pipeline {
    let table = TableName { schema: None, table: "t".to_owned() };
    Pipeline { name: "p".to_owned(), table, dedupe: Dedupe::Message, rejects: RejectPolicy::default(), columns }
}

fn keys() -> Keyring {
    let key = SecretKey::from_hex("key", &hex::encode("Sixteen byte key")).unwrap();
    Keyring::of_one_key(key, Some(*b"InitializationVe"))
}

fn record(body: &str) -> Record<'_> {
    Record {
        message_id: "01890a5d-ac96-774b-bcce-b302099a8057".into(),
        sent_at: 1_767_323_045_678,
        received_at: 1_767_400_000_000,
        receive_count: 2,
        group_id: Some("a,b".into()),
        ..Record::with_body(body)
    }
}

/// The row, without its line feed, or the refusal's reason and field.
fn row(columns: Vec<Column>, record: &Record<'_>) -> Result<String, (String, Option<String>)> {
    let plan = Plan::compile(&pipeline(columns), &keys(), Some("login-queue")).unwrap();
    let sent = UtcText::from_milliseconds(record.sent_at).unwrap();
    let mut rows = b"earlier\n".to_vec();
    let mut memory = String::new();
    let body = record.body.text(&mut memory).unwrap();
    let message = RowSource { record, body, sent, queue: Some("login-queue"), source: None };
    let pushed = plan.push_row(&message, &mut Scratch::default(), &mut rows);
    let rows = String::from_utf8(rows).unwrap();
    let own = rows.strip_prefix("earlier\n").unwrap();
    match pushed {
        Ok(()) => Ok(own.strip_suffix('\n').unwrap().to_owned()),
        Err(refusal) => {
            assert_eq!(own, "", "a part of a row of a refused message");
            Err((refusal.text, refusal.field))
        }
    }
}

fn refusal(columns: Vec<Column>, body: &str) -> (String, Option<String>) {
    row(columns, &record(body)).unwrap_err()
}

fn user_logins(body: &str) -> Result<String, (String, Option<String>)> {
    row(Pipeline::user_logins().unwrap().columns, &record(body))
}

const LOGIN: &str = r#"{"user_id":"u","app_version":"2.3.0","device_type":"ios","ip":"199.172.111.135","locale":null,"device_id":"593-47-5928"}"#;

#[test]
fn a_login_becomes_a_row_of_user_logins() {
    // The masked values were computed in Python, see mask/siv.rs.
    assert_eq!(
        user_logins(LOGIN).unwrap(),
        "u,ios,76b0f3af:c0208208de77d351e9e8d66e26172bd8f070284970fb31be87e1b51bac6af4f9,\
         76b0f3af:8632130f657ac49ba0db14f69e6a1ee9cacba8499284f202a59623afc26c16b0,,230,2026-01-02"
    );
}

#[test]
fn fixed_masks_as_existing_tables_have_it() {
    let masked = Column { mask: Some(Mask::Fixed), ..from_body("/ip", ColumnType::Text) };
    assert_eq!(row(vec![masked], &record(LOGIN)).unwrap(), "0ca98bdb16538050f135562323eb6072");
}

#[test]
fn missing_and_null_are_null_unless_required_and_an_empty_string_is_none_of_them() {
    let optional = || vec![from_body("/a", ColumnType::Text), from_body("/b", ColumnType::Text)];
    assert_eq!(row(optional(), &record("{\"b\":null}")).unwrap(), ",");
    assert_eq!(row(optional(), &record("{\"b\":\"\"}")).unwrap(), ",\"\"");
    let required = || vec![Column { required: true, ..from_body("/a/b", ColumnType::Jsonb) }];
    let field = Some("a/b".to_owned());
    assert_eq!(refusal(required(), "{}"), ("a/b is missing".to_owned(), field.clone()));
    assert_eq!(refusal(required(), "{\"a\":7}"), ("a/b is missing".to_owned(), field.clone()));
    assert_eq!(refusal(required(), "{\"a\":{\"b\":null}}"), ("a/b is null".to_owned(), field));
}

#[test]
fn each_fault_of_a_login_is_named_by_its_field() {
    let with = |from: &str, to: &str| {
        let body = LOGIN.replace(from, to);
        assert_ne!(body, LOGIN);
        user_logins(&body).unwrap_err()
    };
    for (from, to, reason, field) in [
        ("\"ip\"", "\"xp\"", "ip is missing", "ip"),
        ("\"u\"", "null", "user_id is null", "user_id"),
        ("\"u\"", "5", "user_id is not a string", "user_id"),
        ("\"ios\"", &format!("\"{}\"", "ä".repeat(33)), "device_type is longer than 32 characters", "device_type"),
        ("2.3.0", "2.3.x", "app_version is not dotted digits", "app_version"),
        ("2.3.0", "21474836.48", "app_version is out of range for integer", "app_version"),
        ("\"u\"", "\"\\u0000\"", "user_id holds \\u0000, which Postgres cannot store", "user_id"),
        ("null", "\"\\ud800\"", "locale holds half of a surrogate pair, which is no Unicode text", "locale"),
        ("199.172.111.135", &"1".repeat(200), "ip is longer than 256 characters", "ip"),
    ] {
        assert_eq!(with(from, to), (reason.to_owned(), Some(field.to_owned())));
    }
    assert!(user_logins(&LOGIN.replace("\"ios\"", &format!("\"{}\"", "ä".repeat(32)))).is_ok());
}

#[test]
fn faults_of_the_whole_body_have_no_field() {
    for (body, reason) in [
        ("", "the body is empty"),
        ("[]", "the body is not a JSON object"),
        ("hello", "the body is not JSON: expected value at line 1 column 1"),
        ("{} {}", "the body is not JSON: trailing characters at line 1 column 4"),
        (&"{\"a\":".repeat(200), "the body is nested deeper than 127 levels"),
    ] {
        assert_eq!(refusal(vec![from_body("/a", ColumnType::Text)], body), (reason.to_owned(), None));
    }
    let whole = vec![from_body("", ColumnType::Jsonb)];
    assert_eq!(refusal(whole.clone(), "{\"a\":\"\\u0000\"}").1, None);
    assert_eq!(row(whole, &record(" {\"a\": 1.50} ")).unwrap(), "\"{\"\"a\"\": 1.50}\"");
}

#[test]
fn values_of_the_message_are_in_utc() {
    use MessageValue::{
        GroupId, MessageId, Queue, ReceiveCount, ReceivedAt, ReceivedDate, SentAt, SentDate, SequenceNumber,
    };
    let columns = [
        (SentDate, ColumnType::Date),
        (SentAt, ColumnType::Timestamptz),
        (ReceivedDate, ColumnType::Date),
        (ReceivedAt, ColumnType::Timestamptz),
        (MessageId, ColumnType::Uuid),
        (ReceiveCount, ColumnType::Integer),
        (GroupId, ColumnType::Text),
        (SequenceNumber, ColumnType::Numeric),
        (Queue, ColumnType::Text),
    ];
    assert_eq!(
        row(columns.map(|(value, kind)| from_message(value, kind)).to_vec(), &record("{}")).unwrap(),
        "2026-01-02,2026-01-02T03:04:05.678Z,2026-01-03,2026-01-03T00:26:40.000Z,\
         01890a5d-ac96-774b-bcce-b302099a8057,2,\"a,b\",,login-queue"
    );
    let required = Column { required: true, ..from_message(SequenceNumber, ColumnType::Text) };
    assert_eq!(refusal(vec![required], "{}"), ("c is missing".to_owned(), Some("c".to_owned())));
}

/// A column of scale 2 rounded 1.239 to 1.24, and nobody was told.
#[test]
fn a_number_with_more_decimals_than_its_scale_is_refused() {
    let price = || vec![Column { scale: Some(2), ..from_body("/price", ColumnType::Numeric) }];
    for body in [r#"{"price":1.23}"#, r#"{"price":"1.230"}"#, r#"{"price":12e-1}"#, r#"{"price":null}"#] {
        row(price(), &record(body)).unwrap();
    }
    for body in [r#"{"price":1.239}"#, r#"{"price":"1e-3"}"#] {
        let reason = "price has more than 2 decimal digits".to_owned();
        assert_eq!(refusal(price(), body), (reason, Some("price".to_owned())));
    }
}

/// Each message was rejected, because a masked value never fitted.
#[test]
fn a_max_length_that_no_masked_value_has_is_refused() {
    for (mask, shortest) in [(Mask::Siv, 73), (Mask::Fixed, 32)] {
        let compile = |max_length| {
            let masked = Column { mask: Some(mask), max_length, ..from_body("/ip", ColumnType::Text) };
            Plan::compile(&pipeline(vec![masked]), &keys(), None)
        };
        compile(Some(shortest)).unwrap();
        let error = compile(Some(shortest - 1)).unwrap_err();
        assert!(error.to_string().contains(&format!("{shortest} characters or more")), "{error}");
    }
}

#[test]
fn a_plan_that_cannot_run_is_refused_before_the_first_message() {
    let compile = |column: Column| Plan::compile(&pipeline(vec![column]), &keys(), None).unwrap_err();
    assert!(matches!(compile(from_body("ip", ColumnType::Text)), ConfigError::InvalidColumn { .. }));
    assert!(matches!(
        compile(from_message(MessageValue::SentDate, ColumnType::Boolean)),
        ConfigError::InvalidColumn { .. }
    ));
    assert!(matches!(
        Plan::compile(&Pipeline::user_logins().unwrap(), &Keyring::default(), None).unwrap_err(),
        ConfigError::Missing { .. }
    ));
}

fn every_kind() -> Vec<Column> {
    use ColumnType::{
        Bigint, Boolean, Date, Double, Integer, Jsonb, Numeric, PackedVersion, Text, Timestamptz, Uuid, Version,
    };
    let kinds =
        [Text, Integer, Bigint, Numeric, Double, Boolean, Timestamptz, Date, Uuid, Jsonb, Version, PackedVersion];
    let pointers = ["/a", "/a/b", "/a/0", "/b", "", "/b/1/a"];
    kinds.into_iter().zip(pointers.into_iter().cycle()).map(|(kind, pointer)| from_body(pointer, kind)).collect()
}

fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<f64>().prop_map(|value| format!("{value}")),
        any::<i64>().prop_map(|value| value.to_string()),
        any::<u16>().prop_map(|unit| format!("\"\\u{unit:04x}\"")),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|elements| format!("[{}]", elements.join(","))),
            proptest::collection::vec(("[ab]", inner), 0..4).prop_map(|members| {
                let members: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
                format!("{{{}}}", members.join(", "))
            }),
        ]
    })
}

/// One line of CSV as an independent reader sees it.
fn fields(row: &str) -> usize {
    let mut reader = ::csv::ReaderBuilder::new().has_headers(false).from_reader(row.as_bytes());
    let records: Vec<_> = reader.records().map(Result::unwrap).collect();
    assert_eq!(records.len(), 1);
    records[0].len()
}

proptest! {
    #[test]
    fn any_json_gives_one_row_or_one_refusal(body in any_json()) {
        if let Ok(row) = row(every_kind(), &record(&body)) {
            prop_assert_eq!(fields(&row), every_kind().len());
        }
        // One column of each kind, so that rows are common.
        for mut column in every_kind() {
            column.source = Source::Body("/a".to_owned());
            let body = format!("{{\"a\":{body}}}");
            if let Ok(row) = row(vec![column.clone(), column], &record(&body)) {
                prop_assert_eq!(fields(&row), 2);
            }
        }
    }

    #[test]
    fn any_text_gives_one_row_or_one_refusal(body in any::<String>()) {
        _ = row(every_kind(), &record(&body));
        _ = row(every_kind(), &record(&format!("{{\"a\":\"{body}\",\"b\":[0,{{\"a\":{body}}}]}}")));
    }

    #[test]
    fn a_damaged_login_is_refused_or_is_a_row(position in any::<prop::sample::Index>(), replacement in any::<char>()) {
        let mut characters: Vec<char> = LOGIN.chars().collect();
        let position = position.index(characters.len());
        characters[position] = replacement;
        if let Ok(row) = user_logins(&characters.into_iter().collect::<String>()) {
            prop_assert_eq!(fields(&row), 7);
        }
    }
}
