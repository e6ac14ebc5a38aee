//! How frames carry one another: what `/tf_static` and `/tf` say of a robot.

use std::collections::{BTreeMap, BTreeSet};

use geometry::Stamp;
use nalgebra::Isometry3;

/// The poses of one frame in another over time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Track(BTreeMap<Stamp, Isometry3<f64>>);

impl Track {
    /// Adds a pose, in place of one at the same time.
    pub fn insert(&mut self, stamp: Stamp, pose: Isometry3<f64>) {
        self.0.insert(stamp, pose);
    }

    /// The poses, in the order of time.
    pub fn iter(&self) -> impl Iterator<Item = (Stamp, &Isometry3<f64>)> {
        self.0.iter().map(|(stamp, pose)| (*stamp, pose))
    }

    /// The pose at a time: slerp and lerp between the two around it, where those are at most `reach_nanos` apart.
    pub fn at(&self, stamp: Stamp, reach_nanos: i64) -> Option<Isometry3<f64>> {
        let (next, after) = self.0.range(stamp..).next()?;
        if *next == stamp {
            return Some(*after);
        }
        let (last, before) = self.0.range(..stamp).next_back()?;
        let apart = next.nanos_since(*last);
        let part = stamp.nanos_since(*last) as f64 / apart as f64;
        if apart > reach_nanos { None } else { before.try_lerp_slerp(after, part, 1e-9) }
    }
}

/// A transform to a parent.
#[derive(Debug, Clone)]
enum Joint {
    Static(Isometry3<f64>),
    Moving(Track),
}

/// Why there is no transform between two frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// No chain of transforms leads from one to the other.
    #[error("no transforms lead from {from:?} to {to:?}")]
    Unconnected {
        /// The one.
        from: String,
        /// The other.
        to: String,
    },
    /// A frame on the way hangs on two others, so that nobody knows which is meant.
    #[error("frame {child:?} hangs on more than one other: {}", parents.join(", "))]
    TwoParents {
        /// The frame.
        child: String,
        /// Those.
        parents: Vec<String>,
    },
    /// The transform of a frame on the way is not known around that time.
    #[error("the transform from {child:?} to {parent:?} is not known at {} ns", stamp.nanos)]
    NotThen {
        /// The frame.
        child: String,
        /// What it hangs on.
        parent: String,
        /// The time.
        stamp: Stamp,
    },
}

/// The frames of a robot, each hanging on another: by child, then by parent.
#[derive(Debug, Clone, Default)]
pub struct Transforms(BTreeMap<String, BTreeMap<String, Joint>>);

/// A frame on the way up, and its joint to the next.
type Step<'a> = (&'a str, &'a str, &'a Joint);

impl Transforms {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What holds at all times.
    pub fn insert_static(&mut self, parent: &str, child: &str, parent_from_child: Isometry3<f64>) {
        let joints = self.0.entry(plain(child).to_owned()).or_default();
        joints.insert(plain(parent).to_owned(), Joint::Static(parent_from_child));
    }

    /// What holds at one.
    pub fn insert(&mut self, parent: &str, child: &str, stamp: Stamp, parent_from_child: Isometry3<f64>) {
        let joints = self.0.entry(plain(child).to_owned()).or_default();
        let joint = joints.entry(plain(parent).to_owned()).or_insert_with(|| Joint::Moving(Track::default()));
        match joint {
            Joint::Moving(track) => track.insert(stamp, parent_from_child),
            Joint::Static(_) => *joint = Joint::Static(parent_from_child),
        }
    }

    /// The transform from one frame to another at a time; moving ones are known between two poses at most `reach_nanos`
    /// apart.
    ///
    /// # Errors
    ///
    /// [`Missing`].
    pub fn at(&self, to: &str, from: &str, stamp: Stamp, reach_nanos: i64) -> Result<Isometry3<f64>, Missing> {
        let (up, down) = self.way(plain(to), plain(from))?;
        let along = |steps: &[Step<'_>]| {
            steps.iter().try_fold(Isometry3::identity(), |above, (child, parent, joint)| {
                let parent_from_child = match joint {
                    Joint::Static(transform) => Some(*transform),
                    Joint::Moving(track) => track.at(stamp, reach_nanos),
                };
                let gone = || Missing::NotThen { child: (*child).to_owned(), parent: (*parent).to_owned(), stamp };
                Ok(parent_from_child.ok_or_else(gone)? * above)
            })
        };
        Ok(along(&down)?.inverse() * along(&up)?)
    }

    /// Whether nothing moves between two frames.
    ///
    /// # Errors
    ///
    /// [`Missing`], where they are not connected at all.
    pub fn is_static(&self, to: &str, from: &str) -> Result<bool, Missing> {
        let (up, down) = self.way(plain(to), plain(from))?;
        Ok(up.iter().chain(&down).all(|(.., joint)| matches!(joint, Joint::Static(_))))
    }

