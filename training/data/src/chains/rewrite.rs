//! Prose of chains in a vision-language model's words. Every number stays the program's, and a text that has one is
//! refused.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use model::answer::grammar::MAX_PROSE;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::WindowSample;
use crate::endpoint::{Endpoint, Part, Reply, Sampling, turn};
use crate::{digest, json};

/// Spread of the words.
const TEMPERATURE: f64 = 0.7;
/// Five texts of [`MAX_PROSE`] bytes and their frame, twice over.
const MAX_TOKENS: usize = 1024;
/// Times that a window is asked for.
const ASKED: u64 = 2;

/// What stands before the five frames.
const TASK: &str = "The five frames were taken by one moving camera, in this order.";

/// A file of the cache: what was answered.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    text: String,
    /// This and what follows is for people.
    #[serde(default)]
    model: String,
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    finish_reason: String,
}

/// Writes prose, and keeps what the endpoint answered in files, so that nothing is asked twice.
#[derive(Debug)]
pub struct Rewriter {
    endpoint: Endpoint,
    cache: PathBuf,
    /// Numbers the files that are being written.
    parts: AtomicU64,
}

impl Rewriter {
    /// `URL` or `URL#MODEL`, and the folder of the answers.
    ///
    /// # Errors
    /// Those of [`Endpoint::parse`]; a folder that can't be made.
    pub fn new(endpoint: &str, cache: PathBuf) -> Result<Self> {
        let endpoint = Endpoint::parse(endpoint)?;
        std::fs::create_dir_all(&cache).with_context(|| cache.display().to_string())?;
        Ok(Self { endpoint, cache, parts: AtomicU64::new(0) })
    }

    /// What decides the texts; where the model is served does not.
    pub fn describe(&self) -> Value {
        json!({"model": self.endpoint.model(), "temperature": TEMPERATURE})
    }

    /// The five texts in other words; nothing where the model's are twice of no use.
    ///
    /// # Errors
    /// An endpoint that fails; a file that can't be written.
    pub fn rewrite(&self, sample: &WindowSample, template: &[String; 5], seed: u64) -> Result<Option<[String; 5]>> {
        let mut parts = vec![Part::Text(TASK.to_owned())];
        for (i, image) in sample.images.iter().enumerate() {
            parts.extend([Part::Text(format!("Frame {i}: ")), Part::image(image)?]);
        }
        parts.push(Part::Text(instruction(template)));
        let messages = turn(&parts);
        for attempt in 0..ASKED {
            // Many endpoints take 31 bits.
            let seed = mixed(seed.wrapping_add(attempt)) >> 33;
            let sampling = Sampling { temperature: TEMPERATURE, seed, max_tokens: MAX_TOKENS };
            let text = self.answer(&self.endpoint.request(&messages, &sampling), seed)?;
            match read(&text) {
                Ok(texts) => return Ok(Some(texts)),
                Err(why) => tracing::debug!(window = sample.id, attempt, "prose is refused: {why}"),
            }
        }
        Ok(None)
    }

    /// What was answered to the request before, or is now.
    fn answer(&self, request: &Value, seed: u64) -> Result<String> {
        let name = digest::of(request.to_string().as_bytes());
        let path = self.cache.join(format!("{name}.json"));
        // A file that is broken is as good as none.
        if let Ok(kept) = json::read::<Kept>(&path) {
            return Ok(kept.text);
        }
        let reply = self.endpoint.send(request)?;
        let number = self.parts.fetch_add(1, Ordering::Relaxed);
        let part = self.cache.join(format!("{name}.{}-{number}.part", std::process::id()));
        let Reply { text, finish_reason, .. } = reply;
        let kept = Kept { model: self.endpoint.model().to_owned(), seed, text, finish_reason };
        json::write(&part, &kept)?;
        std::fs::rename(&part, &path).with_context(|| path.display().to_string())?;
        Ok(kept.text)
    }
}

