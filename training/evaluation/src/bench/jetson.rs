//! What Jetsons could do at most with the published Qwen3-VL checkpoints, computed from what their makers publish and from the
//! shapes of the models. No Jetson was measured here.
//!
//! A token that is written reads every weight of the decoder once, and the keys and values before it:
//! `tokens/s = bandwidth / (weights + cache)`. Prompts and frames are products: `s = operations / operations a second`, each
//! multiplication with its sum counted as two, and never less than the reading of the weights.

use std::fmt::Write as _;

use model::Config;
use model::memory::{cache_bytes, frame_tokens, token_bytes};
use model::weights::gguf::Recipe;
use model::weights::{parameters, published as config_of};

/// Types of the weights.
const RECIPE: Recipe = Recipe::Q4KM;
/// Tokens before one that is written: as in the published measurements, and in the middle of a full chain behind its window.
const BEFORE: [usize; 2] = [300, 2800];
/// Pixels of a frame (width, height).
const FRAME: (u32, u32) = (640, 480);
/// Tokens of a window's prompt: five frames of 300, and 100 of words.
const PROMPT: usize = 1600;
/// Bytes of a number in the cache: 16 bits on a GPU.
const CACHED: usize = 2;

/// A module.
struct Board {
    name: &'static str,
    /// Memory bandwidth as published, bytes/s.
    bandwidth: f64,
    /// Dense products of 16-bit numbers, operations/s. candle multiplies prompts and frames so.
    operations: f64,
}

/// - AGX Orin 64 GB: 204.8 GB/s; its GPU has 170 TOPS of sparse INT8 (NVIDIA Jetson AGX Orin Series Technical Brief), of which
///   dense are half, and FP16 half of that.
/// - Orin Nano 8 GB in its Super mode: 102 GB/s, 67 TOPS of sparse INT8, 17 TFLOPS of FP16 (NVIDIA, Orin Nano Super).
/// - Thor T5000: 273 GB/s, 2,070 TFLOPS of sparse FP4 (NVIDIA, Jetson Thor); an eighth of it is dense FP16.
const BOARDS: [Board; 3] = [
    Board { name: "Orin Nano 8 GB", bandwidth: 102e9, operations: 17e12 },
    Board { name: "AGX Orin 64 GB", bandwidth: 204.8e9, operations: 42.5e12 },
    Board { name: "Thor T5000", bandwidth: 273e9, operations: 258.75e12 },
];

/// A measurement that NVIDIA publishes for TensorRT Edge-LLM.
struct Peer {
    board: &'static str,
    shape: &'static str,
    /// Tokens/s: written, and read.
    decode: f64,
    prefill: f64,
    /// Milliseconds of an image of 265 tokens.
    vision_ms: Option<f64>,
}

/// TensorRT Edge-LLM 0.9.0: on the AGX Orin 64 GB weights in INT4 (AWQ), a vision tower in FP16, one image, prompts of 292 to 296
/// tokens; on the Thor NVFP4, 2,048 tokens read and as many before those that are written.
const PEERS: [Peer; 6] = [
    Peer { board: "AGX Orin 64 GB", shape: "2b", decode: 98.4, prefill: 5853.0, vision_ms: Some(39.0) },
    Peer { board: "AGX Orin 64 GB", shape: "4b", decode: 52.4, prefill: 2364.0, vision_ms: Some(39.3) },
    Peer { board: "AGX Orin 64 GB", shape: "8b", decode: 32.3, prefill: 1299.0, vision_ms: Some(57.2) },
    Peer { board: "Thor T5000", shape: "2b", decode: 135.7, prefill: 67_256.0, vision_ms: None },
    Peer { board: "Thor T5000", shape: "4b", decode: 73.4, prefill: 31_859.0, vision_ms: None },
    Peer { board: "Thor T5000", shape: "8b", decode: 44.8, prefill: 18_897.0, vision_ms: None },
];

impl Board {
    /// Tokens/s that are written behind so many.
    fn decode(&self, config: &Config, before: usize) -> f64 {
        self.bandwidth / (token_bytes(config, RECIPE) + cache_bytes(config, before, CACHED)) as f64
    }

    /// Tokens/s that are read.
    fn prefill(&self, config: &Config) -> f64 {
        let weights = token_bytes(config, RECIPE) as f64 / self.bandwidth;
        PROMPT as f64 / (prompt_operations(config, PROMPT) / self.operations).max(weights)
    }

    /// Milliseconds of a frame.
    fn vision_ms(&self, config: &Config) -> f64 {
        1e3 * frame_operations(config, FRAME) / self.operations
    }
}

/// Numbers in the matrices whose checkpoint names begin so.
fn numbers(config: &Config, prefix: &str) -> f64 {
    let all = parameters(config);
    let matrices = all.iter().filter(|(name, dims)| name.starts_with(prefix) && dims.len() >= 2);
    matrices.map(|(_, dims)| dims.iter().product::<usize>() as f64).sum()
}

/// Operations of reading `tokens`: the layers' matrices, and scores and values of each token with those before it. The head reads
/// the last one alone.
fn prompt_operations(config: &Config, tokens: usize) -> f64 {
    let (t, text) = (tokens as f64, &config.text_config);
    let width = (text.num_hidden_layers * text.num_attention_heads * text.head_dim) as f64;
    2.0 * numbers(config, "model.language_model.layers.") * t + 4.0 * width * t * t / 2.0
}

