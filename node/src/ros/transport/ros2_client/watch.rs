//! Whether the threads of RustDDS still run. Its event loop and its discovery end for good where a wait of theirs fails, and a
//! process that is stopped and continued interrupts both (Linux: `epoll_wait` returns EINTR behind SIGCONT, with or without a
//! handler). RustDDS 0.15.1 tells nobody but its log; what is left behind tells it all the same:
//! - each reader has a socket pair by which the event loop says that something came, and the loop's end hangs up with the loop;
//! - discovery takes commands, which nobody does any more.

use std::io;
use std::time::{Duration, Instant};

use ros2_client::dds::rustdds::DomainParticipant;
use ros2_client::dds::rustdds::mio1::event::Source;
use ros2_client::dds::rustdds::mio1::{Events, Interest, Poll, Token};

/// How often discovery is asked. The question has it tell peers, every two seconds, that the participant is alive.
const DISCOVERY_PERIOD: Duration = Duration::from_secs(1);

/// The threads of one participant.
pub(super) struct Watch {
    poll: Poll,
    events: Events,
    participant: DomainParticipant,
    asked: Instant,
}

impl Watch {
    /// Of this participant, by any of its readers; one to which little comes is woken for least.
    ///
    /// # Errors
    ///
    /// Where the system refuses.
    pub(super) fn new(participant: DomainParticipant, reader: &mut impl Source) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.registry().register(reader, Token(0), Interest::READABLE)?;
        Ok(Self { poll, events: Events::with_capacity(8), participant, asked: Instant::now() })
    }

    /// The participant whose threads they are.
    pub(super) fn participant(&self) -> &DomainParticipant {
        &self.participant
    }

    /// The thread that has ended, where one has. Waits for nothing.
    pub(super) fn ended(&mut self) -> Option<&'static str> {
        if self.is_loop_gone() {
            return Some("event loop");
        }
        if self.asked.elapsed() < DISCOVERY_PERIOD {
            return None;
        }
        self.asked = Instant::now();
        self.participant.assert_liveliness().is_err().then_some("discovery")
    }

    fn is_loop_gone(&mut self) -> bool {
        match self.poll.poll(&mut self.events, Some(Duration::ZERO)) {
            Ok(()) => self.events.iter().any(|event| event.is_read_closed()),
            Err(error) => error.kind() != io::ErrorKind::Interrupted,
        }
    }
}
