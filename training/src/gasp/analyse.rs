//! The verb `analyse`: what queries, keys and correspondence heads of every layer know about which tokens show the same
//! point, as in Figure 3 of GASP's paper.
//!
//! Pairs of frames are drawn by their distance, as many of each: sets of 8 frames in a row would never show two that
//! are 24 apart. They are read in sets, as in training, and looked for in both directions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::config::{DataConfig, DepthConfig};
use super::frames::{Film, FrameSource};
use super::judged::Judged;
use super::pck::{Found, TokenGrid};
use super::probe::{Features, Probe, Tallies};
use super::set::FrameSet;
use crate::batch::{Batch, decode, embed};
use training_data::json::write_json;
use training_evaluation::curves::{Curve, curves};

/// Largest distance of two frames, frames of the film.
pub(super) const DISTANCES: usize = 24;
/// Fewest tokens of a side, below which a guess is nearly right.
const FEWEST_TOKENS: usize = 12;
/// Draws of a pair whose frames are not taken yet.
const DRAWS: usize = 50;

/// The arguments of the verb.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Checkpoint folder.
    #[arg(long)]
    pub weights: PathBuf,
    /// LoRA adapter folder to put beside the weights; its correspondence heads are judged too.
    #[arg(long)]
    pub adapter: Option<PathBuf>,
    /// Films with poses and depth: a source as for eval.
    #[arg(long)]
    pub data: String,
    /// Frames of a set: half as many pairs.
    #[arg(long, default_value_t = 8)]
    pub frames: usize,
    /// Pairs of frames.
    #[arg(long, default_value_t = 240)]
    pub pairs: usize,
    /// Size that frames are brought to, as 768x576: 32 pixels are a token. The model's own without it.
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
    /// Seed of the choice of films and frames.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// cpu, cuda or cuda:N.
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Folder of report.json, pck.csv, distance.csv and the plots.
    #[arg(long, default_value = "runs/analyse")]
    pub out: PathBuf,
}

pub(super) fn size(text: &str) -> Result<[u32; 2], String> {
    let sides = text.split_once('x').and_then(|(width, height)| Some([width.parse().ok()?, height.parse().ok()?]));
    sides.ok_or_else(|| format!("expected WIDTHxHEIGHT, got {text}"))
}

/// Width and height that frames are brought to.
pub(super) fn pixels(size: Option<[u32; 2]>) -> Option<(u32, u32)> {
    size.map(|[width, height]| (width, height))
}

/// Films with poses and depth; where none was recorded, that of a network.
///
/// # Errors
/// A source or weights that can't be read, or no depth.
pub(super) fn films(data: &str, depth_weights: Option<&Path>, device: &str) -> Result<FrameSource> {
    let depth = depth_weights.map(|weights| DepthConfig {
        weights: weights.to_owned(),
        side: training_data::depth::LONGEST_SIDE,
        confidence: 1.0,
        device: device.to_owned(),
    });
    let (sets, most) = (data.to_owned(), DISTANCES + 1);
    FrameSource::open(&DataConfig { sets, fewest: 2, most, reach: DISTANCES, sizes: Vec::new(), depth })
}

/// Refuses a grid of so few tokens that a guess is nearly right.
///
/// # Errors
/// Such a grid.
pub(super) fn check_grid(grid: TokenGrid) -> Result<()> {
    ensure!(
        grid.columns.min(grid.rows) >= FEWEST_TOKENS,
        "expected a grid of at least {FEWEST_TOKENS} tokens a side, got {} x {}, where a guess is near enough in {:.0} % of \
         the cases: use --size WIDTHxHEIGHT, or --any-grid",
        grid.columns,
        grid.rows,
        1300.0 / grid.tokens() as f64
    );
    Ok(())
}

/// What was looked for, and what was found.
struct Seen {
    tallies: Tallies,
    grid: [usize; 2],
    sets: usize,
    pairs: usize,
    unreadable: usize,
    chance: f64,
}

