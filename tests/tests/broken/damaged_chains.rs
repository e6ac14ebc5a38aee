//! Checkpoints and shards, which say what is in them: damage is refused by name, or made good.

use std::path::Path;

use crate::damage::Damage;
use crate::files::{assert_same, copy};
use crate::programs::{end, run, run_config, succeed, training};
use crate::rounds::{Draw, rounds};

#[test]
#[ignore = "needs the programs of cargo xtask"]
fn a_damaged_checkpoint_is_not_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let config = run_config(&dir.path().join("run.toml"), 2, None);
    let [undisturbed, stopped, out] = ["undisturbed", "stopped", "out"].map(|name| dir.path().join(name));
    succeed(&mut run(&config, &undisturbed));
    // As behind its first step.
    copy(&undisturbed.join("checkpoints/step-000001"), &stopped.join("checkpoints/step-000001"));
    rounds(4, |round| {
        copy(&stopped, &out);
        let file = ["optimizer.safetensors", "variables.safetensors"][round as usize % 2];
        let path = out.join("checkpoints/step-000001").join(file);
        let bytes = std::fs::read(&path).unwrap();
        let damage = Damage::draw(&bytes, &mut Draw::new(round));
        std::fs::write(&path, damage.done_to(&bytes)).unwrap();
        let (succeeded, said) = end(&mut run(&config, &out));
        assert!(!succeeded && said.contains(file), "round {round}: {file}: {damage:?}: {said}");
        // Nothing but the damage was in the way.
        std::fs::write(&path, bytes).unwrap();
        succeed(&mut run(&config, &out));
        assert_same(&undisturbed, &out, &format!("round {round}"));
        std::fs::remove_dir_all(&out).unwrap();
    });
}

/// Does something to one of the shards, and says what.
fn spoil(out: &Path, shard: &str, draw: &mut Draw) -> String {
    let path = out.join(shard);
    let bytes = std::fs::read(&path).unwrap();
    match draw.below(4) {
        0 => {
            std::fs::remove_file(&path).unwrap();
            "removed".to_owned()
        }
        _ => {
            let damage = Damage::draw(&bytes, draw);
            std::fs::write(&path, damage.done_to(&bytes)).unwrap();
            format!("{damage:?}")
        }
    }
}

#[test]
#[ignore = "needs the programs of cargo xtask"]
fn a_damaged_shard_is_not_trained_on_and_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let [undisturbed, out, trained] = ["undisturbed", "out", "trained"].map(|name| dir.path().join(name));
    let chains = |out: &Path| {
        let mut command = training(&["chains", "--data", "synth:seed=1,windows=6,size=64x48", "--max-pixels", "3072"]);
        command.args(["--per-shard", "2", "--workers", "1", "--out"]).arg(out);
        command
    };
    succeed(&mut chains(&undisturbed));
    let config = run_config(&dir.path().join("undisturbed.toml"), 1, Some(&undisturbed));
    succeed(&mut run(&config, &trained));
    let config = run_config(&dir.path().join("run.toml"), 1, Some(&out));
    rounds(4, |round| {
        copy(&undisturbed, &out);
        let mut draw = Draw::new(round);
        let shard = format!("chains-{:06}.tar", draw.below(3));
        let what = format!("round {round}: {shard}: {}", spoil(&out, &shard, &mut draw));
        let (succeeded, said) = end(&mut run(&config, &dir.path().join("none")));
        assert!(!succeeded && said.contains(&shard), "{what}: {said}");
        succeed(&mut chains(&out));
        assert_same(&undisturbed, &out, &what);
        std::fs::remove_dir_all(&out).unwrap();
    });
}
