//! Chat completions as OpenAI has them in JSON: what is asked, and what is answered. Of the fields that are not read, those
//! that change nothing pass, as clients send more than they need; all others are refused by name ([`super::keys`]).

use std::io::Cursor;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use image::metadata::Orientation;
use image::{ImageDecoder as _, ImageFormat, ImageReader, Limits, RgbImage};
use model::answer::chat::{Message, Part, Role};
use model::answer::decode::Sampling;
use model::answer::prompt::Prompt;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::fields::{Fields, List, read};
use super::{Options, Refusal, keys};

/// Most answers to one request: each has keys and values of its own.
const MOST_ANSWERS: usize = 16;
/// Most stop strings.
const MOST_STOPS: usize = 16;
/// Bytes of the longest stop string: each is looked for with each token.
const LONGEST_STOP: usize = 1024;
/// Most turns of a conversation.
const MOST_TURNS: usize = 1024;
/// Most parts of all its turns.
const MOST_PARTS: usize = 4096;
/// Pixels of the largest image: 300 MB once it is decoded.
const MOST_PIXELS: u64 = 100_000_000;
/// Bytes that a pixel takes at most while it is decoded, what may come on top of all of them, and most of both.
const PIXEL_BYTES: u64 = 8;
const BESIDE_PIXELS: u64 = 4 << 20;
const MOST_BYTES: u64 = 512 << 20;
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
    /// Its tokens, where the engine has a [`super::Reader`].
    pub prompt: Option<Prompt>,
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
        let pixels = u64::from(self.size.0) * u64::from(self.size.1);
        let decoded = reader(&self.bytes, self.format, pixels).decode();
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
        let fits = |(width, height): (u32, u32)| {
            let pixels = u64::from(width) * u64::from(height);
            let too_large = || wrong(&format!("at most {MOST_PIXELS} pixels"), &format!("{width}x{height}"));
            if pixels > MOST_PIXELS { Err(too_large()) } else { Ok(pixels) }
        };
        // The header of a PNG unpacks what stands before its pixels, that of a JPEG nothing.
        let stated = if format == ImageFormat::Png { png_size(&bytes).map_or(Ok(0), fits)? } else { MOST_PIXELS };
        let header = reader(&bytes, format, stated).into_decoder();
        let header = header.and_then(|mut decoder| Ok((decoder.dimensions(), decoder.orientation()?)));
        let (size, orientation) = header.map_err(|e| Refusal::invalid(place, e.to_string()))?;
        fits(size)?;
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

/// Reads an image within the memory that its pixels take: what lies compressed beside those of a PNG may unpack to anything.
fn reader(bytes: &[u8], format: ImageFormat, pixels: u64) -> ImageReader<Cursor<&[u8]>> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some((pixels * PIXEL_BYTES + BESIDE_PIXELS).min(MOST_BYTES));
    reader.limits(limits);
    reader
}

/// Width and height in the first chunk of a PNG.
fn png_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let (width, height) = bytes.get(16..24)?.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*width), u32::from_be_bytes(*height.first_chunk()?)))
}

