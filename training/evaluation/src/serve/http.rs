//! HTTP: who may ask, what is asked, and answers at once or piece by piece.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::chat::{self, Completion, Delivery, Reason, Tokens, Usage};
use super::queue::{Event, Job, Queue, Reader, Sink};
use super::{Options, Refusal, Request};

/// Connections served at once; more wait to be accepted.
const CONNECTIONS: usize = 256;
/// Requests that are read at once: bodies in memory that are not in the queue yet.
const READERS: usize = 4;
/// A body is read up to this many times its limit before it is refused: who still sends does not look for an answer.
const DRAINED: usize = 4;
/// Time for cut answers to say so.
const CUT: Duration = Duration::from_secs(1);
/// Wait before another try where connections can't be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What all connections share.
pub(super) struct State {
    options: Options,
    queue: Arc<Queue>,
    /// Set where running answers are given up.
    cut: Arc<AtomicBool>,
    key: Option<[u8; 32]>,
    /// Spells requests as tokens, where the engine has one.
    reader: Option<Arc<Reader>>,
    readers: Arc<Semaphore>,
    started: u64,
    requests: AtomicU64,
}

impl State {
    pub fn new(options: Options, queue: Arc<Queue>, reader: Option<Arc<Reader>>) -> Self {
        let key = options.key.as_ref().map(|key| Sha256::digest(key).into());
        Self {
            options,
            queue,
            cut: Arc::default(),
            key,
            reader,
            readers: Arc::new(Semaphore::new(READERS)),
            started: now(),
            requests: AtomicU64::new(0),
        }
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Serves until told to stop, then waits for what runs as long as the options say, and cuts it.
///
/// # Errors
/// A listener that can't be watched.
pub(super) async fn serve(
    listener: std::net::TcpListener,
    state: Arc<State>,
    mut stop: oneshot::Receiver<()>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(state.options.read_timeout);
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let next = async { (Arc::clone(&places).acquire_owned().await, listener.accept().await) };
        let Some((place, accepted)) = until(&mut stop, next).await else { break };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        // A piece of an answer is small and should not wait for the next one.
        let _ = stream.set_nodelay(true);
        let state = Arc::clone(&state);
        let service = service_fn(move |request: hyper::Request<Incoming>| handle(Arc::clone(&state), request));
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = connection.await {
                tracing::debug!("connection: {error}");
            }
        });
    }
    drop(listener);
    state.queue.close();
    let mut closed = pin!(graceful.shutdown());
    if timeout(state.options.grace, closed.as_mut()).await.is_err() {
        state.cut.store(true, Ordering::Relaxed);
        let _ = timeout(CUT, closed).await;
    }
    Ok(())
}

/// What `work` gives; nothing once it is time to stop.
async fn until<T>(stop: &mut oneshot::Receiver<()>, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|cx| match Pin::new(&mut *stop).poll(cx) {
        Poll::Ready(_) => Poll::Ready(None),
        Poll::Pending => work.as_mut().poll(cx).map(Some),
    })
    .await
}

async fn handle(state: Arc<State>, request: hyper::Request<Incoming>) -> Result<Response<Reply>, Infallible> {
    let (head, mut body) = request.into_parts();
    let response = match route(&state, &head) {
        Ok(Route::Health) if state.queue.is_open() => whole(StatusCode::OK, &json!({"status": "ok"})),
        Ok(Route::Health) => refused(&Refusal::stopping()),
        Ok(Route::Models) => {
            let model = json!({
                "id": state.options.name, "object": "model", "created": state.started, "owned_by": "egoreasoner",
            });
            whole(StatusCode::OK, &json!({"object": "list", "data": [model]}))
        }
        Ok(Route::Chat) => complete(&state, &mut body).await.unwrap_or_else(|refusal| refused(&refusal)),
        Err(refusal) => {
            let _ = timeout(state.options.read_timeout, read(&mut body, 0, state.options.max_body)).await;
            let mut response = refused(&refusal);
            if refusal.status == StatusCode::METHOD_NOT_ALLOWED {
                let allowed = if head.uri.path() == CHAT { "POST" } else { "GET" };
                response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            }
            response
        }
    };
    Ok(response)
}

