//! Names of the graph, by the rules of ROS 2.

use super::error::Error;

/// `namespace` with its slash in front and none behind.
pub(super) fn absolute_namespace(namespace: &str) -> Result<String, Error> {
    let tokens = namespace.trim_matches('/');
    if tokens.is_empty() {
        return Ok("/".to_owned());
    }
    check_tokens(namespace, tokens)?;
    Ok(format!("/{tokens}"))
}

/// `name` as seen from everywhere: `/x` as it is, `~/x` under the node, `x` under the namespace.
///
/// # Errors
///
/// [`Error::Name`] for a name that ROS 2 does not allow.
pub(super) fn absolute_name(name: &str, namespace: &str, node: &str) -> Result<String, Error> {
    let root = namespace.trim_end_matches('/');
    let absolute = if name.starts_with('/') {
        name.to_owned()
    } else if let Some(private) = name.strip_prefix("~/") {
        format!("{root}/{node}/{private}")
    } else {
        format!("{root}/{name}")
    };
    check_tokens(name, &absolute[1..])?;
    Ok(absolute)
}

/// The rules of ROS 2 for the slash-separated parts of a name.
fn check_tokens(name: &str, tokens: &str) -> Result<(), Error> {
    for token in tokens.split('/') {
        let reason = if token.is_empty() {
            "it has an empty part"
        } else if token.starts_with(|c: char| c.is_ascii_digit()) {
            "a part starts with a digit"
        } else if token.contains("__") {
            "it has two underscores in a row"
        } else if !token.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            "only letters, digits, _ and / are allowed"
        } else {
            continue;
        };
        return Err(Error::Name { name: name.to_owned(), reason: reason.to_owned() });
    }
    Ok(())
}
