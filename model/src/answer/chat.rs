//! The chat template of a checkpoint: how a turn with images is spelled for the model that was trained on it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use minijinja::{Environment, ErrorKind, Value, context};

use crate::json::{read_json, read_within};
use crate::{Error, Result};

/// Who has a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The one who sets the rules.
    System,
    /// The one who asks, and shows images.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// As templates have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Whose it is.
    pub role: Role,
    /// What it says, in order.
    pub parts: Vec<Part>,
}

impl Message {
    /// A user's turn.
    pub fn user(parts: Vec<Part>) -> Self {
        Self { role: Role::User, parts }
    }

    /// As templates have it: words alone are a string, which templates without images understand too.
    fn value(&self) -> Value {
        let content = match self.parts.as_slice() {
            [Part::Text(text)] => Value::from(text.as_str()),
            parts => parts
                .iter()
                .map(|part| match part {
                    Part::Text(text) => context! { type => "text", text => text },
                    Part::Image => context! { type => "image" },
                })
                .collect::<Vec<Value>>()
                .into(),
        };
        context! { role => self.role.name(), content => content }
    }
}

/// One part of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Words.
    Text(String),
    /// An image; the template spells it with one placeholder.
    Image,
}

impl Part {
    /// Bytes of its words.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Image => 0,
        }
    }
}

/// A Jinja template that was read from a checkpoint folder.
#[derive(Debug, Clone)]
pub struct Template {
    environment: Environment<'static>,
    path: PathBuf,
}

const NAME: &str = "chat";

/// Steps of a template, and more for each turn and each part of one: published ones take some ten of each.
const STEPS: u64 = 200_000;
const STEPS_EACH: u64 = 2_000;
/// Bytes that a template may write, and more for each byte of the conversation.
const WRITTEN: usize = 1 << 20;
const WRITTEN_EACH: usize = 4;
/// Bytes of the longest template that is read; published ones have some thousand.
const LONGEST: usize = 1 << 20;

/// How much a template may do for a conversation.
struct Bounds {
    steps: u64,
    bytes: usize,
}

impl Bounds {
    fn of(messages: &[Message]) -> Self {
        let parts = || messages.iter().flat_map(|message| &message.parts);
        let said = parts().map(Part::bytes).fold(0, usize::saturating_add);
        Self {
            steps: STEPS + STEPS_EACH * (messages.len() + parts().count()) as u64,
            bytes: said.saturating_mul(WRITTEN_EACH).saturating_add(WRITTEN),
        }
    }

