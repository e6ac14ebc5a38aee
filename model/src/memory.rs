//! What a model takes of a machine's memory: computed from shapes and types without loading it, and as a process holds it.

use crate::qwen3_vl::config::Config;
use crate::weights::gguf::{Recipe, bytes};

/// Bytes of keys and values for `tokens` tokens of one sequence, `width` bytes a number.
pub fn cache_bytes(config: &Config, tokens: usize, width: usize) -> u64 {
    let t = &config.text_config;
    (2 * t.num_hidden_layers * t.num_key_value_heads * t.head_dim * tokens * width) as u64
}

/// Bytes of weights that writing a token reads: all of the decoder, but of an embedding that is not the head one row.
pub fn token_bytes(config: &Config, recipe: Recipe) -> u64 {
    let (text, _) = bytes(config, recipe);
    if config.tie_word_embeddings {
        return text;
    }
    let (rows, width) = (config.text_config.vocab_size, config.text_config.hidden_size);
    let kind = recipe.type_of("token_embd.weight", &[rows, width], config);
    text - (((rows - 1) * width / kind.block_size()) * kind.type_size()) as u64
}

/// Image tokens of one frame of a size that the processor made.
pub fn frame_tokens(config: &Config, width: u32, height: u32) -> usize {
    let side = config.vision_config.patch_size * config.vision_config.spatial_merge_size;
    (width as usize / side) * (height as usize / side)
}

/// A model as GGUF files with the cache of one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Both files.
    pub weights: u64,
    /// Keys and values in 16 bits.
    pub cache: u64,
}

impl Footprint {
    /// Of a config, a recipe and a window of `tokens` tokens, answer included.
    pub fn new(config: &Config, recipe: Recipe, tokens: usize) -> Self {
        let (text, vision) = bytes(config, recipe);
        Self { weights: text + vision, cache: cache_bytes(config, tokens, 2) }
    }

    /// Both together.
    pub fn total(&self) -> u64 {
        self.weights + self.cache
    }
}

/// What a process holds of the machine's memory, MiB; Linux only.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Resident {
    /// At this moment.
    pub mib: f64,
    /// At most, since it began.
    pub highest_mib: f64,
}

impl Resident {
    /// Of this process; `None` where the system does not tell.
    pub fn of_self() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/status").ok()?)
    }

    /// Of `/proc/PID/status`, which unlike `statm` does not count in pages; `None` for a process that has ended.
    pub fn parse(status: &str) -> Option<Self> {
        let mib = |name: &str| -> Option<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
            Some(kib / 1024.0)
        };
        Some(Self { mib: mib("VmRSS:")?, highest_mib: mib("VmHWM:")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::published;

    #[test]
    fn resident_memory_is_read_as_the_kernel_writes_it() {
        let status = "Name:\tnode\nVmHWM:\t  2048 kB\nVmRSS:\t   512 kB\n";
        assert_eq!(Resident::parse(status), Some(Resident { mib: 0.5, highest_mib: 2.0 }));
        assert_eq!(Resident::parse("Name:\tnode\nState:\tZ (zombie)\n"), None);
        if cfg!(target_os = "linux") {
            let Resident { mib, highest_mib } = Resident::of_self().unwrap();
            assert!(mib > 0.5 && highest_mib >= mib * 0.5, "{mib} {highest_mib}");
        }
    }

    #[test]
    fn an_8b_takes_what_its_published_files_take() {
        let config = published("8b").unwrap();
        let gib = |bytes: u64| bytes as f64 / f64::from(1u32 << 30);
        // 8.2e9 parameters of the decoder at 16 bits.
        let f16 = Footprint::new(&config, Recipe::F16, 2048);
        assert!((15.0..17.5).contains(&gib(f16.weights)), "{}", gib(f16.weights));
        let q4 = Footprint::new(&config, Recipe::Q4KM, 2048);
        assert!((4.8..6.0).contains(&gib(q4.weights)), "{}", gib(q4.weights));
        // 36 layers, 8 heads of 128, keys and values, 2 bytes: 144 KiB a token.
        assert_eq!(q4.cache, 2048 * 144 * 1024);
        assert_eq!(frame_tokens(&config, 640, 480), 300);
        // Of 151,936 rows of 4,096 numbers in blocks of 144 bytes for 256, a token reads one.
        assert_eq!(bytes(&config, Recipe::Q4KM).0 - token_bytes(&config, Recipe::Q4KM), 151_935 * 16 * 144);
        let tied = published("2b").unwrap();
        assert_eq!(token_bytes(&tied, Recipe::Q4KM), bytes(&tied, Recipe::Q4KM).0);
    }
}
