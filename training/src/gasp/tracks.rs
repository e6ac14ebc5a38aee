//! The verb `tracks`: GASP's own evaluation of correspondence (section 5.3, Figure 3). The points of an 8 x 8 lattice on the first of 8
//! frames are looked for in each of the others, by the queries and keys of every layer (Eqs. 10 and 11); the places that are found,
//! brought from the grid of tokens to where the truth is known (Eq. 12), are right within 2 tokens of it. Means and standard deviations
//! are over sequences, and models stand beside each other on the same ones: the baseline, correspondence alone, and with depth.
//!
//! Beside `analyse`, which looks for every token in both directions: here the truth is a place between tokens, and all is told from the
//! first frame. The other frames are drawn so that every distance from 1 to 24 has as many.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use candle_core::Device;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::analyse::{DISTANCES, check_grid, films, pixels, size, stretch};
use super::frames::{FrameSource, Views};
use super::judged::Judged;
use super::pck::{Found, TokenGrid};
use super::probe::{Features, Pair, Probe, Tallies};
use super::set::FrameSet;
use crate::batch::{Batch, decode, embed};
use training_data::chains::tracks;
use training_data::json::write_json;
use training_evaluation::curves::{Curve, Panel, SpreadCurve, panels};

/// Points a side of the first frame.
const POINTS: usize = 8;

/// The arguments of the verb.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// A model to judge, NAME=WEIGHTS or NAME=WEIGHTS,ADAPTER; once for each that is drawn, as baseline, correspondence and full.
    #[arg(long = "model", required = true, value_parser = model)]
    pub models: Vec<Model>,
    /// Films with poses and depth that no model was trained on: a source as for eval.
    #[arg(long)]
    pub data: String,
    /// Sequences.
    #[arg(long, default_value_t = 200)]
    pub sequences: usize,
    /// Frames of a sequence.
    #[arg(long, default_value_t = 8)]
    pub frames: usize,
    /// Size that frames are brought to, as 768x768: 32 pixels are a token. The models' own without it.
    #[arg(long, value_parser = size)]
    pub size: Option<[u32; 2]>,
    /// Judge grids of fewer than 12 tokens a side too, where a guess is often near enough.
    #[arg(long)]
    pub any_grid: bool,
    /// Temperature of the confidence.
    #[arg(long, default_value_t = 0.07)]
    pub tau: f64,
    /// Depth of recordings that have none: model.safetensors of Depth Anything 3 SMALL, or its folder.
    #[arg(long)]
    pub depth_weights: Option<PathBuf>,
    /// Seed of the choice of films.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// cpu, cuda or cuda:N.
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Folder of report.json, layers.csv, distances.csv and figure.png.
    #[arg(long, default_value = "runs/tracks")]
    pub out: PathBuf,
}

/// What is judged, and what it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// In tables and legends.
    pub name: String,
    /// Checkpoint folder.
    pub weights: PathBuf,
    /// LoRA adapter beside it.
    pub adapter: Option<PathBuf>,
}

fn model(text: &str) -> Result<Model, String> {
    let parts = text.split_once('=').filter(|(name, folders)| !name.is_empty() && !folders.is_empty());
    let (name, folders) = parts.ok_or_else(|| format!("expected NAME=WEIGHTS or NAME=WEIGHTS,ADAPTER, got {text}"))?;
    let (weights, adapter) = match folders.split_once(',') {
        Some((weights, adapter)) => (weights, Some(PathBuf::from(adapter))),
        None => (folders, None),
    };
    Ok(Model { name: name.to_owned(), weights: PathBuf::from(weights), adapter })
}

/// What a model found, sequence by sequence.
struct Judgement {
    name: String,
    sequences: Vec<Tallies>,
    grid: TokenGrid,
    /// How often a guess would be right.
    chance: f64,
    /// Sequences that could not be read, are too short, or share nothing.
    left_out: usize,
}

