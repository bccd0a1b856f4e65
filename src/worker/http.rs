//! The same over HTTP/1.1: `POST /explain` (one object, or a line each), `GET /healthz`, `GET /metrics`; on an address of this machine or on
//! a Unix socket. One thread sees to all connections, so that a slow client holds nobody but itself; there is no authentication, and
//! what web pages of other origins send is refused.

mod door;

pub use door::Address;

use super::answer::Told;
use super::engine::Engine;
use super::intake::Intake;
use super::room::Place;
use super::Kind;
use crate::error::{Error, Result};
use door::{Door, Stream};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{self, HeaderName};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, Semaphore};
use tokio::time::{sleep, timeout, timeout_at};

/// How often it is looked whether to go on.
const LOOK: Duration = Duration::from_millis(50);
/// Connections at a time; more are closed.
const CONNECTIONS: usize = 512;
/// How long a request's head may take, and the pause between two requests of a connection.
const HEAD: Duration = Duration::from_secs(20);
/// How long a body may take.
const BODY: Duration = Duration::from_secs(30);
/// How long those who are connected may take to leave when the worker is stopped.
const LEAVE: Duration = Duration::from_secs(5);

type Reply = Response<Full<Bytes>>;

/// What connections share.
struct Shared {
    intake: Arc<Intake>,
    stopped: AtomicBool,
}

/// Serves until the engine is no longer going; `listening` is told where once it does.
///
/// # Errors
/// [`Error::Usage`] when the address cannot be listened on.
pub fn serve(engine: &Engine<'_>, address: &Address, listening: impl FnOnce(&str)) -> Result<()> {
    let failed = |e: std::io::Error| Error::Usage(format!("--listen {address}: {e}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().map_err(failed)?;
    engine.open(|| {
        runtime.block_on(async {
            let door = Door::bind(address).await.map_err(failed)?;
            listening(&door.place());
            let shared = Arc::new(Shared { intake: Arc::clone(engine.intake()), stopped: AtomicBool::new(false) });
            let connections = Arc::new(Semaphore::new(CONNECTIONS));
            while engine.going() {
                let stream = match timeout(LOOK, door.accept()).await {
                    Err(_) => continue,
                    Ok(Ok(stream)) => stream,
                    Ok(Err(_)) => {
                        sleep(LOOK).await; // such as too many open files: others are closed meanwhile
                        continue;
                    }
                };
                let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
                    shared.intake.refused();
                    continue;
                };
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    connection(&shared, stream).await;
                    drop(permit);
                });
            }
            drop(door);
            shared.stopped.store(true, Ordering::Relaxed);
            // What is in flight is answered; the engine tells those that wait.
            engine.intake().abandon();
            let until = Instant::now() + LEAVE;
            while connections.available_permits() < CONNECTIONS && Instant::now() < until {
                sleep(LOOK).await;
            }
            Ok(())
        })
    })
}

/// Sees to one connection until it is closed, or until it has answered what it was asked when the worker is stopped.
async fn connection(shared: &Arc<Shared>, stream: Stream) {
    let service = service_fn(|request| {
        let shared = Arc::clone(shared);
        async move { Ok::<_, Infallible>(answer(&shared, request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(64 << 10);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    // Closed by whomever, or too slow: nothing is left to be done for it.
    while timeout(LOOK, connection.as_mut()).await.is_err() {
        if shared.stopped.load(Ordering::Relaxed) {
            connection.as_mut().graceful_shutdown();
        }
    }
}

/// Why a request has no answer of the engine.
struct Refusal(StatusCode, String);

async fn answer(shared: &Shared, request: Request<Incoming>) -> Reply {
    let read = [Method::GET, Method::HEAD].contains(request.method());
    let done = match (request.uri().path(), read, *request.method() == Method::POST) {
        ("/healthz", true, _) => return plain("ok\n".into()),
        ("/metrics", true, _) => return plain(shared.intake.metrics()),
        ("/explain", _, true) => explain(shared, request).await,
        ("/explain", ..) => Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, "POST a request here".into())),
        ("/healthz" | "/metrics", ..) => Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, "GET it".into())),
        _ => Err(Refusal(StatusCode::NOT_FOUND, "there are /explain, /healthz and /metrics".into())),
    };
    done.unwrap_or_else(|Refusal(status, said)| {
        if status == StatusCode::SERVICE_UNAVAILABLE {
            shared.intake.refused();
        }
        let body = serde_json::json!({"status": "error", "id": null, "error": said});
        let more = match status {
            StatusCode::SERVICE_UNAVAILABLE => Some((header::RETRY_AFTER, "1")),
            StatusCode::METHOD_NOT_ALLOWED => {
                Some((header::ALLOW, if said == "GET it" { "GET, HEAD" } else { "POST" }))
            }
            _ => None,
        };
        reply(status, "application/json", format!("{body}\n"), more)
    })
}

fn reply(status: StatusCode, kind: &'static str, text: String, more: Option<(HeaderName, &'static str)>) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(text)));
    *reply.status_mut() = status;
    let kind = [(header::CONTENT_TYPE, kind), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    for (name, value) in kind.into_iter().chain(more) {
        reply.headers_mut().insert(name, header::HeaderValue::from_static(value));
    }
    reply
}

fn plain(text: String) -> Reply {
    reply(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text, None)
}