/// Judges the features, writes the report, and gives it as text for a person.
///
/// # Errors
/// Weights or data that can't be read, a grid that is too small, a folder that can't be written.
pub fn run(args: &Args) -> Result<String> {
    ensure!(args.frames >= 2 && args.pairs >= 1, "--frames: expected at least 2, --pairs: at least 1");
    ensure!(args.tau > 0.0, "--tau: expected more than 0, got {}", args.tau);
    let device = model::device(&args.device).context("--device")?;
    let judged = Judged::open(&args.weights, args.adapter.as_deref(), pixels(args.size), &device)?;
    let source = films(&args.data, args.depth_weights.as_deref(), &args.device)?;
    let seen = look(args, &judged, &source)?;
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    write_json(&args.out.join("report.json"), &report(args, &seen))?;
    write(&args.out, &seen)?;
    Ok(table(&seen))
}

fn look(args: &Args, judged: &Judged, source: &FrameSource) -> Result<Seen> {
    let (model, builder, heads) = (&judged.model, judged.builder(), judged.heads.as_ref());
    let mut rng = ChaCha8Rng::seed_from_u64(args.seed);
    let mut seen = Seen { tallies: Tallies::new(), grid: [0; 2], sets: 0, pairs: 0, unreadable: 0, chance: 0.0 };
    let (mut drawn, mut looks, mut chance) = (0, 0, 0.0);
    while drawn < args.pairs {
        let film = source.film(&mut rng);
        let (first, length) = stretch(film, source.frames(film));
        let pairs = draw(length, drawn..(drawn + args.frames / 2).min(args.pairs), &mut rng);
        drawn += args.frames / 2;
        let numbers: BTreeSet<usize> = pairs.iter().flat_map(|(a, b)| [first + a, first + b]).collect();
        let numbers: Vec<usize> = numbers.into_iter().collect();
        let views = match source.load(film, &numbers, pixels(args.size)) {
            Ok(views) => views,
            Err(error) => {
                tracing::warn!("left out: {error:#}");
                seen.unreadable += 1;
                continue;
            }
        };
        let set = FrameSet::new(&builder, &views)?;
        seen.grid = [set.grid.columns, set.grid.rows];
        if !args.any_grid {
            check_grid(set.grid)?;
        }
        let wanted = |from: usize, to: usize| pairs.contains(&(set.numbers[from] - first, set.numbers[to] - first));
        let batch = Batch::new([&set.sequence], builder.tokenizer.pad);
        let embeddings = embed(model, &batch, [&set.sequence], true)?;
        let rows = batch.rows_of(model.config().image_token_id);
        let mut probe = Probe::new(&set, rows, args.tau, heads, &wanted, &mut seen.tallies);
        decode(model, &batch, &embeddings, None, &mut |layer, tapped| probe.look(layer, tapped))?;
        probe.done()?;
        let chances = set.grid.chances();
        for m in set.matches.iter().filter(|m| wanted(m.from.0.min(m.to.0), m.from.0.max(m.to.0))) {
            chance += chances[m.to.1];
            looks += 1;
        }
        seen.sets += 1;
        seen.pairs += pairs.len();
        tracing::info!(pairs = seen.pairs, of = args.pairs, matches = looks, "looked");
    }
    ensure!(looks > 0, "{}: expected frames that share points with known depth, got none", args.data);
    seen.chance = chance / looks as f64;
    Ok(seen)
}

/// First frame and length of the stretch of a film that a set is drawn from.
pub(super) fn stretch(film: Film, frames: Option<usize>) -> (usize, usize) {
    match (film, frames) {
        (Film::Recorded { anchor, .. }, Some(frames)) => {
            let length = frames.min(DISTANCES + 1);
            (anchor.min(frames - length), length)
        }
        _ => (0, DISTANCES + 1),
    }
}