/// Judges the models, writes the report and the figure, and gives the table for a person.
///
/// # Errors
/// Weights or data that can't be read, a grid that is too small, a folder that can't be written.
pub fn run(args: &Args) -> Result<String> {
    ensure!(
        (2..=DISTANCES + 1).contains(&args.frames),
        "--frames: expected 2 to {}, got {}",
        DISTANCES + 1,
        args.frames
    );
    ensure!(args.sequences >= 1, "--sequences: expected at least 1");
    ensure!(args.tau > 0.0, "--tau: expected more than 0, got {}", args.tau);
    let device = model::device(&args.device).context("--device")?;
    let source = films(&args.data, args.depth_weights.as_deref(), &args.device)?;
    let judge = |model: &Model| judge(args, model, &source, &device).with_context(|| model.name.clone());
    let judgements = args.models.iter().map(judge).collect::<Result<Vec<_>>>()?;
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    write_json(&args.out.join("report.json"), &report(args, &judgements))?;
    write(&args.out, &judgements)?;
    figure(&args.out.join("figure.png"), &judgements)?;
    Ok(table(&judgements))
}

fn judge(args: &Args, model: &Model, source: &FrameSource, device: &Device) -> Result<Judgement> {
    let judged = Judged::open(&model.weights, model.adapter.as_deref(), pixels(args.size), device)?;
    let builder = judged.builder();
    let grid = TokenGrid { columns: 0, rows: 0 };
    let mut judgement = Judgement { name: model.name.clone(), sequences: Vec::new(), grid, chance: 0.0, left_out: 0 };
    let (mut chance, mut points) = (0.0, 0u32);
    for number in 0..args.sequences {
        let Some(views) = views(args, source, number) else {
            judgement.left_out += 1;
            continue;
        };
        let set = FrameSet::new(&builder, &views)?;
        judgement.grid = set.grid;
        if !args.any_grid {
            check_grid(set.grid)?;
        }
        let pairs = truth(&views, set.grid);
        let places = pairs.iter().flat_map(|pair| &pair.matches).map(|(_, place)| *place);
        let before = points;
        for place in places {
            let tokens = set.grid.tokens();
            chance += (0..tokens).filter(|&token| set.grid.reaches(token, place)).count() as f64 / tokens as f64;
            points += 1;
        }
        if points == before {
            judgement.left_out += 1;
            continue;
        }
        let batch = Batch::new([&set.sequence], builder.tokenizer.pad);
        let embeddings = embed(&judged.model, &batch, [&set.sequence], true)?;
        let rows = batch.rows_of(judged.model.config().image_token_id);
        let mut tallies = Tallies::new();
        let mut probe = Probe::of(pairs, set.grid, rows, (args.tau, judged.heads.as_ref()), &mut tallies);
        decode(&judged.model, &batch, &embeddings, None, &mut |layer, tapped| probe.look(layer, tapped))?;
        probe.done()?;
        judgement.sequences.push(tallies);
        tracing::info!(model = model.name, sequence = number + 1, of = args.sequences, points, "followed");
    }
    ensure!(points > 0, "{}: expected frames that share points with known depth, got none", args.data);
    judgement.chance = chance / f64::from(points);
    Ok(judgement)
}

/// The frames of a sequence, the same for every model; nothing where they can't be read or are too few.
fn views(args: &Args, source: &FrameSource, number: usize) -> Option<Views> {
    let mut rng = ChaCha8Rng::seed_from_u64(args.seed);
    rng.set_stream(number as u64);
    let film = source.film(&mut rng);
    let (first, length) = stretch(film, source.frames(film));
    let numbers: Vec<usize> = frames(length, args.frames, number)?.into_iter().map(|frame| first + frame).collect();
    match source.load(film, &numbers, pixels(args.size)) {
        Ok(views) => Some(views),
        Err(error) => {
            tracing::warn!("left out: {error:#}");
            None
        }
    }
}

/// Frames of a stretch, the first among them; the others are spread over it, and from one sequence to the next by one frame further,
/// so that all distances have as many. Nothing where the stretch is too short.
fn frames(length: usize, count: usize, number: usize) -> Option<Vec<usize>> {
    let (most, others) = (DISTANCES.min(length.saturating_sub(1)), count - 1);
    let stride = most / others;
    let mut frames: Vec<usize> = (0..others).map(|i| 1 + (number + i * stride) % most.max(1)).collect();
    frames.push(0);
    frames.sort_unstable();
    (stride > 0).then_some(frames)
}

