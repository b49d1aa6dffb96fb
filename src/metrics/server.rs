//! The metrics over HTTP: `/metrics`, `/healthz` and `/readyz`.
//!
//! Always true: a client that is slow, silent or one of many takes neither time nor memory from the run beyond
//! [`CONNECTIONS`] connections of some seconds each.

use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::Metrics;

const CONNECTIONS: usize = 16;
/// Of one connection, which asks once.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);
/// Where the process has no file descriptor free, for example.
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(200);
const CLASSIC: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Binds the address. Must be called in a runtime.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Answers until it is dropped.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed, so waiting cannot fail.
        let seat = Arc::clone(&room).acquire_owned().await;
        let Ok((stream, _)) = listener.accept().await else {
            sleep(AFTER_FAILED_ACCEPT).await;
            continue;
        };
        let metrics = Arc::clone(&metrics);
        tokio::spawn(async move {
            let service = service_fn(move |request| ready(Ok::<_, Infallible>(answer(&request, &metrics))));
            let mut http = http1::Builder::new();
            let connection =
                http.timer(TokioTimer::new()).keep_alive(false).serve_connection(TokioIo::new(stream), service);
            _ = timeout(CONNECTION_LIMIT, connection).await;
            drop(seat);
        });
    }
}

fn answer(request: &Request<Incoming>, metrics: &Metrics) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET\n".to_owned());
    }
    match request.uri().path() {
        "/metrics" => {
            let accepted = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
            if accepted.into_iter().any(|accept| accept.contains("application/openmetrics-text")) {
                text(StatusCode::OK, OPEN_METRICS, metrics.open_metrics())
            } else {
                text(StatusCode::OK, CLASSIC, metrics.classic())
            }
        }
        "/healthz" => text(StatusCode::OK, PLAIN, "ok\n".to_owned()),
        "/readyz" if metrics.is_ready() => text(StatusCode::OK, PLAIN, "ready\n".to_owned()),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "not connected, or a load is failing\n".to_owned()),
        _ => text(StatusCode::NOT_FOUND, PLAIN, "see /metrics, /healthz and /readyz\n".to_owned()),
    }
}

fn text(status: StatusCode, content_type: HeaderValue, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
