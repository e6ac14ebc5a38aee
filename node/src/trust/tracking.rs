//! How the node stands where its odometry is made at the camera's rate: what carries the newest pose, where its metres
//! come from, and what has become of the model beside it.

use std::time::Duration;

use odometry::fused::Carried;
use odometry::scale::{Belief, Source};

use super::state::Status;

/// What is known after the newest frame.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tracking {
    /// What its pose stands on.
    pub carried: Carried,
    /// Points of known depth that it sees.
    pub points: usize,
    /// Since tracks last carried a pose, where that is longer than is believed: nothing comes out.
    pub lost_for: Option<Duration>,
    /// The scale of its step.
    pub scale: Option<Belief>,
    /// Sources of the scale that are held off, and why.
    pub held_off: Vec<(Source, String)>,
    /// Whether anything is to tell the scale.
    pub has_source: bool,
    /// What is wrong with the model, where something is.
    pub model: Option<String>,
}

impl Tracking {
    /// The state, and why it is not OK.
    pub fn status(&self) -> (Status, String) {
        if let Some(time) = self.lost_for {
            return (Status::Lost, format!("nothing has told the motion for {} ms", time.as_millis()));
        }
        let carried = match self.carried {
            Carried::Model => Some("the tracks are lost, the model's motion goes on".to_owned()),
            Carried::Nothing => Some("the tracks are lost, the last motion goes on".to_owned()),
            Carried::Tracks | Carried::Both | Carried::Topic => None,
        };
        let is_untold = self.has_source && self.scale.is_none_or(|scale| scale.source.is_none());
        let untold = is_untold.then(|| "nothing tells the scale yet".to_owned());
        let held_off = self.held_off.iter().map(|(_, why)| format!("held off: {why}"));
        let reasons: Vec<String> =
            carried.into_iter().chain(untold).chain(held_off).chain(self.model.clone()).collect();
        if reasons.is_empty() { (Status::Ok, String::new()) } else { (Status::Degraded, reasons.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use odometry::fused::Carried;
    use odometry::scale::{Belief, Source};

    use super::{Status, Tracking};

    #[test]
    fn what_is_wrong_is_said_and_the_worst_of_it_counts() {
        let scale = Some(Belief { log: 0.0, sigma: 0.02, source: Some(Source::Odometry) });
        let well = Tracking { carried: Carried::Tracks, scale, has_source: true, ..Tracking::default() };
        assert_eq!(well.status(), (Status::Ok, String::new()));
        let guess = Some(Belief { log: 0.0, sigma: 1.0, source: None });
        let rows = [
            (Tracking { carried: Carried::Model, ..well.clone() }, "the model's motion"),
            (Tracking { carried: Carried::Nothing, ..well.clone() }, "the last motion"),
            (Tracking { scale: None, ..well.clone() }, "nothing tells the scale"),
            (Tracking { scale: guess, ..well.clone() }, "nothing tells the scale"),
            (
                Tracking { held_off: vec![(Source::Model, "model says 2".to_owned())], ..well.clone() },
                "held off: model",
            ),
            (Tracking { model: Some("the model has failed".to_owned()), ..well.clone() }, "the model has failed"),
        ];
        for (tracking, reason) in rows {
            let (status, why) = tracking.status();
            assert!(status == Status::Degraded && why.contains(reason), "{status}: {why}");
        }
        let alone = Tracking { scale: guess, has_source: false, ..well.clone() };
        assert_eq!(alone.status().0, Status::Ok, "nobody was to tell it");
        let lost = Tracking { lost_for: Some(Duration::from_millis(1500)), model: Some("x".to_owned()), ..well };
        assert_eq!(lost.status(), (Status::Lost, "nothing has told the motion for 1500 ms".to_owned()));
    }
}
