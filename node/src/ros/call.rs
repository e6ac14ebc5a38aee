//! What other nodes ask of this one: the services, free of any ROS type. A transport makes a [`Call`] of each request and
//! sends the answer back when it comes, which for a transition is seconds later.

use crate::ros::lifecycle::{Edge, State};
use crate::ros::parameters::{Descriptor, Listing, Value};

/// Where an answer goes. Dropped without one where the node ends before there is any.
pub type Reply<Answer> = Box<dyn FnOnce(Answer) + Send>;

/// A request.
pub enum Call {
    /// `~/change_state`: the transition by its label, or else by its number; answered when it has ended.
    ChangeState {
        /// Its number in `lifecycle_msgs/Transition`.
        id: u8,
        /// Its label; empty where the number counts.
        label: String,
        /// Whether it succeeded.
        reply: Reply<bool>,
    },
    /// `~/get_state`.
    GetState(Reply<State>),
    /// `~/get_available_states`.
    GetAvailableStates(Reply<Vec<State>>),
    /// `~/get_available_transitions`.
    GetAvailableTransitions(Reply<Vec<Edge>>),
    /// `~/get_transition_graph`.
    GetTransitionGraph(Reply<Vec<Edge>>),
    /// `~/reset`: what was done, or why nothing was.
    Reset(Reply<Result<String, String>>),
    /// `~/get_parameters` and `~/get_parameter_types`, of these names.
    GetParameters(Vec<String>, Reply<Vec<Value>>),
    /// `~/list_parameters`.
    ListParameters {
        /// What the names start with; none for all.
        prefixes: Vec<String>,
        /// Levels below them; 0 for any.
        depth: u64,
        /// The names.
        reply: Reply<Listing>,
    },
    /// `~/describe_parameters`, of these names.
    DescribeParameters(Vec<String>, Reply<Vec<Descriptor>>),
    /// `~/set_parameters`: each for itself.
    SetParameters(Vec<(String, Value)>, Reply<Vec<Result<(), String>>>),
    /// `~/set_parameters_atomically`: all or none.
    SetParametersAtomically(Vec<(String, Value)>, Reply<Result<(), String>>),
}
