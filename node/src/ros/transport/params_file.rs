//! Parameters as YAML: what `--params-file` names, and the values behind `-p`.
//!
//! ```yaml
//! /**:                        # any node; `*` is one part of a name, `**` any number of them
//!   ros__parameters:
//!     sanity: {max_step_metres: 2.0}
//! robot1:                     # namespaces may be nested
//!   egoreasoner:
//!     ros__parameters:
//!       window.stride: 2
//! ```

use saphyr::{LoadableYamlNode, Scalar, Yaml};

/// The key under which a node's parameters are.
const PARAMETERS: &str = "ros__parameters";

/// A parameter that a file or the command line gives a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: toml::Value,
    /// It was given to many nodes by a wildcard, so that it need not be one of ours.
    pub is_shared: bool,
}

/// The parameters that the file with this text gives the node of this full name, in the order of the file.
///
/// # Errors
///
/// What is wrong with the text.
pub(super) fn parameters(text: &str, node: &str) -> Result<Vec<Given>, String> {
    let documents = Yaml::load_from_str(text).map_err(|e| e.to_string())?;
    let mut found = Found { node, count: 0, given: Vec::new() };
    for document in &documents {
        found.nodes("", document)?;
    }
    if found.count == 0 {
        return Err(format!("expected NODE: {{{PARAMETERS}: {{...}}}}, which is nowhere in it"));
    }
    Ok(found.given)
}

/// A value as it stands on the command line.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn value(text: &str) -> Result<toml::Value, String> {
    let documents = Yaml::load_from_str(text).map_err(|e| e.to_string())?;
    documents.first().map_or_else(|| Ok(toml::Value::String(String::new())), of_yaml)
}

struct Found<'a> {
    node: &'a str,
    /// Blocks of parameters, of whatever node.
    count: usize,
    given: Vec<Given>,
}

impl Found<'_> {
    /// Looks for blocks of parameters below the name `path`.
    fn nodes(&mut self, path: &str, yaml: &Yaml<'_>) -> Result<(), String> {
        let at = if path.is_empty() { "the top" } else { path };
        let mapping = yaml.as_mapping().ok_or_else(|| format!("{at}: expected names of nodes"))?;
        for (key, inner) in mapping {
            let key = key.as_str().ok_or_else(|| format!("{at}: expected names, got {key:?}"))?;
            if key != PARAMETERS {
                self.nodes(&format!("{path}/{}", key.trim_matches('/')), inner)?;
                continue;
            }
            self.count += 1;
            if is_match(path, self.node) {
                self.parameters(path.contains('*'), "", inner).map_err(|e| format!("{path}: {e}"))?;
            }
        }
        Ok(())
    }

    fn parameters(&mut self, is_shared: bool, prefix: &str, yaml: &Yaml<'_>) -> Result<(), String> {
        let at = if prefix.is_empty() { PARAMETERS } else { prefix };
        let mapping = yaml.as_mapping().ok_or_else(|| format!("{at}: expected names of parameters"))?;
        for (key, inner) in mapping {
            let key = key.as_str().ok_or_else(|| format!("{at}: expected names, got {key:?}"))?;
            let name = if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
            if inner.as_mapping().is_some() {
                self.parameters(is_shared, &name, inner)?;
            } else {
                let value = of_yaml(inner).map_err(|e| format!("{name}: {e}"))?;
                self.given.push(Given { name, value, is_shared });
            }
        }
        Ok(())
    }
}

/// Whether a name with wildcards is that of a node.
fn is_match(pattern: &str, node: &str) -> bool {
    fn match_parts(pattern: &[&str], node: &[&str]) -> bool {
        match pattern.split_first() {
            None => node.is_empty(),
            Some((&"**", rest)) => (0..=node.len()).any(|skipped| match_parts(rest, &node[skipped..])),
            Some((part, rest)) => node
                .split_first()
                .is_some_and(|(first, others)| (*part == "*" || part == first) && match_parts(rest, others)),
        }
    }
    fn parts(name: &str) -> Vec<&str> {
        name.split('/').filter(|part| !part.is_empty()).collect()
    }
    match_parts(&parts(pattern), &parts(node))
}

