//! Owns HTTP: connections and their limits, what is asked for, and what is sent back.
//! Must not wait for PostgreSQL: it asks the shelf, which another turn of the loop fills, or looks
//! into shared memory.

use super::documents;
use super::gate::{Gate, Refusal};
use super::query::Query;
use super::shelf::Shelf;
use crate::metrics::older_format;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// More connections than this at once are closed before they have said anything.
const MOST_CONNECTIONS: usize = 64;

/// How long a client may take to send the head of a request, and how long it may be.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);
const HEAD_BYTES: usize = 16 << 10;

/// How long a connection may last in all: a client that reads slowly ends here.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(60);

const PAGE: &str = include_str!("page.html");

/// Accepts connections for ever, each served by a task of its own on this one thread.
pub async fn accept(listener: TcpListener, shelf: Rc<Shelf>) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors: some come back when connections end.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let shelf = Rc::clone(&shelf);
        tokio::task::spawn_local(async move {
            let _place = place;
            let _ = tokio::time::timeout(CONNECTION_DEADLINE, converse(stream, shelf)).await;
        });
    }
}

async fn converse(stream: TcpStream, shelf: Rc<Shelf>) {
    let service = service_fn(move |request| {
        let shelf = Rc::clone(&shelf);
        async move { Ok::<_, Infallible>(answer(&request, &shelf).await) }
    });
    // What goes wrong on a connection is the client's business, and says so to it.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

async fn answer(request: &Request<Incoming>, shelf: &Shelf) -> Response<Full<Bytes>> {
    let head = request.headers();
    let host = head.get(header::HOST).and_then(|host| host.to_str().ok());
    let bearer = head.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let path = request.uri().path();
    // The page itself holds nothing; it asks for the token.
    let refusal = {
        let gate = Gate::current();
        let token = if path == "/" { Ok(()) } else { gate.admits_bearer(bearer) };
        gate.admits_host(host).and(token).err()
    };
    match refusal {
        Some(Refusal::OtherHost) => {
            let text = "This server does not go by that name: see citus_fleet.http_hosts.\n";
            return reply(StatusCode::MISDIRECTED_REQUEST, TEXT, text.into());
        }
        Some(Refusal::NoToken) => {
            let mut refused =
                reply(StatusCode::UNAUTHORIZED, TEXT, "A bearer token is needed.\n".into());
            refused
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return refused;
        }
        None => {}
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut refused =
            reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, "Only GET and HEAD.\n".into());
        refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match path {
        "/" => page(),
        "/ready" => {
            let (is_ready, ready) = documents::readiness();
            reply(well(is_ready), JSON, ready)
        }
        "/health" | "/metrics" | "/vector" => document(request, shelf).await,
        "/workers" | "/events" => list(request, shelf).await,
        path if path.starts_with("/vector/") => list(request, shelf).await,
        _ => nowhere(),
    }
}

fn nowhere() -> Response<Full<Bytes>> {
    let known = "/, /health, /ready, /metrics, /workers, /events, /vector, /vector/shards, /vector/tables, \
                 /vector/nodes, /vector/progress, /vector/recall, /vector/silences\n";
    reply(StatusCode::NOT_FOUND, TEXT, known.into())
}

async fn document(request: &Request<Incoming>, shelf: &Shelf) -> Response<Full<Bytes>> {
    let Some(documents) = shelf.documents().await else {
        return failed("nothing was collected in time");
    };
    let documents = match documents.as_ref() {
        Ok(documents) => documents,
        Err(why) => return failed(why),
    };
    match request.uri().path() {
        "/health" => reply(well(documents.is_well), JSON, documents.health.clone()),
        "/vector" => reply(StatusCode::OK, JSON, documents.summary.clone()),
        _ => {
            let shards = request.uri().query() == Some("shards=1");
            metrics(documents.metrics(shards), request)
        }
    }
}

async fn list(request: &Request<Incoming>, shelf: &Shelf) -> Response<Full<Bytes>> {
    let query = match Query::parse(request.uri().query()) {
        Ok(query) => query,
        Err(why) => return reply(StatusCode::BAD_REQUEST, TEXT, format!("{why}\n").into()),
    };
    let Some(documents) = shelf.documents().await else {
        return failed("nothing was collected in time");
    };
    match documents.as_ref() {
        Ok(documents) => match documents.list(request.uri().path(), &query) {
            Some(rows) => reply(StatusCode::OK, JSON, rows),
            None => nowhere(),
        },
        Err(why) => failed(why),
    }
}

/// In the format that is asked for; Prometheus asks for OpenMetrics.
fn metrics(openmetrics: &str, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let mut accepted = request.headers().get_all(header::ACCEPT).iter();
    let is_asked_for = |accept: &HeaderValue| {
        accept.to_str().is_ok_and(|accept| accept.contains("application/openmetrics-text"))
    };
    if accepted.any(is_asked_for) {
        reply(StatusCode::OK, OPENMETRICS, openmetrics.to_owned().into())
    } else {
        reply(StatusCode::OK, PROMETHEUS, older_format(openmetrics).into())
    }
}

fn well(is_well: bool) -> StatusCode {
    if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn failed(why: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({ "status": "unknown", "error": why }).to_string();
    reply(StatusCode::SERVICE_UNAVAILABLE, JSON, body.into())
}

fn page() -> Response<Full<Bytes>> {
    let mut page = reply(StatusCode::OK, HTML, Bytes::from_static(PAGE.as_bytes()));
    // Whatever a name in the cluster holds, nothing but the page's own script ever runs.
    page.headers_mut().insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(concat!(
            "default-src 'none'; connect-src 'self'; img-src data:; style-src 'unsafe-inline'; ",
            "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )),
    );
    page
}

fn reply(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut reply = Response::new(Full::new(body));
    *reply.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        reply.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    reply
}
