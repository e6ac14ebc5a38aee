use super::Outcome::{Error, Failure, Success};
use super::State::{
    Activating, Active, CleaningUp, Configuring, Deactivating, ErrorProcessing, Finalized, Inactive, ShuttingDown,
    Unconfigured,
};
use super::{ACTIVATE, CLEANUP, CONFIGURE, DEACTIVATE, Edge, GRAPH, Machine, State};

/// A machine in `state`.
fn in_state(state: State) -> Machine {
    Machine { state }
}

#[test]
fn requests_are_taken_where_they_are_possible_and_nowhere_else() {
    // Of each transition that may be asked for: its number and label, where it starts, what follows.
    let possible = [
        (CONFIGURE, "configure", Unconfigured, Configuring),
        (CLEANUP, "cleanup", Inactive, CleaningUp),
        (ACTIVATE, "activate", Inactive, Activating),
        (DEACTIVATE, "deactivate", Active, Deactivating),
        (5, "shutdown", Unconfigured, ShuttingDown),
        (6, "shutdown", Inactive, ShuttingDown),
        (7, "shutdown", Active, ShuttingDown),
    ];
    for state in State::ALL {
        for id in 0..=u8::MAX {
            let mut machine = in_state(state);
            let row = possible.iter().find(|row| (row.0, row.2) == (id, state));
            match (machine.begin(id, ""), row) {
                (Ok(edge), Some(row)) => {
                    assert_eq!((edge.id, edge.label, edge.start, edge.goal), *row);
                    assert_eq!(machine.state(), row.3);
                }
                (Err(refused), None) => {
                    assert_eq!((machine.state(), refused.state), (state, state), "a refusal changes nothing");
                }
                (result, row) => panic!("{state}, {id}: {result:?}, expected {row:?}"),
            }
        }
        for label in ["configure", "cleanup", "activate", "deactivate", "shutdown", "transition_success", "destroy"] {
            let mut machine = in_state(state);
            let row = possible.iter().find(|row| (row.1, row.2) == (label, state));
            // The number says nothing where there is a label.
            let begun = machine.begin(CONFIGURE, label);
            assert_eq!(begun.ok().map(|edge| edge.goal), row.map(|row| row.3), "{state}, {label}");
        }
    }
}

#[test]
fn each_outcome_leads_from_each_transition_state_to_its_goal() {
    let rows = [
        (Configuring, [Inactive, Unconfigured, ErrorProcessing]),
        (CleaningUp, [Unconfigured, Inactive, ErrorProcessing]),
        (Activating, [Active, Inactive, ErrorProcessing]),
        (Deactivating, [Inactive, Active, ErrorProcessing]),
        (ShuttingDown, [Finalized, Finalized, ErrorProcessing]),
        (ErrorProcessing, [Unconfigured, Finalized, Finalized]),
    ];
    for state in State::ALL {
        let goals = rows.iter().find(|row| row.0 == state).map(|row| row.1);
        for (i, outcome) in [Success, Failure, Error].into_iter().enumerate() {
            let mut machine = in_state(state);
            let edge = machine.end(outcome);
            assert_eq!(edge.map(|edge| edge.goal), goals.map(|goals| goals[i]), "{state}, {outcome:?}");
            assert_eq!(machine.state(), goals.map_or(state, |goals| goals[i]));
        }
    }
}

#[test]
fn a_life_goes_through_all_primary_states_and_ends_where_nothing_is_possible() {
    let mut machine = Machine::default();
    assert_eq!(machine.state(), Unconfigured);
    let mut path = Vec::new();
    for label in ["configure", "activate", "deactivate", "cleanup", "configure", "activate", "shutdown"] {
        machine.begin(0, label).unwrap();
        path.push(machine.end(Success).unwrap().goal);
    }
    assert_eq!(path, [Inactive, Active, Inactive, Unconfigured, Inactive, Active, Finalized]);
    assert_eq!(machine.available().count(), 0);
    let refused = machine.begin(0, "configure").unwrap_err().to_string();
    assert_eq!(refused, "`configure` is not possible in finalized, expected nothing");
}

#[test]
fn a_failure_while_active_is_processed_and_the_node_can_be_configured_again() {
    let mut machine = in_state(Active);
    machine.begin(DEACTIVATE, "").unwrap();
    assert_eq!(machine.end(Error).map(|edge| (edge.id, edge.goal)), Some((42, ErrorProcessing)));
    let refused = machine.begin(CONFIGURE, "").unwrap_err().to_string();
    assert_eq!(refused, "transition 1 is not possible in errorprocessing, expected nothing");
    assert_eq!(machine.end(Success).map(|edge| (edge.id, edge.goal)), Some((60, Unconfigured)));
    assert!(machine.begin(CONFIGURE, "").is_ok());
}

#[test]
fn the_graph_has_each_number_once_and_is_what_is_available() {
    let mut ids: Vec<u8> = GRAPH.iter().map(|edge| edge.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), GRAPH.len());
    let available: usize = State::ALL.map(|state| in_state(state).available().count()).iter().sum();
    assert_eq!(available, GRAPH.len());
    let inactive: Vec<Edge> = in_state(Inactive).available().collect();
    let labels: Vec<(u8, &str)> = inactive.iter().map(|edge| (edge.id, edge.label)).collect();
    assert_eq!(labels, [(2, "cleanup"), (3, "activate"), (6, "shutdown")]);
    let ids = State::ALL.map(State::id);
    assert_eq!(ids, [1, 2, 3, 4, 10, 11, 12, 13, 14, 15]);
}
