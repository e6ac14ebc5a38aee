//! A run that is killed, again and again, and gone on with.

use std::process::Stdio;
use std::time::{Duration, Instant};

use tests::process::Running;

use crate::files::assert_same;
use crate::programs::{run, run_config, succeed};
use crate::rounds::{Draw, rounds};

const STEPS: i64 = 4;
/// How often a run is started only to be killed.
const LIVES: usize = 4;
/// Of the time of a run that nobody kills: the longest life.
const LONGEST: f64 = 0.8;
const POLL: Duration = Duration::from_millis(2);

#[test]
#[ignore = "needs the programs of cargo xtask"]
fn a_run_that_is_killed_at_any_moment_ends_as_one_that_is_not_to_the_bit() {
    let dir = tempfile::tempdir().unwrap();
    let config = run_config(&dir.path().join("run.toml"), STEPS, None);
    let undisturbed = dir.path().join("undisturbed");
    let begun = Instant::now();
    succeed(&mut run(&config, &undisturbed));
    let took = begun.elapsed();
    let mut kills = 0;
    rounds(2, |round| {
        let mut draw = Draw::new(round);
        let out = dir.path().join("killed");
        for _ in 0..LIVES {
            let mut command = run(&config, &out);
            command.current_dir(tests::root()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            // Killed where it goes out of scope.
            let mut running = Running::new(command.spawn().unwrap());
            let until = Instant::now() + took.mul_f64(LONGEST * draw.share());
            while Instant::now() < until && running.exited().is_none() {
                std::thread::sleep(POLL);
            }
            match running.exited() {
                None => kills += 1,
                Some(status) => assert!(status.success(), "round {round}: {status}"),
            }
        }
        succeed(&mut run(&config, &out));
        assert_same(&undisturbed, &out, &format!("round {round}"));
        std::fs::remove_dir_all(&out).unwrap();
    });
    assert!(kills > 0, "nothing was killed");
}