/// Pairs of frames of a stretch, none of which is in two of them. Every distance has its turn, as far as the stretch
/// reaches; in a set, near and far ones are mixed, since two far ones would need the same frames.
fn draw(length: usize, numbers: std::ops::Range<usize>, rng: &mut impl Rng) -> Vec<(usize, usize)> {
    let (mut taken, mut pairs) = (BTreeSet::new(), Vec::new());
    let most = DISTANCES.min(length.saturating_sub(1));
    // Without a divisor in common with their number, all distances come round.
    let stride = if most.is_multiple_of(7) { 5 } else { 7 };
    let mut distances: Vec<usize> = numbers.filter(|_| most > 0).map(|number| 1 + number * stride % most).collect();
    distances.sort_unstable();
    for distance in distances.into_iter().rev() {
        for _ in 0..DRAWS {
            let first = rng.random_range(0..length - distance);
            if !taken.contains(&first) && !taken.contains(&(first + distance)) {
                taken.extend([first, first + distance]);
                pairs.push((first, first + distance));
                break;
            }
        }
    }
    pairs
}

/// PCK of a kind of features at each distance, all layers together.
fn by_distance(tallies: &Tallies, features: Features) -> Vec<(usize, Found)> {
    let mut all = BTreeMap::<usize, Found>::new();
    for (_, tally) in tallies.iter().filter(|((of, _), _)| *of == features) {
        for (distance, found) in &tally.by_distance {
            let sum = all.entry(*distance).or_default();
            (sum.hits, sum.matches) = (sum.hits + found.hits, sum.matches + found.matches);
        }
    }
    all.into_iter().collect()
}

/// PCK over that of neighbouring frames; undefined where these have none.
fn relative(found: &[(usize, Found)]) -> Vec<(usize, Option<f64>)> {
    let nearest = found.iter().find(|(distance, _)| *distance == 1).and_then(|(_, found)| found.pck());
    let nearest = nearest.filter(|pck| *pck > 0.0);
    let ratio = |found: &Found| found.pck().zip(nearest).map(|(pck, nearest)| pck / nearest);
    found.iter().map(|(distance, found)| (*distance, ratio(found))).collect()
}

/// Kinds of features that were seen.
fn kinds(tallies: &Tallies) -> BTreeSet<Features> {
    tallies.keys().map(|(features, _)| *features).collect()
}

/// Layers and PCK of a kind of features.
fn by_layer(tallies: &Tallies, features: Features) -> Vec<(usize, f64)> {
    let of_kind = tallies.iter().filter(|((of, _), _)| *of == features);
    of_kind.filter_map(|((_, layer), tally)| Some((*layer, tally.all.pck()?))).collect()
}

/// Mean over the layers, and the best of them with its PCK.
fn summary(tallies: &Tallies, features: Features) -> Option<(f64, usize, f64)> {
    let layers = by_layer(tallies, features);
    let (best, pck) = *layers.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    Some((layers.iter().map(|(_, pck)| pck).sum::<f64>() / layers.len() as f64, best, pck))
}

fn report(args: &Args, seen: &Seen) -> Value {
    let layers = seen.tallies.iter().map(|((features, layer), tally)| {
        json!({
            "features": features.name(), "layer": layer, "pck": tally.all.pck(), "matches": tally.all.matches,
            "correlation": tally.correlation.value(),
        })
    });
    let distances = |features: Features| {
        let found = by_distance(&seen.tallies, features);
        let rows = found.iter().zip(relative(&found)).map(move |((distance, found), (_, relative))| {
            json!({
                "features": features.name(), "distance": distance, "pck": found.pck(), "relative": relative,
                "matches": found.matches,
            })
        });
        rows.collect::<Vec<_>>()
    };
    let summaries = kinds(&seen.tallies).into_iter().filter_map(|features| {
        let (mean, best, pck) = summary(&seen.tallies, features)?;
        Some((features.name().to_owned(), json!({"mean": mean, "best_layer": best, "best": pck})))
    });
    json!({
        "weights": args.weights, "adapter": args.adapter, "data": args.data, "seed": args.seed, "tau": args.tau,
        "tokens": seen.grid, "frames": args.frames, "sets": seen.sets, "pairs": seen.pairs,
        "unreadable": seen.unreadable, "chance": seen.chance,
        "summary": summaries.collect::<serde_json::Map<_, _>>(),
        "layers": layers.collect::<Vec<_>>(),
        "distances": kinds(&seen.tallies).into_iter().flat_map(distances).collect::<Vec<_>>(),
    })
}