/// The points of the first frame in each of the others that shows them.
fn truth(views: &Views, grid: TokenGrid) -> Vec<Pair> {
    let k = &views.depth_intrinsics;
    let mut pairs = BTreeMap::<usize, Vec<(usize, [f64; 2])>>::new();
    for m in tracks::matches(&views.views(), k, POINTS, POINTS).iter().filter(|m| m.from.0 == 0) {
        // The token that the centre of the point's cell is in.
        let token = |cell: usize, tokens: usize| (2 * cell + 1) * tokens / (2 * POINTS);
        let from = token(m.from.1 / POINTS, grid.rows) * grid.columns + token(m.from.1 % POINTS, grid.columns);
        let place = |pixel: f64, pixels: u32, tokens: usize| (pixel + 0.5) * tokens as f64 / f64::from(pixels);
        let to = [place(m.pixel.x, k.width, grid.columns), place(m.pixel.y, k.height, grid.rows)];
        pairs.entry(m.to.0).or_default().push((from, to));
    }
    let distance = |to: usize| views.numbers[to] - views.numbers[0];
    pairs.into_iter().map(|(to, matches)| Pair { from: 0, to, distance: distance(to), matches }).collect()
}

/// Over sequences.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    mean: f64,
    deviation: f64,
    sequences: usize,
}

/// Of all the numbers that there are; nothing of none.
fn spread(values: impl Iterator<Item = f64>) -> Option<Spread> {
    let values: Vec<f64> = values.collect();
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n;
    (!values.is_empty()).then_some(Spread { mean, deviation: variance.sqrt(), sequences: values.len() })
}

impl Judgement {
    fn kinds(&self) -> BTreeSet<Features> {
        self.sequences.iter().flat_map(|tallies| tallies.keys().map(|(features, _)| *features)).collect()
    }

    fn layers(&self, features: Features) -> BTreeSet<usize> {
        let keys = self.sequences.iter().flat_map(|tallies| tallies.keys());
        keys.filter(|(of, _)| *of == features).map(|(_, layer)| *layer).collect()
    }

    /// PCK@2 of a layer.
    fn pck(&self, features: Features, layer: usize) -> Option<Spread> {
        spread(self.sequences.iter().filter_map(|tallies| tallies.get(&(features, layer))?.all.pck()))
    }

    /// Correlation of confidence and success (Eq. 13) within a sequence.
    fn correlation(&self, features: Features, layer: usize) -> Option<Spread> {
        spread(self.sequences.iter().filter_map(|tallies| tallies.get(&(features, layer))?.correlation.value()))
    }

    /// PCK@2 at each distance, all layers together.
    fn by_distance(&self, features: Features) -> Vec<(usize, Spread)> {
        let mut values = BTreeMap::<usize, Vec<f64>>::new();
        for tallies in &self.sequences {
            let mut sums = BTreeMap::<usize, Found>::new();
            for (_, tally) in tallies.iter().filter(|((of, _), _)| *of == features) {
                for (distance, found) in &tally.by_distance {
                    let sum = sums.entry(*distance).or_default();
                    (sum.hits, sum.matches) = (sum.hits + found.hits, sum.matches + found.matches);
                }
            }
            for (distance, found) in sums {
                values.entry(distance).or_default().extend(found.pck());
            }
        }
        values.into_iter().filter_map(|(distance, values)| Some((distance, spread(values.into_iter())?))).collect()
    }

    /// The same over the mean at distance 1; nothing where that is 0 or was not seen.
    fn relative(&self, features: Features) -> Vec<(usize, Spread)> {
        let found = self.by_distance(features);
        let nearest = found.iter().find(|(distance, _)| *distance == 1).map_or(0.0, |(_, spread)| spread.mean);
        let over = |(distance, s): (usize, Spread)| {
            (distance, Spread { mean: s.mean / nearest, deviation: s.deviation / nearest, ..s })
        };
        if nearest > 0.0 { found.into_iter().map(over).collect() } else { Vec::new() }
    }

    /// The layer with the highest PCK, and the mean over all of them.
    fn best(&self, features: Features) -> Option<(usize, Spread, f64)> {
        let layers = self.layers(features).into_iter();
        let all: Vec<(usize, Spread)> = layers.filter_map(|layer| Some((layer, self.pck(features, layer)?))).collect();
        let mean = all.iter().map(|(_, spread)| spread.mean).sum::<f64>() / all.len() as f64;
        let best = all.into_iter().max_by(|a, b| a.1.mean.total_cmp(&b.1.mean))?;
        Some((best.0, best.1, mean))
    }
}

