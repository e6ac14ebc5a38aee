//! Sequences that share a prompt's cache are what each of them would be alone.

use candle_core::{Device, IndexOp, Tensor};
use model::nn::Kernels;
use model::qwen3_vl::Embedded;

use crate::reference::{close, embedded, golden, grids, ids, load, places};

#[test]
fn branches_of_a_cache_agree_with_lone_sequences() {
    let text = golden("text_golden");
    let model = load(Kernels::Fused);
    let prompt = embedded(&model, &text);
    let positions = places(model.config(), &ids(&text), &grids(&text));
    let mut cache = model.cache(64);
    model.decode(&prompt, &positions, Some(&mut cache)).unwrap();
    let next = positions.last().unwrap()[0] + 1;
    let continuations = [[3u32, 40, 7], [11, 5, 300], [90, 91, 92]];
    let step = |tokens: &[u32], place: u32, cache: &mut model::qwen3_vl::text::KvCache| {
        let ids = Tensor::new(tokens, &Device::Cpu).unwrap();
        let embeddings = model.embed(&ids).unwrap().unsqueeze(1).unwrap();
        let step = Embedded { embeddings, deepstack: Vec::new() };
        model.decode(&step, &vec![[place; 3]; tokens.len()], Some(cache)).unwrap()
    };
    let mut shared = cache.branch().unwrap();
    let mut together = Vec::new();
    for i in 0..3 {
        together.push(step(&continuations.map(|c| c[i]), next + i as u32, &mut shared));
    }
    for (row, tokens) in continuations.iter().enumerate() {
        let mut alone = cache.try_clone().unwrap();
        for (i, token) in tokens.iter().enumerate() {
            let expected = step(&[*token], next + i as u32, &mut alone);
            close("hidden", &together[i].i(row).unwrap(), &expected);
        }
    }
    assert_eq!(shared.tokens(), positions.len() + 3);
    assert!(shared.branch().is_err(), "a branch has several sequences");
}

#[test]
fn a_cache_that_begins_as_another_goes_on_as_one_that_read_it_all() {
    let text = golden("text_golden");
    let model = load(Kernels::Fused);
    let prompt = embedded(&model, &text);
    let ids = ids(&text);
    let positions = places(model.config(), &ids, &grids(&text));
    let mut cache = model.cache(64);
    let whole = model.decode(&prompt, &positions, Some(&mut cache)).unwrap();
    assert!(!prompt.deepstack.is_empty());
    // Within the first image too, where features are added behind the first layers.
    let image = ids.iter().position(|id| *id == model.config().image_token_id).unwrap();
    for held in [1, image, image + 1, ids.len() - 1] {
        let mut own = model.cache(64);
        own.begin(&cache, held).unwrap();
        assert_eq!(own.tokens(), held);
        let rest = prompt.behind(held).unwrap();
        let hidden = model.decode(&rest, &positions[held..], Some(&mut own)).unwrap();
        close("hidden", &hidden, &whole.narrow(1, held, ids.len() - held).unwrap());
        assert!(own.begin(&cache, 1).is_err(), "it holds something already");
    }
    assert!(model.cache(64).begin(&cache, ids.len() + 1).is_err(), "more than there is");
    assert!(model.cache(64).begin(&cache.branch().unwrap(), 1).is_err(), "a branch has several sequences");
}

#[test]
fn what_was_cut_off_a_cache_leaves_no_trace() {
    let text = golden("text_golden");
    let model = load(Kernels::Fused);
    let prompt = embedded(&model, &text);
    let positions = places(model.config(), &ids(&text), &grids(&text));
    let read = |tokens: &[u32], cache: &mut model::qwen3_vl::text::KvCache| {
        let next = positions.last().unwrap()[0] + 1 + (cache.tokens() - positions.len()) as u32;
        let places: Vec<_> = (0..tokens.len() as u32).map(|k| [next + k; 3]).collect();
        let embeddings = model.embed(&Tensor::new(tokens, &Device::Cpu).unwrap()).unwrap().unsqueeze(0).unwrap();
        model.decode(&Embedded { embeddings, deepstack: Vec::new() }, &places, Some(cache)).unwrap()
    };
    let prefilled = || {
        let mut cache = model.cache(64);
        model.decode(&prompt, &positions, Some(&mut cache)).unwrap();
        cache
    };
    // A draft of which the first token alone was right, in the cache itself and in a branch.
    for mut cache in [prefilled(), prefilled().branch().unwrap()] {
        read(&[5, 9, 11, 300], &mut cache);
        cache.truncate(positions.len() + 1).unwrap();
        let drafted = read(&[7, 3], &mut cache);
        let mut fresh = prefilled();
        read(&[5], &mut fresh);
        close("hidden", &drafted, &read(&[7, 3], &mut fresh));
    }
    let mut branch = prefilled().branch().unwrap();
    assert!(branch.truncate(positions.len() - 1).is_err(), "it is shared");
}

#[test]
fn clones_of_a_cache_do_not_write_into_each_other() {
    let text = golden("text_golden");
    let model = load(Kernels::Fused);
    let prompt = embedded(&model, &text);
    let positions = places(model.config(), &ids(&text), &grids(&text));
    let mut first = model.cache(64);
    model.decode(&prompt, &positions, Some(&mut first)).unwrap();
    let next = positions.last().unwrap()[0] + 1;
    let step = |token: u32, place: u32, cache: &mut model::qwen3_vl::text::KvCache| {
        let embeddings = model.embed(&Tensor::new(&[token], &Device::Cpu).unwrap()).unwrap().unsqueeze(0).unwrap();
        model.decode(&Embedded { embeddings, deepstack: Vec::new() }, &[[place; 3]], Some(cache)).unwrap()
    };
    let mut second = first.try_clone().unwrap();
    step(5, next, &mut first);
    step(9, next, &mut second);
    let a = step(7, next + 1, &mut first);
    let mut fresh = model.cache(64);
    model.decode(&prompt, &positions, Some(&mut fresh)).unwrap();
    step(5, next, &mut fresh);
    close("hidden", &a, &step(7, next + 1, &mut fresh));
}
