//! What an identity is made of: hashes of tensors, and what files state.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use serde_json::json;
use sha2::{Digest, Sha256};

/// Key of the metadata under which an export states the identity of what it was made of.
pub(super) const KEY: &str = "egoreasoner.identity";
/// Pieces that are read of a long tensor, and the bytes of each.
const PIECES: usize = 16;
const PIECE: usize = 1 << 10;

/// What all files of a model state, or else a hash of the digests of their tensors.
pub(super) fn united(stated: &BTreeSet<Option<String>>, tensors: &BTreeMap<String, String>) -> String {
    match stated.first() {
        Some(Some(identity)) if stated.len() == 1 => identity.clone(),
        _ => hex(&Sha256::digest(json!(tensors).to_string())),
    }
}

/// Hash of a tensor's type, shape and bytes, or of pieces of these spread evenly.
pub(super) fn digest(kind: impl Debug, dims: &[usize], bytes: &[u8]) -> String {
    let mut hash = Sha256::new_with_prefix(format!("{kind:?} {dims:?} "));
    for part in bytes.chunks(bytes.len().div_ceil(PIECES).max(PIECE)) {
        hash.update(&part[..part.len().min(PIECE)]);
    }
    hex(&hash.finalize())
}

/// The first half of a hash: as short as what people compare may be, and still no accident.
pub(super) fn hex(hash: &[u8]) -> String {
    hash[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}