/// Reads a request's body.
///
/// # Errors
/// Names the field that is wrong, or refused.
pub(super) fn parse(body: &[u8], options: &Options) -> Result<(Request, Delivery), Refusal> {
    let mut fields: Fields<'_> =
        serde_json::from_slice(body).map_err(|e| Refusal::invalid("body", format!("expected a JSON object: {e}")))?;
    if let Some(model) = fields.take::<String>("model")?
        && model != options.name
    {
        return Err(Refusal::unknown_model(&model.chars().take(SHOWN).collect::<String>(), &options.name));
    }
    let wants = fields.take::<bool>("logprobs")? == Some(true);
    if wants || fields.take::<u64>("top_logprobs")?.is_some() {
        return Err(Refusal::invalid("logprobs", "not supported"));
    }

    let turns: List<'_, MOST_TURNS> = fields.required("messages")?;
    if turns.items.is_empty() {
        return Err(Refusal::invalid("messages", "expected at least one"));
    }
    if turns.more {
        return Err(Refusal::invalid("messages", format!("expected at most {MOST_TURNS} turns, got more")));
    }
    let mut found = Found { images: Vec::new(), parts: 0, most_images: options.max_images };
    let messages = turns
        .items
        .iter()
        .enumerate()
        .map(|(i, turn)| message(turn, &format!("messages[{i}]"), &mut found))
        .collect::<Result<Vec<_>, _>>()?;
    // Some servers would go on with its text, others begin another turn.
    if messages.last().is_some_and(|last| last.role == Role::Assistant) {
        let place = format!("messages[{}].role", messages.len() - 1);
        return Err(Refusal::invalid(
            &place,
            "expected a turn of the user last: text of the assistant is not gone on with",
        ));
    }

    let newer = fields.take::<usize>("max_completion_tokens")?;
    let older = fields.take::<usize>("max_tokens")?;
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
    let seed = fields.take::<i64>("seed")?;
    let sampling = Sampling {
        temperature: fields.take("temperature")?.unwrap_or(1.0),
        top_p: fields.take("top_p")?.unwrap_or(1.0),
        seed: seed.map_or_else(rand::random, i64::cast_unsigned),
    };
    let wrong = if sampling.top_p > 0.0 && sampling.top_p <= 1.0 { "temperature" } else { "top_p" };
    sampling.check().map_err(|e| Refusal::invalid(wrong, e.to_string()))?;
    let n = fields.take::<usize>("n")?.unwrap_or(1);
    if !(1..=MOST_ANSWERS).contains(&n) {
        return Err(Refusal::invalid("n", format!("expected 1 to {MOST_ANSWERS}, got {n}")));
    }
    let stop = stops(&mut fields)?;
    let stream = fields.take::<bool>("stream")?.unwrap_or(false);
    let mut more: Fields<'_> = fields.take("stream_options")?.unwrap_or_default();
    let include_usage = more.take::<bool>("include_usage")?.unwrap_or(false);
    keys::STREAM.check(&more, "stream_options")?;
    // What may not be called asks for nothing.
    if fields.get("tool_choice") == Some("\"none\"") {
        fields.remove("tools");
    }
    keys::REQUEST.check(&fields, "")?;
    let max_tokens = limit.unwrap_or(options.max_tokens).min(options.max_tokens);
    let images = found.images;
    Ok((Request { messages, images, sampling, max_tokens, n, stop, prompt: None }, Delivery { stream, include_usage }))
}

/// The texts before which an answer ends.
fn stops(fields: &mut Fields<'_>) -> Result<Vec<String>, Refusal> {
    let stated = fields.remove("stop").unwrap_or(RawValue::NULL);
    let strings: List<'_, MOST_STOPS> = match stated.get() {
        "null" => return Ok(Vec::new()),
        one if one.starts_with('"') => List { items: vec![stated], more: false },
        _ => read("stop", stated)?,
    };
    let stop = strings.items.iter().map(|text| read("stop", text)).collect::<Result<Vec<String>, _>>()?;
    if strings.more || stop.iter().any(|text| text.is_empty() || text.len() > LONGEST_STOP) {
        let message = format!("expected at most {MOST_STOPS} strings, each of 1 to {LONGEST_STOP} bytes");
        return Err(Refusal::invalid("stop", message));
    }
    Ok(stop)
}

/// What was found in the turns so far.
struct Found {
    images: Vec<Picture>,
    parts: usize,
    most_images: usize,
}

