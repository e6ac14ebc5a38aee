//! The thread that the model lives on: it loads it, asks it window by window, and gives it back.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crossbeam::channel::{Receiver, Sender, select};

use super::control::{Control, Job, Notice};
use super::ingest::Offered;
use super::{STOP_POLL, Shared};
use crate::config::{Mount, ScaleRules};
use crate::publish;
use crate::ros::message::Output;
use crate::solve::estimator::{self, Estimator};
use crate::solve::fusion;
use crate::solve::scale::{Reference, Scaler};
use crate::solve::solver::{Answered, Solved, Solver};
use crate::solve::tracker::{Told, Tracked};
use crate::status::counters::Fate;

/// Niceness of the model's threads over that of the others: where both want one core, the others have nine tenths of it.
const NICE: i32 = 10;

pub(super) struct InferenceThread<E: Estimator, Load> {
    /// `None` where there is no model.
    pub load: Option<Load>,
    /// From configuring to cleanup.
    pub solver: Option<Solver<E>>,
    pub newest: Receiver<Offered<E>>,
    /// To the fast clock, where the odometry is its own.
    pub tell: Option<Sender<(u64, Told)>>,
    pub jobs: Receiver<Job>,
    pub notices: Sender<Notice>,
    pub control: Arc<Control>,
    pub odom_frame: String,
    pub mount: Option<Mount>,
    pub scale: ScaleRules,
    /// What the scale is measured by.
    pub reference: Arc<Reference>,
    /// Whether a model that fails ends the node.
    pub is_fatal: bool,
    /// Of what the solver has stitched.
    pub generation: u64,
    /// The camera's frame that was last put on the static tree.
    pub mounted: Option<Arc<str>>,
    pub shared: Shared,
}