/// pck.csv, distance.csv, and the same as plots.
fn write(out: &Path, seen: &Seen) -> Result<()> {
    let number = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.6}"));
    let mut table = "features,layer,pck,chance,correlation,matches\n".to_owned();
    for ((features, layer), tally) in &seen.tallies {
        let (pck, rho) = (number(tally.all.pck()), number(tally.correlation.value()));
        writeln!(table, "{},{layer},{pck},{:.6},{rho},{}", features.name(), seen.chance, tally.all.matches)?;
    }
    let mut distances = "features,distance,pck,relative,matches\n".to_owned();
    for features in kinds(&seen.tallies) {
        let found = by_distance(&seen.tallies, features);
        for ((distance, found), (_, relative)) in found.iter().zip(relative(&found)) {
            let (pck, relative) = (number(found.pck()), number(relative));
            writeln!(distances, "{},{distance},{pck},{relative},{}", features.name(), found.matches)?;
        }
    }
    for (name, text) in [("pck.csv", table), ("distance.csv", distances)] {
        let path = out.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    plots(out, seen)
}

fn plots(out: &Path, seen: &Seen) -> Result<()> {
    let all = |points: &dyn Fn(Features) -> Vec<(usize, f64)>| -> Vec<Curve> {
        let curve = |features: Features| Curve {
            name: features.name().to_owned(),
            points: points(features).into_iter().map(|(x, y)| (x as f64, y)).collect(),
        };
        kinds(&seen.tallies).into_iter().map(curve).collect()
    };
    // A line over all that the others reach over.
    let chance = |others: &[Curve]| {
        let places = others.iter().flat_map(|curve| &curve.points).map(|point| (point.0, seen.chance));
        let mut points: Vec<(f64, f64)> = places.collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points.dedup();
        Curve { name: "chance".to_owned(), points }
    };
    let known = |values: Vec<(usize, Option<f64>)>| values.into_iter().filter_map(|(x, y)| Some((x, y?))).collect();
    let correlation = |features: Features| -> Vec<(usize, f64)> {
        let of_kind = seen.tallies.iter().filter(|((of, _), _)| *of == features);
        known(of_kind.map(|((_, layer), tally)| (*layer, tally.correlation.value())).collect())
    };
    let absolute = |features: Features| -> Vec<(usize, f64)> {
        let found = by_distance(&seen.tallies, features).into_iter();
        known(found.map(|(distance, found)| (distance, found.pck())).collect())
    };
    let mut by_layer = all(&|features| by_layer(&seen.tallies, features));
    by_layer.push(chance(&by_layer));
    let mut absolute = all(&absolute);
    absolute.push(chance(&absolute));
    let relative = all(&|features| known(relative(&by_distance(&seen.tallies, features))));
    for (name, title, axes, lines) in [
        ("pck.png", "correspondence by layer", ("layer", "PCK@2"), by_layer),
        ("confidence.png", "confidence and success", ("layer", "Pearson's correlation"), all(&correlation)),
        ("distance.png", "correspondence by distance, all layers", ("frames apart", "PCK@2"), absolute),
        ("relative.png", "the same over that of neighbours", ("frames apart", "PCK@2 / PCK@2(1)"), relative),
    ] {
        curves(&out.join(name), title, axes, &lines)?;
    }
    Ok(())
}

