//! Names and shapes of a model's tensors, without the model.

use crate::qwen3_vl::config::{Config, Rope, TextConfig, VisionConfig};

/// Every tensor of a checkpoint with its shape, in the order of the architecture. A tied head is no tensor of its own.
pub fn parameters(config: &Config) -> Vec<(String, Vec<usize>)> {
    let mut all = Vec::new();
    let (t, v) = (&config.text_config, &config.vision_config);
    let merged = v.hidden_size * v.spatial_merge_size.pow(2);
    let mut add = |name: String, dims: &[usize]| all.push((name, dims.to_vec()));
    let linear = |add: &mut dyn FnMut(String, &[usize]), name: String, input: usize, output: usize| {
        add(format!("{name}.weight"), &[output, input]);
        add(format!("{name}.bias"), &[output]);
    };
    let norm = |add: &mut dyn FnMut(String, &[usize]), name: String, width: usize| {
        add(format!("{name}.weight"), &[width]);
        add(format!("{name}.bias"), &[width]);
    };
    let filter = [v.hidden_size, v.in_channels, v.temporal_patch_size, v.patch_size, v.patch_size];
    add("model.visual.patch_embed.proj.weight".to_owned(), &filter);
    add("model.visual.patch_embed.proj.bias".to_owned(), &[v.hidden_size]);
    add("model.visual.pos_embed.weight".to_owned(), &[v.num_position_embeddings, v.hidden_size]);
    for i in 0..v.depth {
        let name = |part: &str| format!("model.visual.blocks.{i}.{part}");
        norm(&mut add, name("norm1"), v.hidden_size);
        norm(&mut add, name("norm2"), v.hidden_size);
        linear(&mut add, name("attn.qkv"), v.hidden_size, 3 * v.hidden_size);
        linear(&mut add, name("attn.proj"), v.hidden_size, v.hidden_size);
        linear(&mut add, name("mlp.linear_fc1"), v.hidden_size, v.intermediate_size);
        linear(&mut add, name("mlp.linear_fc2"), v.intermediate_size, v.hidden_size);
    }
    let mut merger = |name: String, width: usize| {
        norm(&mut add, format!("{name}.norm"), width);
        linear(&mut add, format!("{name}.linear_fc1"), merged, merged);
        linear(&mut add, format!("{name}.linear_fc2"), merged, v.out_hidden_size);
    };
    merger("model.visual.merger".to_owned(), v.hidden_size);
    for k in 0..v.deepstack_visual_indexes.len() {
        merger(format!("model.visual.deepstack_merger_list.{k}"), merged);
    }
    let text = |part: &str| format!("model.language_model.{part}.weight");
    let (d, e, ffn) = (t.hidden_size, t.head_dim, t.intermediate_size);
    let (queries, keys) = (t.num_attention_heads * e, t.num_key_value_heads * e);
    add(text("embed_tokens"), &[t.vocab_size, d]);
    for i in 0..t.num_hidden_layers {
        let mut layer = |part: &str, dims: &[usize]| add(text(&format!("layers.{i}.{part}")), dims);
        layer("input_layernorm", &[d]);
        layer("post_attention_layernorm", &[d]);
        layer("self_attn.q_proj", &[queries, d]);
        layer("self_attn.k_proj", &[keys, d]);
        layer("self_attn.v_proj", &[keys, d]);
        layer("self_attn.o_proj", &[d, queries]);
        layer("self_attn.q_norm", &[e]);
        layer("self_attn.k_norm", &[e]);
        layer("mlp.gate_proj", &[ffn, d]);
        layer("mlp.up_proj", &[ffn, d]);
        layer("mlp.down_proj", &[d, ffn]);
    }
    add(text("norm"), &[d]);
    if !config.tie_word_embeddings {
        add("lm_head.weight".to_owned(), &[t.vocab_size, d]);
    }
    all
}

/// The config of a published Qwen3-VL-Instruct: `2b`, `4b` or `8b`.
pub fn published(name: &str) -> Option<Config> {
    let (hidden, layers, heads, ffn, tied, large) = match name {
        "2b" => (2048, 28, 16, 6144, true, false),
        "4b" => (2560, 36, 32, 9728, true, false),
        "8b" => (4096, 36, 32, 12288, false, true),
        _ => return None,
    };
    let (depth, width, mlp, deepstack) =
        if large { (27, 1152, 4304, [8, 16, 24]) } else { (24, 1024, 4096, [5, 11, 17]) };
    Some(Config {
        architectures: vec!["Qwen3VLForConditionalGeneration".to_owned()],
        model_type: "qwen3_vl".to_owned(),
        text_config: TextConfig {
            hidden_size: hidden,
            intermediate_size: ffn,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: 8,
            head_dim: 128,
            vocab_size: 151_936,
            rms_norm_eps: 1e-6,
            max_position_embeddings: 262_144,
            rope_theta: Some(5e6),
            rope_scaling: Some(Rope {
                mrope_section: [24, 20, 20],
                rope_theta: None,
                mrope_interleaved: true,
                rope_type: "default".to_owned(),
            }),
            rope_parameters: None,
        },
        vision_config: VisionConfig {
            depth,
            hidden_size: width,
            intermediate_size: mlp,
            num_heads: 16,
            in_channels: 3,
            patch_size: 16,
            spatial_merge_size: 2,
            temporal_patch_size: 2,
            out_hidden_size: hidden,
            num_position_embeddings: 2304,
            deepstack_visual_indexes: deepstack.to_vec(),
        },
        image_token_id: 151_655,
        video_token_id: 151_656,
        vision_start_token_id: 151_652,
        vision_end_token_id: 151_653,
        tie_word_embeddings: tied,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_models_have_the_parameters_that_their_names_promise() {
        for (name, least, most) in [("2b", 2.0e9, 2.2e9), ("4b", 4.3e9, 4.5e9), ("8b", 8.6e9, 8.9e9)] {
            let config = published(name).unwrap();
            config.check().unwrap();
            let count: usize = parameters(&config).iter().map(|(_, dims)| dims.iter().product::<usize>()).sum();
            assert!((least..most).contains(&(count as f64)), "{name}: {count}");
        }
        assert!(published("3b").is_none());
    }

    #[test]
    fn the_list_is_that_of_a_checkpoint_which_the_reference_wrote() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/qwen3vl/tiny");
        let config = Config::from_dir(&dir).unwrap();
        let stored = candle_core::safetensors::load(dir.join("model.safetensors"), &candle_core::Device::Cpu).unwrap();
        let listed = parameters(&config);
        assert_eq!(listed.len(), stored.len());
        for (name, dims) in listed {
            assert_eq!(stored[&name].dims(), dims, "{name}");
        }
    }
}
