//! A client for endpoints that speak OpenAI's chat completions: vLLM, llama.cpp's server, or a service.

use std::fmt;
use std::io::Cursor;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use image::{ImageFormat, RgbImage};
use serde_json::{Value, json};

/// Environment variable of the key.
pub const KEY: &str = "OPENAI_API_KEY";
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest time of one request, from the name of the host to the last byte of the answer.
const TOTAL: Duration = Duration::from_secs(300);
/// Requests after a first one that failed and may not fail again.
const RETRIES: u32 = 5;
/// Wait before the first of them; each further wait is longer by [`BACK_OFF`]: 34 s in all.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const BACK_OFF: u32 = 4;
/// Longest wait that an endpoint may ask for.
const LONGEST_DELAY: Duration = Duration::from_secs(120);
/// Characters of a body that an error shows.
const SHOWN: usize = 300;
/// Requests that all fail before no more are sent: who has the name or the address wrong should not wait for the thousandth.
const GIVE_UP: usize = 8;
/// Bytes of the largest body that is read.
const LARGEST_BODY: u64 = 16 << 20;

/// One model of one endpoint.
pub struct Endpoint {
    agent: ureq::Agent,
    /// Without a slash at its end.
    base: String,
    model: String,
    key: Option<String>,
    first_delay: Duration,
    /// Whether a request was answered.
    answered: AtomicBool,
    /// Requests that failed, and what was wrong with the first.
    failed: AtomicUsize,
    first: OnceLock<String>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("base", &self.base).field("model", &self.model).finish_non_exhaustive()
    }
}

/// One part of a message.
#[derive(Debug, Clone)]
pub enum Part {
    /// Words.
    Text(String),
    /// An image file, PNG.
    Png(Vec<u8>),
}

impl Part {
    /// An image, as PNG.
    ///
    /// # Errors
    /// An image that can't be encoded.
    pub fn image(image: &RgbImage) -> Result<Self> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Png)?;
        Ok(Self::Png(bytes.into_inner()))
    }
}

/// The messages of a conversation of one turn of the user.
pub fn turn(parts: &[Part]) -> Value {
    let content = parts.iter().map(|part| match part {
        Part::Text(text) => json!({"type": "text", "text": text}),
        Part::Png(bytes) => {
            let url = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(bytes));
            json!({"type": "image_url", "image_url": {"url": url}})
        }
    });
    json!([{"role": "user", "content": content.collect::<Vec<_>>()}])
}

/// How an answer is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 for the likeliest token each time.
    pub temperature: f64,
    /// Endpoints may ignore it.
    pub seed: u64,
    /// Tokens after which the answer is cut off.
    pub max_tokens: usize,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// What the model wrote.
    pub text: String,
    /// `stop`, `length`, or what else the endpoint says; empty where it says nothing.
    pub finish_reason: String,
    /// Duration of the request that was answered, failed ones before it left out.
    pub seconds: f64,
}

/// Why a request failed.
struct Failure {
    text: String,
    /// Of the answer, where one came.
    status: Option<u16>,
    /// Whether another one may not.
    again: bool,
    /// What the endpoint asks to wait.
    wait: Option<Duration>,
}

impl Endpoint {
    /// A model at `http://host:port/v1` (`/chat/completions` behind it is dropped), with the key of the environment;
    /// without a name the only model there.
    ///
    /// # Errors
    /// Those of [`Endpoint::with_key`].
    pub fn new(url: &str, model: Option<String>) -> Result<Self> {
        Self::with_key(url, model, std::env::var(KEY).ok())
    }

    /// `URL` or `URL#MODEL`.
    ///
    /// # Errors
    /// Those of [`Endpoint::with_key`].
    pub fn parse(text: &str) -> Result<Self> {
        match text.split_once('#') {
            Some((url, model)) => Self::new(url, Some(model.to_owned())),
            None => Self::new(text, None),
        }
    }