    /// What went wrong, where it is one of these.
    fn reached(&self, error: &minijinja::Error) -> Option<String> {
        let first: &(dyn std::error::Error + 'static) = error;
        let causes = std::iter::successors(Some(first), |&error| error.source());
        let mut kinds = causes.filter_map(|error| error.downcast_ref::<minijinja::Error>()).map(minijinja::Error::kind);
        kinds.find_map(|kind| match kind {
            ErrorKind::OutOfFuel => Some(format!("it does not end within {} steps", self.steps)),
            ErrorKind::WriteFailure => Some(format!("it writes more than {} bytes", self.bytes)),
            _ => None,
        })
    }
}

/// A text of so many bytes at most.
struct Bounded {
    text: Vec<u8>,
    most: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.most - self.text.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Template {
    /// The template of a checkpoint folder, where it has one; see [`source`].
    ///
    /// # Errors
    /// A file that is broken, or a template that can't be compiled.
    pub fn from_dir(dir: &Path) -> Result<Option<Self>> {
        source(dir)?.map(|(source, path)| Self::new(source, &path)).transpose()
    }

    /// Compiles a template; `path` is where it was read.
    ///
    /// # Errors
    /// A template that is no Jinja, or longer than any that is one.
    pub fn new(source: String, path: &Path) -> Result<Self> {
        if source.len() > LONGEST {
            let message = format!("chat template: expected at most {LONGEST} bytes, got {}", source.len());
            return Err(Error::Tokenizer { path: path.to_owned(), message });
        }
        let mut environment = Environment::new();
        // As transformers renders them: blocks leave no blank lines behind.
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.add_template_owned(NAME, source).map_err(|e| wrong(path, &e))?;
        Ok(Self { environment, path: path.to_owned() })
    }

    /// A conversation, up to where the model's answer begins. Templates come with weights from elsewhere: how many steps one
    /// takes and how much it writes is bounded by the conversation; how much it keeps in variables is not.
    ///
    /// # Errors
    /// A template that fails, does not end, writes too much, or spells another number of images.
    pub fn render(&self, messages: &[Message], image_placeholder: &str) -> Result<String> {
        let turns: Vec<Value> = messages.iter().map(Message::value).collect();
        let given = context! { messages => turns, add_generation_prompt => true };
        let bounds = Bounds::of(messages);
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(bounds.steps));
        let mut written = Bounded { text: Vec::new(), most: bounds.bytes };
        let rendered = environment.get_template(NAME).and_then(|t| t.render_captured_to(given, &mut written).map(drop));
        let fail = |message: String| Error::Tokenizer { path: self.path.clone(), message };
        rendered.map_err(|error| match bounds.reached(&error) {
            Some(reached) => fail(format!("chat template: {reached}")),
            None => wrong(&self.path, &error),
        })?;
        let text = String::from_utf8(written.text).map_err(|error| fail(format!("chat template: {error}")))?;
        let (expected, got) = (images(messages), text.matches(image_placeholder).count());
        if expected != got {
            return Err(fail(format!("chat template: {expected} images are spelled with {got} {image_placeholder}")));
        }
        Ok(text)
    }
}

/// Images of a conversation.
pub(crate) fn images(messages: &[Message]) -> usize {
    messages.iter().flat_map(|message| &message.parts).filter(|part| **part == Part::Image).count()
}

/// A checkpoint's template and where it stands: `chat_template.jinja`, `chat_template.json`, `processor_config.json` or
/// `tokenizer_config.json`, whichever comes first and has one.
///
/// # Errors
/// A file that is broken.
pub(crate) fn source(dir: &Path) -> Result<Option<(String, PathBuf)>> {
    let path = dir.join("chat_template.jinja");
    if path.is_file() {
        return match String::from_utf8(read_within(&path, LONGEST as u64)?) {
            Ok(source) => Ok(Some((source, path))),
            Err(error) => Err(Error::Tokenizer { path, message: format!("chat template: {error}") }),
        };
    }
    for name in ["chat_template.json", "processor_config.json", "tokenizer_config.json"] {
        let path = dir.join(name);
        if !path.is_file() {
            continue;
        }
        let file: serde_json::Value = read_json(&path)?;
        let template = &file["chat_template"];
        let list = template.as_array().map_or(&[][..], Vec::as_slice);
        let is_default = |t: &&serde_json::Value| t["name"] == "default";
        let chosen = match list {
            [one] => Some(one),
            all => all.iter().find(is_default),
        };
        if let (None, [_, ..]) = (chosen, list) {
            let names: Vec<&str> = list.iter().filter_map(|t| t["name"].as_str()).collect();
            let message = format!("chat_template: expected one, or one named default, got {}", names.join(", "));
            return Err(Error::Tokenizer { path, message });
        }
        let named = chosen.and_then(|t| t["template"].as_str());
        if let Some(source) = template.as_str().or(named) {
            return Ok(Some((source.to_owned(), path)));
        }
    }
    Ok(None)
}

fn wrong(path: &Path, error: &minijinja::Error) -> Error {
    Error::Tokenizer { path: path.to_owned(), message: format!("chat template: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts of a Qwen-VL template that a turn with images goes through, written anew.
    const TEMPLATE: &str = r#"{%- set images = namespace(value=0) %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\n' }}
    {%- if message.content is string %}
        {{- message.content }}
    {%- else %}
        {%- for item in message.content %}
            {%- if item.type == 'image' or 'image' in item or 'image_url' in item %}
                {%- set images.value = images.value + 1 %}
                {%- if add_vision_id %}Picture {{ images.value }}: {% endif -%}
                <|vision_start|><|image_pad|><|vision_end|>
            {%- elif 'text' in item %}
                {{- item.text }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"#;

    #[test]
    fn a_turn_is_spelled_as_the_template_says() {
        let template = Template::new(TEMPLATE.to_owned(), Path::new("test")).unwrap();
        let parts = vec![Part::Text("Frame 0: ".into()), Part::Image, Part::Text("\nWhere?".into())];
        let says = |role, text: &str| Message { role, parts: vec![Part::Text(text.to_owned())] };
        let turns = [says(Role::System, "Be brief."), Message::user(parts), says(Role::Assistant, "Here.")];
        let text = template.render(&turns[1..2], "<|image_pad|>").unwrap();
        assert_eq!(
            text,
            "<|im_start|>user\nFrame 0: <|vision_start|><|image_pad|><|vision_end|>\nWhere?<|im_end|>\n\
             <|im_start|>assistant\n"
        );
        let text = template.render(&turns, "<|image_pad|>").unwrap();
        assert_eq!(
            text,
            "<|im_start|>system\nBe brief.<|im_end|>\n\
             <|im_start|>user\nFrame 0: <|vision_start|><|image_pad|><|vision_end|>\nWhere?<|im_end|>\n\
             <|im_start|>assistant\nHere.<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn a_template_that_does_not_end_or_writes_without_end_is_an_error_that_names_its_file() {
        let says = |source: &str, turns: usize| {
            let template = Template::new(source.to_owned(), Path::new("weights/chat_template.jinja")).unwrap();
            let turn = Message::user(vec![Part::Text("word ".repeat(20))]);
            template.render(&vec![turn; turns], "<|image_pad|>").map_err(|error| error.to_string())
        };
        let many = "{% for i in range(10000) %}{% for j in range(10000) %}";
        let macros = "{% macro f(n) %}{% for i in range(99) %}{{ f(n) if n < 99 }}{% endfor %}{% endmacro %}{{ f(0) }}";
        for (source, words) in [
            (format!("{many}{{% endfor %}}{{% endfor %}}"), "it does not end within 204000 steps"),
            (macros.to_owned(), "chat template: "),
            (
                "{% for i in range(90000) %}{{ messages[0].content }}{% endfor %}".to_owned(),
                "it writes more than 1048976",
            ),
            ("{{ 'x' * 2000000 }}".to_owned(), "it writes more than 1048976 bytes"),
        ] {
            let error = says(&source, 1).unwrap_err();
            assert!(
                error.starts_with("weights/chat_template.jinja: chat template: ") && error.contains(words),
                "{error}"
            );
        }
        // What grows with the conversation may.
        let plain = says(TEMPLATE, 5000).unwrap();
        assert_eq!(plain.matches("<|im_start|>user").count(), 5000);
        let error = Template::new(" ".repeat(LONGEST + 1), Path::new("t")).unwrap_err().to_string();
        assert_eq!(error, "t: chat template: expected at most 1048576 bytes, got 1048577");
    }

    #[test]
    fn a_template_is_found_in_each_of_its_places_and_a_broken_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Template::from_dir(dir.path()).unwrap().is_none());
        let json = |file: &str, value: serde_json::Value| std::fs::write(dir.path().join(file), value.to_string());
        let says = || Template::from_dir(dir.path()).unwrap().unwrap().render(&[], "<|image_pad|>").unwrap();
        let list = serde_json::json!([{"name": "tool", "template": "a"}, {"name": "default", "template": "b"}]);
        let unclear = serde_json::json!([{"name": "tool", "template": "a"}, {"name": "rag", "template": "b"}]);
        json("tokenizer_config.json", serde_json::json!({ "chat_template": unclear })).unwrap();
        let error = Template::from_dir(dir.path()).unwrap_err().to_string();
        assert!(error.contains("one named default, got tool, rag"), "{error}");
        json("tokenizer_config.json", serde_json::json!({ "chat_template": list })).unwrap();
        assert_eq!(says(), "b");
        json("chat_template.json", serde_json::json!({"chat_template": "c"})).unwrap();
        assert_eq!(says(), "c");
        std::fs::write(dir.path().join("chat_template.jinja"), "d").unwrap();
        assert_eq!(says(), "d");
        std::fs::write(dir.path().join("chat_template.jinja"), "{% for").unwrap();
        let error = Template::from_dir(dir.path()).unwrap_err().to_string();
        assert!(error.contains("chat_template.jinja"), "{error}");
        // A template that leaves images out would shift every placeholder.
        let silent = Template::new("no images".to_owned(), Path::new("t")).unwrap();
        assert!(silent.render(&[Message::user(vec![Part::Image])], "<|image_pad|>").is_err());
    }
}
