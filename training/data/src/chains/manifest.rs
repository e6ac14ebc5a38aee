//! What a folder of shards says of itself, both ways.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What became of the windows of one or more shards.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Windows that were asked for.
    pub windows: u64,
    /// Chains.
    pub written: u64,
    /// Windows without depth.
    pub without_depth: u64,
    /// Windows whose estimated depth contradicts the poses by more than the bound.
    pub inconsistent_depth: u64,
    /// Windows in which too few points can be followed.
    pub rejected: u64,
    /// Chains with the templates' prose, since the endpoint's was of no use.
    #[serde(default)]
    pub prose_fallback: u64,
    /// Windows that can't be read, and why.
    pub unreadable: Vec<String>,
}

impl Counts {
    /// Adds those of another shard.
    pub fn add(&mut self, other: &Self) {
        self.windows += other.windows;
        self.written += other.written;
        self.without_depth += other.without_depth;
        self.inconsistent_depth += other.inconsistent_depth;
        self.rejected += other.rejected;
        self.prose_fallback += other.prose_fallback;
        self.unreadable.extend(other.unreadable.iter().cloned());
    }
}

/// `chains-000000.json` beside a shard: it is there once the shard is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardNote {
    /// What became of its windows.
    pub counts: Counts,
    /// Size of the shard.
    pub bytes: u64,
    /// Of the shard, hexadecimal.
    pub sha256: String,
}

/// A shard in the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Name of the file.
    pub file: String,
    /// Chains in it.
    pub samples: u64,
    /// Its size.
    #[serde(default)]
    pub bytes: u64,
    /// Hexadecimal; nothing where the shard was packed again since, and neither its size nor its hash is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// `manifest.json`, once all shards are there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// `chains`.
    pub stage: String,
    /// All that decides what is in the shards.
    pub settings: Value,
    /// The videos or scenes of the windows, sorted: what must not be trained on and held out.
    pub sources: Vec<String>,
    /// What became of the windows.
    pub counts: Counts,
    /// In their order.
    pub shards: Vec<Shard>,
}
