//! Chat completions as OpenAI has them in JSON: what is asked, and what is answered. Of the fields that are not read, those
//! that change nothing pass, as clients send more than they need; all others are refused by name ([`super::keys`]).

use std::io::Cursor;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use image::metadata::Orientation;
use image::{ImageDecoder as _, ImageFormat, ImageReader, RgbImage};
use model::answer::chat::{Message, Part, Role};
use model::answer::decode::Sampling;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{Options, Refusal, keys};

/// Most answers to one request: each has keys and values of its own.
const MOST_ANSWERS: usize = 16;
/// Most stop strings.
const MOST_STOPS: usize = 16;
/// Pixels of the largest image: 300 MB once it is decoded.
const MOST_PIXELS: u64 = 100_000_000;
/// Pixels a side that `detail` "low" asks for: smaller images are the same in every detail.
const LOW_DETAIL: u32 = 512;
/// Characters of a wrong value that an error shows.
const SHOWN: usize = 60;

/// What is asked of the model.
#[derive(Debug, Clone)]
pub struct Request {
    /// The conversation so far.
    pub messages: Vec<Message>,
    /// Its images, in order.
    pub images: Vec<Picture>,
    /// How answers are drawn.
    pub sampling: Sampling,
    /// Tokens after which an answer is cut off.
    pub max_tokens: usize,
    /// Answers.
    pub n: usize,
    /// Texts before which an answer ends.
    pub stop: Vec<String>,
}

/// Why an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The model's turn is over, or a stop string came.
    Stop,
    /// At the limit of tokens.
    Length,
}

/// How the answer is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delivery {
    pub stream: bool,
    pub include_usage: bool,
}

/// An image as it was sent. Decoded when it is looked at, so that one at a time takes its full size.
#[derive(Debug, Clone)]
pub struct Picture {
    bytes: Vec<u8>,
    format: ImageFormat,
    /// Width and height as it is looked at, pixels.
    pub size: (u32, u32),
    /// How a camera that was held otherwise says that it is to be turned.
    orientation: Orientation,
    /// Where it stands in the request.
    place: String,
}

impl Picture {
    /// The pixels; transparency is dropped.
    ///
    /// # Errors
    /// A file that is broken behind its header.
    pub fn decode(&self) -> Result<RgbImage, Refusal> {
        let decoded = ImageReader::with_format(Cursor::new(&self.bytes), self.format).decode();
        let mut image = decoded.map_err(|e| Refusal::invalid(&self.place, e.to_string()))?;
        image.apply_orientation(self.orientation);
        Ok(image.into_rgb8())
    }

    /// Of a data URL.
    fn new(url: &str, place: &str) -> Result<Self, Refusal> {
        let wrong = |expected: &str, got: &str| {
            let got: String = got.chars().take(SHOWN).collect();
            Refusal::invalid(place, format!("expected {expected}, got {got}"))
        };
        let Some(data) = url.strip_prefix("data:") else {
            return Err(wrong("a data: URL, since nothing is fetched", url));
        };
        let (kind, data) = data.split_once(',').unwrap_or((data, ""));
        let media = kind.strip_suffix(";base64").unwrap_or_default().to_ascii_lowercase();
        if !["image/jpeg", "image/jpg", "image/png"].contains(&media.as_str()) {
            return Err(wrong("data:image/jpeg;base64 or data:image/png;base64", &format!("data:{kind}")));
        }
        let bytes = BASE64_STANDARD.decode(data).map_err(|e| wrong("base64", &e.to_string()))?;
        // Clients are known to mix the two up.
        let format = match image::guess_format(&bytes) {
            Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png)) => format,
            Ok(other) => return Err(wrong("JPEG or PNG", &format!("{other:?}"))),
            Err(_) => return Err(wrong("JPEG or PNG", "neither")),
        };
        let header = ImageReader::with_format(Cursor::new(&bytes), format).into_dimensions();
        let size = header.map_err(|e| Refusal::invalid(place, e.to_string()))?;
        if u64::from(size.0) * u64::from(size.1) > MOST_PIXELS {
            return Err(wrong(&format!("at most {MOST_PIXELS} pixels"), &format!("{}x{}", size.0, size.1)));
        }
        let decoder = ImageReader::with_format(Cursor::new(&bytes), format).into_decoder();
        let orientation = decoder.and_then(|mut decoder| decoder.orientation());
        let orientation = orientation.map_err(|e| Refusal::invalid(place, e.to_string()))?;
        let size = match orientation {
            Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH => (size.1, size.0),
            _ => size,
        };
        Ok(Self { bytes, format, size, orientation, place: place.to_owned() })
    }
}