/// One turn; its images go to the others'.
fn message(turn: &RawValue, place: &str, found: &mut Found) -> Result<Message, Refusal> {
    let mut fields: Fields<'_> = read(place, turn)?;
    let role: String = read(&format!("{place}.role"), fields.remove("role").unwrap_or(RawValue::NULL))?;
    let role = match role.as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        other => {
            let got: String = other.chars().take(SHOWN).collect();
            let message = format!("expected system, user or assistant, got {got}");
            return Err(Refusal::invalid(&format!("{place}.role"), message));
        }
    };
    let content = fields.remove("content").unwrap_or(RawValue::NULL);
    keys::TURN.check(&fields, place)?;
    let place = format!("{place}.content");
    if content.get().starts_with('"') {
        return Ok(Message { role, parts: vec![Part::Text(read(&place, content)?)] });
    }
    if !content.get().starts_with('[') {
        return Err(Refusal::invalid(&place, "expected a string or a list of parts"));
    }
    let list: List<'_, MOST_PARTS> = read(&place, content)?;
    found.parts += list.items.len();
    if list.more || found.parts > MOST_PARTS {
        return Err(Refusal::invalid("messages", format!("expected at most {MOST_PARTS} parts in all, got more")));
    }
    let parts = list.items.iter().enumerate().map(|(i, part)| self::part(part, &format!("{place}[{i}]"), role, found));
    Ok(Message { role, parts: parts.collect::<Result<Vec<_>, _>>()? })
}

fn part(part: &RawValue, place: &str, role: Role, found: &mut Found) -> Result<Part, Refusal> {
    let mut fields: Fields<'_> = read(place, part)?;
    let kind: Option<String> = fields.remove("type").and_then(|kind| read(place, kind).ok());
    match kind.as_deref() {
        Some("text") => {
            let text = fields.remove("text").unwrap_or(RawValue::NULL);
            keys::PART.check(&fields, place)?;
            read(&format!("{place}.text"), text).map(Part::Text)
        }
        Some("image_url") => {
            if role != Role::User {
                return Err(Refusal::invalid(place, "expected images in turns of the user alone"));
            }
            let most = found.most_images;
            if found.images.len() == most {
                return Err(Refusal::invalid("messages", format!("expected at most {most} images, got more")));
            }
            let shown = fields.remove("image_url").unwrap_or(RawValue::NULL);
            keys::PART.check(&fields, place)?;
            let place = format!("{place}.image_url");
            let picture = match shown.get().as_bytes().first() {
                Some(b'"') => Picture::new(&read::<String>(&place, shown)?, &place)?,
                Some(b'{') => {
                    let mut image: Fields<'_> = read(&place, shown)?;
                    let url: String = image.required("url")?;
                    let picture = Picture::new(&url, &place)?;
                    if picture.size.0.max(picture.size.1) <= LOW_DETAIL {
                        image.remove("detail");
                    }
                    keys::IMAGE.check(&image, &place)?;
                    picture
                }
                _ => return Err(Refusal::invalid(&place, "expected an object with url")),
            };
            found.images.push(picture);
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
    fn a_request_has_so_many_turns_parts_and_fields_and_no_more() {
        let turns = |count: usize| json!({"messages": vec![json!({"role": "user", "content": "a"}); count]});
        let part = json!({"type": "text", "text": "a"});
        // Of all turns together.
        let parts = |each: usize, count: usize| {
            let turn = json!({"role": "user", "content": vec![part.clone(); each]});
            json!({"messages": vec![turn; count]})
        };
        let stops = |stop: Value| json!({"messages": [{"role": "user", "content": "a"}], "stop": stop});
        assert_eq!(read(&turns(1024)).unwrap().0.messages.len(), 1024);
        assert!(read(&parts(2048, 2)).is_ok() && read(&stops(json!(vec!["x".repeat(1024); 16]))).is_ok());
        let mut many = turns(1);
        for key in 0..200 {
            many[format!("key_{key}")] = json!(null);
        }
        for (body, says) in [
            (turns(1025), "messages: expected at most 1024 turns, got more"),
            (parts(4097, 1), "messages: expected at most 4096 parts in all, got more"),
            (parts(2048, 3), "messages: expected at most 4096 parts in all, got more"),
            (many, "body: expected a JSON object: expected at most 128 fields, got more"),
            (stops(json!(vec!["x"; 17])), "stop: expected at most 16 strings, each of 1 to 1024 bytes"),
            (stops(json!("x".repeat(1025))), "stop: expected at most 16 strings, each of 1 to 1024 bytes"),
        ] {
            let refusal = read(&body).unwrap_err().to_string();
            assert!(refusal.contains(says), "{refusal}: lacks {says}");
        }
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
