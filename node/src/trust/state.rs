//! How the node stands, from what became of its last windows.
//!
//! ```text
//!            bad windows in the span                bad windows in a row, gross, or no usable answer for long
//!      OK ---------------------------> DEGRADED ---------------------------------------> LOST
//!       ^------ consistent in a row -------' (OK -> LOST as well)                          |
//!       ^---------------------------- consistent in a row --------------------------------'
//! ```
//! A window whose images are one and the same makes the node DEGRADED at once and no worse: a simulated camera that stands
//! still sends such. A window is bad where its answer fails or disagrees, consistent where it agrees; what lies between is
//! neither and moves the state nowhere, so that a node at a threshold does not flicker. So is a window that waits for its
//! scale: it cannot be checked, but a node that has its answer is not one that cannot see.

use std::collections::VecDeque;
use std::fmt;

use geometry::Stamp;

use super::checks::Evidence;
use crate::config::StatusRules;

/// How far the node trusts its own poses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Status {
    /// Poses come out.
    #[default]
    Ok,
    /// Poses come out, less sure of themselves.
    Degraded,
    /// None comes out.
    Lost,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "OK",
            Self::Degraded => "DEGRADED",
            Self::Lost => "LOST",
        })
    }
}

/// What is said of a window whose images are one and the same.
pub const FROZEN: &str = "image is frozen: all five of the window are the same bit for bit";