    /// The frame on which all those above a frame hang; itself where it hangs on none.
    ///
    /// # Errors
    ///
    /// [`Missing::TwoParents`].
    pub fn root<'a>(&'a self, frame: &'a str) -> Result<&'a str, Missing> {
        let (steps, end) = self.above(plain(frame));
        end.map_or_else(|| Ok(top(&steps, plain(frame))), Err)
    }

    /// Of the frames on which one hangs, keeps only those that hang on `world` in turn, or are it: the others are other programs'
    /// answers to where the frame is. A frame of which none does keeps all.
    pub fn keep_ways_to(&mut self, world: &str) {
        let world = plain(world).to_owned();
        let mut below = BTreeSet::from([world]);
        // Not more rounds than there are frames.
        for _ in 0..self.0.len() {
            let hangs = |(child, parents): (&String, &BTreeMap<String, Joint>)| {
                parents.keys().any(|parent| below.contains(parent)).then(|| child.clone())
            };
            let more: Vec<String> = self.0.iter().filter_map(hangs).collect();
            below.extend(more);
        }
        for parents in self.0.values_mut() {
            if parents.keys().any(|parent| below.contains(parent)) {
                parents.retain(|parent, _| below.contains(parent));
            }
        }
    }

    /// All frames.
    fn frames(&self) -> BTreeSet<&str> {
        let names = self.0.iter().flat_map(|(child, parents)| std::iter::once(child).chain(parents.keys()));
        names.map(String::as_str).collect()
    }

    /// The other frames from which transforms lead to a frame, by name.
    pub fn connected(&self, frame: &str) -> Vec<&str> {
        let frame = plain(frame);
        self.frames().into_iter().filter(|other| *other != frame && self.way(other, frame).is_ok()).collect()
    }

    /// From both frames up to where their ways meet: the second's, the first's.
    fn way<'a>(&'a self, to: &'a str, from: &'a str) -> Result<(Vec<Step<'a>>, Vec<Step<'a>>), Missing> {
        let ((mut up, end), (mut down, other_end)) = (self.above(from), self.above(to));
        // What is above both is taken by neither.
        while let (Some(last), Some(other)) = (up.last(), down.last())
            && last.0 == other.0
        {
            up.pop();
            down.pop();
        }
        if top(&up, from) == top(&down, to) {
            Ok((up, down))
        } else {
            let unconnected = || Missing::Unconnected { from: from.to_owned(), to: to.to_owned() };
            Err(end.or(other_end).unwrap_or_else(unconnected))
        }
    }

    /// The way up from a frame, as far as it is one way, and what ends it where that is not a root.
    fn above<'a>(&'a self, frame: &'a str) -> (Vec<Step<'a>>, Option<Missing>) {
        let (mut steps, mut name) = (Vec::new(), frame);
        // Not more than there are: a ring of transforms has no end.
        for _ in 0..self.0.len() {
            let Some((child, parents)) = self.0.get_key_value(name) else { break };
            let mut joints = parents.iter();
            let (Some((parent, joint)), None) = (joints.next(), joints.next()) else {
                let parents = parents.keys().cloned().collect();
                return (steps, Some(Missing::TwoParents { child: child.clone(), parents }));
            };
            steps.push((child.as_str(), parent.as_str(), joint));
            name = parent;
        }
        (steps, None)
    }
}

/// The frame that a way up from another ends at.
fn top<'a>(steps: &[Step<'a>], frame: &'a str) -> &'a str {
    steps.last().map_or(frame, |(_, parent, _)| parent)
}

/// Older programs write frames with a slash in front.
pub fn plain(frame: &str) -> &str {
    frame.trim_start_matches('/')
}

#[cfg(test)]
mod tests {
    use geometry::Stamp;
    use nalgebra::{Isometry3, UnitQuaternion, Vector3};

    use super::{Missing, Transforms};

    const REACH: i64 = 100;

    fn place(transforms: &Transforms, to: &str, from: &str, nanos: i64) -> Result<[f64; 3], Missing> {
        let found = transforms.at(to, from, Stamp::from_nanos(nanos), REACH);
        found.map(|transform| transform.translation.vector.into())
    }

    fn robot() -> Transforms {
        let mut transforms = Transforms::default();
        transforms.insert_static("base", "/mast", Isometry3::translation(0.0, 0.0, 1.0));
        transforms.insert_static("/mast", "eye", Isometry3::translation(0.5, 0.0, 0.0));
        transforms.insert_static("base", "imu", Isometry3::translation(0.0, 0.25, 0.0));
        transforms.insert_static("dock", "plug", Isometry3::identity());
        transforms
    }