const HEALTH: &str = "/health";
const MODELS: &str = "/v1/models";
const CHAT: &str = "/v1/chat/completions";

enum Route {
    Health,
    Models,
    Chat,
}

fn route(state: &State, head: &Parts) -> Result<Route, Refusal> {
    let path = head.uri.path();
    if path != HEALTH && !authorized(state, head) {
        return Err(Refusal::unauthorized());
    }
    let (method, route) = match path {
        HEALTH => ("GET", Route::Health),
        MODELS => ("GET", Route::Models),
        CHAT => ("POST", Route::Chat),
        _ => {
            let message = format!("expected {MODELS}, {CHAT} or {HEALTH}");
            return Err(Refusal::http(StatusCode::NOT_FOUND, message));
        }
    };
    if head.method.as_str() != method {
        let message = format!("expected {method}, got {}", head.method);
        return Err(Refusal::http(StatusCode::METHOD_NOT_ALLOWED, message));
    }
    // A web page may send anything else to this machine without asking.
    let content = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if method == "POST" && !content.to_ascii_lowercase().starts_with("application/json") {
        return Err(Refusal::http(StatusCode::UNSUPPORTED_MEDIA_TYPE, "expected Content-Type: application/json"));
    }
    Ok(route)
}

fn authorized(state: &State, head: &Parts) -> bool {
    let Some(key) = &state.key else { return true };
    let given = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    // Digests take as long to compare however much of the key is right.
    given.and_then(|given| given.strip_prefix("Bearer ")).is_some_and(|given| Sha256::digest(given)[..] == key[..])
}

