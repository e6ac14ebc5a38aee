//! Why a request is not answered, in the shape that OpenAI's clients turn into exceptions.

use hyper::StatusCode;
use serde_json::{Value, json};

const INVALID: &str = "invalid_request_error";
/// Characters of the longest message: some repeat what they refuse.
const LONGEST: usize = 500;

/// An error of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub(super) status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<String>,
    message: String,
    /// Seconds after which another try may do.
    pub(super) retry_after: Option<u64>,
}

impl Refusal {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, code: None, param: None, message: message.into(), retry_after: None }
    }

    /// A request that can't be understood or met; `param` is the part of it that is wrong.
    pub fn invalid(param: &str, message: impl AsRef<str>) -> Self {
        let message: String = format!("{param}: {}", message.as_ref()).chars().take(LONGEST).collect();
        Self { param: Some(param.to_owned()), ..Self::new(StatusCode::BAD_REQUEST, INVALID, message) }
    }

    /// A request that is refused before it is understood.
    pub(super) fn http(status: StatusCode, message: impl Into<String>) -> Self {
        Self::new(status, INVALID, message)
    }

    /// Without the key, or with another.
    pub(super) fn unauthorized() -> Self {
        let message = "expected the server's key: Authorization: Bearer KEY";
        Self { code: Some("invalid_api_key"), ..Self::new(StatusCode::UNAUTHORIZED, INVALID, message) }
    }

    /// A model that is not here.
    pub(super) fn unknown_model(got: &str, served: &str) -> Self {
        let message = format!("model: expected {served}, got {got}");
        let param = Some("model".to_owned());
        Self { code: Some("model_not_found"), param, ..Self::new(StatusCode::NOT_FOUND, INVALID, message) }
    }

    /// More tokens than are read: at least so many.
    pub(super) fn too_long(least: usize, most: usize) -> Self {
        let message = format!("expected at most {most} tokens with all images, got at least {least}");
        let refusal = Self::invalid("messages", message);
        Self { code: Some("context_length_exceeded"), ..refusal }
    }

    /// The queue is full.
    pub(super) fn busy(waiting: usize, retry_after: u64) -> Self {
        let message = format!("rate limit: {waiting} requests are waiting already");
        let refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
        Self { code: Some("rate_limit_exceeded"), retry_after: Some(retry_after), ..refusal }
    }

    /// The server is stopping; also what an engine says that gave up.
    pub fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", "the server is shutting down")
    }

    /// What the request is not to blame for. The log says more.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    pub(super) fn json(&self) -> Value {
        json!({"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}})
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.status.as_u16(), self.message)
    }
}

impl From<model::Error> for Refusal {
    fn from(error: model::Error) -> Self {
        match error {
            model::Error::TooLong { most, least } => Self::too_long(least, most),
            model::Error::GivenUp => Self::stopping(),
            // A template fails on a conversation that it does not foresee.
            model::Error::Input { .. } | model::Error::Tokenizer { .. } => Self::invalid("messages", error.to_string()),
            other => {
                tracing::error!("model: {other}");
                Self::internal("the model failed")
            }
        }
    }
}
