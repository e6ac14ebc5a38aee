//! The services of the node: parameters, lifecycle, reset.

use futures::{Stream, StreamExt};
use r2r::builtin_interfaces::msg::Time;
use r2r::lifecycle_msgs::msg::{State, Transition, TransitionDescription, TransitionEvent};
use r2r::lifecycle_msgs::srv::{ChangeState, GetAvailableStates, GetAvailableTransitions, GetState};
use r2r::rcl_interfaces::msg::{
    IntegerRange, ListParametersResult, Parameter, ParameterDescriptor, ParameterEvent, ParameterValue,
    SetParametersResult,
};
use r2r::rcl_interfaces::srv::{
    DescribeParameters, GetParameterTypes, GetParameters, ListParameters, SetParameters, SetParametersAtomically,
};
use r2r::std_srvs::srv::Trigger;
use r2r::{Node, QosProfile, WrappedServiceTypeSupport};

use super::{Error, middleware};
use crate::ros::call::{Call, Reply};
use crate::ros::lifecycle;
use crate::ros::message::{ParameterEventMessage, TransitionMessage};
use crate::ros::parameters::{Descriptor, Listing, Value};

/// The requests of a service, as calls whose answers go back by themselves.
pub(super) type Calls = Box<dyn Stream<Item = Call> + Send + Unpin>;

pub(super) fn all(node: &mut Node) -> Result<Vec<Calls>, Error> {
    let change_state = |request: ChangeState::Request, reply| {
        let Transition { id, label } = request.transition;
        Call::ChangeState { id, label, reply }
    };
    let list = |request: ListParameters::Request, reply| Call::ListParameters {
        prefixes: request.prefixes,
        depth: request.depth,
        reply,
    };
    let edges = |edges: Vec<lifecycle::Edge>| GetAvailableTransitions::Response {
        available_transitions: edges.into_iter().map(description).collect(),
    };
    Ok(vec![
        serve::<ChangeState::Service, bool>(node, "~/change_state", change_state, |success| ChangeState::Response {
            success,
        })?,
        serve::<GetState::Service, _>(
            node,
            "~/get_state",
            |_, reply| Call::GetState(reply),
            |now| GetState::Response { current_state: state(now) },
        )?,
        serve::<GetAvailableStates::Service, _>(
            node,
            "~/get_available_states",
            |_, reply| Call::GetAvailableStates(reply),
            |states| GetAvailableStates::Response { available_states: states.into_iter().map(state).collect() },
        )?,
        serve::<GetAvailableTransitions::Service, _>(
            node,
            "~/get_available_transitions",
            |_, reply| Call::GetAvailableTransitions(reply),
            edges,
        )?,
        serve::<GetAvailableTransitions::Service, _>(
            node,
            "~/get_transition_graph",
            |_, reply| Call::GetTransitionGraph(reply),
            edges,
        )?,
        serve::<Trigger::Service, Result<String, String>>(
            node,
            "~/reset",
            |_, reply| Call::Reset(reply),
            |result| Trigger::Response { success: result.is_ok(), message: result.unwrap_or_else(|reason| reason) },
        )?,
        serve::<GetParameters::Service, _>(
            node,
            "~/get_parameters",
            |request, reply| Call::GetParameters(request.names, reply),
            |values| GetParameters::Response { values: values.into_iter().map(value_to).collect() },
        )?,
        serve::<GetParameterTypes::Service, _>(
            node,
            "~/get_parameter_types",
            |request, reply| Call::GetParameters(request.names, reply),
            |values| GetParameterTypes::Response { types: values.iter().map(Value::type_id).collect() },
        )?,
        serve::<ListParameters::Service, Listing>(node, "~/list_parameters", list, |found| ListParameters::Response {
            result: ListParametersResult { names: found.names, prefixes: found.prefixes },
        })?,
        serve::<DescribeParameters::Service, _>(
            node,
            "~/describe_parameters",
            |request, reply| Call::DescribeParameters(request.names, reply),
            |all| DescribeParameters::Response { descriptors: all.into_iter().map(descriptor).collect() },
        )?,
        serve::<SetParameters::Service, _>(
            node,
            "~/set_parameters",
            |request, reply| Call::SetParameters(changes(request.parameters), reply),
            |all| SetParameters::Response { results: all.into_iter().map(set_result).collect() },
        )?,
        serve::<SetParametersAtomically::Service, _>(
            node,
            "~/set_parameters_atomically",
            |request, reply| Call::SetParametersAtomically(changes(request.parameters), reply),
            |result| SetParametersAtomically::Response { result: set_result(result) },
        )?,
    ])
}

