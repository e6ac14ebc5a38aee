//! How far the node is heard: ROS_LOCALHOST_ONLY and ROS_AUTOMATIC_DISCOVERY_RANGE, read as rcl reads them, as far as RustDDS
//! has what they ask for.

/// Where the node is announced, and where it listens for announcements of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// On every interface.
    Network,
    /// To programs of this machine alone. The ports stay open to the network: RustDDS 0.15.1 binds them to every address.
    Loopback,
}

const LOCALHOST_ONLY: &str = "ROS_LOCALHOST_ONLY";
const RANGE: &str = "ROS_AUTOMATIC_DISCOVERY_RANGE";
const STATIC_PEERS: &str = "ROS_STATIC_PEERS";

/// What the environment asks for, and what of it is to be told at the start.
pub(super) fn asked(variable: impl Fn(&str) -> Option<String>) -> (Reach, Vec<String>) {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let mut told = Vec::new();
    let range = set(RANGE);
    let reach = match range.as_deref() {
        // The older variable outweighs the newer ones.
        _ if set(LOCALHOST_ONLY).as_deref() == Some("1") => {
            told.push(on_loopback(&format!("{LOCALHOST_ONLY} is 1")));
            Reach::Loopback
        }
        None | Some("SUBNET" | "SYSTEM_DEFAULT") => Reach::Network,
        Some("LOCALHOST") => {
            told.push(on_loopback(&format!("{RANGE} is LOCALHOST")));
            Reach::Loopback
        }
        Some("OFF") => {
            told.push(format!("{RANGE} is OFF, which transport \"ros2-client\" cannot do: it is taken for LOCALHOST"));
            Reach::Loopback
        }
        Some(other) => {
            told.push(format!(
                "{RANGE} is {other:?}, expected SUBNET, LOCALHOST, OFF or SYSTEM_DEFAULT: it is taken for LOCALHOST"
            ));
            Reach::Loopback
        }
    };
    if let Some(peers) = set(STATIC_PEERS) {
        told.push(format!("{STATIC_PEERS} is {peers:?}, which has no effect with transport \"ros2-client\""));
    }
    (reach, told)
}

fn on_loopback(why: &str) -> String {
    format!(
        "{why}: the node is announced on loopback alone, but its ports take what the network sends: close them by a \
         firewall, or run in a network namespace"
    )
}

#[cfg(test)]
mod tests {
    use super::{Reach, asked};

    #[test]
    fn the_environment_is_read_as_rcl_reads_it_and_what_cannot_be_done_is_told() {
        let loopback = "announced on loopback alone";
        /// Variables and their values, what they ask for, what is told.
        type Row<'a> = (&'a [(&'a str, &'a str)], Reach, &'a [&'a str]);
        let rows: [Row<'_>; 10] = [
            (&[], Reach::Network, &[]),
            (&[("ROS_LOCALHOST_ONLY", "0")], Reach::Network, &[]),
            (&[("ROS_LOCALHOST_ONLY", "1")], Reach::Loopback, &[loopback]),
            (&[("ROS_AUTOMATIC_DISCOVERY_RANGE", "")], Reach::Network, &[]),
            (&[("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")], Reach::Network, &[]),
            (&[("ROS_AUTOMATIC_DISCOVERY_RANGE", "SYSTEM_DEFAULT")], Reach::Network, &[]),
            (&[("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")], Reach::Loopback, &[loopback]),
            (&[("ROS_AUTOMATIC_DISCOVERY_RANGE", "OFF")], Reach::Loopback, &["cannot do"]),
            (&[("ROS_AUTOMATIC_DISCOVERY_RANGE", "local")], Reach::Loopback, &["\"local\", expected SUBNET"]),
            (
                &[("ROS_LOCALHOST_ONLY", "1"), ("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET"), ("ROS_STATIC_PEERS", "a")],
                Reach::Loopback,
                &["ROS_LOCALHOST_ONLY is 1", "ROS_STATIC_PEERS is \"a\""],
            ),
        ];
        for (environment, expected, words) in rows {
            let value = |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
            let (reach, told) = asked(value);
            assert_eq!(reach, expected, "{environment:?}");
            assert_eq!(told.len(), words.len(), "{environment:?}: {told:?}");
            for (told, words) in told.iter().zip(words) {
                assert!(told.contains(words), "{environment:?}: {told}");
            }
        }
    }
}