/// Answers a request for a chat completion.
async fn complete(state: &Arc<State>, body: &mut Incoming) -> Result<Response<Reply>, Refusal> {
    let (request, delivery) = {
        // Goes with the work, which goes on for a while where the client hangs up.
        let reading = Arc::clone(&state.readers).acquire_owned().await.map_err(|_| Refusal::stopping())?;
        let limit = state.options.max_body;
        let bytes = timeout(state.options.read_timeout, read(body, limit, limit))
            .await
            .map_err(|_| Refusal::http(StatusCode::REQUEST_TIMEOUT, "the body took too long"))??;
        let (state, waits) = (Arc::clone(state), Waits::default());
        let gone = Arc::clone(&waits.0);
        // Base64, the headers of images and tokens take their time.
        tokio::task::spawn_blocking(move || {
            let _reading = reading;
            understood(&state, bytes, &gone)
        })
        .await
        .map_err(|_| Refusal::internal("the request could not be read"))??
    };
    let number = state.requests.fetch_add(1, Ordering::Relaxed);
    let id = format!("chatcmpl-{:x}-{number}", state.started);
    let n = request.n;
    let (events, mut received) = unbounded_channel();
    let sink = Sink::new(events, Arc::clone(&state.cut));
    state.queue.push(Job { id: id.clone(), request, sink })?;
    // From here on the client is found to have hung up by the receiver being dropped with this future.
    let prompt = match received.recv().await {
        Some(Event::Started { prompt_tokens }) => prompt_tokens,
        other => return Err(refusal_of(other)),
    };
    let completion = Completion { id, created: now(), model: state.options.name.clone() };
    let usage = Usage { prompt, answers: Tokens::default() };
    if !delivery.stream {
        return Ok(whole(StatusCode::OK, &collect(&completion, n, usage, received).await?));
    }
    let pieces = Pieces::new(completion, n, usage, delivery.include_usage, received);
    let mut response = Response::new(Reply::Pieces(Box::new(pieces)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// A client that waits; the flag is set once it does not.
#[derive(Default)]
struct Waits(Arc<AtomicBool>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a body asks for, in the tokens of the engine where it has a reader.
fn understood(state: &State, body: Vec<u8>, gone: &AtomicBool) -> Result<(Request, Delivery), Refusal> {
    let (mut request, delivery) = chat::parse(&body, &state.options)?;
    // What it says is held once from here on.
    drop(body);
    if let Some(reader) = &state.reader {
        let gone = || gone.load(Ordering::Relaxed) || state.cut.load(Ordering::Relaxed);
        request.prompt = Some(reader(&request, &gone)?);
    }
    Ok((request, delivery))
}

/// A body of at most `limit` bytes, read to its end even where it is longer, as far as that is reasonable.
async fn read(body: &mut Incoming, limit: usize, reasonable: usize) -> Result<Vec<u8>, Refusal> {
    // Of the size that it claims to have, so that it is not copied as it grows.
    let claimed = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let (mut bytes, mut length) = (Vec::with_capacity(if claimed > limit { 0 } else { claimed }), 0);
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
        let frame = frame.map_err(|error| Refusal::invalid("body", error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length <= limit {
            bytes.extend_from_slice(&data);
        } else {
            bytes = Vec::new();
        }
        if length > reasonable.saturating_mul(DRAINED) {
            break;
        }
    }
    if length > limit {
        let message = format!("expected a body of at most {limit} bytes, got more");
        return Err(Refusal::http(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    Ok(bytes)
}

/// All answers, whole.
async fn collect(
    completion: &Completion,
    n: usize,
    usage: Usage,
    mut events: UnboundedReceiver<Event>,
) -> Result<Value, Refusal> {
    let mut answers = vec![(String::new(), Reason::Length); n];
    loop {
        match events.recv().await {
            Some(Event::Text { answer, text }) => answers[answer].0.push_str(&text),
            Some(Event::Ended { answer, reason }) => answers[answer].1 = reason,
            Some(Event::Done(tokens)) => return Ok(completion.whole(&answers, Usage { answers: tokens, ..usage })),
            other => return Err(refusal_of(other)),
        }
    }
}

/// What an event that ends a request early means: events end without one where the queue is closed.
fn refusal_of(event: Option<Event>) -> Refusal {
    match event {
        Some(Event::Refused(refusal)) => refusal,
        None => Refusal::stopping(),
        Some(_) => Refusal::internal("the model's events came out of order"),
    }
}

/// A response's body.
pub(super) enum Reply {
    /// All at once.
    Whole(Option<Bytes>),
    /// Server-sent events.
    Pieces(Box<Pieces>),
}

fn whole(status: StatusCode, body: &Value) -> Response<Reply> {
    let mut response = Response::new(Reply::Whole(Some(Bytes::from(body.to_string()))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn refused(refusal: &Refusal) -> Response<Reply> {
    let mut response = whole(refusal.status, &refusal.json());
    if let Some(seconds) = refusal.retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match self.get_mut() {
            Self::Whole(bytes) => bytes.take(),
            Self::Pieces(pieces) => ready!(pieces.poll_next(cx)).map(Bytes::from),
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Pieces(_) => SizeHint::default(),
        }
    }
}

/// The events of a request as server-sent events.
pub(super) struct Pieces {
    completion: Completion,
    usage: Usage,
    include_usage: bool,
    events: UnboundedReceiver<Event>,
    ready: VecDeque<String>,
    ended: bool,
}

impl Pieces {
    fn new(
        completion: Completion,
        n: usize,
        usage: Usage,
        include_usage: bool,
        events: UnboundedReceiver<Event>,
    ) -> Self {
        let ready = (0..n).map(|answer| line(&completion.opening(answer, include_usage))).collect();
        Self { completion, usage, include_usage, events, ready, ended: false }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<String>> {
        if let Some(line) = self.ready.pop_front() {
            return Poll::Ready(Some(line));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let piece = match ready!(self.events.poll_recv(cx)) {
            Some(Event::Text { answer, text }) => line(&self.completion.text(answer, &text, self.include_usage)),
            Some(Event::Ended { answer, reason }) => line(&self.completion.end(answer, reason, self.include_usage)),
            Some(Event::Done(tokens)) => {
                self.ended = true;
                let usage = Usage { answers: tokens, ..self.usage };
                let usage = if self.include_usage { line(&self.completion.usage(usage)) } else { String::new() };
                usage + "data: [DONE]\n\n"
            }
            other => {
                self.ended = true;
                line(&refusal_of(other).json())
            }
        };
        Poll::Ready(Some(piece))
    }
}

fn line(json: &Value) -> String {
    format!("data: {json}\n\n")
}
