//! Where requests from outside meet the threads: the lifecycle's state, the parameters and the reset.
//!
//! Architecture Invariant: no request waits for the model. What takes seconds is a [`Job`] of the inference thread, and the
//! answer is sent when that thread says that it is done.

use std::mem::take;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam::channel::Sender;

use super::gate::Gate;
use super::{Live, SharedLive, stamp};
use crate::ros::call::{Call, Reply};
use crate::ros::lifecycle::{ACTIVATE, CLEANUP, CONFIGURE, DEACTIVATE, Edge, GRAPH, Machine, Outcome, State};
use crate::ros::message::{Output, ParameterEventMessage, TransitionMessage};
use crate::ros::parameters::{Parameters, Value};
use crate::status::counters::Stats;

/// Work for the inference thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Job {
    /// Load the model.
    Load,
    /// Give its memory back.
    Unload,
}

/// What the ingest thread is to tell.
#[derive(Debug, Clone)]
pub(super) enum Notice {
    /// The state of the lifecycle has changed.
    Transition(TransitionMessage),
    /// Parameters have.
    Parameters(ParameterEventMessage),
    /// Something else has that a report should not wait with.
    Changed,
}

impl Notice {
    /// Whether a report should not wait with it.
    pub fn calls_for_report(&self) -> bool {
        matches!(self, Self::Transition(_) | Self::Changed)
    }

    /// What is published of it.
    pub fn output(self) -> Option<Output> {
        match self {
            Self::Transition(transition) => Some(Output::Transition(transition)),
            Self::Parameters(event) => Some(Output::ParameterEvent(event)),
            Self::Changed => None,
        }
    }
}

/// Shared by the transport, which brings requests, and the inference thread, which ends transitions.
pub(super) struct Control {
    inner: Mutex<Inner>,
    jobs: Sender<Job>,
    notices: Sender<Notice>,
    gate: Arc<Gate>,
    live: SharedLive,
    stats: Arc<Stats>,
}

struct Inner {
    machine: Machine,
    parameters: Parameters,
    /// Who asked for the transition that a job is at.
    pending: Option<Reply<bool>>,
    /// The node is on its own way to active.
    is_starting: bool,
}

/// What [`Control`] is made of.
pub(super) struct Parts {
    pub parameters: Parameters,
    pub jobs: Sender<Job>,
    pub notices: Sender<Notice>,
    pub gate: Arc<Gate>,
    pub live: SharedLive,
    pub stats: Arc<Stats>,
}

impl Control {
    pub fn new(parts: Parts) -> Self {
        let Parts { parameters, jobs, notices, gate, live, stats } = parts;
        let inner = Inner { machine: Machine::default(), parameters, pending: None, is_starting: false };
        Self { inner: Mutex::new(inner), jobs, notices, gate, live, stats }
    }

    /// Says what parameters there are.
    pub fn declare(&self) {
        let new = self.lock().parameters.all();
        self.tell_parameters(new, Vec::new());
    }

    /// Configures the node and, when that is done, activates it.
    pub fn start(&self) {
        let mut inner = self.lock();
        if let Ok(edge) = inner.machine.begin(CONFIGURE, "") {
            inner.is_starting = true;
            self.enter(&mut inner, &edge);
        }
    }

    /// Answers a request, now or when its job is done.
    pub fn call(&self, call: Call) {
        match call {
            Call::ChangeState { id, label, reply } => self.change_state(id, &label, reply),
            Call::GetState(reply) => {
                let state = self.lock().machine.state();
                reply(state);
            }
            Call::GetAvailableStates(reply) => reply(State::ALL.to_vec()),
            Call::GetAvailableTransitions(reply) => {
                let edges = self.lock().machine.available().collect();
                reply(edges);
            }
            Call::GetTransitionGraph(reply) => reply(GRAPH.to_vec()),
            Call::Reset(reply) => reply(self.reset()),
            Call::GetParameters(names, reply) => {
                let inner = self.lock();
                let values = names.iter().map(|name| inner.parameters.get(name)).collect();
                drop(inner);
                reply(values);
            }
            Call::ListParameters { prefixes, depth, reply } => {
                let listing = self.lock().parameters.list(&prefixes, depth);
                reply(listing);
            }
            Call::DescribeParameters(names, reply) => {
                let inner = self.lock();
                let descriptors = names.iter().map(|name| inner.parameters.describe(name)).collect();
                drop(inner);
                reply(descriptors);
            }
            Call::SetParameters(changes, reply) => {
                reply(changes.iter().map(|change| self.set(std::slice::from_ref(change))).collect());
            }
            Call::SetParametersAtomically(changes, reply) => reply(self.set(&changes)),
        }
    }

