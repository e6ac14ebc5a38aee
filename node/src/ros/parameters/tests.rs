use std::path::{Path, PathBuf};

use super::{Parameters, Value};
use crate::config::keys::TABLE;
use crate::config::{Config, Sheet};

fn parameters() -> (Parameters, Config) {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/node.toml");
    let (sheet, config) = Sheet::load(&path, &[("camera.fx".to_owned(), "600".to_owned())]).unwrap();
    (Parameters::new(sheet), config)
}

fn set(parameters: &mut Parameters, changes: &[(&str, Value)]) -> Result<Config, String> {
    let changes: Vec<(String, Value)> =
        changes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    parameters.set(&changes)
}

#[test]
fn every_parameter_has_the_value_of_its_key_and_a_type() {
    let (parameters, _) = parameters();
    for spec in TABLE {
        let value = parameters.get(spec.name());
        assert_ne!(value, Value::Unset, "{}", spec.name());
        let descriptor = parameters.describe(spec.name());
        assert_eq!((descriptor.type_id, descriptor.is_read_only), (value.type_id(), !spec.is_live), "{}", spec.name());
    }
    let rows = [
        ("use_sim_time", Value::Bool(false), 1),
        ("window.stride", Value::Integer(1), 2),
        ("camera.fx", Value::Double(600.0), 3), // an override without a point
        ("topics.image", Value::Text("/camera/image_raw".to_owned()), 4),
        ("covariance.position_stddev_metres", Value::Doubles(vec![0.025, 0.05, 0.07, 0.09]), 8),
        ("no.such", Value::Unset, 0),
    ];
    for (name, value, type_id) in rows {
        assert_eq!((parameters.get(name), value.type_id()), (value, type_id), "{name}");
    }
    let unknown = parameters.describe("no.such");
    assert_eq!((unknown.name.as_str(), unknown.type_id, unknown.description.as_str()), ("no.such", 0, ""));
}

#[test]
fn names_are_listed_by_prefix_and_depth() {
    let (parameters, _) = parameters();
    let list = |prefixes: &[&str], depth| {
        let prefixes: Vec<String> = prefixes.iter().map(|p| (*p).to_owned()).collect();
        parameters.list(&prefixes, depth)
    };
    let all = list(&[], 0);
    assert_eq!(all.names.len(), TABLE.len());
    assert!(all.prefixes.contains(&"sanity".to_owned()));
    assert_eq!(list(&[], 1).names, ["use_sim_time"]);
    let sanity = ["sanity.max_step_metres", "sanity.max_step_degrees"];
    assert_eq!(list(&["sanity"], 0).names, sanity);
    assert_eq!(list(&["sanity"], 2).names, sanity);
    assert!(list(&["sanity"], 1).names.is_empty(), "the dot behind the prefix is a level");
    assert_eq!(list(&["sanity"], 0).prefixes, ["sanity"]);
    assert_eq!(list(&["sanity.max_step_metres"], 0).names, ["sanity.max_step_metres"]);
    assert!(list(&["sanit"], 0).names.is_empty());
}

#[test]
fn a_set_makes_the_config_that_it_says() {
    let (mut parameters, before) = parameters();
    let changes = [
        ("sanity.max_step_metres", Value::Double(2.5)),
        ("sanity.max_step_degrees", Value::Integer(45)),
        ("trust.lost_windows", Value::Integer(7)),
        ("covariance.position_stddev_metres", Value::Integers(vec![1, 2, 3, 4])),
        ("publish.reasoning", Value::Bool(false)),
        ("use_sim_time", Value::Bool(true)),
    ];
    let after = set(&mut parameters, &changes).unwrap();
    assert!((after.trust.sanity.max_step_metres - 2.5).abs() < 1e-12);
    assert!((after.trust.sanity.max_step_radians.to_degrees() - 45.0).abs() < 1e-9);
    assert_eq!(after.trust.status.lost_windows, 7);
    assert!((after.trust.covariance.position_stddev_metres[3] - 4.0).abs() < 1e-12);
    assert!(!after.publish.reasoning && after.use_sim_time);
    assert_eq!(after.topics, before.topics);
    assert_eq!(parameters.get("sanity.max_step_degrees"), Value::Double(45.0));
    assert_eq!(parameters.get("use_sim_time"), Value::Bool(true));
    // What was set stays when something else is.
    let later = set(&mut parameters, &[("diagnostics.period_millis", Value::Integer(250))]).unwrap();
    assert!((later.trust.sanity.max_step_metres - 2.5).abs() < 1e-12);
    assert_eq!(later.diagnostics.period.as_millis(), 250);
}

#[test]
fn a_set_that_is_refused_says_why_and_changes_nothing() {
    let text = |value: &str| Value::Text(value.to_owned());
    type Set = Vec<(&'static str, Value)>;
    let rows: Vec<(Set, &[&str])> = vec![
        (vec![("topics.image", text("/other"))], &["`topics.image`", "when the node starts"]),
        (vec![("model.weights", text("/w"))], &["`model.weights`", "when the node starts"]),
        (vec![("model.device", text("cuda"))], &["`model.device`", "when the node starts"]),
        (vec![("window.stride", Value::Integer(2))], &["`window.stride`", "when the node starts"]),
        (vec![("sanity.max_step", Value::Double(1.0))], &["`sanity.max_step`", "not a parameter"]),
        (vec![("sanity.max_step_metres", text("2"))], &["expected a double, got a string"]),
        (vec![("trust.lost_windows", Value::Double(2.0))], &["expected an integer, got a double"]),
        (vec![("publish.tf", Value::Integer(1))], &["expected a bool, got an integer"]),
        (vec![("use_sim_time", Value::Unset)], &["expected a bool, got nothing"]),
        (vec![("publish.reasoning", Value::Foreign("a list of bools"))], &["got a list of bools"]),
        (vec![("sanity.max_step_metres", Value::Double(-1.0))], &["`sanity.max_step_metres`", "above 0", "got -1"]),
        (vec![("sanity.max_step_metres", Value::Double(f64::NAN))], &["above 0", "NaN"]),
        (vec![("trust.lost_windows", Value::Integer(0))], &["from 1 to 1000", "got 0"]),
        (vec![("trust.bad_ratio", Value::Double(1.0))], &["trust.consistent_ratio or more"]),
        (vec![("publish.tf", Value::Bool(true))], &["frames.base is empty"]),
        (vec![("covariance.position_stddev_metres", Value::Doubles(vec![1.0]))], &["4 finite numbers"]),
        // All or none.
        (
            vec![("sanity.max_step_metres", Value::Double(2.0)), ("window.hop", Value::Integer(1))],
            &["`window.hop`", "when the node starts"],
        ),
    ];
    let (mut parameters, _) = parameters();
    let before: Vec<Value> = TABLE.iter().map(|spec| parameters.get(spec.name())).collect();
    for (changes, wanted) in rows {
        let reason = set(&mut parameters, &changes).unwrap_err();
        for part in wanted {
            assert!(reason.contains(part), "{changes:?}: `{part}` is not in: {reason}");
        }
        let after: Vec<Value> = TABLE.iter().map(|spec| parameters.get(spec.name())).collect();
        assert_eq!(after, before, "{changes:?}");
    }
    // Two that only hold together.
    let both = [("trust.consistent_ratio", Value::Double(1.0)), ("trust.bad_ratio", Value::Double(1.0))];
    assert!(set(&mut parameters, &both).is_ok());
}
