//! Answers that differ from the queue's own: refusals, altered messages, failed entries, and answers that do not
//! arrive.

use std::convert::Infallible;
use std::io;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::http::{HeaderValue, Response, StatusCode};
use rustack_sqs_http::body::SqsResponseBody;
use rustack_sqs_http::response::json_response;
use rustack_sqs_model::error::SqsError;
use serde_json::{Value, json};

/// Marks an answer in which the connection is to end; the response carries it to [`deliver`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// Before its first byte.
    Lost,
    /// After half of its body.
    Cut,
}

/// What goes over the wire. An error ends the connection.
pub(in crate::local) async fn deliver(
    answer: Result<Response<SqsResponseBody>, Infallible>,
) -> io::Result<Response<UnsyncBoxBody<Bytes, io::Error>>> {
    let Ok(answer) = answer;
    let broken = answer.extensions().get::<Broken>().copied();
    match broken {
        None => Ok(answer.map(BodyExt::boxed_unsync)),
        Some(Broken::Lost) => Err(io::ErrorKind::ConnectionAborted.into()),
        Some(Broken::Cut) => {
            let (mut parts, body) = answer.into_parts();
            let body = body.collect().await?.to_bytes();
            parts.headers.remove(hyper::header::CONTENT_LENGTH);
            let half = Frame::data(body.slice(..body.len() / 2));
            let frames = [Ok(half), Err(io::ErrorKind::ConnectionAborted.into())];
            let cut = StreamBody::new(futures::stream::iter(frames));
            Ok(Response::from_parts(parts, BodyExt::boxed_unsync(cut)))
        }
    }
}

/// A refusal as SQS writes it.
pub(super) fn refusal(status: u16, code: &'static str) -> Response<SqsResponseBody> {
    let mut answer = json_answer(&json!({ "__type": code, "message": "a fault that was asked for" }));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let fault = if answer.status().is_server_error() { "Receiver" } else { "Sender" };
    if let Ok(header) = HeaderValue::from_str(&format!("{code};{fault}")) {
        answer.headers_mut().insert("x-amzn-query-error", header);
    }
    answer
}

pub(super) fn broken(mut answer: Response<SqsResponseBody>, broken: Broken) -> Response<SqsResponseBody> {
    answer.extensions_mut().insert(broken);
    answer
}

/// The first half of the same answer, complete by its length.
pub(super) async fn malformed(answer: Response<SqsResponseBody>) -> Result<Response<SqsResponseBody>, SqsError> {
    let body = answer.into_body().collect().await.map_err(internal)?.to_bytes();
    Ok(json_response(body[..body.len() / 2].to_vec(), "fault"))
}

/// The same answer with its JSON altered.
pub(super) async fn altered(
    answer: Response<SqsResponseBody>,
    alter: impl FnOnce(&mut Value) + Send,
) -> Result<Response<SqsResponseBody>, SqsError> {
    let mut json = json_of(answer).await?;
    alter(&mut json);
    Ok(json_answer(&json))
}

pub(super) async fn json_of(answer: Response<SqsResponseBody>) -> Result<Value, SqsError> {
    let body = answer.into_body().collect().await.map_err(internal)?.to_bytes();
    serde_json::from_slice(&body).map_err(internal)
}

pub(super) fn json_answer(json: &Value) -> Response<SqsResponseBody> {
    json_response(json.to_string().into_bytes(), "fault")
}

/// Each message's body as if the wire had changed it.
pub(super) fn damage_bodies(answer: &mut Value) {
    for message in messages_of(answer) {
        let body = message["Body"].as_str().unwrap_or_default();
        message["Body"] = format!("{body}?").into();
    }
}

/// Each message as if the server's clock were ahead.
pub(super) fn shift_sent_timestamps(answer: &mut Value, ms: i64) {
    for message in messages_of(answer) {
        let sent = &mut message["Attributes"]["SentTimestamp"];
        if let Some(sent_ms) = sent.as_str().and_then(|text| text.parse::<i64>().ok()) {
            *sent = (sent_ms + ms).to_string().into();
        }
    }
}

/// The counts as if the server did not know yet what became of these messages.
pub(super) fn raise_counts(answer: &mut Value, visible: u32, in_flight: u32) {
    for (name, more) in [("ApproximateNumberOfMessages", visible), ("ApproximateNumberOfMessagesNotVisible", in_flight)]
    {
        if let Some(count) = answer["Attributes"].get_mut(name)
            && let Some(known) = count.as_str().and_then(|text| text.parse::<u64>().ok())
        {
            *count = (known + u64::from(more)).to_string().into();
        }
    }
}

/// Each message without the time of its sending.
pub(super) fn drop_sent_timestamps(answer: &mut Value) {
    for message in messages_of(answer) {
        if let Some(attributes) = message["Attributes"].as_object_mut() {
            attributes.remove("SentTimestamp");
        }
    }
}

fn messages_of(answer: &mut Value) -> impl Iterator<Item = &mut Value> {
    answer.get_mut("Messages").and_then(Value::as_array_mut).into_iter().flatten()
}

/// Takes the first entry and every second one after it out of a batch; returns what is said of them.
pub(super) fn take_failing(request: &mut Value, code: &str, sender_fault: bool) -> Vec<Value> {
    let entries = request["Entries"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let (failing, carried_out): (Vec<_>, Vec<_>) =
        entries.into_iter().enumerate().partition(|(index, _)| index.is_multiple_of(2));
    request["Entries"] = carried_out.into_iter().map(|(_, entry)| entry).collect();
    let failed = |entry: Value| json!({ "Id": entry["Id"], "Code": code, "SenderFault": sender_fault });
    failing.into_iter().map(|(_, entry)| failed(entry)).collect()
}

pub(super) fn internal(error: impl std::fmt::Display) -> SqsError {
    SqsError::internal_error(error.to_string())
}