    /// [`Endpoint::new`] with a key of the caller's.
    ///
    /// # Errors
    /// What is no URL of HTTP or may hold a secret; without a name, an endpoint that does not answer or does not have
    /// exactly one model.
    pub fn with_key(url: &str, model: Option<String>, key: Option<String>) -> Result<Self> {
        // Errors and reports name the URL.
        ensure!(
            !url.contains(['@', '?']),
            "expected the URL of an endpoint without a user or a query; a key goes into {KEY}"
        );
        let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let host = host.with_context(|| format!("expected http://HOST/v1 or https://HOST/v1, got {url}"))?;
        ensure!(!host.is_empty(), "expected http://HOST/v1 or https://HOST/v1, got {url}");
        let url = url.trim_end_matches('/');
        let base = url.strip_suffix("/chat/completions").unwrap_or(url).trim_end_matches('/').to_owned();
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT))
            .timeout_global(Some(TOTAL));
        if ["127.", "localhost", "[::1]"].iter().any(|here| host.starts_with(*here)) {
            config = config.proxy(None);
        }
        let key = key.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
        let agent = ureq::Agent::new_with_config(config.build());
        let named = model.filter(|model| !model.is_empty());
        let (answered, failed, first) = (AtomicBool::new(false), AtomicUsize::new(0), OnceLock::new());
        let mut endpoint =
            Self { agent, base, model: String::new(), key, first_delay: FIRST_DELAY, answered, failed, first };
        endpoint.model = match named {
            Some(model) => model,
            None => endpoint.only_model()?,
        };
        Ok(endpoint)
    }

    /// Waits as long before the first retry, and longer by the same factor before each further one.
    #[must_use]
    pub fn first_delay(self, first_delay: Duration) -> Self {
        Self { first_delay, ..self }
    }

    /// The name of the model.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// What [`Endpoint::send`] sends.
    pub fn request(&self, messages: &Value, sampling: &Sampling) -> Value {
        json!({
            "model": self.model, "messages": messages, "temperature": sampling.temperature, "seed": sampling.seed,
            "max_tokens": sampling.max_tokens,
        })
    }

    /// Asks for the next message.
    ///
    /// # Errors
    /// Those of [`Endpoint::send`].
    pub fn chat(&self, messages: &Value, sampling: &Sampling) -> Result<Reply> {
        self.send(&self.request(messages, sampling))
    }

    /// Sends a request that [`Endpoint::request`] made.
    ///
    /// # Errors
    /// An endpoint that cannot be reached or is overloaded and stays so, refuses, or answers something else; one that
    /// answered none of many requests is asked no more. Each names the URL, none the key.
    pub fn send(&self, request: &Value) -> Result<Reply> {
        let url = format!("{}/chat/completions", self.base);
        let is_lost = self.failed.load(Ordering::Relaxed) >= GIVE_UP && !self.answered.load(Ordering::Relaxed);
        if let (true, Some(first)) = (is_lost, self.first.get()) {
            bail!("{first}; not asked any more, since none of the first {GIVE_UP} requests was answered");
        }
        let (body, seconds) = self.ask(&url, Some(&request.to_string())).inspect_err(|error| {
            self.first.get_or_init(|| error.to_string());
            self.failed.fetch_add(1, Ordering::Relaxed);
        })?;
        self.answered.store(true, Ordering::Relaxed);
        let parsed: Value = serde_json::from_str(&body).unwrap_or_default();
        let choice = &parsed["choices"][0];
        let Some(text) = choice["message"]["content"].as_str() else {
            bail!("{url}: status 200: expected a chat completion with text, got {}", self.shown(&body));
        };
        let finish_reason = choice["finish_reason"].as_str().unwrap_or_default().to_owned();
        Ok(Reply { text: text.to_owned(), finish_reason, seconds })
    }

    /// The model of an endpoint that has one.
    fn only_model(&self) -> Result<String> {
        let url = self.models_url();
        let (body, _) = self.ask(&url, None)?;
        let Some(ids) = models(&body) else {
            bail!("{url}: status 200: expected a list of models, got {}", self.shown(&body));
        };
        match ids.as_slice() {
            [only] => Ok(only.clone()),
            several => bail!("{url}: expected one model, got {several:?}; name one as URL#MODEL"),
        }
    }

    fn models_url(&self) -> String {
        format!("{}/models", self.base)
    }

    /// What a user may have got wrong where an endpoint answers with this status.
    fn hint(&self, status: Option<u16>) -> String {
        match status {
            Some(404) if !self.base.ends_with("/v1") => {
                format!(" (is {} the base URL? Most end in /v1)", self.base)
            }
            Some(404) => {
                let ids = self.once(&self.models_url(), None).ok().and_then(|body| models(&body)).unwrap_or_default();
                let is_other = !self.model.is_empty() && !ids.is_empty() && !ids.contains(&self.model);
                let said = || self.shown(&format!(" (it has no {}, but {})", self.model, ids.join(", ")));
                if is_other { said() } else { String::new() }
            }
            Some(401 | 403) if self.key.is_none() => format!(" (no key was sent: it is read from {KEY})"),
            _ => String::new(),
        }
    }

    /// The body of an answer of status 200 and how long it took: GET, or POST of a body.
    fn ask(&self, url: &str, body: Option<&str>) -> Result<(String, f64)> {
        let mut delay = self.first_delay;
        let mut retries = 0;
        loop {
            let begun = Instant::now();
            let failure = match self.once(url, body) {
                Ok(answer) => return Ok((answer, begun.elapsed().as_secs_f64())),
                Err(failure) => failure,
            };
            if !failure.again {
                bail!("{url}: {}{}", failure.text, self.hint(failure.status));
            }
            if retries == RETRIES {
                bail!("{url}: {} (and so {} times)", failure.text, RETRIES + 1);
            }
            let wait = failure.wait.map_or(delay, |asked| asked.min(LONGEST_DELAY).max(delay));
            tracing::debug!(url, wait_ms = wait.as_millis() as u64, "asking again: {}", failure.text);
            std::thread::sleep(wait);
            delay *= BACK_OFF;
            retries += 1;
        }
    }

    fn once(&self, url: &str, body: Option<&str>) -> Result<String, Failure> {
        let authorization = self.key.as_ref().map(|key| format!("Bearer {key}"));
        let sent = match body {
            Some(body) => {
                let mut request = self.agent.post(url).header("Content-Type", "application/json");
                if let Some(authorization) = &authorization {
                    request = request.header("Authorization", authorization.as_str());
                }
                request.send(body)
            }
            None => {
                let mut request = self.agent.get(url);
                if let Some(authorization) = &authorization {
                    request = request.header("Authorization", authorization.as_str());
                }
                request.call()
            }
        };
        let mut response = sent.map_err(|error| self.broken(&error))?;
        let status = response.status().as_u16();
        let header = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let wait = header.and_then(|text| text.trim().parse::<u64>().ok()).map(Duration::from_secs);
        let location = response.headers().get("location").and_then(|value| value.to_str().ok());
        let redirected = location.map(|to| format!("redirected to {}, which is not followed: ", self.shown(to)));
        let read = response.body_mut().with_config().limit(LARGEST_BODY).lossy_utf8(true).read_to_string();
        let text = read.map_err(|error| self.broken(&error))?;
        match status {
            200 => Ok(text),
            _ => Err(Failure {
                text: format!("status {status}: {}{}", redirected.unwrap_or_default(), self.shown(&text)),
                status: Some(status),
                again: status == 429 || status >= 500,
                wait,
            }),
        }
    }

    fn broken(&self, error: &ureq::Error) -> Failure {
        let again = matches!(
            error,
            ureq::Error::Io(_)
                | ureq::Error::ConnectionFailed
                | ureq::Error::HostNotFound
                | ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve)
        );
        let text = match error {
            ureq::Error::Timeout(ureq::Timeout::Connect) => format!("no connection within {} s", CONNECT.as_secs()),
            ureq::Error::Timeout(ureq::Timeout::Global) => format!("no whole answer within {} s", TOTAL.as_secs()),
            other => other.to_string(),
        };
        Failure { text: self.shown(&text), status: None, again, wait: None }
    }

    /// The beginning of a text for an error, on one line and without the key, which an endpoint may repeat.
    fn shown(&self, text: &str) -> String {
        let text = match &self.key {
            Some(key) => text.replace(key.as_str(), "***"),
            None => text.to_owned(),
        };
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN).collect()
    }
}

/// The names in a list of models.
fn models(body: &str) -> Option<Vec<String>> {
    let parsed: Value = serde_json::from_str(body).ok()?;
    let models = parsed["data"].as_array()?;
    Some(models.iter().filter_map(|model| model["id"].as_str()).map(str::to_owned).collect())
}
