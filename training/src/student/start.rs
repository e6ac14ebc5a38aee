//! How `nano` starts: not at random, but with what a few hours on two cores would not discover. Every choice here is an
//! initial value; training is free to leave it.

use std::collections::HashMap;
use std::f64::consts::TAU;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor, Var};
use geometry::{Intrinsics, WINDOW};
use model::answer::prompt::{self, Mode};
use model::qwen3_vl::processor::Grid;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use training_data::random::normal;

use crate::student::{Student, named};
use training_data::vocabulary;

impl Student {
    /// Draws every matrix anew: candle's generator on the CPU takes no seed.
    pub(crate) fn initialise(&self, seed: u64) -> Result<()> {
        for (i, (name, var)) in named(&self.variables).into_iter().enumerate() {
            if var.rank() < 2 {
                continue;
            }
            let mut rng = ChaCha8Rng::seed_from_u64(seed.wrapping_add(i as u64));
            let fan_in: usize = var.dims()[1..].iter().product();
            let stdev = match name.as_str() {
                n if n.ends_with("embed_tokens.weight") => 0.05,
                n if n.ends_with("pos_embed.weight") => 0.2,
                _ => (1.0 / fan_in as f64).sqrt(),
            };
            let values: Vec<f32> = (0..var.elem_count()).map(|_| (normal(&mut rng) * stdev) as f32).collect();
            var.set(&Tensor::from_vec(values, var.dims(), var.device())?)?;
        }
        self.match_by_likeness()?;
        self.look_back()?;
        self.see_low_frequencies(seed)?;
        self.hand_through()?;
        self.order_numbers()
    }

    /// Starts every decoder layer with keys that are the queries: a token attends to what looks like it nearby, which in
    /// a window is the same surface in the other frames. Correspondence is then something to refine, not to discover.
    fn match_by_likeness(&self) -> Result<()> {
        let variables: HashMap<String, Var> = named(&self.variables).into_iter().collect();
        let c = &self.model.config().text_config;
        let group = c.num_attention_heads / c.num_key_value_heads;
        for (name, query) in variables.iter().filter(|(n, _)| n.ends_with("q_proj.weight")) {
            let Some(key) = variables.get(&name.replace("q_proj", "k_proj")) else { continue };
            let heads = key.reshape((c.num_key_value_heads, c.head_dim, c.hidden_size))?;
            let repeated = heads.unsqueeze(1)?.repeat((1, group, 1, 1))?;
            query.set(&repeated.reshape(query.shape())?.contiguous()?)?;
        }
        Ok(())
    }

    /// Starts the first key head of the first two layers as one that attends to the same place in the frame before (its
    /// query heads look one and two frames back). Image tokens share a constant direction for that, and the rotary
    /// embedding does the rest: query and key are each other turned by the distance. What moved is then a product of what
    /// is here and what was here, which the MLP behind it forms from the first step on.
    fn look_back(&self) -> Result<()> {
        let variables: HashMap<String, Var> = named(&self.variables).into_iter().collect();
        let c = &self.model.config().text_config;
        let (d, e, half) = (c.hidden_size, c.head_dim, c.head_dim / 2);
        let group = c.num_attention_heads / c.num_key_value_heads;
        let pitch = self.frame_pitch()?;
        // The constant direction lives in the last quarter, which no content enters at first.
        let constant: Vec<f32> = (0..d).map(|i| if i < d - d / 4 { 0.0 } else { 1.5 }).collect();
        for (name, bias) in variables.iter().filter(|(n, _)| n.ends_with("visual.merger.linear_fc2.bias")) {
            bias.set(&Tensor::from_slice(&constant, bias.shape(), &Device::Cpu)?).with_context(|| name.clone())?;
        }
        let theta = c.theta().unwrap_or(100.0);
        for layer in 0..c.num_hidden_layers.min(2) {
            let of = |what: &str| {
                let name = format!("model.language_model.layers.{layer}.self_attn.{what}.weight");
                variables.get(&name).with_context(|| name.clone())
            };
            let (query, key) = (of("q_proj")?, of("k_proj")?);
            let (mut q, mut k) = (query.flatten_all()?.to_vec1::<f32>()?, key.flatten_all()?.to_vec1::<f32>()?);
            // Only fast frequencies tell neighbours apart.
            let fast = half.min(9);
            for slot in 0..half {
                let weight = if slot < fast { 1.0 / d as f32 } else { 0.0 };
                let frequency = theta.powf(-((2 * slot) as f64) / e as f64);
                for back in 0..=group {
                    let angle = (frequency * pitch * back as f64) as f32;
                    // Key (back = 0) at angle zero, query heads turned back by one pitch, two pitches, ...
                    let (rows, row) = if back == 0 { (&mut k, 0) } else { (&mut q, (back - 1) * e) };
                    for (at, part) in [(row + slot, angle.cos()), (row + half + slot, -angle.sin())] {
                        for i in 0..d {
                            let noise = 0.05 * rows[at * d + i];
                            rows[at * d + i] = noise + weight * part * constant[i];
                        }
                    }
                }
            }
            query.set(&Tensor::from_vec(q, query.shape(), &Device::Cpu)?)?;
            key.set(&Tensor::from_vec(k, key.shape(), &Device::Cpu)?)?;
            // Gains that make the look sharp.
            for norm in [of("q_norm")?, of("k_norm")?] {
                let gain: Vec<f32> = (0..e).map(|i| if i % half < fast { 3.5 } else { 1.0 }).collect();
                norm.set(&Tensor::from_vec(gain, e, &Device::Cpu)?)?;
            }
        }
        Ok(())
    }

