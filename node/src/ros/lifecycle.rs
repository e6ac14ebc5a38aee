//! The lifecycle of a managed node ([design.ros2.org](https://design.ros2.org/articles/node_lifecycle.html)) as a machine
//! without clock, threads or ROS: the states, transitions, numbers and labels are those of `lifecycle_msgs` and rcl, so that
//! `ros2 lifecycle` and lifecycle managers find what they know.
//!
//! ```text
//! unconfigured --configure--> inactive --activate--> active      each by way of a transition state, in which the node works;
//!       ^----------cleanup-------'  ^-----deactivate----'        `shutdown` leads from any of them to finalized
//! ```

use std::fmt;

/// Where the node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// No weights are loaded.
    #[default]
    Unconfigured = 1,
    /// Weights are loaded, nothing comes out.
    Inactive = 2,
    /// Windows are answered.
    Active = 3,
    /// The end.
    Finalized = 4,
    /// Weights are being loaded.
    Configuring = 10,
    /// Weights are being given back.
    CleaningUp = 11,
    /// On the way to the end.
    ShuttingDown = 12,
    /// About to answer windows.
    Activating = 13,
    /// About to stop.
    Deactivating = 14,
    /// Cleaning up behind a failure.
    ErrorProcessing = 15,
}

use State::{
    Activating, Active, CleaningUp, Configuring, Deactivating, ErrorProcessing, Finalized, Inactive, ShuttingDown,
    Unconfigured,
};

impl State {
    /// All states, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Unconfigured,
        Inactive,
        Active,
        Finalized,
        Configuring,
        CleaningUp,
        ShuttingDown,
        Activating,
        Deactivating,
        ErrorProcessing,
    ];

    /// Its number in `lifecycle_msgs/State`.
    #[must_use]
    pub fn id(self) -> u8 {
        self as u8
    }

    /// Its label there.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Unconfigured => "unconfigured",
            Inactive => "inactive",
            Active => "active",
            Finalized => "finalized",
            Configuring => "configuring",
            CleaningUp => "cleaningup",
            ShuttingDown => "shuttingdown",
            Activating => "activating",
            Deactivating => "deactivating",
            ErrorProcessing => "errorprocessing",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A transition: `lifecycle_msgs/TransitionDescription`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// Its number in `lifecycle_msgs/Transition`.
    pub id: u8,
    /// Its label.
    pub label: &'static str,
    /// Where it starts.
    pub start: State,
    /// Where it leads.
    pub goal: State,
}

/// How the work of a transition state ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As asked.
    Success,
    /// Not as asked, and nothing is left of the attempt.
    Failure,
    /// Something is left behind that must be cleaned up.
    Error,
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::Success => SUCCESS,
            Self::Failure => FAILURE,
            Self::Error => ERROR,
        }
    }
}

/// `configure`, from unconfigured.
pub const CONFIGURE: u8 = 1;
/// `cleanup`, from inactive.
pub const CLEANUP: u8 = 2;
/// `activate`, from inactive.
pub const ACTIVATE: u8 = 3;
/// `deactivate`, from active.
pub const DEACTIVATE: u8 = 4;

const SHUTDOWN: &str = "shutdown";
const SUCCESS: &str = "transition_success";
const FAILURE: &str = "transition_failure";
const ERROR: &str = "transition_error";

const fn edge(id: u8, label: &'static str, start: State, goal: State) -> Edge {
    Edge { id, label, start, goal }
}

/// All transitions, as rcl has them.
pub const GRAPH: [Edge; 25] = [
    edge(CONFIGURE, "configure", Unconfigured, Configuring),
    edge(10, SUCCESS, Configuring, Inactive),
    edge(11, FAILURE, Configuring, Unconfigured),
    edge(12, ERROR, Configuring, ErrorProcessing),
    edge(CLEANUP, "cleanup", Inactive, CleaningUp),
    edge(20, SUCCESS, CleaningUp, Unconfigured),
    edge(21, FAILURE, CleaningUp, Inactive),
    edge(22, ERROR, CleaningUp, ErrorProcessing),
    edge(ACTIVATE, "activate", Inactive, Activating),
    edge(30, SUCCESS, Activating, Active),
    edge(31, FAILURE, Activating, Inactive),
    edge(32, ERROR, Activating, ErrorProcessing),
    edge(DEACTIVATE, "deactivate", Active, Deactivating),
    edge(40, SUCCESS, Deactivating, Inactive),
    edge(41, FAILURE, Deactivating, Active),
    edge(42, ERROR, Deactivating, ErrorProcessing),
    edge(5, SHUTDOWN, Unconfigured, ShuttingDown),
    edge(6, SHUTDOWN, Inactive, ShuttingDown),
    edge(7, SHUTDOWN, Active, ShuttingDown),
    edge(50, SUCCESS, ShuttingDown, Finalized),
    edge(51, FAILURE, ShuttingDown, Finalized),
    edge(52, ERROR, ShuttingDown, ErrorProcessing),
    edge(60, SUCCESS, ErrorProcessing, Unconfigured),
    edge(61, FAILURE, ErrorProcessing, Finalized),
    edge(62, ERROR, ErrorProcessing, Finalized),
];

/// A request that the state does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{asked} is not possible in {state}, expected {expected}")]
pub struct Refused {
    /// The transition that was asked for.
    pub asked: String,
    /// The state.
    pub state: State,
    /// What is possible there.
    pub expected: String,
}

/// The machine.
#[derive(Debug, Default)]
pub struct Machine {
    state: State,
}

impl Machine {
    /// Where the node is.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The transitions that start here.
    pub fn available(&self) -> impl Iterator<Item = Edge> + use<> {
        let state = self.state;
        GRAPH.into_iter().filter(move |edge| edge.start == state)
    }

    /// Starts a transition; a label, where there is one, outweighs the number, which `ros2 service call` leaves at 0.
    ///
    /// # Errors
    ///
    /// [`Refused`] where the state has no such transition, or is itself one that the node works in.
    pub fn begin(&mut self, id: u8, label: &str) -> Result<Edge, Refused> {
        let is_meant = |edge: &Edge| if label.is_empty() { edge.id == id } else { edge.label == label };
        // What ends a transition is not for others to say.
        let is_public = |edge: &Edge| edge.id < 10;
        if let Some(edge) = self.available().filter(is_public).find(is_meant) {
            self.state = edge.goal;
            return Ok(edge);
        }
        let expected: Vec<String> =
            self.available().filter(is_public).map(|edge| format!("{} [{}]", edge.label, edge.id)).collect();
        Err(Refused {
            asked: if label.is_empty() { format!("transition {id}") } else { format!("`{label}`") },
            state: self.state,
            expected: if expected.is_empty() { "nothing".to_owned() } else { expected.join(", ") },
        })
    }

    /// Ends the transition under way; `None` where there is none.
    pub fn end(&mut self, outcome: Outcome) -> Option<Edge> {
        let edge = self.available().find(|edge| edge.label == outcome.label())?;
        self.state = edge.goal;
        Some(edge)
    }
}

#[cfg(test)]
mod tests;
