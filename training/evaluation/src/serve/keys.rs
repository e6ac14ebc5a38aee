//! The keys of a request that are not read: those that change nothing, the values of others that ask for what is done
//! anyway, and all others, which are refused by name. Who asks for JSON and gets prose should know it from the status.

use serde_json::Value;
use serde_json::value::RawValue;

use super::Refusal;
use super::fields::Fields;

/// Characters of a refused value that an error shows.
const SHOWN: usize = 60;
/// Bytes of the longest value that may ask for what is done anyway; a longer one is not built.
const LONGEST: usize = 256;

/// The keys of one object that are not read. Null, an empty list and an empty object ask for nothing under any key.
pub(super) struct Keys {
    /// Those that change nothing of an answer, whatever they say.
    harmless: &'static [&'static str],
    /// Those that do, and what they may say.
    same: &'static [(&'static str, Same)],
}

/// Values that ask for what is done anyway.
enum Same {
    Numbers(&'static [f64]),
    Flag(bool),
    /// A string, alone in a list, or as `type` alone in an object.
    Words(&'static [&'static str]),
}

/// A request's.
pub(super) const REQUEST: Keys = Keys {
    harmless: &[
        "cache_prompt",
        "cache_salt",
        "metadata",
        "parallel_tool_calls",
        "priority",
        "prompt_cache_key",
        "prompt_cache_retention",
        "request_id",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    ],
    same: &[
        ("response_format", Same::Words(&["text"])),
        ("tool_choice", Same::Words(&["none", "auto"])),
        ("function_call", Same::Words(&["none", "auto"])),
        ("modalities", Same::Words(&["text"])),
        ("reasoning_effort", Same::Words(&["none"])),
        ("verbosity", Same::Words(&["medium"])),
        ("presence_penalty", Same::Numbers(&[0.0])),
        ("frequency_penalty", Same::Numbers(&[0.0])),
        ("min_p", Same::Numbers(&[0.0])),
        ("min_tokens", Same::Numbers(&[0.0])),
        ("top_k", Same::Numbers(&[-1.0, 0.0])),
        ("repetition_penalty", Same::Numbers(&[1.0])),
        ("length_penalty", Same::Numbers(&[1.0])),
        ("best_of", Same::Numbers(&[1.0])),
        ("add_generation_prompt", Same::Flag(true)),
        ("skip_special_tokens", Same::Flag(true)),
        ("spaces_between_special_tokens", Same::Flag(true)),
        ("add_special_tokens", Same::Flag(false)),
        ("continue_final_message", Same::Flag(false)),
        ("echo", Same::Flag(false)),
        ("ignore_eos", Same::Flag(false)),
        ("include_stop_str_in_output", Same::Flag(false)),
        ("use_beam_search", Same::Flag(false)),
        ("enable_thinking", Same::Flag(false)),
    ],
};

/// Of `stream_options`.
pub(super) const STREAM: Keys =
    Keys { harmless: &["include_obfuscation"], same: &[("continuous_usage_stats", Same::Flag(false))] };

/// A turn's.
pub(super) const TURN: Keys = Keys { harmless: &[], same: &[] };

/// Those of a part of a turn.
pub(super) const PART: Keys = Keys { harmless: &["cache_control", "uuid"], same: &[] };

/// Of `image_url`. An image keeps its own size, which is what "high" asks for.
pub(super) const IMAGE: Keys = Keys { harmless: &[], same: &[("detail", Same::Words(&["auto", "high", "original"]))] };

impl Keys {
    /// Looks at what is left of an object once all that is read has been taken out; `place` is where the object stands.
    ///
    /// # Errors
    /// Names the first key whose effect the answer would not have.
    pub fn check(&self, rest: &Fields<'_>, place: &str) -> Result<(), Refusal> {
        for (key, value) in rest.iter() {
            if is_nothing(value) || self.harmless.contains(&key) {
                continue;
            }
            let known = self.same.iter().find(|(name, _)| *name == key).map(|(_, same)| same);
            if known.is_some_and(|same| built(value).is_some_and(|value| same.holds(&value))) {
                continue;
            }
            let expected = known.map_or_else(String::new, |same| format!("{} or ", same.words()));
            let got: String = value.get().chars().take(SHOWN).collect();
            let key: String = key.chars().take(SHOWN).collect();
            let name = if place.is_empty() { key } else { format!("{place}.{key}") };
            return Err(Refusal::invalid(&name, format!("not supported: expected {expected}nothing, got {got}")));
        }
        Ok(())
    }
}

fn is_nothing(value: &RawValue) -> bool {
    let inside = |open: char, close: char| value.get().strip_prefix(open)?.strip_suffix(close);
    let empty = inside('[', ']').or_else(|| inside('{', '}'));
    value.get() == "null" || empty.is_some_and(|inside| inside.trim().is_empty())
}

/// A value that is short.
fn built(value: &RawValue) -> Option<Value> {
    if value.get().len() > LONGEST { None } else { serde_json::from_str(value.get()).ok() }
}

impl Same {
    fn holds(&self, value: &Value) -> bool {
        match self {
            Self::Numbers(numbers) => {
                value.as_f64().is_some_and(|got| numbers.iter().any(|number| (got - number).abs() < f64::EPSILON))
            }
            Self::Flag(flag) => value.as_bool() == Some(*flag),
            Self::Words(words) => {
                let word = match value {
                    Value::Array(values) if values.len() == 1 => &values[0],
                    Value::Object(fields) if fields.len() == 1 => fields.get("type").unwrap_or(value),
                    value => value,
                };
                word.as_str().is_some_and(|word| words.contains(&word))
            }
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Numbers(numbers) => numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            Self::Flag(flag) => flag.to_string(),
            Self::Words(words) => words.join(", "),
        }
    }
}