    /// Starts the way from patches to the decoder's first MLP as a plain copy: the vision blocks add little, the merger
    /// puts the lowest frequencies of its four patches side by side in the first half of a token, and the head that looks
    /// one frame back copies the lowest of those of the same place into the third quarter.
    fn hand_through(&self) -> Result<()> {
        let variables: HashMap<String, Var> = named(&self.variables).into_iter().collect();
        let (text, vision) = (&self.model.config().text_config, &self.model.config().vision_config);
        let (d, e, wide) = (text.hidden_size, text.head_dim, vision.hidden_size);
        let patches = vision.spatial_merge_size.pow(2);
        let get = |name: &str| variables.get(name).with_context(|| name.to_owned());
        let edit = |name: &str, change: &dyn Fn(&mut [f32], usize)| -> Result<()> {
            let var = get(name)?;
            let mut values = var.flatten_all()?.to_vec1::<f32>()?;
            change(&mut values, var.dim(1)?);
            Ok(var.set(&Tensor::from_vec(values, var.shape(), &Device::Cpu)?)?)
        };
        for (name, var) in &variables {
            if name.contains("visual.blocks")
                && (name.ends_with("attn.proj.weight") || name.ends_with("linear_fc2.weight"))
            {
                var.set(&(var.as_tensor() * 0.2)?)?;
            }
        }
        // gelu(x) - gelu(-x) = x: pairs of rows carry a value through the merger's nonlinearity untouched.
        let kept = wide / 2;
        let brightness = kept * 5 / 8;
        let channel = |i: usize| if i < brightness { i } else { wide / 2 + i - brightness };
        edit("model.visual.merger.linear_fc1.weight", &|w, columns| {
            w.iter_mut().for_each(|v| *v *= 0.1);
            for row in 0..patches * kept {
                let column = row / kept * wide + channel(row % kept);
                w[row * columns + column] += 1.0;
                w[(patches * kept + row) * columns + column] -= 1.0;
            }
        })?;
        let (share, look) = (d / 2 / patches, e / patches);
        let lowest = |i: usize, of: usize| if i < of * 2 / 3 { i } else { brightness + i - of * 2 / 3 };
        edit("model.visual.merger.linear_fc2.weight", &|w, columns| {
            w.iter_mut().for_each(|v| *v *= 0.1);
            for row in 0..share * patches {
                let column = row / share * kept + lowest(row % share, share);
                w[row * columns + column] += 0.7;
                w[row * columns + patches * kept + column] -= 0.7;
            }
        })?;
        let layer = "model.language_model.layers.0.self_attn";
        edit(&format!("{layer}.v_proj.weight"), &|w, columns| {
            for row in 0..look * patches {
                w[row * columns..(row + 1) * columns].fill(0.0);
                let (at, lum) = (row % look, look * 5 / 6);
                let place = if at < lum { at } else { share * 2 / 3 + at - lum };
                w[row * columns + row / look * share + place] = 1.0;
            }
        })?;
        edit(&format!("{layer}.o_proj.weight"), &|w, columns| {
            w.iter_mut().for_each(|v| *v *= 0.3);
            for i in 0..(look * patches).min(d / 4) {
                let row = d / 2 + i;
                w[row * columns..(row + 1) * columns].fill(0.0);
                w[row * columns + i] = 1.0;
            }
        })
    }