/// Reads a request's body.
///
/// # Errors
/// Names the field that is wrong, or refused.
pub(super) fn parse(body: &[u8], options: &Options) -> Result<(Request, Delivery), Refusal> {
    let mut fields: Map<String, Value> =
        serde_json::from_slice(body).map_err(|e| Refusal::invalid("body", format!("expected a JSON object: {e}")))?;
    if let Some(model) = take::<String>(&mut fields, "model")?
        && model != options.name
    {
        return Err(Refusal::unknown_model(&model.chars().take(SHOWN).collect::<String>(), &options.name));
    }
    let wants = take::<bool>(&mut fields, "logprobs")? == Some(true);
    if wants || take::<u64>(&mut fields, "top_logprobs")?.is_some() {
        return Err(Refusal::invalid("logprobs", "not supported"));
    }

    let turns: Vec<Value> = required(&mut fields, "messages")?;
    if turns.is_empty() {
        return Err(Refusal::invalid("messages", "expected at least one"));
    }
    let mut images = Vec::new();
    let messages = turns
        .into_iter()
        .enumerate()
        .map(|(i, turn)| message(turn, &format!("messages[{i}]"), &mut images, options.max_images))
        .collect::<Result<Vec<_>, _>>()?;
    // Some servers would go on with its text, others begin another turn.
    if messages.last().is_some_and(|last| last.role == Role::Assistant) {
        let place = format!("messages[{}].role", messages.len() - 1);
        return Err(Refusal::invalid(
            &place,
            "expected a turn of the user last: text of the assistant is not gone on with",
        ));
    }

    let newer = take::<usize>(&mut fields, "max_completion_tokens")?;
    let older = take::<usize>(&mut fields, "max_tokens")?;
    if let (Some(newer), Some(older)) = (newer, older)
        && newer != older
    {
        let message =
            format!("expected {newer}, as max_completion_tokens has it, or one of the two alone, got {older}");
        return Err(Refusal::invalid("max_tokens", message));
    }
    let limit = newer.or(older);
    if limit == Some(0) {
        return Err(Refusal::invalid("max_tokens", "expected at least 1, got 0"));
    }
    let seed = take::<i64>(&mut fields, "seed")?;
    let sampling = Sampling {
        temperature: take(&mut fields, "temperature")?.unwrap_or(1.0),
        top_p: take(&mut fields, "top_p")?.unwrap_or(1.0),
        seed: seed.map_or_else(rand::random, i64::cast_unsigned),
    };
    let wrong = if sampling.top_p > 0.0 && sampling.top_p <= 1.0 { "temperature" } else { "top_p" };
    sampling.check().map_err(|e| Refusal::invalid(wrong, e.to_string()))?;
    let n = take::<usize>(&mut fields, "n")?.unwrap_or(1);
    if !(1..=MOST_ANSWERS).contains(&n) {
        return Err(Refusal::invalid("n", format!("expected 1 to {MOST_ANSWERS}, got {n}")));
    }
    let stop = match fields.remove("stop") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(one)) => vec![one],
        Some(several) => as_type::<Vec<String>>("stop", several)?,
    };
    if stop.len() > MOST_STOPS || stop.iter().any(String::is_empty) {
        return Err(Refusal::invalid("stop", format!("expected at most {MOST_STOPS} strings, none of them empty")));
    }
    let stream = take::<bool>(&mut fields, "stream")?.unwrap_or(false);
    let mut more: Map<String, Value> = take(&mut fields, "stream_options")?.unwrap_or_default();
    let include_usage = take::<bool>(&mut more, "include_usage")?.unwrap_or(false);
    keys::STREAM.check(&more, "stream_options")?;
    // What may not be called asks for nothing.
    if fields.get("tool_choice").is_some_and(|choice| choice == "none") {
        fields.remove("tools");
    }
    keys::REQUEST.check(&fields, "")?;
    let max_tokens = limit.unwrap_or(options.max_tokens).min(options.max_tokens);
    Ok((Request { messages, images, sampling, max_tokens, n, stop }, Delivery { stream, include_usage }))
}