fn report(args: &Args, judgements: &[Judgement]) -> Value {
    let known =
        |spread: Option<Spread>| spread.map(|s| json!({"mean": s.mean, "std": s.deviation, "sequences": s.sequences}));
    let of = |(model, judgement): (&Model, &Judgement)| {
        let layers = |features: Features| {
            let row = move |layer: usize| {
                json!({
                    "features": features.name(), "layer": layer, "pck": known(judgement.pck(features, layer)),
                    "correlation": known(judgement.correlation(features, layer)),
                })
            };
            judgement.layers(features).into_iter().map(row).collect::<Vec<_>>()
        };
        let distances = |features: Features| {
            let row = move |(distance, spread): (usize, Spread)| {
                let (features, pck) = (features.name(), known(Some(spread)));
                json!({"features": features, "distance": distance, "pck": pck})
            };
            judgement.by_distance(features).into_iter().map(row).collect::<Vec<_>>()
        };
        json!({
            "name": model.name, "weights": model.weights, "adapter": model.adapter,
            "tokens": [judgement.grid.columns, judgement.grid.rows], "sequences": judgement.sequences.len(),
            "left_out": judgement.left_out, "chance": judgement.chance,
            "layers": judgement.kinds().into_iter().flat_map(layers).collect::<Vec<_>>(),
            "distances": judgement.kinds().into_iter().flat_map(distances).collect::<Vec<_>>(),
        })
    };
    json!({
        "data": args.data, "seed": args.seed, "tau": args.tau, "frames": args.frames, "points": [POINTS, POINTS],
        "models": args.models.iter().zip(judgements).map(of).collect::<Vec<_>>(),
    })
}