fn serve<Service, Answer>(
    node: &mut Node,
    name: &'static str,
    ask: impl Fn(Service::Request, Reply<Answer>) -> Call + Send + 'static,
    response: impl Fn(Answer) -> Service::Response + Copy + Send + 'static,
) -> Result<Calls, Error>
where
    Service: WrappedServiceTypeSupport + 'static,
    Answer: 'static,
{
    let requests = node.create_service::<Service>(name, QosProfile::services_default());
    let requests = requests.map_err(|error| middleware(&format!("serve {name}"), &error))?;
    Ok(Box::new(requests.map(move |mut request| {
        let message = std::mem::take(&mut request.message);
        let reply = move |answer| {
            if let Err(error) = request.respond(response(answer)) {
                tracing::warn!(service = name, %error, "an answer was not sent");
            }
        };
        ask(message, Box::new(reply))
    })))
}

fn state(state: lifecycle::State) -> State {
    State { id: state.id(), label: state.label().to_owned() }
}

fn description(edge: lifecycle::Edge) -> TransitionDescription {
    TransitionDescription {
        transition: Transition { id: edge.id, label: edge.label.to_owned() },
        start_state: state(edge.start),
        goal_state: state(edge.goal),
    }
}

pub(super) fn transition_event_from(event: TransitionMessage) -> TransitionEvent {
    let TransitionDescription { transition, start_state, goal_state } = description(event.edge);
    TransitionEvent { timestamp: u64::try_from(event.stamp.nanos).unwrap_or(0), transition, start_state, goal_state }
}

/// An event of the node of this full name.
pub(super) fn parameter_event_from(event: ParameterEventMessage, node: String) -> ParameterEvent {
    let (sec, nanosec) = event.stamp.to_sec_nanosec();
    let parameters = |all: Vec<(String, Value)>| {
        all.into_iter().map(|(name, value)| Parameter { name, value: value_to(value) }).collect()
    };
    ParameterEvent {
        stamp: Time { sec, nanosec },
        node,
        new_parameters: parameters(event.new),
        changed_parameters: parameters(event.changed),
        deleted_parameters: Vec::new(),
    }
}

fn changes(parameters: Vec<Parameter>) -> Vec<(String, Value)> {
    parameters.into_iter().map(|parameter| (parameter.name, value_from(parameter.value))).collect()
}

/// The numbers of the types are those of `rcl_interfaces/ParameterType`.
fn value_from(value: ParameterValue) -> Value {
    match value.type_ {
        1 => Value::Bool(value.bool_value),
        2 => Value::Integer(value.integer_value),
        3 => Value::Double(value.double_value),
        4 => Value::Text(value.string_value),
        5 => Value::Foreign("a list of bytes"),
        6 => Value::Foreign("a list of bools"),
        7 => Value::Integers(value.integer_array_value),
        8 => Value::Doubles(value.double_array_value),
        9 => Value::Foreign("a list of strings"),
        _ => Value::Unset,
    }
}

fn value_to(value: Value) -> ParameterValue {
    let mut message = ParameterValue { type_: value.type_id(), ..ParameterValue::default() };
    match value {
        Value::Unset | Value::Foreign(_) => {}
        Value::Bool(value) => message.bool_value = value,
        Value::Integer(value) => message.integer_value = value,
        Value::Double(value) => message.double_value = value,
        Value::Text(value) => message.string_value = value,
        Value::Integers(values) => message.integer_array_value = values,
        Value::Doubles(values) => message.double_array_value = values,
    }
    message
}

fn set_result(result: Result<(), String>) -> SetParametersResult {
    SetParametersResult { successful: result.is_ok(), reason: result.err().unwrap_or_default() }
}

fn descriptor(descriptor: Descriptor) -> ParameterDescriptor {
    let range = |(from_value, to_value)| IntegerRange { from_value, to_value, step: 0 };
    ParameterDescriptor {
        name: descriptor.name,
        type_: descriptor.type_id,
        description: descriptor.description,
        additional_constraints: descriptor.constraints,
        read_only: descriptor.is_read_only,
        integer_range: descriptor.range.map(range).into_iter().collect(),
        ..ParameterDescriptor::default()
    }
}