/// Operations of encoding a frame: the patch embedding and the blocks for each patch, scores and values of each with all, and the
/// mergers for each square of patches.
fn frame_operations(config: &Config, (width, height): (u32, u32)) -> f64 {
    let vision = &config.vision_config;
    let tokens = frame_tokens(config, width, height) as f64;
    let patches = tokens * vision.spatial_merge_size.pow(2) as f64;
    let of = |name: &str| 2.0 * numbers(config, &format!("model.visual.{name}"));
    let attention = 4.0 * (vision.depth * vision.hidden_size) as f64 * patches * patches;
    (of("patch_embed.") + of("blocks.")) * patches + attention + (of("merger.") + of("deepstack_merger_list.")) * tokens
}

/// The table for docs/performance.md, a row for each module and model.
pub fn published() -> String {
    let mut table = String::from(
        "| module | model, Q4_K_M | MiB a token | written, 300 before | written, 2,800 before | read, 1,600 | a frame of 640x480 | \
         TensorRT Edge-LLM: written, read, an image |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for board in &BOARDS {
        for shape in ["2b", "4b", "8b"] {
            let Some(config) = config_of(shape) else { continue };
            let mib = token_bytes(&config, RECIPE) as f64 / f64::from(1 << 20);
            let [short, long] = BEFORE.map(|before| board.decode(&config, before));
            let peer = PEERS.iter().find(|peer| peer.board == board.name && peer.shape == shape);
            let peer = peer.map_or_else(
                || "none".to_owned(),
                |peer| {
                    let vision = peer.vision_ms.map(|ms| format!(", {ms:.1} ms")).unwrap_or_default();
                    format!("{:.1}, {:.0}{vision}", peer.decode, peer.prefill)
                },
            );
            let _ = writeln!(
                table,
                "| {} | {} | {mib:.0} | {short:.1} | {long:.1} | {:.0} | {:.1} ms | {peer} |",
                board.name,
                shape.to_uppercase(),
                board.prefill(&config),
                board.vision_ms(&config),
            );
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_2b_on_an_agx_orin_is_what_a_pencil_makes_of_it() {
        let (config, board) = (config_of("2b").unwrap(), &BOARDS[1]);
        // q and o 2048 x 2048, k and v 1024 x 2048, gate, up and down 6144 x 2048, 28 times.
        let layers = 28.0 * (2.0 * 4_194_304.0 + 2.0 * 2_097_152.0 + 3.0 * 12_582_912.0);
        assert!((numbers(&config, "model.language_model.layers.") - layers).abs() < 0.5);
        // Of 28 layers, 0 to 2, 24 to 27 and every third between have values and down in Q6_K, as has the embedding, which is the
        // head: 210 bytes for 256 numbers where others have 144. Norms are in 32 bits.
        let high = 14.0 * (2_097_152.0 + 12_582_912.0) + 151_936.0 * 2048.0;
        let low = layers - 14.0 * (2_097_152.0 + 12_582_912.0);
        let norms = 28.0 * (2.0 * 2048.0 + 2.0 * 128.0) + 2048.0;
        let weights = (low * 144.0 + high * 210.0) / 256.0 + 4.0 * norms;
        assert!((token_bytes(&config, RECIPE) as f64 - weights).abs() < 0.5);
        // 8 heads of 128, keys and values, 28 layers, 2 bytes: 114,688 a token.
        let written = 204.8e9 / (weights + 300.0 * 114_688.0);
        assert!((board.decode(&config, 300) - written).abs() < 1e-6, "{written}");
        // 16 heads of 128 read 800 tokens before them in the mean, with a product and a sum for the score and for the value.
        let read = 42.5e12 / (2.0 * layers + 28.0 * 4.0 * 2048.0 * 800.0);
        assert!((board.prefill(&config) - read).abs() < 1e-6, "{read}");
        // 1,200 patches: a block has 4 x 1024 x 1024 for attention and 2 x 1024 x 4096 for the rest, 24 times, and scores and
        // values with 1,200; a patch has 3 x 2 x 16 x 16 numbers; 300 tokens go through four mergers.
        let blocks = 24.0 * (1200.0 * 2.0 * (4.0 + 8.0) * 1_048_576.0 + 4.0 * 1024.0 * 1200.0 * 1200.0);
        let rest = 1200.0 * 2.0 * 1536.0 * 1024.0 + 300.0 * 2.0 * 4.0 * (4096.0 * 4096.0 + 4096.0 * 2048.0);
        let seconds = (blocks + rest) / 42.5e12;
        assert!((board.vision_ms(&config) - 1e3 * seconds).abs() < 1e-9, "{seconds}");
    }

    #[test]
    fn no_published_speed_of_four_bits_is_above_what_memory_allows() {
        for peer in &PEERS {
            let board = BOARDS.iter().find(|board| board.name == peer.board).unwrap();
            let roof = board.decode(&config_of(peer.shape).unwrap(), BEFORE[0]);
            assert!(peer.decode < roof && peer.decode > 0.3 * roof, "{} {}: {roof}", peer.board, peer.shape);
        }
    }

    #[test]
    fn the_page_has_the_table_that_is_computed() {
        let page = include_str!("../../../../docs/performance.md");
        assert!(page.contains(&published()), "put this into docs/performance.md:\n{}", published());
    }
}
