//! Requests and responses as serde structs. Those of parameters are ros2-client's own.

use camera::ros::Time;
use ros2_client::Message;
use ros2_client::parameters::raw;
use ros2_client::rcl_interfaces::ListParametersResult;
use serde::{Deserialize, Serialize};

use crate::ros::lifecycle;
use crate::ros::message::{ParameterEventMessage, TransitionMessage};
use crate::ros::parameters::{Descriptor, Listing, Value};

/// A request without fields, to which ROS 2 gives one.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(in crate::ros::transport) struct Empty {
    structure_needs_at_least_one_member: u8,
}

impl Message for Empty {}

/// `std_srvs/Trigger`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::ros::transport) struct Trigger {
    success: bool,
    message: String,
}

impl Message for Trigger {}

impl From<Result<String, String>> for Trigger {
    fn from(result: Result<String, String>) -> Self {
        Self { success: result.is_ok(), message: result.unwrap_or_else(|reason| reason) }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    id: u8,
    label: String,
}

impl From<lifecycle::State> for State {
    fn from(state: lifecycle::State) -> Self {
        Self { id: state.id(), label: state.label().to_owned() }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::ros::transport) struct Transition {
    pub(in crate::ros::transport) id: u8,
    pub(in crate::ros::transport) label: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct TransitionDescription {
    transition: Transition,
    start_state: State,
    goal_state: State,
}

impl From<lifecycle::Edge> for TransitionDescription {
    fn from(edge: lifecycle::Edge) -> Self {
        Self {
            transition: Transition { id: edge.id, label: edge.label.to_owned() },
            start_state: edge.start.into(),
            goal_state: edge.goal.into(),
        }
    }
}

/// On `~/transition_event`.
#[derive(Debug, Clone, Serialize)]
pub(in crate::ros::transport) struct TransitionEvent {
    timestamp_nanos: u64,
    description: TransitionDescription,
}

impl From<TransitionMessage> for TransitionEvent {
    fn from(event: TransitionMessage) -> Self {
        let timestamp_nanos = u64::try_from(event.stamp.nanos).unwrap_or(0);
        Self { timestamp_nanos, description: event.edge.into() }
    }
}

/// On `/parameter_events`.
#[derive(Debug, Clone, Serialize)]
pub(in crate::ros::transport) struct ParameterEvent {
    stamp: Time,
    node: String,
    new_parameters: Vec<raw::Parameter>,
    changed_parameters: Vec<raw::Parameter>,
    deleted_parameters: Vec<raw::Parameter>,
}

impl ParameterEvent {
    /// An event of the node of this full name.
    pub(in crate::ros::transport) fn new(event: ParameterEventMessage, node: String) -> Self {
        let listed = |parameters: Vec<(String, Value)>| {
            parameters.into_iter().map(|(name, held)| raw::Parameter { name, value: value(held) }).collect()
        };
        Self {
            stamp: event.stamp.into(),
            node,
            new_parameters: listed(event.new),
            changed_parameters: listed(event.changed),
            deleted_parameters: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::ros::transport) struct ChangeStateRequest {
    pub(in crate::ros::transport) transition: Transition,
}

impl Message for ChangeStateRequest {}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(in crate::ros::transport) struct ChangeStateResponse {
    success: bool,
}

impl Message for ChangeStateResponse {}

impl From<bool> for ChangeStateResponse {
    fn from(success: bool) -> Self {
        Self { success }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::ros::transport) struct GetState {
    current_state: State,
}

impl Message for GetState {}

impl From<lifecycle::State> for GetState {
    fn from(state: lifecycle::State) -> Self {
        Self { current_state: state.into() }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::ros::transport) struct GetAvailableStates {
    available_states: Vec<State>,
}

impl Message for GetAvailableStates {}

impl From<Vec<lifecycle::State>> for GetAvailableStates {
    fn from(states: Vec<lifecycle::State>) -> Self {
        Self { available_states: states.into_iter().map(State::from).collect() }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::ros::transport) struct GetAvailableTransitions {
    available_transitions: Vec<TransitionDescription>,
}

impl Message for GetAvailableTransitions {}

impl From<Vec<lifecycle::Edge>> for GetAvailableTransitions {
    fn from(edges: Vec<lifecycle::Edge>) -> Self {
        Self { available_transitions: edges.into_iter().map(TransitionDescription::from).collect() }
    }
}

impl From<ros2_client::ParameterValue> for Value {
    fn from(value: ros2_client::ParameterValue) -> Self {
        use ros2_client::ParameterValue as Wire;
        match value {
            Wire::NotSet => Self::Unset,
            Wire::Boolean(value) => Self::Bool(value),
            Wire::Integer(value) => Self::Integer(value),
            Wire::Double(value) => Self::Double(value),
            Wire::String(value) => Self::Text(value),
            Wire::IntegerArray(values) => Self::Integers(values),
            Wire::DoubleArray(values) => Self::Doubles(values),
            Wire::ByteArray(_) => Self::Foreign("a list of bytes"),
            Wire::BooleanArray(_) => Self::Foreign("a list of bools"),
            Wire::StringArray(_) => Self::Foreign("a list of strings"),
        }
    }
}

impl From<Value> for ros2_client::ParameterValue {
    fn from(value: Value) -> Self {
        match value {
            Value::Unset | Value::Foreign(_) => Self::NotSet,
            Value::Bool(value) => Self::Boolean(value),
            Value::Integer(value) => Self::Integer(value),
            Value::Double(value) => Self::Double(value),
            Value::Text(value) => Self::String(value),
            Value::Integers(values) => Self::IntegerArray(values),
            Value::Doubles(values) => Self::DoubleArray(values),
        }
    }
}

/// What a request wants set.
pub(in crate::ros::transport) fn changes(parameters: Vec<raw::Parameter>) -> Vec<(String, Value)> {
    let change = |raw: raw::Parameter| (raw.name, ros2_client::ParameterValue::from(raw.value).into());
    parameters.into_iter().map(change).collect()
}

pub(in crate::ros::transport) fn value(value: Value) -> raw::ParameterValue {
    ros2_client::ParameterValue::from(value).into()
}

pub(in crate::ros::transport) fn set_result(result: Result<(), String>) -> raw::SetParametersResult {
    raw::SetParametersResult { successful: result.is_ok(), reason: result.err().unwrap_or_default() }
}

pub(in crate::ros::transport) fn descriptor(descriptor: Descriptor) -> raw::ParameterDescriptor {
    let range = |(from_value, to_value)| raw::IntegerRange { from_value, to_value, step: 0 };
    raw::ParameterDescriptor {
        name: descriptor.name,
        r#type: descriptor.type_id,
        description: descriptor.description,
        additional_constraints: descriptor.constraints,
        read_only: descriptor.is_read_only,
        dynamic_typing: false,
        floating_point_range: Vec::new(),
        integer_range: descriptor.range.map(range).into_iter().collect(),
    }
}

pub(in crate::ros::transport) fn listing(listing: Listing) -> ListParametersResult {
    ListParametersResult { names: listing.names, prefixes: listing.prefixes }
}
