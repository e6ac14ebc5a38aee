//! Where the two clocks meet: an answer of the model held against the tracks of the same images.

use geometry::WindowTrajectory;

use super::solver::Answered;
use super::tracker::{self, Told, Tracked};
use crate::config::TrustRules;
use crate::status::counters::Stats;

/// What is made of an answer beside its own poses.
#[derive(Debug)]
pub struct Met {
    /// What the fast clock is to be told, where the answer is to be believed.
    pub told: Option<Told>,
    /// The poses of the window as the tracks have them, in metres as far as a scale is known.
    pub trajectory: Option<WindowTrajectory>,
}

/// Holds an answer against the tracks, and counts what comes of it.
pub fn meet(answered: &Answered, tracked: Option<&Tracked>, trust: &TrustRules, stats: &Stats) -> Met {
    let trajectory = tracked.and_then(Tracked::trajectory);
    let Some(said) = &answered.said else { return Met { told: None, trajectory } };
    let judged = tracked.map(|tracked| (tracker::judge(said, tracked, &trust.checks), tracked));
    let reason = judged.as_ref().and_then(|((_, reason), _)| reason.clone());
    // The tracks' own poses are no second opinion: they tell the unit of the model's depths and nothing else.
    let compared = judged.as_ref().filter(|_| !answered.poses_by_program);
    stats.update(|s| {
        s.agreement = compared.map(|((agreement, _), _)| *agreement);
        s.windows_compared += u64::from(compared.is_some());
        s.windows_contradicted += u64::from(reason.is_some());
    });
    if let Some(reason) = reason {
        tracing::debug!(window_id = answered.window_id, "the answer {reason}");
        stats.update(|s| s.last_problem = Some(format!("answer of window {}: {reason}", answered.window_id)));
        return Met { told: None, trajectory };
    }
    // What the checks of its own do not believe carries nothing either.
    let is_withheld = answered.judged.poses.is_err();
    let agreement = judged.map(|((agreement, _), tracked)| (agreement, tracked));
    let told =
        (!is_withheld).then(|| Told::Answered(Box::new(tracker::answer(&answered.stamps, said, agreement, trust))));
    Met { told, trajectory }
}
