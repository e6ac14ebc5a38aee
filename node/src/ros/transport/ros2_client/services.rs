//! The services of the node: parameters, lifecycle, reset.
//!
//! RustDDS 0.15.1 writes one byte too many into each fragment that carries the identity of a request beside the sample,
//! which is how Fast DDS and Connext have it. Nobody can read such an answer, so one that would be cut into fragments is not
//! sent, and the log says so.

use futures::channel::oneshot;
use futures::executor::block_on;
use futures::future::{AbortRegistration, Abortable, join_all};
use futures::{FutureExt, StreamExt};
use ros2_client::rcl_interfaces::{
    DescribeParametersRequest, DescribeParametersResponse, GetParameterTypesRequest, GetParameterTypesResponse,
    GetParametersRequest, GetParametersResponse, ListParametersRequest, ListParametersResponse,
    SetParametersAtomicallyResponse, SetParametersRequest, SetParametersResponse,
};
use ros2_client::{Message, Server, ServiceMapping};
use serde::Serialize;

use super::super::Error;
use super::super::wire::service::{self, ChangeStateRequest, ChangeStateResponse, Empty, GetState, Trigger};
use super::super::wire::service::{GetAvailableStates, GetAvailableTransitions};
use super::Graph;
use crate::ros::call::{Call, Reply};
use crate::ros::parameters::Value;

/// Most bytes of an answer that one datagram takes on an Ethernet of 1,500 bytes: what RustDDS fills of it, less a heartbeat,
/// the header of a sample and that of its encoding.
const MAX_ANSWER: usize = 1452 - 32 - 48 - 4;

pub(super) struct Services {
    change_state: Server<ChangeStateRequest, ChangeStateResponse>,
    get_state: Server<Empty, GetState>,
    get_available_states: Server<Empty, GetAvailableStates>,
    get_available_transitions: Server<Empty, GetAvailableTransitions>,
    get_transition_graph: Server<Empty, GetAvailableTransitions>,
    reset: Server<Empty, Trigger>,
    get_parameters: Server<GetParametersRequest, GetParametersResponse>,
    get_parameter_types: Server<GetParameterTypesRequest, GetParameterTypesResponse>,
    list_parameters: Server<ListParametersRequest, ListParametersResponse>,
    describe_parameters: Server<DescribeParametersRequest, DescribeParametersResponse>,
    set_parameters: Server<SetParametersRequest, SetParametersResponse>,
    set_parameters_atomically: Server<SetParametersRequest, SetParametersAtomicallyResponse>,
}

impl Services {
    pub(super) fn new(graph: &mut Graph<'_>) -> Result<Self, Error> {
        const LIFECYCLE: &str = "lifecycle_msgs";
        const PARAMETERS: &str = "rcl_interfaces";
        Ok(Self {
            change_state: graph.serve("~/change_state", LIFECYCLE, "ChangeState")?,
            get_state: graph.serve("~/get_state", LIFECYCLE, "GetState")?,
            get_available_states: graph.serve("~/get_available_states", LIFECYCLE, "GetAvailableStates")?,
            get_available_transitions: graph.serve(
                "~/get_available_transitions",
                LIFECYCLE,
                "GetAvailableTransitions",
            )?,
            get_transition_graph: graph.serve("~/get_transition_graph", LIFECYCLE, "GetAvailableTransitions")?,
            reset: graph.serve("~/reset", "std_srvs", "Trigger")?,
            get_parameters: graph.serve("~/get_parameters", PARAMETERS, "GetParameters")?,
            get_parameter_types: graph.serve("~/get_parameter_types", PARAMETERS, "GetParameterTypes")?,
            list_parameters: graph.serve("~/list_parameters", PARAMETERS, "ListParameters")?,
            describe_parameters: graph.serve("~/describe_parameters", PARAMETERS, "DescribeParameters")?,
            set_parameters: graph.serve("~/set_parameters", PARAMETERS, "SetParameters")?,
            set_parameters_atomically: graph.serve(
                "~/set_parameters_atomically",
                PARAMETERS,
                "SetParametersAtomically",
            )?,
        })
    }

    /// The end of a service that is asked for least.
    pub(super) fn quiet(&mut self) -> &mut Server<Empty, Trigger> {
        &mut self.reset
    }

