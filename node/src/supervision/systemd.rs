//! What systemd is told of the node (sd_notify(3)): that it listens, that it is alive, that it stops. A datagram of a few words
//! each; where nobody asked for them there are none.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// The service that this process belongs to.
#[derive(Debug)]
pub struct Service {
    socket: UnixDatagram,
    address: SocketAddr,
    /// How often it is to say that it is alive, if at all.
    period: Option<Duration>,
    /// When it said so last, and how far the node had come then.
    last: Option<(Instant, u64)>,
}

impl Service {
    /// As the environment has it (`NOTIFY_SOCKET`, `WATCHDOG_USEC`); `None` where no service manager is there. Whom
    /// `WATCHDOG_PID` names is not asked: in the unit that ships that is `ros2 launch`, which starts the node.
    pub fn of_environment() -> Option<Self> {
        let address = std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty())?;
        let micros = std::env::var("WATCHDOG_USEC").ok().and_then(|micros| micros.parse().ok());
        match Self::at(&address, micros.map(Duration::from_micros)) {
            Ok(service) => Some(service),
            Err(error) => {
                tracing::warn!(socket = %address.to_string_lossy(), %error, "systemd cannot be told that the node is alive");
                None
            }
        }
    }

    /// At an address, `@` before an abstract one; `watchdog` is the time after which it counts as dead.
    ///
    /// # Errors
    ///
    /// An address that is none, or no socket to be had.
    pub fn at(address: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match address.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(address)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A service manager that does not read holds nothing up.
        socket.set_nonblocking(true)?;
        // Twice in the time, as sd_watchdog_enabled(3) has it.
        let period = watchdog.filter(|watchdog| !watchdog.is_zero()).map(|watchdog| watchdog / 2);
        Ok(Self { socket, address, period, last: None })
    }

    /// The node has come this far at this moment. The first time it is ready; from then on it is alive where it has come further
    /// than when that was last said.
    pub fn pass(&mut self, turns: u64, now: Instant) {
        match (self.last, self.period) {
            (None, _) => {
                self.tell("READY=1");
                self.last = Some((now, turns));
            }
            (Some((at, before)), Some(period)) if turns != before && now.duration_since(at) >= period => {
                self.tell("WATCHDOG=1");
                self.last = Some((now, turns));
            }
            _ => {}
        }
    }

    /// The node is about to end.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    fn tell(&self, words: &str) {
        // Whoever misses it starts the node anew.
        if let Err(error) = self.socket.send_to_addr(words.as_bytes(), &self.address) {
            tracing::debug!(words, %error, "systemd was not told");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::time::{Duration, Instant};

    use super::Service;

    /// What has come.
    fn heard(socket: &UnixDatagram) -> Vec<String> {
        let mut all = Vec::new();
        let mut words = [0; 64];
        while let Ok(length) = socket.recv(&mut words) {
            all.push(String::from_utf8(words[..length].to_vec()).unwrap());
        }
        all
    }

    #[test]
    fn systemd_hears_that_the_node_listens_lives_and_stops_and_nothing_of_one_that_stands_still() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let mut service = Service::at(path.as_os_str(), Some(Duration::from_secs(10))).unwrap();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        service.pass(0, at(0));
        assert_eq!(heard(&manager), ["READY=1"]);
        service.pass(7, at(4));
        assert!(heard(&manager).is_empty(), "half of the time is not over");
        service.pass(9, at(5));
        assert_eq!(heard(&manager), ["WATCHDOG=1"]);
        // The thread that counts the turns stands still.
        (6..40).for_each(|seconds| service.pass(9, at(seconds)));
        assert!(heard(&manager).is_empty());
        service.pass(10, at(40));
        service.stopping();
        assert_eq!(heard(&manager), ["WATCHDOG=1", "STOPPING=1"]);
        let mut without = Service::at(path.as_os_str(), None).unwrap();
        (0..9).for_each(|seconds| without.pass(seconds, at(60 * seconds)));
        assert_eq!(heard(&manager), ["READY=1"], "nobody asked for more");
        drop(manager);
        service.pass(11, at(99));
    }
}
