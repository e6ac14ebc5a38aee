//! Recordings and weights with a flipped bit, a cut end or zeros in them. The reader says so, or what it gives is right.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use camera::recording::{Entry, Error, Writer, scan};
use camera::ros::Type;
use candle_core::{DType, Device, Tensor};
use geometry::Stamp;
use model::Qwen3Vl;
use model::nn::Kernels;
use model::weights::gguf::{Gguf, Recipe, export};
use tests::root;

use crate::damage::Damage;
use crate::files::copy;
use crate::rounds::{Draw, rounds};

/// Calls a reader; a panic fails the test with what was done to the file.
fn read<T>(round: u64, damage: &Damage, reader: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(reader)).unwrap_or_else(|_| panic!("round {round}: {damage:?}: the reader panics"))
}

/// Topic, time and bytes of a message.
type Heard = (String, i64, Vec<u8>);

fn messages(path: &Path, heard: &mut Vec<Heard>) -> Result<bool, Error> {
    let damage = scan(path, |message| {
        heard.push((message.channel.topic.clone(), message.log_time.nanos, message.data.to_vec()));
        Ok::<(), Error>(())
    });
    damage.map(|damage| damage.is_none())
}

/// A few small messages on two topics, two in a chunk.
fn recording(path: &Path) {
    let mut writer = Writer::new(BufWriter::new(File::create(path).unwrap())).unwrap();
    for number in 0..8 {
        let topic = if number % 2 == 0 { "/a" } else { "/b" }.to_owned();
        let (time, data) = (Stamp::from_nanos(1_700_000_000_000_000_000 + number), Draw::new(number as u64).bytes(60));
        let entry = Entry { topic, message_type: Type::Image, log_time: time, publish_time: time, data };
        writer.write(&entry).unwrap();
        if number % 2 == 1 {
            writer.flush().unwrap();
        }
    }
    writer.finish().unwrap();
}

#[test]
fn a_damaged_recording_is_told_or_every_message_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mcap");
    recording(&path);
    let bytes = std::fs::read(&path).unwrap();
    let mut whole = Vec::new();
    assert!(messages(&path, &mut whole).unwrap());
    assert_eq!(whole.len(), 8);
    let mut told = 0;
    rounds(500, |round| {
        let damage = Damage::draw(&bytes, &mut Draw::new(round));
        std::fs::write(&path, damage.done_to(&bytes)).unwrap();
        let mut heard = Vec::new();
        if read(round, &damage, || messages(&path, &mut heard)).unwrap_or(false) {
            assert!(heard == whole, "round {round}: {damage:?}: {} messages, and not a word", heard.len());
        } else {
            told += 1;
            let mut rest = whole.iter();
            let is_true = heard.iter().all(|message| rest.any(|known| known == message));
            assert!(is_true, "round {round}: {damage:?}: a message that nobody sent");
        }
    });
    assert!(told > 100, "{told}");
}

/// Bits of tensors, by name; nothing of one that is refused.
type Bits = BTreeMap<String, Option<Vec<u32>>>;

fn bits(tensor: &Tensor) -> Vec<u32> {
    let plain = tensor.to_dtype(DType::F32).and_then(|t| t.flatten_all()?.to_vec1::<f32>()).unwrap();
    plain.into_iter().map(f32::to_bits).collect()
}

/// Holds tensors against those of the whole file, where its header is not damaged: nothing but what lies at the damage may
/// differ, and behind a cut nothing may be made up.
fn assert_contained(whole: &Bits, got: &Bits, what: &str, damage: &Damage) {
    let differ: Vec<&String> = whole.keys().filter(|n| got[*n].is_some() && got[*n] != whole[*n]).collect();
    // Two neighbours share no more than an edge.
    let most = if matches!(damage, Damage::Cut { .. }) { 0 } else { 2 };
    assert!(differ.len() <= most, "{what}: {damage:?}: {differ:?} are other numbers");
}

#[test]
fn a_damaged_gguf_is_refused_or_wrong_at_the_damage_alone() {
    let dir = tempfile::tempdir().unwrap();
    export(&root().join("tests/fixtures/qwen3vl/tiny"), None, Recipe::Q8_0, dir.path()).unwrap();
    let path = dir.path().join("model.gguf");
    let bytes = std::fs::read(&path).unwrap();
    let header = Gguf::open(&path).unwrap().content().tensor_data_offset as usize;
    let names: Vec<String> = Gguf::open(&path).unwrap().content().tensor_infos.keys().cloned().collect();
    let tensors = || {
        let file = Gguf::open(&path)?;
        let tensor = |name: &String| file.tensor(name, &Device::Cpu).ok().map(|tensor| bits(&tensor));
        Ok::<Bits, model::Error>(names.iter().map(|name| (name.clone(), tensor(name))).collect())
    };
    let whole = tensors().unwrap();
    assert!(whole.len() > 10 && whole.values().all(Option::is_some));
    rounds(40, |round| {
        let damage = Damage::draw(&bytes, &mut Draw::new(round));
        std::fs::write(&path, damage.done_to(&bytes)).unwrap();
        let got = read(round, &damage, tensors);
        let loaded = read(round, &damage, || Qwen3Vl::load(dir.path(), Kernels::Fused, DType::F32, &Device::Cpu));
        match got {
            Ok(got) if damage.begins() >= header => {
                assert_contained(&whole, &got, &format!("round {round}"), &damage);
                let refused = got.values().any(Option::is_none);
                assert!(!refused || loaded.is_err(), "round {round}: {damage:?}: a model without one of its tensors");
            }
            Err(error) => assert!(error.to_string().contains("model.gguf"), "round {round}: {damage:?}: {error}"),
            Ok(_) => {}
        }
    });
}

#[test]
fn damaged_safetensors_are_refused_or_wrong_at_the_damage_alone() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    copy(&root().join("tests/fixtures/qwen3vl/tiny"), dir.path());
    let path = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    // What our own reader makes of them.
    let tensors = || {
        model::weights::merge(dir.path(), None, DType::F32, out.path())?;
        let read = candle_core::safetensors::load(out.path().join("model.safetensors"), &Device::Cpu)?;
        Ok::<Bits, model::Error>(read.into_iter().map(|(name, tensor)| (name, Some(bits(&tensor)))).collect())
    };
    let whole = tensors().unwrap();
    rounds(20, |round| {
        let damage = Damage::draw(&bytes, &mut Draw::new(round));
        std::fs::write(&path, damage.done_to(&bytes)).unwrap();
        match read(round, &damage, tensors) {
            Ok(got) if damage.begins() >= header => {
                assert!(!matches!(damage, Damage::Cut { .. }), "round {round}: {damage:?}: nothing is said");
                assert_contained(&whole, &got, &format!("round {round}"), &damage);
            }
            Err(error) => assert!(!error.to_string().is_empty(), "round {round}: {damage:?}"),
            Ok(_) => {}
        }
    });
}