fn of_yaml(yaml: &Yaml<'_>) -> Result<toml::Value, String> {
    match yaml {
        Yaml::Value(Scalar::Null) => Ok(toml::Value::String(String::new())),
        Yaml::Value(Scalar::Boolean(value)) => Ok(toml::Value::Boolean(*value)),
        Yaml::Value(Scalar::Integer(value)) => Ok(toml::Value::Integer(*value)),
        Yaml::Value(Scalar::FloatingPoint(value)) => Ok(toml::Value::Float(value.into_inner())),
        Yaml::Value(Scalar::String(value)) => Ok(toml::Value::String(value.to_string())),
        Yaml::Sequence(values) => Ok(toml::Value::Array(values.iter().map(of_yaml).collect::<Result<_, _>>()?)),
        Yaml::Tagged(_, inner) => of_yaml(inner),
        other => Err(format!("expected a value or a list of values, got {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Given, is_match, parameters, value};

    const FILE: &str = "
/**:
  ros__parameters:
    use_sim_time: true
    sanity: {max_step_metres: 3, max_step_degrees: 45.5}
egoreasoner:
  ros__parameters:
    sanity.max_step_metres: 2.5
    model:
      weights: '/opt/nano'
      adapter: ''
    covariance.position_stddev_metres: [1, 2.0, 3.5, 4]
    qos_overrides./camera/image_raw.subscription.reliability: reliable
robot1:
  egoreasoner:
    ros__parameters: {window.stride: 2}
/other/node:
  ros__parameters: {window.stride: 9}
";

    fn names(node: &str) -> Vec<String> {
        parameters(FILE, node).unwrap().into_iter().map(|given| given.name).collect()
    }

    #[test]
    fn a_node_gets_what_is_for_it_in_the_order_of_the_file() {
        let all = parameters(FILE, "/egoreasoner").unwrap();
        let shared = |name: &str, value: toml::Value| Given { name: name.to_owned(), value, is_shared: true };
        let own = |name: &str, value: toml::Value| Given { is_shared: false, ..shared(name, value) };
        let sigmas: Vec<toml::Value> = vec![1.into(), 2.0.into(), 3.5.into(), 4.into()];
        let expected = [
            shared("use_sim_time", true.into()),
            shared("sanity.max_step_metres", 3.into()),
            shared("sanity.max_step_degrees", 45.5.into()),
            own("sanity.max_step_metres", 2.5.into()),
            own("model.weights", "/opt/nano".into()),
            own("model.adapter", "".into()),
            own("covariance.position_stddev_metres", toml::Value::Array(sigmas)),
            own("qos_overrides./camera/image_raw.subscription.reliability", "reliable".into()),
        ];
        assert_eq!(all, expected);
        assert_eq!(names("/robot1/egoreasoner").last().map(String::as_str), Some("window.stride"));
        assert_eq!(names("/robot1/egoreasoner").len(), 4);
        assert_eq!(names("/nobody"), ["use_sim_time", "sanity.max_step_metres", "sanity.max_step_degrees"]);
    }

    #[test]
    fn wildcards_stand_for_parts_of_names() {
        let rows = [
            ("/**", "/a", true),
            ("/**", "/a/b/c", true),
            ("/*", "/a", true),
            ("/*", "/a/b", false),
            ("/*/ego", "/a/ego", true),
            ("/*/ego", "/ego", false),
            ("/**/ego", "/ego", true),
            ("/**/ego", "/a/b/ego", true),
            ("/**/ego", "/a/b/other", false),
            ("/a/**", "/b/ego", false),
            ("/ego", "/egoreasoner", false),
        ];
        for (pattern, node, expected) in rows {
            assert_eq!(is_match(pattern, node), expected, "{pattern} {node}");
        }
    }

    #[test]
    fn values_have_the_type_that_they_are_written_in() {
        let rows: [(&str, toml::Value); 10] = [
            ("1", 1.into()),
            ("1.0", 1.0.into()),
            ("1e-3", 1e-3.into()),
            ("true", true.into()),
            ("True", true.into()),
            ("/camera/image", "/camera/image".into()),
            ("'1'", "1".into()),
            ("~/status", "~/status".into()),
            ("", "".into()),
            ("[1, 2]", toml::Value::Array(vec![1.into(), 2.into()])),
        ];
        for (text, expected) in rows {
            assert_eq!(value(text), Ok(expected), "{text}");
        }
        assert!(value("{a: 1}").unwrap_err().contains("expected a value"));
        assert!(value("[1").is_err());
    }

    #[test]
    fn a_file_that_is_none_is_named_by_what_is_wrong() {
        for (text, wanted) in [
            ("egoreasoner: {window.stride: 1}", "expected names of nodes"),
            ("- 1", "expected names of nodes"),
            ("egoreasoner: {ros__parameters: 5}", "expected names of parameters"),
            ("", ""),
            ("a: [", ""),
        ] {
            let message = parameters(text, "/egoreasoner").unwrap_err();
            assert!(message.contains(wanted), "{text}: {message}");
        }
    }
}