/// What became of a window.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// It has poses, and this is what the checks found.
    Answer(&'a Evidence),
    /// The same, but its images are one and the same: the camera hangs, or is a simulated one that stands still.
    Frozen(&'a Evidence),
    /// It has poses, but nobody knows yet what their units are.
    Unscaled(&'a str),
    /// Its answer does not parse or is absurd.
    Failed(&'a str),
    /// It has no answer, through no fault of the model: for the state only time has passed.
    Gap(&'a str),
}

/// What a window made of the state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// The state before it.
    pub before: Status,
    /// The state now.
    pub status: Status,
    /// Whether its checks speak for the node.
    pub is_consistent: bool,
    /// What the standard deviations of its poses are multiplied by, 1 or more.
    pub widening: f64,
}

impl Verdict {
    /// Whether the node lost itself with this window.
    pub fn is_loss(&self) -> bool {
        self.before != Status::Lost && self.status == Status::Lost
    }

    /// Whether poses come out again from this window on.
    pub fn is_recovery(&self) -> bool {
        self.before == Status::Lost && self.status != Status::Lost
    }
}

/// What a single window says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grade {
    Consistent,
    Doubtful,
    Frozen,
    Bad,
    Gross,
    Nothing,
}

/// The state machine.
#[derive(Debug)]
pub struct State {
    rules: StatusRules,
    status: Status,
    reason: String,
    /// Of the last windows that say something: whether they are bad.
    recent: VecDeque<bool>,
    bad_in_a_row: usize,
    consistent_in_a_row: usize,
    /// Of the last window that was not bad, or else the first of all.
    usable: Option<Stamp>,
}

impl State {
    /// Before the first window: OK, since nothing speaks against it.
    pub fn new(rules: StatusRules) -> Self {
        Self {
            rules,
            status: Status::Ok,
            reason: String::new(),
            recent: VecDeque::new(),
            bad_in_a_row: 0,
            consistent_in_a_row: 0,
            usable: None,
        }
    }

    /// Goes by other rules from the next window on.
    pub fn set_rules(&mut self, rules: StatusRules) {
        self.rules = rules;
        let surplus = self.recent.len().saturating_sub(rules.degraded_span);
        self.recent.drain(..surplus);
    }

    /// The state.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Why it is not OK; empty where it is.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Takes what became of a window whose newest frame has this stamp.
    pub fn push(&mut self, stamp: Stamp, event: Event<'_>) -> Verdict {
        let before = self.status;
        let grade = self.grade(event);
        self.count(stamp, grade);
        match grade {
            Grade::Consistent | Grade::Doubtful => {
                if self.status != Status::Ok && self.consistent_in_a_row >= self.rules.recover_windows {
                    self.status = Status::Ok;
                    self.reason.clear();
                    self.recent.clear();
                }
            }
            Grade::Frozen => {
                if self.status == Status::Ok {
                    self.status = Status::Degraded;
                    FROZEN.clone_into(&mut self.reason);
                }
            }
            Grade::Bad | Grade::Gross | Grade::Nothing => self.fall(stamp, grade, &problem(event)),
        }
        Verdict {
            before,
            status: self.status,
            is_consistent: grade == Grade::Consistent,
            widening: self.widening(event),
        }
    }

    fn grade(&self, event: Event<'_>) -> Grade {
        let evidence = match event {
            Event::Gap(_) => return Grade::Nothing,
            Event::Unscaled(_) => return Grade::Doubtful,
            Event::Failed(_) => return Grade::Bad,
            Event::Frozen(evidence) => match self.grade(Event::Answer(evidence)) {
                worse @ (Grade::Bad | Grade::Gross) => return worse,
                _ => return Grade::Frozen,
            },
            Event::Answer(evidence) => evidence,
        };
        let ratio = evidence.worst().map_or(0.0, |worst| worst.ratio);
        if ratio > self.rules.gross_ratio {
            Grade::Gross
        } else if ratio > self.rules.bad_ratio || !evidence.faults.is_empty() {
            Grade::Bad
        } else if ratio > self.rules.consistent_ratio {
            Grade::Doubtful
        } else {
            Grade::Consistent
        }
    }

    fn count(&mut self, stamp: Stamp, grade: Grade) {
        let is_bad = matches!(grade, Grade::Bad | Grade::Gross);
        let is_usable = matches!(grade, Grade::Consistent | Grade::Doubtful | Grade::Frozen);
        self.consistent_in_a_row = if grade == Grade::Consistent { self.consistent_in_a_row + 1 } else { 0 };
        if is_bad || is_usable {
            self.bad_in_a_row = if is_bad { self.bad_in_a_row + 1 } else { 0 };
            if self.recent.len() == self.rules.degraded_span {
                self.recent.pop_front();
            }
            self.recent.push_back(is_bad);
        }
        // A clock that went back does not tell how long it has been.
        if is_usable || self.usable.is_none_or(|usable| stamp < usable) {
            self.usable = Some(stamp);
        }
    }

    /// Lower, where what speaks against the node is enough.
    fn fall(&mut self, stamp: Stamp, grade: Grade, problem: &str) {
        if self.status == Status::Lost {
            return;
        }
        let rules = self.rules;
        let silent_nanos = self.usable.map_or(0, |usable| stamp.nanos_since(usable));
        let bad = self.recent.iter().filter(|is_bad| **is_bad).count();
        let lost = if grade == Grade::Gross {
            Some(problem.to_owned())
        } else if self.bad_in_a_row >= rules.lost_windows {
            Some(format!("{} bad windows in a row, the last: {problem}", self.bad_in_a_row))
        } else if u128::try_from(silent_nanos).is_ok_and(|nanos| nanos > rules.lost_after.as_nanos()) {
            Some(format!("no usable answer for {:.1} s, the last: {problem}", silent_nanos as f64 / 1e9))
        } else {
            None
        };
        if let Some(reason) = lost {
            self.status = Status::Lost;
            self.reason = reason;
        } else if grade == Grade::Bad && bad >= rules.degraded_windows {
            self.status = Status::Degraded;
            self.reason = format!("{bad} bad windows of the last {}, the last: {problem}", self.recent.len());
        }
    }

    fn widening(&self, event: Event<'_>) -> f64 {
        let mut widening = 1.0_f64;
        if let Event::Answer(evidence) | Event::Frozen(evidence) = event {
            widening = evidence.worst().map_or(1.0, |worst| worst.ratio.max(1.0));
            if !evidence.faults.is_empty() {
                // As bad as what can be measured and is.
                widening = widening.max(self.rules.bad_ratio);
            }
        }
        if self.status == Status::Degraded { widening.max(self.rules.degraded_widening) } else { widening }
    }
}

fn problem(event: Event<'_>) -> String {
    match event {
        Event::Answer(evidence) | Event::Frozen(evidence) => evidence.problem(),
        Event::Failed(problem) | Event::Gap(problem) | Event::Unscaled(problem) => problem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use geometry::Stamp;

    use super::{Event, State, Status};
    use crate::config::StatusRules;
    use crate::trust::checks::{Check, Evidence, Residual};

    const RULES: StatusRules = StatusRules {
        consistent_ratio: 2.0,
        bad_ratio: 4.0,
        gross_ratio: 20.0,
        degraded_windows: 2,
        degraded_span: 5,
        degraded_widening: 3.0,
        lost_windows: 3,
        lost_after: Duration::from_secs(10),
        recover_windows: 2,
    };

    fn evidence(ratio: f64) -> Evidence {
        let typical = Residual { check: Check::OverlapRotation, value: 0.1, ratio: 0.1 };
        let found = Residual { check: Check::Epipolar, value: ratio, ratio };
        Evidence { residuals: vec![typical, found], ..Evidence::default() }
    }

    /// Pushes a window a second: `c`onsistent, `d`oubtful, `b`ad, `g`ross, `f`ailed, `l`acking its reasoning, `s`tuck (and
    /// `S`, bad too), `u`nscaled, `-` for none; the states behind each, by their first letters, and the recoveries.
    fn run(rules: StatusRules, windows: &str, nanos: impl Fn(i64) -> i64) -> (String, usize) {
        let mut state = State::new(rules);
        let mut recoveries = 0;
        let mut letters = String::new();
        for (i, window) in (0..).zip(windows.chars()) {
            let stamp = Stamp::from_nanos(nanos(i));
            let found = match window {
                'c' => evidence(1.9),
                'd' => evidence(3.9),
                'b' | 'S' => evidence(4.1),
                's' => evidence(0.5),
                'g' => evidence(20.1),
                _ => Evidence { faults: vec!["no complete <step3> block".to_owned()], ..evidence(0.5) },
            };
            let event = match window {
                'f' => Event::Failed("does not parse"),
                '-' => Event::Gap("cannot be decoded"),
                'u' => Event::Unscaled("waiting"),
                's' | 'S' => Event::Frozen(&found),
                _ => Event::Answer(&found),
            };
            let verdict = state.push(stamp, event);
            assert_eq!(verdict.status, state.status());
            assert_eq!(verdict.is_consistent, window == 'c');
            assert_eq!(state.reason().is_empty(), state.status() == Status::Ok, "{}", state.reason());
            recoveries += usize::from(verdict.is_recovery());
            letters.push_str(&state.status().to_string()[..1]);
        }
        (letters, recoveries)
    }

    fn seconds(i: i64) -> i64 {
        i * 1_000_000_000
    }

    #[test]
    fn the_state_follows_the_windows() {
        let rows = [
            // One bad window, of whatever kind, is not yet a state.
            ("ccbcc", "OOOOO", 0),
            ("ccfcc", "OOOOO", 0),
            ("cclcc", "OOOOO", 0),
            // Two within five windows are; two that are farther apart are not.
            ("bccb", "OOOD", 0),
            ("bcccbc", "OOOODD", 0),
            ("bccccb", "OOOOOO", 0),
            // Two consistent windows in a row lead back, and the old ones are forgotten.
            ("bbcc", "ODDO", 0),
            ("bbccb", "ODDOO", 0),
            ("bbcdcdcc", "ODDDDDDO", 0),
            // Doubt is neither: it leads nowhere, but ends a row of bad ones.
            ("dddddd", "OOOOOO", 0),
            ("bbdbdb", "ODDDDD", 0),
            // So does one that waits for its scale.
            ("uuuuuu", "OOOOOO", 0),
            ("bbubub", "ODDDDD", 0),
            ("gcucc", "LLLLO", 1),
            // Three bad ones in a row are lost, from either state; a gap does not end the row.
            ("bbb", "ODL", 0),
            ("fff", "ODL", 0),
            ("bfl", "ODL", 0),
            ("b-b-b", "OODDL", 0),
            // Gross disagreement needs no second.
            ("g", "L", 0),
            ("cbg", "OOL", 0),
            // Out of it, two consistent windows in a row; anything between makes the count start again.
            ("gcc", "LLO", 1),
            ("gcdcc", "LLLLO", 1),
            ("gc-cc", "LLLLO", 1),
            ("gcbcfcgcc", "LLLLLLLLO", 1),
            ("gddddd", "LLLLLL", 0),
            ("gccgcc", "LLOLLO", 2),
            // Images that stand still are DEGRADED at once, for as long as they do, and no worse by themselves.
            ("csssssc", "ODDDDDD", 0),
            ("csssscc", "ODDDDDO", 0),
            ("cscscc", "ODDDDO", 0),
            ("bsb", "ODD", 0),
            ("bbsb", "ODDD", 0),
            // They do not lead out of LOST, nor hide what else is wrong.
            ("gcscsc", "LLLLLL", 0),
            ("SSS", "ODL", 0),
            // What was bad before LOST does not count behind it.
            ("gccb", "LLOO", 1),
        ];
        for (windows, states, recoveries) in rows {
            assert_eq!(run(RULES, windows, seconds), (states.to_owned(), recoveries), "{windows}");
        }
        let eager = StatusRules { recover_windows: 1, lost_windows: 1, ..RULES };
        assert_eq!(run(eager, "fcfc", seconds), ("LOLO".to_owned(), 2));
    }

    #[test]
    fn a_bad_window_long_behind_the_last_usable_one_is_lost() {
        // Six seconds a window: two are too long, whether they fail or do not come.
        let slow = |i: i64| 6 * seconds(i);
        assert_eq!(run(RULES, "ccccc", slow).0, "OOOOO", "slow is not lost");
        assert_eq!(run(RULES, "cfcfc", slow).0, "OOODD");
        assert_eq!(run(RULES, "cff", slow).0, "OOL");
        assert_eq!(run(RULES, "c--", slow).0, "OOL");
        assert_eq!(run(RULES, "d-f", slow).0, "OOL");
        // To wait for a scale is not to be blind.
        assert_eq!(run(RULES, "-uuuu-", slow).0, "OOOOOO");
        assert_eq!(run(RULES, "-uuuu--", slow).0, "OOOOOOL");
        // Nothing usable ever: the clock starts with the first window.
        assert_eq!(run(RULES, "---", slow).0, "OOL");
        // A clock that goes back starts again: 0, 6, 12 would be lost, 12, 6, 0, 6 is not.
        let backward = |i: i64| seconds([12, 6, 0, 6][i as usize]);
        assert_eq!(run(RULES, "c---", backward).0, "OOOO");
    }

    #[test]
    fn the_reason_says_what_and_how_often() {
        let mut state = State::new(RULES);
        let mut after = |event: Event<'_>| {
            state.push(Stamp::default(), event);
            state.reason().to_owned()
        };
        assert_eq!(after(Event::Answer(&evidence(5.0))), "");
        let degraded = after(Event::Failed("no complete <poses> block"));
        assert_eq!(degraded, "2 bad windows of the last 2, the last: no complete <poses> block");
        let lost = after(Event::Answer(&evidence(5.0)));
        assert_eq!(lost, "3 bad windows in a row, the last: epipolar_px 5.000 is 5.0 times what is typical");
        // What comes while it is lost changes nothing.
        assert_eq!(after(Event::Failed("again")), lost);
        let mut state = State::new(RULES);
        state.push(Stamp::default(), Event::Answer(&evidence(21.0)));
        assert_eq!(state.reason(), "epipolar_px 21.000 is 21.0 times what is typical");
    }

    #[test]
    fn sigmas_widen_with_the_worst_residual_and_while_degraded() {
        let mut state = State::new(RULES);
        let mut widening = |found: &Evidence| state.push(Stamp::default(), Event::Answer(found)).widening;
        let lacking = Evidence { faults: vec!["no complete <step1> block".to_owned()], ..Evidence::default() };
        let rows = [
            (evidence(0.5), 1.0),
            (evidence(3.0), 3.0),
            (evidence(5.0), 5.0),
            (evidence(1.0), 1.0),
            // DEGRADED with the second bad one.
            (lacking, 4.0),
            (evidence(1.0), 3.0),
            (evidence(3.5), 3.5),
            (evidence(1.0), 3.0),
            // And out of it.
            (evidence(1.0), 1.0),
        ];
        for (i, (found, expected)) in rows.iter().enumerate() {
            let got = widening(found);
            assert!((got - expected).abs() < 1e-12, "{i}: {got}");
        }
    }
}