/// A field, where it is there and not null.
fn take<T: DeserializeOwned>(fields: &mut Map<String, Value>, key: &str) -> Result<Option<T>, Refusal> {
    match fields.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => as_type(key, value).map(Some),
    }
}

fn required<T: DeserializeOwned>(fields: &mut Map<String, Value>, key: &str) -> Result<T, Refusal> {
    take(fields, key)?.ok_or_else(|| Refusal::invalid(key, "expected, but missing"))
}

fn as_type<T: DeserializeOwned>(place: &str, value: Value) -> Result<T, Refusal> {
    serde_json::from_value(value).map_err(|e| Refusal::invalid(place, e.to_string()))
}

/// One turn; its images go to the others'.
fn message(turn: Value, place: &str, images: &mut Vec<Picture>, most: usize) -> Result<Message, Refusal> {
    let mut fields: Map<String, Value> = as_type(place, turn)?;
    let role = match as_type::<String>(&format!("{place}.role"), fields.remove("role").unwrap_or_default())?.as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        other => {
            let got: String = other.chars().take(SHOWN).collect();
            let message = format!("expected system, user or assistant, got {got}");
            return Err(Refusal::invalid(&format!("{place}.role"), message));
        }
    };
    let content = fields.remove("content").unwrap_or_default();
    keys::TURN.check(&fields, place)?;
    let place = format!("{place}.content");
    let parts = match content {
        Value::String(text) => vec![Part::Text(text)],
        Value::Array(parts) => parts
            .into_iter()
            .enumerate()
            .map(|(i, part)| self::part(part, &format!("{place}[{i}]"), role, images, most))
            .collect::<Result<Vec<_>, _>>()?,
        _ => return Err(Refusal::invalid(&place, "expected a string or a list of parts")),
    };
    Ok(Message { role, parts })
}

fn part(part: Value, place: &str, role: Role, images: &mut Vec<Picture>, most: usize) -> Result<Part, Refusal> {
    let mut fields: Map<String, Value> = as_type(place, part)?;
    let kind = fields.remove("type").unwrap_or_default();
    match kind.as_str() {
        Some("text") => {
            let text = fields.remove("text").unwrap_or_default();
            keys::PART.check(&fields, place)?;
            as_type(&format!("{place}.text"), text).map(Part::Text)
        }
        Some("image_url") => {
            if role != Role::User {
                return Err(Refusal::invalid(place, "expected images in turns of the user alone"));
            }
            if images.len() == most {
                return Err(Refusal::invalid("messages", format!("expected at most {most} images, got more")));
            }
            let shown = fields.remove("image_url");
            keys::PART.check(&fields, place)?;
            let place = format!("{place}.image_url");
            let picture = match shown {
                Some(Value::String(url)) => Picture::new(&url, &place)?,
                Some(Value::Object(mut image)) => {
                    let url: String = required(&mut image, "url")?;
                    let picture = Picture::new(&url, &place)?;
                    if picture.size.0.max(picture.size.1) <= LOW_DETAIL {
                        image.remove("detail");
                    }
                    keys::IMAGE.check(&image, &place)?;
                    picture
                }
                _ => return Err(Refusal::invalid(&place, "expected an object with url")),
            };
            images.push(picture);
            Ok(Part::Image)
        }
        Some("video_url") => {
            Err(Refusal::invalid(place, "video_url is not supported: send its frames as image_url, in order"))
        }
        Some(other) => {
            let got: String = other.chars().take(SHOWN).collect();
            Err(Refusal::invalid(place, format!("expected a part of type text or image_url, got {got}")))
        }
        None => Err(Refusal::invalid(place, "expected a type: text or image_url")),
    }
}