/// What stands behind the frames.
fn instruction(template: &[String; 5]) -> String {
    let [selection, depth, back_projection, alignment, summary] = template;
    let example =
        json!({"step1": selection, "step2": depth, "step3": back_projection, "step4": alignment, "step5": summary});
    format!(
        "\nA program works out how the camera moved: it follows five points through the frames (step1), gives their \
         depths (step2), puts them into space (step3), finds the pose of each frame by aligning them (step4), and sums \
         up (step5). All numbers are known and written elsewhere. Write the sentence that introduces each step, in \
         your own words and about what these frames show.\nThe motion is: {summary}\nKeep its directions and its \
         sizes, and add no other motion.\nPlain English in ASCII, one or two sentences a step, at most {} characters a \
         step, no line breaks, no digits and no quantities, none of the marks < and >. Answer with this JSON object \
         alone, its texts replaced by yours:\n{example}",
        MAX_PROSE - 20
    )
}

/// The five texts of an answer, or why they are of no use.
fn read(answer: &str) -> Result<[String; 5], String> {
    // Models like to put a fence around it.
    let object = answer.find('{').zip(answer.rfind('}')).and_then(|(first, last)| answer.get(first..=last));
    let object: Value = object.and_then(|text| serde_json::from_str(text).ok()).ok_or("no JSON object")?;
    let mut texts = Vec::with_capacity(5);
    for step in 1..=5 {
        let text = object[format!("step{step}")].as_str().ok_or_else(|| format!("step{step}: no text"))?;
        texts.push(plain(text).map_err(|why| format!("step{step}: {why}"))?);
    }
    texts.try_into().map_err(|_| "expected five texts".to_owned())
}

/// A text that the grammar of chains allows and that has no number.
fn plain(text: &str) -> Result<String, String> {
    let ascii = |c: char| match c {
        '\u{2018}' | '\u{2019}' => '\'',
        '\u{201c}' | '\u{201d}' => '"',
        '\u{2010}'..='\u{2014}' => '-',
        '\u{a0}' | '\u{202f}' => ' ',
        other => other,
    };
    let text: String = text.trim().chars().map(ascii).collect();
    if text.is_empty() || text.len() > MAX_PROSE {
        return Err(format!("expected 1 to {MAX_PROSE} bytes, got {}", text.len()));
    }
    if let Some(c) = text.chars().find(|c| c.is_numeric()) {
        return Err(format!("expected no number, got {c:?}"));
    }
    match text.chars().find(|&c| !matches!(c, ' '..='~') || matches!(c, '<' | '>')) {
        Some(c) => Err(format!("expected plain text on one line, got {c:?}")),
        None => Ok(text),
    }
}

/// A seed whose bits all depend on all bits of another (splitmix64).
fn mixed(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_text_without_numbers_is_prose() {
        assert_eq!(plain(" The camera\u{2019}s view turns left. ").unwrap(), "The camera's view turns left.");
        let longest = "a".repeat(MAX_PROSE);
        assert_eq!(plain(&longest).as_deref(), Ok(longest.as_str()));
        for refused in ["", "  ", "5 points", "x\u{b2}", "\u{bd} turn", "\u{663}", "a\nb", "a <b", "a> b", "caf\u{e9}"]
        {
            assert!(plain(refused).is_err(), "{refused:?}");
        }
        assert!(plain(&format!("{longest}a")).is_err());
    }

    #[test]
    fn an_answer_is_five_texts_in_an_object() {
        let five = r#"{"step1": "a", "step2": "b", "step3": "c", "step4": "d", "step5": "e"}"#;
        let expected = ["a", "b", "c", "d", "e"].map(str::to_owned);
        assert_eq!(read(five).as_ref(), Ok(&expected));
        assert_eq!(read(&format!("```json\n{five}\n```")).as_ref(), Ok(&expected));
        for refused in ["", "}{", "{", "{}", &*five.replace("step5", "step6"), &*five.replace("\"c\"", "null")] {
            assert!(read(refused).is_err(), "{refused}");
        }
    }
}