    /// The inference thread has done its job, or could not.
    ///
    /// # Errors
    ///
    /// The job's own, where the node was starting by itself and cannot.
    pub fn done(&self, result: Result<(), String>) -> Result<(), String> {
        let mut inner = self.lock();
        let (outcome, problem) = match &result {
            Ok(()) => (Outcome::Success, ""),
            Err(problem) => (Outcome::Failure, problem.as_str()),
        };
        if let Some(edge) = inner.machine.end(outcome) {
            self.tell(&edge, problem);
        }
        let pending = inner.pending.take();
        let was_starting = take(&mut inner.is_starting);
        if was_starting
            && result.is_ok()
            && let Ok(edge) = inner.machine.begin(ACTIVATE, "")
        {
            self.enter(&mut inner, &edge);
        }
        drop(inner);
        if let Some(reply) = pending {
            reply(result.is_ok());
        }
        if was_starting { result } else { Ok(()) }
    }

    /// The model has failed, and is gone already: back to unconfigured by way of error processing.
    pub fn failed(&self, problem: &str) {
        tracing::error!("the model is given up: {problem}");
        let mut inner = self.lock();
        let way_out = match inner.machine.state() {
            State::Active => DEACTIVATE,
            State::Inactive => CLEANUP,
            // A job that ends this is on its way.
            _ => return,
        };
        self.gate.close();
        let edges = [
            inner.machine.begin(way_out, "").ok(),
            inner.machine.end(Outcome::Error),
            inner.machine.end(Outcome::Success),
        ];
        edges.iter().flatten().for_each(|edge| self.tell(edge, problem));
    }

    fn change_state(&self, id: u8, label: &str, reply: Reply<bool>) {
        let mut inner = self.lock();
        let edge = match inner.machine.begin(id, label) {
            Ok(edge) => edge,
            Err(refused) => {
                drop(inner);
                tracing::warn!("change_state: {refused}");
                reply(false);
                return;
            }
        };
        if self.enter(&mut inner, &edge) {
            drop(inner);
            reply(true);
        } else {
            inner.pending = Some(reply);
        }
    }

    /// Does what a transition that has begun asks for; whether that is done, or else a job that [`Self::done`] ends.
    fn enter(&self, inner: &mut Inner, edge: &Edge) -> bool {
        self.tell(edge, "");
        let job = match edge.goal {
            State::Configuring => Some(Job::Load),
            State::Activating => {
                self.gate.open();
                None
            }
            State::Deactivating => {
                self.gate.close();
                None
            }
            _ => {
                self.gate.close();
                Some(Job::Unload)
            }
        };
        if let Some(job) = job {
            // Where the inference thread has gone the node is stopping, and there is nobody to answer.
            let _ = self.jobs.send(job);
            return false;
        }
        if let Some(edge) = inner.machine.end(Outcome::Success) {
            self.tell(&edge, "");
        }
        true
    }

    fn reset(&self) -> Result<String, String> {
        let inner = self.lock();
        match inner.machine.state() {
            State::Active | State::Inactive => {
                self.gate.renew();
                tracing::info!("the odometry starts again");
                Ok("the odometry starts again at its origin; frames from before count no more".to_owned())
            }
            state => Err(format!("there is no odometry while the node is {state}")),
        }
    }

    fn set(&self, changes: &[(String, Value)]) -> Result<(), String> {
        let mut inner = self.lock();
        let set = inner.parameters.set(changes);
        let names = || changes.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        match set {
            Ok(config) => {
                self.live.set(&Live::from(&config));
                tracing::info!(parameters = names(), "set");
                let held = changes.iter().map(|(name, _)| (name.clone(), inner.parameters.get(name)));
                self.tell_parameters(Vec::new(), held.collect());
                let _ = self.notices.send(Notice::Changed);
                Ok(())
            }
            Err(reason) => {
                tracing::warn!(parameters = names(), "not set: {reason}");
                Err(reason)
            }
        }
    }

    /// Has it published what parameters hold.
    fn tell_parameters(&self, new: Vec<(String, Value)>, changed: Vec<(String, Value)>) {
        let stamp = stamp(&self.live.get(), &self.stats);
        let _ = self.notices.send(Notice::Parameters(ParameterEventMessage { stamp, new, changed }));
    }

    /// Counts a transition and has it published.
    fn tell(&self, edge: &Edge, problem: &str) {
        self.stats.update(|s| {
            s.lifecycle = edge.goal;
            s.lifecycle_problem.clear();
            s.lifecycle_problem.push_str(problem);
        });
        match edge.goal {
            State::Active => tracing::info!("ready"),
            goal => tracing::info!(from = %edge.start, to = %goal, "lifecycle"),
        }
        let stamp = stamp(&self.live.get(), &self.stats);
        // Nobody listens where the node is stopping.
        let _ = self.notices.send(Notice::Transition(TransitionMessage { stamp, edge: *edge }));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each change of the state is whole before the next one begins.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
