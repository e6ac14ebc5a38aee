//! The model's endpoint over real TCP: what it answers, what it refuses, and what it survives.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Cursor, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use image::{ImageFormat, Rgb, RgbImage};
use model::answer::prompt::Prompt;
use model::{Device, EgoModel};
use serde_json::{Value, json};
use training_evaluation::serve::{
    ChatModel, Engine, Event, Options, Reader, Reason, Refusal, Request, Server, Sink, Tokens,
};

mod answers;
mod server;

/// More than anything here takes.
const LONG: Duration = Duration::from_secs(120);

fn weights() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/weights/nano")
}

fn load() -> EgoModel {
    EgoModel::load(&weights(), &Device::Cpu).unwrap()
}

fn start(engine: impl Engine, options: Options) -> Server {
    Server::start(TcpListener::bind("127.0.0.1:0").unwrap(), engine, options).unwrap()
}

fn nano() -> Server {
    start(ChatModel::new(load(), 16_384), Options { name: "nano".to_owned(), ..Options::default() })
}

/// An engine for what a model can't be made to do.
struct Fake<F>(F);

impl<F: Fn(&Request, &Sink) -> Result<usize, Refusal> + Send + 'static> Engine for Fake<F> {
    fn answer(&self, request: &Request, sink: &Sink) -> Result<Tokens, Refusal> {
        (self.0)(request, sink).map(|written| Tokens { written, filled: 0 })
    }
}

/// An engine whose requests are read outside of its own thread.
struct Reads<F, R>(F, R);

impl<F, R> Engine for Reads<F, R>
where
    F: Fn(&Request, &Sink) -> Result<usize, Refusal> + Send + 'static,
    R: Fn(&Request, &dyn Fn() -> bool) -> Result<Prompt, Refusal> + Clone + Send + Sync + 'static,
{
    fn reader(&self) -> Option<Arc<Reader>> {
        Some(Arc::new(self.1.clone()))
    }

    fn answer(&self, request: &Request, sink: &Sink) -> Result<Tokens, Refusal> {
        assert!(request.prompt.is_some(), "it was read");
        (self.0)(request, sink).map(|written| Tokens { written, filled: 0 })
    }
}

/// One answer of one word.
fn says(sink: &Sink, text: &str) -> Result<usize, Refusal> {
    sink.send(Event::Started { prompt_tokens: 2 });
    sink.send(Event::Text { answer: 0, text: text.to_owned() });
    sink.send(Event::Ended { answer: 0, reason: Reason::Stop });
    Ok(1)
}

/// Answers nothing until the client or the server gives up.
fn waits(sink: &Sink) -> Result<usize, Refusal> {
    while !sink.is_closed() {
        std::thread::sleep(Duration::from_millis(2));
    }
    Err(Refusal::stopping())
}

/// Status, headers, body.
struct Reply {
    status: u16,
    headers: ureq::http::HeaderMap,
    text: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// Text and reason of an answer.
    fn answer(&self, index: usize) -> (String, String) {
        assert_eq!(self.status, 200, "{}", self.text);
        let json = self.json();
        let choice = &json["choices"][index];
        assert_eq!((&choice["index"], &choice["message"]["role"]), (&json!(index), &json!("assistant")));
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&choice["message"]["content"]), text(&choice["finish_reason"]))
    }

    /// The server-sent events but the last, which must be the right one.
    fn events(&self) -> Vec<Value> {
        assert_eq!(self.headers["content-type"], "text/event-stream; charset=utf-8");
        let lines: Vec<&str> = self.text.split("\n\n").filter(|line| !line.is_empty()).collect();
        let (last, events) = lines.split_last().unwrap();
        assert_eq!(*last, "data: [DONE]");
        events.iter().map(|line| serde_json::from_str(line.strip_prefix("data: ").unwrap()).unwrap()).collect()
    }

    /// Text and reason of an answer that was streamed.
    fn streamed(&self, index: usize) -> (String, String) {
        let (mut text, mut reason) = (String::new(), None);
        for event in self.events() {
            assert_eq!(event["object"], "chat.completion.chunk");
            for choice in event["choices"].as_array().unwrap().iter().filter(|choice| choice["index"] == index) {
                assert!(reason.is_none(), "more behind the end");
                text.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
                reason = choice["finish_reason"].as_str().map(str::to_owned);
            }
        }
        (text, reason.unwrap())
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(LONG)).proxy(None);
    ureq::Agent::new_with_config(config.build())
}

fn read(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Reply {
    let mut response = response.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Reply { status, headers, text: response.body_mut().read_to_string().unwrap() }
}

fn post(url: &str, body: &Value) -> Reply {
    let request = agent().post(format!("{url}/chat/completions")).header("Content-Type", "application/json");
    read(request.send(body.to_string()))
}

fn get(url: &str) -> Reply {
    read(agent().get(url).call())
}

fn asks(text: &str) -> Value {
    json!([{"role": "user", "content": text}])
}

fn picture(width: u32, height: u32, format: ImageFormat) -> String {
    let image = RgbImage::from_fn(width, height, |x, y| Rgb([(x * 5) as u8, (y * 3) as u8, 90]));
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    let kind = if format == ImageFormat::Jpeg { "jpeg" } else { "png" };
    format!("data:image/{kind};base64,{}", BASE64_STANDARD.encode(bytes.into_inner()))
}

fn shows(url: &str) -> Value {
    json!({"type": "image_url", "image_url": {"url": url}})
}

/// The beginning of a request on a connection of its own.
fn raw(url: &str, text: &str) -> TcpStream {
    let address = url.strip_prefix("http://").and_then(|rest| rest.strip_suffix("/v1")).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

fn raw_post(url: &str, body: &Value) -> TcpStream {
    let body = body.to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    raw(url, &(head + &body))
}