/// What all pieces of one answer have in common.
#[derive(Debug)]
pub(super) struct Completion {
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    pub model: String,
}

/// Tokens of all answers to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    /// All of them.
    pub written: usize,
    /// Of these, those that the program wrote in place of the model.
    pub filled: usize,
}

/// Tokens of a request and of all answers to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    pub prompt: usize,
    pub answers: Tokens,
}

impl Usage {
    /// `filled_tokens` is no key of OpenAI's: it is there where something was filled in.
    fn json(self) -> Value {
        let Self { prompt, answers: Tokens { written, filled } } = self;
        let mut usage =
            json!({"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written});
        if filled > 0 {
            usage["completion_tokens_details"] = json!({"filled_tokens": filled});
        }
        usage
    }
}

impl Reason {
    fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

impl Completion {
    /// All answers at once: text and why it ends.
    pub fn whole(&self, answers: &[(String, Reason)], usage: Usage) -> Value {
        let choices = answers.iter().enumerate().map(|(index, (text, reason))| {
            let message = json!({"role": "assistant", "content": text});
            json!({"index": index, "message": message, "logprobs": null, "finish_reason": reason.name()})
        });
        json!({
            "id": self.id, "object": "chat.completion", "created": self.created, "model": self.model,
            "choices": choices.collect::<Vec<_>>(), "usage": usage.json(),
        })
    }

    /// The beginning of an answer.
    pub fn opening(&self, index: usize, with_usage: bool) -> Value {
        self.piece(index, &json!({"role": "assistant", "content": ""}), None, with_usage)
    }

    /// More text of an answer.
    pub fn text(&self, index: usize, text: &str, with_usage: bool) -> Value {
        self.piece(index, &json!({"content": text}), None, with_usage)
    }

    /// The end of an answer.
    pub fn end(&self, index: usize, reason: Reason, with_usage: bool) -> Value {
        self.piece(index, &json!({}), Some(reason), with_usage)
    }

    /// What it cost, behind the last piece.
    pub fn usage(&self, usage: Usage) -> Value {
        let mut chunk = self.chunk(Vec::new());
        chunk["usage"] = usage.json();
        chunk
    }

    fn piece(&self, index: usize, delta: &Value, reason: Option<Reason>, with_usage: bool) -> Value {
        let reason = reason.map(Reason::name);
        let mut chunk =
            self.chunk(vec![json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": reason})]);
        // Who wants to know the usage at the end finds the key in every piece.
        if with_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    fn chunk(&self, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model,
            "choices": choices,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A PNG of this size.
    fn png(width: u32, height: u32) -> String {
        let mut bytes = Cursor::new(Vec::new());
        RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 7]))
            .write_to(&mut bytes, ImageFormat::Png)
            .unwrap();
        format!("data:image/png;base64,{}", BASE64_STANDARD.encode(bytes.into_inner()))
    }

    fn read(body: &Value) -> Result<(Request, Delivery), Refusal> {
        parse(body.to_string().as_bytes(), &Options { name: "m".to_owned(), max_images: 2, ..Options::default() })
    }

    #[test]
    fn a_request_is_read_with_its_images_in_order_and_with_defaults() {
        let image =
            |width, height| json!({"type": "image_url", "image_url": {"url": png(width, height), "detail": "high"}});
        let body = json!({
            "model": "m", "user": "somebody", "store": false, "response_format": {"type": "text"}, "tool_choice": "auto",
            "messages": [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [image(4, 3), {"type": "text", "text": "or"}, image(5, 2)]},
                {"role": "assistant", "content": "Both.", "refusal": null, "tool_calls": []},
                {"role": "user", "content": "Why?"},
            ],
        });
        let (request, delivery) = read(&body).unwrap();
        assert_eq!(request.messages[0].role, Role::System);
        assert_eq!(request.messages[1].parts, [Part::Image, Part::Text("or".to_owned()), Part::Image]);
        let sizes: Vec<_> = request.images.iter().map(|image| image.size).collect();
        assert_eq!(sizes, [(4, 3), (5, 2)]);
        assert_eq!(request.images[1].decode().unwrap().get_pixel(4, 1).0, [4, 1, 7]);
        assert_eq!((request.n, request.max_tokens, request.stop.len()), (1, 1024, 0));
        assert!((request.sampling.temperature - 1.0).abs() < 1e-12 && (request.sampling.top_p - 1.0).abs() < 1e-12);
        assert_eq!(delivery, Delivery { stream: false, include_usage: false });
        // Nobody's seed is everybody's own.
        assert_ne!(request.sampling.seed, read(&body).unwrap().0.sampling.seed);
    }

    #[test]
    fn what_is_set_is_taken_and_the_servers_limit_holds() {
        let body = json!({
            "messages": [{"role": "user", "content": "a"}], "temperature": 0.5, "top_p": 0.9, "seed": -1, "n": 3,
            "stop": "x", "stream": true, "stream_options": {"include_usage": true}, "logprobs": false, "user": null,
            "max_tokens": 5, "max_completion_tokens": 5,
        });
        let (request, delivery) = read(&body).unwrap();
        assert_eq!(request.sampling, Sampling { temperature: 0.5, top_p: 0.9, seed: u64::MAX });
        assert_eq!((request.n, request.max_tokens, request.stop), (3, 5, vec!["x".to_owned()]));
        assert_eq!(delivery, Delivery { stream: true, include_usage: true });
        let long = json!({"messages": [{"role": "user", "content": "a"}], "max_tokens": 1_000_000});
        assert_eq!(read(&long).unwrap().0.max_tokens, 1024);
    }

    #[test]
    fn keys_that_would_change_the_answer_are_refused_by_name_and_their_defaults_pass() {
        let with = |key: &str, value: Value| {
            let mut body = json!({"messages": [{"role": "user", "content": "a"}]});
            body[key] = value;
            read(&body).map(|_| ())
        };
        let tool = json!([{"type": "function", "function": {"name": "f"}}]);
        for (key, passes, refused) in [
            ("response_format", json!({"type": "text"}), json!({"type": "json_object"})),
            ("response_format", json!(null), json!({"type": "json_schema", "json_schema": {"name": "s"}})),
            ("tool_choice", json!("none"), json!("required")),
            ("tool_choice", json!("auto"), json!({"type": "function", "function": {"name": "f"}})),
            ("tools", json!([]), tool.clone()),
            ("functions", json!(null), json!([{"name": "f"}])),
            ("function_call", json!("auto"), json!({"name": "f"})),
            ("presence_penalty", json!(0), json!(0.1)),
            ("frequency_penalty", json!(0.0), json!(-1)),
            ("logit_bias", json!({}), json!({"50256": -100})),
            ("modalities", json!(["text"]), json!(["text", "audio"])),
            ("audio", json!(null), json!({"voice": "alloy"})),
            ("prediction", json!(null), json!({"type": "content", "content": "a"})),
            ("reasoning_effort", json!("none"), json!("high")),
            ("web_search_options", json!({}), json!({"search_context_size": "low"})),
            ("top_k", json!(-1), json!(1)),
            ("min_p", json!(0), json!(0.05)),
            ("repetition_penalty", json!(1.0), json!(1.05)),
            ("guided_json", json!(null), json!("{}")),
            ("guided_grammar", json!(null), json!("root ::= [0-9]")),
            ("chat_template_kwargs", json!({}), json!({"enable_thinking": false})),
            ("ignore_eos", json!(false), json!(true)),
            ("skip_special_tokens", json!(true), json!(false)),
            ("nobody", json!(null), json!("knows this")),
        ] {
            assert!(with(key, passes.clone()).is_ok(), "{key} {passes}");
            let refusal = with(key, refused).unwrap_err().to_string();
            assert!(refusal.starts_with(&format!("400: {key}: not supported: expected ")), "{refusal}");
        }
        for (key, value) in [
            ("user", json!("a")),
            ("metadata", json!({"run": "3"})),
            ("store", json!(true)),
            ("service_tier", json!("flex")),
            ("parallel_tool_calls", json!(true)),
            ("stream_options", json!({"include_obfuscation": false})),
        ] {
            assert!(with(key, value).is_ok(), "{key}");
        }
        let form = with("response_format", json!({"type": "json_object"})).unwrap_err().to_string();
        assert!(form.ends_with(r#"expected text or nothing, got {"type":"json_object"}"#), "{form}");
        let idle = json!({"messages": [{"role": "user", "content": "a"}], "tools": tool, "tool_choice": "none"});
        assert!(read(&idle).is_ok(), "no tool may be called");
    }

    #[test]
    fn keys_inside_a_request_are_refused_by_their_place() {
        let user = |parts: Value| json!({"messages": [{"role": "user", "content": parts}]});
        let image =
            |width, detail: &str| json!([{"type": "image_url", "image_url": {"url": png(width, 3), "detail": detail}}]);
        let turn = json!({"role": "user", "content": "a"});
        for (body, says) in [
            (user(image(513, "low")), "messages[0].content[0].image_url.detail: not supported: expected auto, high"),
            (user(json!([{"type": "text", "text": "a", "max_pixels": 9}])), "messages[0].content[0].max_pixels: not"),
            (
                json!({"messages": [turn, {"role": "assistant", "content": "b"}]}),
                "messages[1].role: expected a turn of",
            ),
            (
                json!({"messages": [{"role": "assistant", "content": null, "tool_calls": [{"id": "1"}]}]}),
                "messages[0].tool_calls: not supported",
            ),
            (json!({"messages": [{"role": "user", "content": "a", "name": "Ann"}]}), "messages[0].name: not supported"),
            (
                json!({"messages": [turn], "stream": true, "stream_options": {"continuous_usage_stats": true}}),
                "stream_options.continuous_usage_stats: not supported: expected false or nothing, got true",
            ),
            (
                json!({"messages": [turn], "max_tokens": 9, "max_completion_tokens": 5}),
                "max_tokens: expected 5, as max_completion_tokens has it",
            ),
        ] {
            let refusal = read(&body).unwrap_err().to_string();
            assert!(refusal.contains(says), "{refusal}: lacks {says}");
        }
        assert!(read(&user(image(513, "auto"))).is_ok() && read(&user(image(512, "low"))).is_ok());
    }

    /// Phones store what they see as the sensor lies, and say how it is to be turned.
    #[test]
    fn an_image_is_turned_as_its_exif_says() {
        let mut jpeg = Cursor::new(Vec::new());
        RgbImage::new(40, 30).write_to(&mut jpeg, ImageFormat::Jpeg).unwrap();
        let mut bytes = jpeg.into_inner();
        // APP1 behind the start of the image: one entry, tag 0x0112, a short, which is 6: turn by 90 degrees.
        let exif = b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        bytes.splice(2..2, exif.iter().copied());
        let url = format!("data:image/jpeg;base64,{}", BASE64_STANDARD.encode(bytes));
        let picture = Picture::new(&url, "place").unwrap();
        assert_eq!((picture.size, picture.decode().unwrap().dimensions()), ((30, 40), (30, 40)));
    }

    #[test]
    fn a_broken_image_is_named_when_it_is_decoded() {
        let whole = png(40, 30);
        let cut = BASE64_STANDARD.decode(whole.split_once(',').unwrap().1).unwrap();
        let url = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(&cut[..60]));
        let refusal = Picture::new(&url, "messages[0].content[0].image_url").unwrap().decode().unwrap_err();
        assert!(refusal.to_string().starts_with("400: messages[0].content[0].image_url: "), "{refusal}");
    }
}