impl<E, Load> InferenceThread<E, Load>
where
    E: Estimator,
    Load: FnMut(Arc<AtomicBool>) -> Result<E, estimator::Error>,
{
    pub fn run(mut self) -> Result<(), String> {
        if self.tell.is_some() {
            give_way();
        }
        while !self.shared.is_stopped() {
            self.keep_up();
            let (mut job, mut offered) = (None, None);
            select! {
                recv(self.jobs) -> received => job = received.ok(),
                recv(self.newest) -> received => match received {
                    Ok(window) => offered = Some(window),
                    Err(_) => return Ok(()),
                },
                default(STOP_POLL) => {}
            }
            if let Some(job) = job {
                self.work(job)?;
            }
            if let Some(offered) = offered {
                self.answer(offered)?;
            }
        }
        Ok(())
    }

    /// Restarts the odometry where another generation has begun.
    fn keep_up(&mut self) {
        let generation = self.shared.gate.look().generation;
        if generation != self.generation {
            self.generation = generation;
            if let Some(solver) = &mut self.solver {
                solver.reset();
                let _ = self.notices.send(Notice::Changed);
            }
        }
    }

    fn work(&mut self, job: Job) -> Result<(), String> {
        self.keep_up();
        self.solver = None;
        self.shared.set_weights(None);
        let result = match job {
            Job::Unload => Ok(()),
            Job::Load => self.load(),
        };
        self.control.done(result)
    }

    fn load(&mut self) -> Result<(), String> {
        let Some(load) = &mut self.load else { return Ok(()) };
        let estimator = load(self.shared.gate.flag()).map_err(|e| e.to_string())?;
        self.shared.set_weights(estimator.weights());
        let rules = self.shared.live.get().trust;
        let scaler = Scaler::new(self.scale, Arc::clone(&self.reference));
        let solver = Solver::new(estimator, scaler, &rules, Arc::clone(&self.shared.stats));
        self.tell_tracker(Told::Loaded(solver.scale_errors()));
        self.solver = Some(solver);
        Ok(())
    }

    fn tell_tracker(&self, told: Told) {
        if let Some(tell) = &self.tell {
            // Where the ingest thread is gone the node is stopping.
            let _ = tell.send((self.generation, told));
        }
    }

    fn answer(&mut self, Offered { generation, window, tracked }: Offered<E>) -> Result<(), String> {
        self.keep_up();
        let frames = window.frames.clone();
        let drop_frames = |fate| frames.iter().for_each(|frame| frame.note(fate));
        let gate = &self.shared.gate;
        let Some(solver) = self.solver.as_mut().filter(|_| gate.admit(generation)) else {
            drop_frames(Fate::Forgotten);
            return Ok(());
        };
        solver.set_rules(&self.shared.live.get().trust);
        let id = window.id;
        let is_stopped = || self.shared.is_stopped() || !gate.is_wanted(generation);
        let before = self.shared.stats.snapshot().status;
        match solver.solve_unless(window, tracked.as_ref(), &is_stopped) {
            Err(problem) if self.is_fatal => return Err(problem.to_string()),
            Err(problem) => {
                drop_frames(Fate::Forgotten);
                // The next model does not know where this one was.
                solver.reset();
                self.solver = None;
                if self.tell.is_some() {
                    tracing::error!("the model is given up, the odometry goes on without it: {problem}");
                    self.tell_tracker(Told::Failed(problem.to_string()));
                } else {
                    self.control.failed(&problem.to_string());
                }
            }
            Ok(Solved::Stopped) => {
                if !self.shared.is_stopped() {
                    drop_frames(Fate::Forgotten);
                }
            }
            Ok(Solved::Broken(reason)) => {
                // As with answers: a lens may stay covered.
                let count = self.shared.stats.snapshot().windows_broken;
                if count.is_power_of_two() {
                    tracing::warn!(window_id = id, count, "window dropped: {reason}");
                }
            }
            Ok(Solved::Answered(answered)) => self.tell(generation, &answered, tracked.as_ref()),
        }
        if self.shared.stats.snapshot().status != before {
            let _ = self.notices.send(Notice::Changed);
        }
        Ok(())
    }

    fn tell(&mut self, generation: u64, answered: &Answered, tracked: Option<&Tracked>) {
        let id = answered.window_id;
        match &answered.judged.poses {
            Ok(_) => tracing::debug!(window_id = id, latency_millis = answered.latency.as_millis(), "answer"),
            Err(reason) => {
                tracing::debug!(window_id = id, text = answered.text, "answer dropped");
                // The first, second, fourth, eighth, ...: weights that do not fit the camera never stop.
                let counts = self.shared.stats.snapshot();
                let count = counts.answers_unparsed + counts.windows_withheld + counts.windows_unscaled;
                if count.is_power_of_two() {
                    tracing::warn!(window_id = id, count, "answer dropped: {reason}");
                }
            }
        }
        let outputs = if self.tell.is_some() { self.met(answered, tracked) } else { self.outputs(answered) };
        let mounts = outputs.iter().any(|output| matches!(output, Output::StaticTransform(_)));
        let mut is_out = false;
        self.shared.gate.pass(generation, || {
            outputs.into_iter().for_each(|output| self.shared.publish(output));
            is_out = true;
        });
        if mounts && is_out {
            self.mounted = Some(Arc::clone(&answered.view.frame_id));
        }
    }

    /// What an answer makes come out where the odometry is that of the tracks.
    fn met(&self, answered: &Answered, tracked: Option<&Tracked>) -> Vec<Output> {
        let live = self.shared.live.get();
        let met = fusion::meet(answered, tracked, &live.trust, &self.shared.stats);
        if let Some(told) = met.told {
            self.tell_tracker(told);
        }
        let reasoning = live.publish.reasoning.then(|| Output::Reasoning(answered.text.clone()));
        let trajectory = met.trajectory.map(|trajectory| publish::trajectory_of(answered, &trajectory));
        let trajectory = trajectory.or_else(|| publish::trajectory(answered)).map(Output::Trajectory);
        reasoning.into_iter().chain(trajectory).collect()
    }

    /// What an answer makes come out.
    fn outputs(&self, answered: &Answered) -> Vec<Output> {
        let on = self.shared.live.get().publish;
        let mut outputs = Vec::new();
        if on.reasoning {
            outputs.push(Output::Reasoning(answered.text.clone()));
        }
        if answered.judged.poses.is_err() {
            return outputs;
        }
        outputs.extend(publish::trajectory(answered).map(Output::Trajectory));
        let mount = self.mount.as_ref();
        outputs.extend(publish::odometry(answered, &self.odom_frame, mount).into_iter().map(Output::Odometry));
        let Some(mount) = mount else { return outputs };
        let camera_frame = &answered.view.frame_id;
        if on.static_tf && !camera_frame.is_empty() && self.mounted.as_ref() != Some(camera_frame) {
            outputs.push(Output::StaticTransform(publish::static_transform(answered.stamps[0], &answered.view, mount)));
        }
        if on.tf {
            outputs.extend(publish::transforms(answered, &self.odom_frame, mount).into_iter().map(Output::Transform));
        }
        outputs
    }
}

/// Lets the fast clock go first where cores are few: a window may come late, a pose may not. It is for the calling thread and
/// those that it starts from now on, as the model starts its own when it is loaded. Where the system refuses, nothing changes.
fn give_way() {
    // Elsewhere it would be for the whole process.
    if cfg!(target_os = "linux") {
        let _ = rustix::process::nice(NICE);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::{NICE, give_way};

    /// Of the calling thread.
    fn niceness() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        // The nineteenth field; the second is a name in brackets, which may have blanks.
        let (_, behind_name) = stat.rsplit_once(')').unwrap();
        behind_name.split_whitespace().nth(16).unwrap().parse().unwrap()
    }

    #[test]
    fn the_models_threads_give_way_and_no_others() {
        let before = niceness();
        let model = thread::spawn(|| {
            give_way();
            (niceness(), thread::spawn(niceness).join().unwrap())
        });
        let expected = (before + NICE).min(19);
        assert_eq!(model.join().unwrap(), (expected, expected));
        assert_eq!((niceness(), thread::spawn(niceness).join().unwrap()), (before, before));
    }
}
