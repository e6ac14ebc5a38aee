//! What memory the process may take before it ends itself. RustDDS 0.15.1 lists every number that a peer says is missing
//! (HEARTBEAT) or not to be had (GAP): a small datagram can take all that there is, and the loop that lists them hears
//! nothing else. Ending first leaves the machine to others, and the node to who started it.

use rustix::process::{Resource, getrlimit};

/// The share of what there is that may be taken.
const SHARE: (u64, u64) = (7, 8);

const KIB_PER_MIB: u64 = 1024;

/// A limit that the system has for the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limit {
    of: &'static str,
    /// The line of /proc/PID/status that is held against it.
    taken: &'static str,
    kib: u64,
}

/// Too much memory is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Excess {
    /// Whose limit is near.
    pub of: &'static str,
    /// What may be taken, MiB.
    pub most_mib: u64,
    /// What is taken, MiB.
    pub got_mib: u64,
}

/// The limits of this process; Linux only, elsewhere there are none.
pub(super) struct Limits(Vec<Limit>);

impl Limits {
    /// As the system has them now.
    pub(super) fn of_system() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let group = read("/proc/self/cgroup");
        let group = group.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
        let group = read(&format!("/sys/fs/cgroup{}/memory.max", group.trim_end_matches('/')));
        Self::new(&read("/proc/meminfo"), &group, getrlimit(Resource::As).current)
    }

    /// Of the text of /proc/meminfo, that of a control group's memory.max in bytes, and the limit of the address space in bytes.
    fn new(machine: &str, group: &str, address_space: Option<u64>) -> Self {
        // What files are mapped for can be had back; address space cannot.
        let rows = [
            ("the machine", "RssAnon:", kib(machine, "MemTotal:")),
            ("the control group", "RssAnon:", group.trim().parse::<u64>().ok().map(|bytes| bytes / 1024)),
            ("the address space", "VmSize:", address_space.map(|bytes| bytes / 1024)),
        ];
        Self(rows.into_iter().filter_map(|(of, taken, kib)| Some(Limit { of, taken, kib: kib? })).collect())
    }

    /// Whether more than the share of a limit is taken now.
    pub(super) fn excess(&self) -> Option<Excess> {
        self.excess_of(&std::fs::read_to_string("/proc/self/status").ok()?)
    }

    /// The same by the text of /proc/self/status.
    fn excess_of(&self, status: &str) -> Option<Excess> {
        self.0.iter().find_map(|limit| {
            let (got, most) = (kib(status, limit.taken)?, limit.kib / SHARE.1 * SHARE.0);
            let excess = Excess { of: limit.of, most_mib: most / KIB_PER_MIB, got_mib: got / KIB_PER_MIB };
            (got > most).then_some(excess)
        })
    }
}

/// The number of a line such as `VmRSS:     1234 kB`.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Excess, Limits};

    /// A machine of 8 GiB.
    const MACHINE: &str = "MemTotal:        8388608 kB\nMemFree:          100000 kB\n";

    fn status(size_mib: u64, anonymous_mib: u64) -> String {
        format!("Name:\tnode\nVmSize:\t{} kB\nRssAnon:\t   {} kB\n", size_mib * 1024, anonymous_mib * 1024)
    }

    #[test]
    fn seven_eighths_of_the_nearest_limit_may_be_taken() {
        let gib = 1 << 30;
        let rows = [
            ("max\n", None, status(20_000, 7000), None),
            ("max\n", None, status(20_000, 7200), Some(("the machine", 7168, 7200))),
            ("4294967296\n", None, status(20_000, 3600), Some(("the control group", 3584, 3600))),
            ("", Some(2 * gib), status(1700, 100), None),
            ("", Some(2 * gib), status(1800, 100), Some(("the address space", 1792, 1800))),
        ];
        for (group, address_space, status, expected) in rows {
            let expected = expected.map(|(of, most_mib, got_mib)| Excess { of, most_mib, got_mib });
            assert_eq!(Limits::new(MACHINE, group, address_space).excess_of(&status), expected, "{group:?} {status}");
        }
    }

    #[test]
    fn this_process_has_a_limit_and_keeps_it() {
        let limits = Limits::of_system();
        assert!(limits.0.iter().any(|limit| limit.of == "the machine" && limit.kib > 0), "{:?}", limits.0);
        assert_eq!(limits.excess(), None);
    }
}
