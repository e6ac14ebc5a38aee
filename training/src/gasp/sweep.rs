//! Ablations: one run for each combination of some settings (ranks and layers, as in Table 4 of GASP's paper), and their
//! figures on the hold-out in one table.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use model::weights::manifest::{self, Manifest};
use toml::Table;

use super::{Config, FIGURES, run};
use crate::trainer::{self, Finished, Job};
use training_data::json::read;

/// A setting with the values that it takes.
type Axis = (String, Vec<String>);

/// One value of each setting.
type Combination = Vec<(String, String)>;

/// Trains each combination into a folder of its own below `out` and writes `sweep.md` and `sweep.csv`, which hold what
/// is there so far. Runs that are done already are not repeated with `--resume`. Gives the table.
///
/// `settings` are keys of the config with their values: `lora.r=16,64,128; gasp.layers=all,0-3+8`. The scale of an
/// adapter stays what it is where its rank changes alone.
///
/// # Errors
/// A text that is no list of settings, a key that the config lacks, and those of [`run`].
pub fn sweep(config: &Path, settings: &str, init: &Path, out: &Path, job: &Job) -> Result<(Finished, String)> {
    let text = std::fs::read_to_string(config).with_context(|| config.display().to_string())?;
    let base: Table = text.parse().with_context(|| config.display().to_string())?;
    let axes = axes(settings)?;
    let combinations = combinations(&axes);
    let configs = combinations.iter().map(|combination| {
        let changed = changed(&base, combination).with_context(|| format!("--sweep: {}", name(combination)))?;
        ensure!(changed.eval.is_some(), "--sweep: {}: expected [eval] to compare runs by", config.display());
        Ok(changed)
    });
    let configs = configs.collect::<Result<Vec<_>>>()?;
    let mut rows = Vec::new();
    for (combination, config) in combinations.iter().zip(&configs) {
        let folder = out.join(name(combination));
        let manifest = folder.join(manifest::FILE);
        if !(job.resume && manifest.is_file()) {
            tracing::info!(run = name(combination), "sweep");
            let resume = job.resume && trainer::is_begun(&folder)?;
            let finished = run(config, init, &folder, &Job { resume, ..job.clone() })?;
            if let Finished::Stopped { .. } = finished {
                return Ok((finished, markdown(&axes, &rows)));
            }
        }
        // Rank 0 alone writes them.
        if job.collective.rank() == 0 {
            rows.push((combination.clone(), figures(&manifest)?));
            let (text, table) = (markdown(&axes, &rows), csv(&axes, &rows));
            for (file, text) in [("sweep.md", text), ("sweep.csv", table)] {
                let path = out.join(file);
                std::fs::write(&path, text).with_context(|| path.display().to_string())?;
            }
        }
    }
    Ok((Finished::Done, markdown(&axes, &rows)))
}

/// `a.b=1,2; c=x` as settings with values.
fn axes(settings: &str) -> Result<Vec<Axis>> {
    let axis = |part: &str| {
        let (key, values) = part.split_once('=')?;
        let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
        let whole = !key.trim().is_empty() && values.iter().all(|value| !value.is_empty());
        whole.then(|| (key.trim().to_owned(), values))
    };
    let parts = settings.split(';').map(str::trim).filter(|part| !part.is_empty());
    let axes: Option<Vec<Axis>> = parts.map(axis).collect();
    match axes {
        Some(axes) if !axes.is_empty() => Ok(axes),
        _ => bail!("--sweep: expected KEY=VALUE,VALUE; KEY=VALUE, got {settings:?}"),
    }
}

/// Every combination, the last setting changing fastest.
fn combinations(axes: &[Axis]) -> Vec<Combination> {
    axes.iter().fold(vec![Vec::new()], |before, (key, values)| {
        let longer = |chosen: &Combination| -> Vec<Combination> {
            let with = |value: &String| [chosen.clone(), vec![(key.clone(), value.clone())]].concat();
            values.iter().map(with).collect()
        };
        before.iter().flat_map(longer).collect()
    })
}

/// Name of a combination's folder.
fn name(combination: &[(String, String)]) -> String {
    let parts: Vec<String> = combination.iter().map(|(key, value)| format!("{key}={value}")).collect();
    parts.join("_").replace('/', "-")
}

fn changed(base: &Table, combination: &[(String, String)]) -> Result<Config> {
    let mut table = base.clone();
    for (key, text) in combination {
        let old = place(&mut table, key)?;
        let before = old.clone();
        *old = parsed(&before, text).with_context(|| format!("{key}: expected what {before} is, got {text}"))?;
        let alone = !combination.iter().any(|(other, _)| other == "lora.alpha");
        if let (true, true, Some(r), Some(new)) = (key == "lora.r", alone, number(&before), text.parse::<f64>().ok()) {
            let alpha = place(&mut table, "lora.alpha")?;
            let old = number(alpha).context("lora.alpha: expected a number")?;
            *alpha = toml::Value::Float(old * new / r);
        }
    }
    let config: Config = table.try_into()?;
    config.check()?;
    Ok(config)
}

/// The value at a dotted key, which must be there.
fn place<'a>(table: &'a mut Table, key: &str) -> Result<&'a mut toml::Value> {
    let (path, last) = key.rsplit_once('.').unwrap_or(("", key));
    let mut inner = table;
    for part in path.split('.').filter(|part| !part.is_empty()) {
        inner =
            inner.get_mut(part).and_then(toml::Value::as_table_mut).with_context(|| format!("{key}: no such key"))?;
    }
    inner.get_mut(last).with_context(|| format!("{key}: no such key"))
}