/// A row a layer, a column a kind of features; behind a slash, the correlation of confidence and success.
fn table(seen: &Seen) -> String {
    let kinds: Vec<Features> = kinds(&seen.tallies).into_iter().collect();
    let names: Vec<&str> = kinds.iter().map(|features| features.name()).collect();
    let mut text = format!(
        "{} pairs in {} sets of frames of {} x {} tokens; PCK@2 / correlation, by chance {:.3}\n\n\
         | layer | {} |\n|{}\n",
        seen.pairs,
        seen.sets,
        seen.grid[0],
        seen.grid[1],
        seen.chance,
        names.join(" | "),
        " --- |".repeat(names.len() + 1)
    );
    let layers: BTreeSet<usize> = seen.tallies.keys().map(|(_, layer)| *layer).collect();
    let shown = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
    for layer in layers {
        let cell = |features: &Features| match seen.tallies.get(&(*features, layer)) {
            Some(tally) => format!("{} / {}", shown(tally.all.pck()), shown(tally.correlation.value())),
            None => String::new(),
        };
        text += &format!("| {layer} | {} |\n", kinds.iter().map(cell).collect::<Vec<_>>().join(" | "));
    }
    for features in kinds {
        if let Some((mean, best, pck)) = summary(&seen.tallies, features) {
            text += &format!("{}: mean {mean:.3}, best {pck:.3} at layer {best}\n", features.name());
        }
    }
    if seen.unreadable > 0 {
        text += &format!("{} sets could not be read\n", seen.unreadable);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_drawn_by_their_distance_and_share_no_frame() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut count = [0; DISTANCES + 1];
        for set in 0..240 {
            let pairs = draw(25, set * 4..set * 4 + 4, &mut rng);
            let frames: BTreeSet<usize> = pairs.iter().flat_map(|(a, b)| [*a, *b]).collect();
            assert_eq!(frames.len(), 2 * pairs.len());
            assert!(frames.iter().all(|&frame| frame < 25));
            pairs.iter().for_each(|(a, b)| count[b - a] += 1);
        }
        // 40 of each were asked for; rarely one finds no place beside the others.
        assert!(count[1..].iter().all(|&n| (36..=40).contains(&n)), "{count:?}");
        let short = draw(3, 0..6, &mut rng);
        assert!(!short.is_empty() && short.iter().all(|(a, b)| b - a <= 2 && *b < 3));
        assert!(draw(1, 0..4, &mut rng).is_empty() && draw(0, 0..4, &mut rng).is_empty());
    }

    #[test]
    fn a_stretch_lies_in_its_film() {
        let film = |anchor| Film::Recorded { sequence: 0, anchor };
        assert_eq!(stretch(film(10), Some(100)), (10, 25));
        assert_eq!(stretch(film(90), Some(100)), (75, 25));
        assert_eq!(stretch(film(2), Some(7)), (0, 7));
        assert_eq!(stretch(Film::Synthetic(3), None), (0, 25));
    }

    #[test]
    fn figures_are_summed_over_layers_and_set_beside_those_of_neighbours() {
        let mut tallies = Tallies::new();
        for layer in 0..2 {
            let tally = tallies.entry((Features::QueryKey, layer)).or_default();
            for k in 0..10 {
                tally.push(1, k < 8, 0.1 * k as f64);
                tally.push(5, k < 2 + 2 * layer, 0.5);
            }
        }
        let found = by_distance(&tallies, Features::QueryKey);
        assert_eq!(found.iter().map(|(d, f)| (*d, f.hits, f.matches)).collect::<Vec<_>>(), [(1, 16, 20), (5, 6, 20)]);
        let ratios = relative(&found);
        assert!((ratios[0].1.unwrap() - 1.0).abs() < 1e-12 && (ratios[1].1.unwrap() - 0.375).abs() < 1e-12);
        assert_eq!(relative(&found[1..])[0].1, None, "no neighbours to compare with");
        let (mean, best, pck) = summary(&tallies, Features::QueryKey).unwrap();
        assert!((mean - 0.55).abs() < 1e-12 && best == 1 && (pck - 0.6).abs() < 1e-12);
        assert!(summary(&tallies, Features::Head).is_none());

        let seen = Seen { tallies, grid: [24, 18], sets: 1, pairs: 2, unreadable: 1, chance: 0.03 };
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &seen).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("pck.csv").lines().count(), 3);
        assert!(read("distance.csv").contains("qk,5,0.300000,0.375000,20"), "{}", read("distance.csv"));
        for name in ["pck.png", "confidence.png", "distance.png", "relative.png"] {
            assert!(dir.path().join(name).is_file(), "{name}");
        }
        let text = table(&seen);
        assert!(text.contains("| 1 | 0.600 /") && text.contains("best 0.600 at layer 1"), "{text}");
        assert!(text.contains("by chance 0.030") && text.contains("1 sets could not be read"), "{text}");
    }

    #[test]
    fn sizes_are_width_and_height() {
        assert_eq!(size("768x576"), Ok([768, 576]));
        assert!(["768", "ax3", "3x", ""].iter().all(|text| size(text).is_err()));
    }
}