/// layers.csv and distances.csv.
fn write(out: &Path, judgements: &[Judgement]) -> Result<()> {
    let numbers = |spread: Option<Spread>| match spread {
        Some(s) => format!("{:.6},{:.6},{}", s.mean, s.deviation, s.sequences),
        None => ",,0".to_owned(),
    };
    let mut layers =
        "model,features,layer,pck,pck_std,sequences,correlation,correlation_std,correlated,chance\n".to_owned();
    let mut distances = "model,features,distance,pck,pck_std,sequences\n".to_owned();
    for judgement in judgements {
        for features in judgement.kinds() {
            let (model, of) = (&judgement.name, features.name());
            for layer in judgement.layers(features) {
                let (pck, rho) = (judgement.pck(features, layer), judgement.correlation(features, layer));
                writeln!(layers, "{model},{of},{layer},{},{},{:.6}", numbers(pck), numbers(rho), judgement.chance)?;
            }
            for (distance, spread) in judgement.by_distance(features) {
                writeln!(distances, "{model},{of},{distance},{}", numbers(Some(spread)))?;
            }
        }
    }
    for (name, text) in [("layers.csv", layers), ("distances.csv", distances)] {
        let path = out.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// The three panels of Figure 3; in the first, paler, what is found behind the rotary embedding.
fn figure(path: &Path, judgements: &[Judgement]) -> Result<()> {
    let curve = |name: String, colour: usize, is_pale: bool, points: Vec<(usize, Spread)>| SpreadCurve {
        deviations: points.iter().map(|(_, spread)| spread.deviation).collect(),
        curve: Curve { name, points: points.into_iter().map(|(x, spread)| (x as f64, spread.mean)).collect() },
        colour,
        is_pale,
    };
    let by_layer =
        |judgement: &Judgement, features: Features, of: fn(&Judgement, Features, usize) -> Option<Spread>| {
            let layers = judgement.layers(features).into_iter();
            layers.filter_map(|layer| Some((layer, of(judgement, features, layer)?))).collect::<Vec<_>>()
        };
    let (mut matching, mut confidence, mut robustness) = (Vec::new(), Vec::new(), Vec::new());
    for (colour, judgement) in judgements.iter().enumerate() {
        let plain = || judgement.name.clone();
        let (before, behind) = (Features::QueryKey, Features::Rotated);
        matching.push(curve(plain(), colour, false, by_layer(judgement, before, Judgement::pck)));
        let rotated = format!("{}, with RoPE", judgement.name);
        matching.push(curve(rotated, colour, true, by_layer(judgement, behind, Judgement::pck)));
        confidence.push(curve(plain(), colour, false, by_layer(judgement, before, Judgement::correlation)));
        robustness.push(curve(plain(), colour, false, judgement.relative(before)));
    }
    let panel = |title, axes, curves| Panel { title, axes, curves };
    panels(
        path,
        &[
            panel("layer-wise matching", ("layer", "PCK@2"), matching),
            panel("confidence and accuracy", ("layer", "Pearson's correlation"), confidence),
            panel("temporal robustness", ("frames apart", "PCK@2 / PCK@2(1)"), robustness),
        ],
    )
}

/// A row a model and kind of features.
fn table(judgements: &[Judgement]) -> String {
    let mut text = "| model | features | mean over layers | best layer | PCK@2 there | correlation there | at the largest distance |\n\
                    | --- | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    let shown =
        |spread: Option<Spread>| spread.map_or("-".to_owned(), |s| format!("{:.3} ± {:.3}", s.mean, s.deviation));
    for judgement in judgements {
        for features in judgement.kinds() {
            let Some((layer, pck, mean)) = judgement.best(features) else { continue };
            let far = judgement.by_distance(features).last().copied();
            let far = far.map_or("-".to_owned(), |(distance, spread)| format!("{} at {distance}", shown(Some(spread))));
            let rho = shown(judgement.correlation(features, layer));
            text += &format!(
                "| {} | {} | {mean:.3} | {layer} | {} | {rho} | {far} |\n",
                judgement.name,
                features.name(),
                shown(Some(pck))
            );
        }
    }
    for judgement in judgements {
        text += &format!(
            "{}: {} sequences, {} left out, {} x {} tokens, by chance {:.3}\n",
            judgement.name,
            judgement.sequences.len(),
            judgement.left_out,
            judgement.grid.columns,
            judgement.grid.rows,
            judgement.chance
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use training_data::synth;

    #[test]
    fn models_are_a_name_and_one_or_two_folders() {
        let of = |name: &str, weights: &str, adapter: Option<&str>| Model {
            name: name.to_owned(),
            weights: weights.into(),
            adapter: adapter.map(PathBuf::from),
        };
        assert_eq!(model("baseline=a/b"), Ok(of("baseline", "a/b", None)));
        assert_eq!(model("full=a,c=d"), Ok(of("full", "a", Some("c=d"))));
        assert!(["a", "=b", "a="].iter().all(|text| model(text).is_err()));
    }

    #[test]
    fn every_distance_has_as_many_frames() {
        let mut counts = [0; DISTANCES + 1];
        for number in 0..DISTANCES {
            let frames = frames(100, 8, number).unwrap();
            assert!(
                frames.len() == 8 && frames[0] == 0 && frames.windows(2).all(|pair| pair[0] < pair[1]),
                "{frames:?}"
            );
            frames.iter().for_each(|&frame| counts[frame] += 1);
        }
        assert!(counts[1..].iter().all(|&count| count == 7), "{counts:?}");
        assert_eq!(frames(8, 8, 3), Some((0..8).collect()));
        assert_eq!(frames(7, 8, 0), None);
        assert_eq!(frames(0, 2, 0), None);
    }

    /// The same frame twice: a point's place is the centre of its cell, in the token that it was asked of.
    #[test]
    fn the_truth_of_a_camera_that_stands_is_where_the_points_are() {
        let mut film = synth::sequence(3, 5, 2, (160, 96));
        let depth = film.depth.remove(0);
        let views = Views {
            numbers: vec![4, 9],
            images: Vec::new(),
            intrinsics: film.intrinsics,
            world_from_camera: vec![film.world_from_camera[0]; 2],
            depth: vec![depth.clone(), depth],
            depth_intrinsics: film.intrinsics,
            metric: true,
        };
        for (columns, rows) in [(24, 24), (8, 8), (20, 12)] {
            let grid = TokenGrid { columns, rows };
            let pairs = truth(&views, grid);
            let [pair] = &pairs[..] else { panic!("one pair") };
            assert_eq!((pair.from, pair.to, pair.distance), (0, 1, 5));
            assert!(pair.matches.len() > POINTS * POINTS / 2 && pair.matches.len() <= POINTS * POINTS);
            for (token, [x, y]) in &pair.matches {
                let cell = |place: f64, tokens: usize| place * POINTS as f64 / tokens as f64;
                let middle = |cell: f64| (cell.fract() - 0.5).abs() < 1e-6;
                assert!(middle(cell(*x, columns)) && middle(cell(*y, rows)), "{x} {y}");
                assert!(x - (token % columns) as f64 <= 1.0 + 1e-6 && y - (token / columns) as f64 <= 1.0 + 1e-6);
                assert!(
                    x - (token % columns) as f64 >= -1e-6 && y - (token / columns) as f64 >= -1e-6,
                    "{token} {x} {y}"
                );
            }
        }
    }

    fn judgement(name: &str, shares: &[u32]) -> Judgement {
        let sequence = |share: &u32| {
            let mut tallies = Tallies::new();
            for features in [Features::QueryKey, Features::Rotated] {
                for layer in 0..2 {
                    let tally = tallies.entry((features, layer)).or_default();
                    // The second layer finds half as many, and those that are far half of these.
                    for k in 0..100 {
                        tally.push(1, k < share >> layer, 0.01 * f64::from(k));
                        tally.push(20, k < share >> layer >> 1, 0.01 * f64::from(k));
                    }
                }
            }
            tallies
        };
        let sequences = shares.iter().map(sequence).collect();
        Judgement {
            name: name.to_owned(),
            sequences,
            grid: TokenGrid { columns: 24, rows: 24 },
            chance: 0.02,
            left_out: 1,
        }
    }

    #[test]
    fn means_and_deviations_are_over_sequences() {
        let found = judgement("full", &[80, 40]);
        let near = |spread: Spread, mean: f64, deviation: f64| {
            assert!((spread.mean - mean).abs() < 1e-12 && (spread.deviation - deviation).abs() < 1e-12, "{spread:?}");
            assert_eq!(spread.sequences, 2);
        };
        // (80 + 40) / 200 and (40 + 20) / 200.
        near(found.pck(Features::QueryKey, 0).unwrap(), 0.45, 0.15);
        near(found.pck(Features::QueryKey, 1).unwrap(), 0.225, 0.075);
        assert!(found.pck(Features::Head, 0).is_none());
        let (layer, best, mean) = found.best(Features::Rotated).unwrap();
        near(best, 0.45, 0.15);
        assert!(layer == 0 && (mean - 0.3375).abs() < 1e-12);
        let relative = found.relative(Features::QueryKey);
        assert_eq!(relative.iter().map(|(distance, _)| *distance).collect::<Vec<_>>(), [1, 20]);
        near(relative[0].1, 1.0, 1.0 / 3.0);
        near(relative[1].1, 0.5, 1.0 / 6.0);
        assert!(judgement("blind", &[0]).relative(Features::QueryKey).is_empty(), "nothing to compare with");
        assert!(found.correlation(Features::QueryKey, 0).unwrap().mean < 0.0, "sure where it is wrong");
        assert_eq!(spread(std::iter::empty()), None);
    }

    #[test]
    fn tables_and_one_figure_hold_all_models() {
        let dir = tempfile::tempdir().unwrap();
        let judgements = [judgement("baseline", &[4, 2]), judgement("full", &[80, 40, 60])];
        write(dir.path(), &judgements).unwrap();
        figure(&dir.path().join("figure.png"), &judgements).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("layers.csv").lines().count(), 1 + 2 * 2 * 2);
        assert!(read("layers.csv").contains("full,qk,0,0.450000,"), "{}", read("layers.csv"));
        assert!(read("distances.csv").contains("baseline,qk_rope,20,"), "{}", read("distances.csv"));
        let size = image::image_dimensions(dir.path().join("figure.png")).unwrap();
        assert_eq!(size.0 % 3, 0);
        let text = table(&judgements);
        assert!(text.contains("| full | qk | 0.33") && text.contains(" | 0 | 0.450 ± "), "{text}");
        assert!(text.contains("baseline: 2 sequences, 1 left out, 24 x 24 tokens, by chance 0.020"), "{text}");
    }
}