/// A value of the kind that stands there.
fn parsed(before: &toml::Value, text: &str) -> Option<toml::Value> {
    Some(match before {
        toml::Value::String(_) => toml::Value::String(text.to_owned()),
        toml::Value::Integer(_) => toml::Value::Integer(text.parse().ok()?),
        toml::Value::Float(_) => toml::Value::Float(text.parse().ok()?),
        toml::Value::Boolean(_) => toml::Value::Boolean(text.parse().ok()?),
        _ => return None,
    })
}

fn number(value: &toml::Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|value| value as f64))
}

/// The last figures of a run on its hold-out, in the order of [`FIGURES`].
fn figures(manifest: &Path) -> Result<Vec<Option<f64>>> {
    let manifest: Manifest = read(manifest)?;
    let last = manifest.stages.last().and_then(|stage| stage.evaluations.last());
    Ok(FIGURES.iter().map(|name| last.and_then(|point| point.term(name))).collect())
}

fn cells<'a>(row: &'a (Combination, Vec<Option<f64>>), nothing: &'a str) -> impl Iterator<Item = String> + 'a {
    let values = row.0.iter().map(|(_, value)| value.clone());
    values.chain(row.1.iter().map(move |figure| figure.map_or(nothing.to_owned(), |figure| format!("{figure:.4}"))))
}

fn heads(axes: &[Axis]) -> Vec<&str> {
    axes.iter().map(|(key, _)| key.as_str()).chain(FIGURES.iter().copied()).collect()
}

fn markdown(axes: &[Axis], rows: &[(Combination, Vec<Option<f64>>)]) -> String {
    let heads = heads(axes);
    let mut text = format!("| {} |\n|{}\n", heads.join(" | "), " --- |".repeat(heads.len()));
    for row in rows {
        text += &format!("| {} |\n", cells(row, "-").collect::<Vec<_>>().join(" | "));
    }
    text
}

fn csv(axes: &[Axis], rows: &[(Combination, Vec<Option<f64>>)]) -> String {
    let lines = rows.iter().map(|row| cells(row, "").collect::<Vec<_>>().join(","));
    std::iter::once(heads(axes).join(",")).chain(lines).map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trainer::config::path_of;

    fn shipped() -> Table {
        std::fs::read_to_string(path_of("gasp.toml")).unwrap().parse().unwrap()
    }

    fn one(key: &str, value: &str) -> Combination {
        vec![(key.to_owned(), value.to_owned())]
    }

    #[test]
    fn settings_are_combined_and_named() {
        let axes = axes("lora.r=16, 64; gasp.layers=all,0-3+8;").unwrap();
        let all = combinations(&axes);
        let names: Vec<String> = all.iter().map(|combination| name(combination)).collect();
        assert_eq!(
            names,
            [
                "lora.r=16_gasp.layers=all",
                "lora.r=16_gasp.layers=0-3+8",
                "lora.r=64_gasp.layers=all",
                "lora.r=64_gasp.layers=0-3+8"
            ]
        );
        for text in ["", ";", "lora.r", "=3", "lora.r=", "lora.r=1,,2"] {
            assert!(super::axes(text).unwrap_err().to_string().contains("--sweep"), "{text}");
        }
    }

    #[test]
    fn a_value_has_the_kind_of_the_one_before_and_the_scale_of_an_adapter_stays() {
        let base = shipped();
        let before: Config = base.clone().try_into().unwrap();
        let of = |combination: &Combination| changed(&base, combination);
        let smaller = of(&one("lora.r", "16")).unwrap().lora.unwrap();
        assert!(smaller.r == 16 && (smaller.alpha - 32.0).abs() < 1e-9, "{smaller:?}");
        let scaled = of(&[one("lora.r", "16"), one("lora.alpha", "8.0")].concat()).unwrap().lora.unwrap();
        assert!(scaled.r == 16 && (scaled.alpha - 8.0).abs() < 1e-9, "{scaled:?}");
        // Layer 8 is a text, not a number.
        assert_eq!(of(&one("gasp.layers", "8")).unwrap().gasp.layers, "8");
        let tau = of(&one("gasp.tau", "0.1")).unwrap();
        assert_eq!(Config { gasp: before.gasp.clone(), ..tau }, before, "all else is as it was");
        for (key, value, part) in [
            ("lora.rank", "3", "lora.rank: no such key"),
            ("gasp.tau.x", "3", "gasp.tau.x: no such key"),
            ("lora.r", "many", "lora.r: expected"),
            ("gasp.tau", "0", "gasp.tau: expected"),
            ("gasp.layers", "some", "gasp.layers: expected"),
        ] {
            let error = format!("{:#}", of(&one(key, value)).unwrap_err());
            assert!(error.contains(part), "{key}: {error}");
        }
    }

    #[test]
    fn rows_hold_what_the_manifests_say() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifest.json");
        let text = r#"{"stages": [{"evaluations": [{"step": 3, "loss": 9}]},
                       {"evaluations": [{"step": 1, "loss": 3}, {"step": 2, "loss": 2.5, "lm": 1, "chance": null}]}]}"#;
        std::fs::write(&path, text).unwrap();
        let figures = figures(&path).unwrap();
        assert_eq!((figures.len(), figures[6]), (FIGURES.len(), None));
        let rows = [(one("lora.r", "16"), figures)];
        let axes = axes("lora.r=16").unwrap();
        let markdown = markdown(&axes, &rows);
        assert_eq!(markdown.lines().last(), Some("| 16 | 2.5000 | 1.0000 | - | - | - | - | - |"));
        let csv = csv(&axes, &rows);
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines, ["lora.r,loss,lm,correspondence,depth,pck_head,pck_qk,chance", "16,2.5000,1.0000,,,,,"]);
    }
}