    /// Distance between tokens at the same place of neighbouring frames, as the prompt puts them: the same on all three
    /// axes, since an image's rows and columns count on from where the text before it ended.
    fn frame_pitch(&self) -> Result<f64> {
        let (width, height) = self.processor.target_size(640, 480)?;
        let side = self.processor.patch_size;
        let grid = Grid { height: height as usize / side, width: width as usize / side };
        let k = Intrinsics::new(150.0, 150.0, 80.0, 64.0, width, height)?;
        let image = self.model.config().image_token_id;
        let merge = self.processor.merge_size;
        let prompt = prompt::window(&self.tokenizer, image, merge, Mode::AnswerOnly, &k, &[grid; WINDOW])?;
        let tokens = grid.patches() / merge.pow(2);
        let mut times = prompt.ids.iter().zip(&prompt.positions).filter(|(id, _)| **id == image).map(|(_, p)| p[0]);
        let (first, second) = (times.next().unwrap_or(0), times.nth(tokens - 1).unwrap_or(0));
        Ok(f64::from(second) - f64::from(first))
    }

    /// Starts the patch embedding as cosine transform, low frequencies first, whitened on synthetic patches. Random
    /// filters see mostly high frequencies, which a shift by a third of a patch turns into something else.
    fn see_low_frequencies(&self, seed: u64) -> Result<()> {
        let variables = named(&self.variables);
        let find = |end: &str| variables.iter().find(|(n, _)| n.ends_with(end)).map(|(_, v)| v);
        let (Some(weight), Some(bias)) = (find("patch_embed.proj.weight"), find("patch_embed.proj.bias")) else {
            return Ok(());
        };
        let &[width, channels, frames, side, _] = weight.dims() else { return Ok(()) };
        // Half of the filters see brightness, the others the two colour axes.
        let axes = [[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [1.0, 1.0, -2.0f64]];
        let mut waves: Vec<(usize, usize)> = (0..side).flat_map(|y| (0..side).map(move |x| (y, x))).collect();
        waves.sort_by_key(|&(y, x)| (y * y + x * x, y));
        let mut filters = Vec::with_capacity(width * channels * frames * side * side);
        for i in 0..width {
            let (axis, wave) = if i < width / 2 { (0, i) } else { (1 + i % 2, (i - width / 2) / 2) };
            let (fy, fx) = waves[wave];
            for channel in axes[axis].iter().take(channels) {
                for _ in 0..frames {
                    for y in 0..side {
                        for x in 0..side {
                            let cosine = |f: usize, at: usize| {
                                (std::f64::consts::PI * f as f64 * (at as f64 + 0.5) / side as f64).cos()
                            };
                            filters.push((channel * cosine(fy, y) * cosine(fx, x) / (side * side) as f64) as f32);
                        }
                    }
                }
            }
        }
        let filters = Tensor::from_vec(filters, (width, channels * frames * side * side), &Device::Cpu)?;
        let size = self.processor.target_size(640, 480)?;
        let mut patches = Vec::new();
        for index in 0..24 {
            let window = training_data::synth::window(!seed, index, size);
            patches.push(self.processor.patches(&window.images[0], &window.intrinsics, &Device::Cpu)?.values);
        }
        let seen = Tensor::cat(&patches, 0)?.matmul(&filters.t()?)?; // [patches, width]
        let mean = seen.mean_keepdim(0)?;
        let deviation = (seen.broadcast_sub(&mean)?.sqr()?.mean_keepdim(0)? + 1e-8)?.sqrt()?;
        let gain = deviation.recip()?.squeeze(0)?;
        weight.set(&filters.broadcast_mul(&gain.unsqueeze(1)?)?.reshape(weight.shape())?)?;
        bias.set(&(mean.squeeze(0)? * gain)?.neg()?)?;
        Ok(())
    }

    /// Gives number tokens embeddings in which near values are near: Fourier features of the value. Head and embedding
    /// are tied, so that the logits of a hidden state are smooth in the value from the first step on.
    fn order_numbers(&self) -> Result<()> {
        let variables = named(&self.variables);
        let Some((_, embedding)) = variables.iter().find(|(n, _)| n.ends_with("embed_tokens.weight")) else {
            return Ok(());
        };
        let (rows, d) = embedding.dims2()?;
        let mut values = embedding.flatten_all()?.to_vec1::<f32>()?;
        let pairs = d / 2;
        for id in 0..rows {
            let Some(value) = self.tokenizer.token(id as u32).and_then(|t| vocabulary::leading_value(&t)) else {
                continue;
            };
            for k in 0..pairs {
                let frequency = 0.25 * (400.0f64).powf(k as f64 / (pairs - 1) as f64);
                let (sin, cos) = (TAU * frequency * value).sin_cos();
                values[id * d + 2 * k] = (0.07 * cos) as f32;
                values[id * d + 2 * k + 1] = (0.07 * sin) as f32;
            }
        }
        embedding.set(&Tensor::from_vec(values, (rows, d), embedding.device())?)?;
        Ok(())
    }
}