/// `POST /explain`
async fn explain(shared: &Shared, request: Request<Incoming>) -> std::result::Result<Reply, Refusal> {
    if request.headers().contains_key(header::ORIGIN) {
        return Err(Refusal(StatusCode::FORBIDDEN, "requests of web pages are refused".into()));
    }
    let (body, held) = body(shared, request).await?;
    let late = shared.intake.time.map(|limit| Instant::now() + limit);
    let lines = parts(body);
    let several = lines.len() > 1;
    if lines.is_empty() {
        return Err(Refusal(StatusCode::BAD_REQUEST, "the body is empty".into()));
    }
    let gone = Left(Arc::new(AtomicBool::new(false)));
    let told = answers(shared, lines, late, &gone);
    let told = match late {
        Some(late) => timeout_at(late.into(), told)
            .await
            .map_err(|_| Refusal(StatusCode::GATEWAY_TIMEOUT, "took longer than the time limit of a request".into()))?,
        None => told.await,
    }?;
    drop(held);
    let status = match told.first().and_then(|told| told.failure.as_ref()).filter(|_| !several).map(|f| f.kind) {
        None => StatusCode::OK,
        Some(Kind::Request | Kind::Input) => StatusCode::BAD_REQUEST,
        Some(Kind::Time) => StatusCode::GATEWAY_TIMEOUT,
        Some(Kind::Stopped) => StatusCode::SERVICE_UNAVAILABLE,
        Some(Kind::Fault) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let text: String = told.into_iter().map(|told| told.text).collect();
    let one = text.bytes().filter(|byte| *byte == b'\n').count() == 1;
    Ok(reply(status, if one { "application/json" } else { "application/x-ndjson" }, text, None))
}

/// Whoever asked has left when this is dropped.
struct Left(Arc<AtomicBool>);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Brings lines into the house, as many at a time as there are places, and their answers out in order.
async fn answers(
    shared: &Shared,
    lines: Vec<(Vec<u8>, usize)>,
    late: Option<Instant>,
    gone: &Left,
) -> std::result::Result<Vec<Told>, Refusal> {
    let busy = || Refusal(StatusCode::SERVICE_UNAVAILABLE, "too many requests wait; come again".into());
    let lost = |_| Refusal(StatusCode::SERVICE_UNAVAILABLE, "the worker was stopped".into());
    let mut told: Vec<Told> = Vec::with_capacity(lines.len());
    let mut asked: VecDeque<oneshot::Receiver<Told>> = VecDeque::new();
    for line in lines {
        let place = loop {
            match (shared.intake.room.try_enter(0), asked.pop_front()) {
                (Some(place), first) => {
                    first.into_iter().for_each(|first| asked.push_front(first));
                    break place;
                }
                (None, Some(first)) => told.push(first.await.map_err(lost)?),
                (None, None) if told.is_empty() => return Err(busy()),
                (None, None) => sleep(LOOK).await,
            }
        };
        let (send, receive) = oneshot::channel();
        // Nobody receives any more when the client has left.
        let then = Box::new(move |told: Told, place: Place| drop((send.send(told), place)));
        shared.intake.submit(line, place, (late, Arc::clone(&gone.0)), then);
        asked.push_back(receive);
    }
    for next in asked {
        told.push(next.await.map_err(lost)?);
    }
    Ok(told)
}

/// The body, and what it takes of the room while it is here.
async fn body(shared: &Shared, request: Request<Incoming>) -> std::result::Result<(Vec<u8>, Place), Refusal> {
    let limit = shared.intake.limits.line;
    let large = || Refusal(StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {limit} bytes"));
    let busy = || Refusal(StatusCode::SERVICE_UNAVAILABLE, "too much is on its way; come again".into());
    let headers = request.headers();
    if !headers.contains_key(header::CONTENT_LENGTH) && !headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(Refusal(StatusCode::LENGTH_REQUIRED, "say Content-Length".into()));
    }
    if request.body().size_hint().lower() > limit as u64 {
        return Err(large());
    }
    let mut held = shared.intake.room.hold(0).ok_or_else(busy)?;
    let mut bytes = Vec::new();
    let mut body = request.into_body();
    let whole = async {
        while let Some(frame) = body.frame().await {
            let cut = |e: hyper::Error| Refusal(StatusCode::BAD_REQUEST, format!("the body cannot be read: {e}"));
            let Ok(data) = frame.map_err(cut)?.into_data() else { continue };
            if bytes.len() + data.len() > limit {
                return Err(large());
            }
            if !held.grow(data.len()) {
                return Err(busy());
            }
            bytes.extend_from_slice(&data);
        }
        Ok(())
    };
    let slow = |_| Refusal(StatusCode::REQUEST_TIMEOUT, "the body took too long".into());
    timeout(BODY, whole).await.map_err(slow)??;
    Ok((bytes, held))
}

/// The requests of a body with the numbers of their lines: it is one, over however many lines, unless its first line is whole.
fn parts(body: Vec<u8>) -> Vec<(Vec<u8>, usize)> {
    let blank = |line: &[u8]| line.iter().all(u8::is_ascii_whitespace);
    let lines = || body.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !blank(line));
    let whole = lines().next().is_some_and(|(_, first)| first.trim_ascii_end().ends_with(b"}"));
    match lines().nth(1) {
        Some(_) if whole => lines().map(|(number, line)| (line.to_vec(), number + 1)).collect(),
        _ if blank(&body) => Vec::new(),
        _ => vec![(body, 1)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_one_request_or_one_a_line() {
        let numbers = |body: &str| parts(body.into()).into_iter().map(|(_, number)| number).collect::<Vec<_>>();
        assert_eq!(numbers("{\"a\": 1}"), [1]);
        assert_eq!(numbers("{\n \"a\": {\"b\": 1}\n}\n"), [1]);
        assert_eq!(numbers("{\"a\": 1}\r\n\n{\"a\": 2}\n"), [1, 3]);
        assert_eq!(numbers("\n{\"a\": 1}\nnonsense"), [2, 3]);
        assert_eq!(numbers("nonsense"), [1]);
        assert!(numbers(" \n\n").is_empty());
    }
}
