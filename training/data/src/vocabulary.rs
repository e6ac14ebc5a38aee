//! The tokenizer of `nano`: made for chains, so that a number is two tokens and a window's poses are 150.
//!
//! The first token of a number holds its sign and three decimals, which is all that a small model can know; the tail is
//! noise to it. Every piece of the vocabulary stands whole; what is not in it falls apart into bytes, so that any text
//! can be encoded. The file is an ordinary `tokenizer.json`.

use std::collections::BTreeSet;

use model::tokenizer::{END_OF_TEXT, IM_END, IM_START, IMAGE_PAD, VIDEO_PAD, VISION_END, VISION_START};
use serde_json::{Value, json};

/// Special tokens, in the order of their ids.
pub const SPECIAL: [&str; 7] = [END_OF_TEXT, IM_START, IM_END, VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD];

/// How text is cut before the vocabulary is consulted.
const PIECES: &str = r" ?-?(?:0\.\d{3}|1\.000)| ?-?\d{1,3}|\.\d|</?(?:step[1-5]|poses)>\n?| ?[A-Za-z_]+| ?[^\s\w]|\s";

/// The byte-to-character table of GPT-2's byte-level encoding.
fn byte_characters() -> Vec<char> {
    let printable = |b: u32| (33..=126).contains(&b) || (161..=172).contains(&b) || (174..=255).contains(&b);
    let mut spare = 256u32;
    (0..256u32)
        .map(|b| {
            let code = if printable(b) {
                b
            } else {
                spare += 1;
                spare - 1
            };
            char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
        })
        .collect()
}

/// `tokenizer.json` whose vocabulary holds every number of the chain's grammar and every word of `corpus`.
pub fn build<'a>(corpus: impl IntoIterator<Item = &'a str>) -> Value {
    let mut pieces: Vec<String> = Vec::new();
    for sign in ["", "-"] {
        pieces.extend((0..1000).map(|n| format!(" {sign}0.{n:03}")));
        pieces.push(format!(" {sign}1.000"));
    }
    for width in 1..=3usize {
        pieces.extend((0..10usize.pow(width as u32)).map(|n| format!("{n:0width$}")));
    }
    pieces.extend((0..1000).map(|n| format!(" {n}")));
    pieces.extend((0..10).map(|n| format!(" -{n}")));
    pieces.extend((0..10).map(|n| format!(".{n}")));
    for block in ["step1", "step2", "step3", "step4", "step5", "poses"] {
        pieces.extend(["", "/"].iter().flat_map(|s| ["", "\n"].map(|end| format!("<{s}{block}>{end}"))));
    }
    let words: BTreeSet<String> = corpus.into_iter().flat_map(words).collect();
    pieces.extend(words);

    let characters = byte_characters();
    let spell = |text: &str| -> String { text.bytes().map(|b| characters[b as usize]).collect() };
    let mut vocabulary = serde_json::Map::new();
    let mut add = |token: String| {
        let id = vocabulary.len();
        vocabulary.entry(token).or_insert_with(|| json!(id));
    };
    SPECIAL.iter().for_each(|s| add((*s).to_owned()));
    (0..256).for_each(|b| add(characters[b].to_string()));
    pieces.iter().for_each(|piece| add(spell(piece)));
    let added: Vec<Value> = SPECIAL
        .iter()
        .enumerate()
        .map(|(id, content)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        })
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": PIECES}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        ]},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": true,
                  "vocab": vocabulary, "merges": []},
    })
}

/// Words and marks as [`PIECES`] cuts them: a run of letters, or one mark, with the space before it.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    for c in text.chars() {
        let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
        let continues = match word.chars().last() {
            None => true,
            Some(' ') => !c.is_whitespace() && word.len() == 1,
            Some(last) => letter(last) && letter(c),
        };
        if !continues {
            words.push(std::mem::take(&mut word));
        }
        word.push(c);
    }
    words.push(word);
    words.retain(|w| !w.is_empty() && !w.contains(|c: char| c.is_ascii_digit()));
    words
}

/// The value of a number's first token, where `token` is one: `Ġ-0.123` is -0.123.
pub fn leading_value(token: &str) -> Option<f64> {
    let digits = token.strip_prefix('Ġ')?;
    let plain = digits.strip_prefix('-').unwrap_or(digits);
    (plain.len() == 5 && plain.as_bytes().get(1) == Some(&b'.')).then(|| digits.parse().ok()).flatten()
}

/// Whether a token is the tail of a number: digits that no small model can know.
pub fn is_tail(token: &str) -> bool {
    token.len() == 3 && token.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::tokenizer::Tokenizer;

    fn tokenizer() -> Tokenizer {
        let text = build(["Give the poses of the five frames."]).to_string();
        Tokenizer::new(text.parse().unwrap()).unwrap()
    }

    #[test]
    fn numbers_are_two_tokens_and_any_text_comes_back() {
        let tokenizer = tokenizer();
        assert_eq!(tokenizer.encode(" -0.123456 1.000000").unwrap().len(), 4);
        assert_eq!(tokenizer.encode(" 123.4").unwrap().len(), 2);
        assert_eq!(tokenizer.encode("<|im_start|>").unwrap().len(), 1);
        assert_eq!(tokenizer.encode("Give the poses of the five frames.").unwrap().len(), 8);
        for text in
            ["<poses>\n0 R 1.000000 0.000000 t -0.012345\n</poses>", "p0 12.3 45.6 | 1.234", "déjà vu — 東京\t\n\n x"]
        {
            assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap()).unwrap(), text);
        }
    }

    #[test]
    fn leading_values_are_read() {
        assert_eq!(leading_value("Ġ-0.123"), Some(-0.123));
        assert_eq!(leading_value("Ġ1.000"), Some(1.0));
        assert_eq!(leading_value("Ġ123"), None);
        assert_eq!(leading_value("0.123"), None);
        assert!(is_tail("045") && !is_tail("45"));
    }
}