    #[test]
    fn frames_of_one_tree_lead_to_each_other() {
        let transforms = robot();
        let place = |to: &str, from: &str| place(&transforms, to, from, 0).ok();
        assert_eq!(place("base", "eye"), Some([0.5, 0.0, 1.0]));
        assert_eq!(place("/imu", "/eye"), Some([0.5, -0.25, 1.0]));
        assert_eq!(place("eye", "imu"), Some([-0.5, 0.25, -1.0]));
        assert_eq!(place("eye", "base"), Some([-0.5, 0.0, -1.0]));
        assert_eq!(place("lonely", "lonely"), Some([0.0; 3]));
        assert_eq!(place("dock", "eye").or(place("eye", "plug")), None);
        assert_eq!(transforms.connected("/eye"), ["base", "imu", "mast"]);
        assert!(transforms.connected("lonely").is_empty());
        assert_eq!((transforms.root("eye"), transforms.root("lonely")), (Ok("base"), Ok("lonely")));
        assert_eq!(transforms.is_static("imu", "eye"), Ok(true));
    }

    #[test]
    fn what_moves_is_known_between_its_poses() {
        let mut transforms = robot();
        let quarter = UnitQuaternion::from_scaled_axis(Vector3::z() * std::f64::consts::FRAC_PI_2);
        // In any order, as several writers leave it.
        for (nanos, x) in [(300, 9.0), (100, 1.0), (200, 2.0)] {
            transforms.insert("odom", "base", Stamp::from_nanos(nanos), Isometry3::translation(x, 0.0, 0.0));
        }
        transforms.insert("map", "odom", Stamp::from_nanos(100), Isometry3::from_parts([0.0; 3].into(), quarter));
        transforms.insert("map", "odom", Stamp::from_nanos(200), Isometry3::from_parts([0.0; 3].into(), quarter));
        assert_eq!(transforms.root("eye"), Ok("map"));
        assert_eq!(place(&transforms, "odom", "eye", 150), Ok([2.0, 0.0, 1.0]));
        assert_eq!(place(&transforms, "odom", "eye", 300), Ok([9.5, 0.0, 1.0]));
        let turned = place(&transforms, "map", "eye", 150).unwrap();
        assert!((Vector3::from(turned) - Vector3::new(0.0, 2.0, 1.0)).norm() < 1e-12, "{turned:?}");
        assert_eq!(transforms.is_static("map", "eye"), Ok(false));
        for nanos in [99, 250] {
            let error = place(&transforms, "map", "eye", nanos).unwrap_err();
            assert!(matches!(&error, Missing::NotThen { stamp, .. } if stamp.nanos == nanos), "{error}");
        }
        let mut far = Transforms::default();
        for nanos in [0, 101] {
            far.insert("a", "b", Stamp::from_nanos(nanos), Isometry3::identity());
        }
        assert!(place(&far, "a", "b", 50).is_err() && place(&far, "a", "b", 101).is_ok());
    }

    #[test]
    fn of_two_parents_the_one_on_the_way_to_a_world_can_be_kept() {
        let mut transforms = robot();
        transforms.insert("odom", "base", Stamp::from_nanos(0), Isometry3::translation(1.0, 0.0, 0.0));
        transforms.insert("map", "base", Stamp::from_nanos(0), Isometry3::translation(2.0, 0.0, 0.0));
        assert!(place(&transforms, "odom", "eye", 0).is_err());
        for (world, x) in [("odom", 1.5), ("/map", 2.5)] {
            let mut kept = transforms.clone();
            kept.keep_ways_to(world);
            assert_eq!(place(&kept, world, "eye", 0), Ok([x, 0.0, 1.0]));
        }
        // Of a world that nothing hangs on, nothing is known, and nothing is lost.
        transforms.keep_ways_to("mars");
        assert!(matches!(place(&transforms, "odom", "eye", 0), Err(Missing::TwoParents { .. })));
        assert_eq!(place(&transforms, "base", "eye", 0), Ok([0.5, 0.0, 1.0]));
    }

    #[test]
    fn two_parents_and_rings_are_no_way() {
        let mut transforms = robot();
        transforms.insert("vicon", "mast", Stamp::from_nanos(0), Isometry3::identity());
        let error = place(&transforms, "base", "eye", 0).unwrap_err();
        assert_eq!(error.to_string(), "frame \"mast\" hangs on more than one other: base, vicon");
        assert_eq!(transforms.root("eye").unwrap_err(), error);
        // What is below it, and so not in question, is known.
        assert_eq!(place(&transforms, "mast", "eye", 0), Ok([0.5, 0.0, 0.0]));
        assert_eq!(place(&transforms, "eye", "eye", 0), Ok([0.0; 3]));
        assert_eq!(transforms.connected("eye"), ["mast"]);
        let mut ring = Transforms::default();
        ring.insert_static("a", "b", Isometry3::identity());
        ring.insert_static("b", "a", Isometry3::identity());
        assert!(place(&ring, "a", "c", 0).is_err());
    }
}