    /// Hands every request to `call` and sends its answer when it comes, until aborted.
    pub(super) fn run(&self, call: &dyn Fn(Call), registration: AbortRegistration) {
        let lifecycle = [
            serve(
                &self.change_state,
                |request, reply| {
                    let service::Transition { id, label } = request.transition;
                    call(Call::ChangeState { id, label, reply });
                },
                ChangeStateResponse::from,
            )
            .boxed_local(),
            serve(&self.get_state, |_, reply| call(Call::GetState(reply)), GetState::from).boxed_local(),
            serve(
                &self.get_available_states,
                |_, reply| call(Call::GetAvailableStates(reply)),
                GetAvailableStates::from,
            )
            .boxed_local(),
            serve(
                &self.get_available_transitions,
                |_, reply| call(Call::GetAvailableTransitions(reply)),
                GetAvailableTransitions::from,
            )
            .boxed_local(),
            serve(
                &self.get_transition_graph,
                |_, reply| call(Call::GetTransitionGraph(reply)),
                GetAvailableTransitions::from,
            )
            .boxed_local(),
            serve(&self.reset, |_, reply| call(Call::Reset(reply)), Trigger::from).boxed_local(),
        ];
        let parameters = [
            serve(
                &self.get_parameters,
                |request, reply| call(Call::GetParameters(request.names, reply)),
                |values: Vec<Value>| GetParametersResponse { values: values.into_iter().map(service::value).collect() },
            )
            .boxed_local(),
            serve(
                &self.get_parameter_types,
                |request, reply| call(Call::GetParameters(request.names, reply)),
                |values: Vec<Value>| GetParameterTypesResponse { values: values.iter().map(Value::type_id).collect() },
            )
            .boxed_local(),
            serve(
                &self.list_parameters,
                |request, reply| {
                    call(Call::ListParameters { prefixes: request.prefixes, depth: request.depth, reply });
                },
                |found| ListParametersResponse { result: service::listing(found) },
            )
            .boxed_local(),
            serve(
                &self.describe_parameters,
                |request, reply| call(Call::DescribeParameters(request.names, reply)),
                |all: Vec<_>| DescribeParametersResponse { values: all.into_iter().map(service::descriptor).collect() },
            )
            .boxed_local(),
            serve(
                &self.set_parameters,
                |request, reply| call(Call::SetParameters(service::changes(request.parameter), reply)),
                |all: Vec<_>| SetParametersResponse { results: all.into_iter().map(service::set_result).collect() },
            )
            .boxed_local(),
            serve(
                &self.set_parameters_atomically,
                |request, reply| call(Call::SetParametersAtomically(service::changes(request.parameter), reply)),
                |result| SetParametersAtomicallyResponse { result: service::set_result(result) },
            )
            .boxed_local(),
        ];
        // Aborted is the one way out: the streams of requests do not end.
        let _ = block_on(Abortable::new(join_all(lifecycle.into_iter().chain(parameters)), registration));
    }
}

/// Requests of the same service do not wait for each other's answers.
async fn serve<Request, Response, Answer>(
    server: &Server<Request, Response>,
    ask: impl Fn(Request, Reply<Answer>),
    response: impl Fn(Answer) -> Response,
) where
    Request: Message + 'static,
    Response: Message + 'static,
    Answer: Send + 'static,
{
    let (ask, response) = (&ask, &response);
    let answered = server.receive_request_stream().for_each_concurrent(None::<usize>, |received| async move {
        let (id, request) = match received {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(%error, "a request could not be read");
                return;
            }
        };
        let (reply, answer) = oneshot::channel();
        ask(request, Box::new(move |answer| drop(reply.send(answer))));
        // None where the node ends before there is one.
        let Ok(answer) = answer.await else { return };
        let response = response(answer);
        let bytes = length(&response);
        if bytes > MAX_ANSWER && mapping() == ServiceMapping::Enhanced {
            let kind = std::any::type_name::<Response>();
            tracing::error!(
                kind,
                bytes,
                MAX_ANSWER,
                "an answer is too long for this transport; ask for less, or use r2r"
            );
            return;
        }
        if let Err(error) = server.async_send_response(id, response).await {
            tracing::warn!(%error, "an answer was not sent");
        }
    });
    answered.await;
}

/// Bytes on the wire, without the four that name the encoding.
fn length(response: &impl Serialize) -> usize {
    camera::cdr::encode(response, 0).len() - 4
}

/// How requests go over DDS depends on the other side's middleware, of which nothing but the environment tells.
pub(super) fn mapping() -> ServiceMapping {
    match std::env::var("RMW_IMPLEMENTATION") {
        Ok(rmw) if rmw.contains("cyclonedds") => ServiceMapping::Cyclone,
        _ => ServiceMapping::Enhanced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ros::lifecycle::{GRAPH, State};
    use crate::ros::parameters::Listing;

    #[test]
    fn only_the_whole_graph_and_long_lists_of_parameters_are_too_long() {
        assert!(length(&GetAvailableStates::from(State::ALL.to_vec())) < MAX_ANSWER);
        assert!(length(&GetAvailableTransitions::from(GRAPH.to_vec())) > MAX_ANSWER);
        // A sequence's length, then each name with its own and an end of zero, at multiples of four.
        let names = vec!["window.stride".to_owned(); 3];
        let answer = ListParametersResponse { result: service::listing(Listing { names, prefixes: Vec::new() }) };
        assert_eq!(length(&answer), 4 + 3 * (4 + 16) - 2 + 2 + 4);
    }
}
