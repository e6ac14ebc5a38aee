//! Whose word the poses of a topic of images are: those of a body and the way from there to the camera, or transforms alone.

use super::{Body, Film, Recording, field, listed};
use crate::error::Error;
use camera::transforms::{Missing, Track};
use geometry::Stamp;
use nalgebra::Isometry3;
use std::collections::BTreeSet;
use std::path::Path;

/// Farthest that the two poses around an image may be apart.
const MAX_NANOS: i64 = 100_000_000;
/// That, in words.
const REACH: &str = "within 0.1 s from one to the next";
/// How near two poses are that are the same, metres or radians: they were written as f64.
const SAME: f64 = 1e-6;

/// Where the poses of a topic of images come from.
pub(super) enum Poses<'a> {
    /// Those of a body, and what leads from there to the camera: the transform, where it is the same at all times.
    Body { name: &'a str, body: &'a str, track: &'a Track, mount: Option<Isometry3<f64>> },
    /// The transforms alone: from the camera to the frame that all hang on.
    Transforms { world: &'a str, camera: &'a str },
}

impl Poses<'_> {
    /// As errors name them.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Body { name, .. } => (*name).to_owned(),
            Self::Transforms { world, camera } => format!("/tf ({world} to {camera})"),
        }
    }
}

impl Recording {
    /// # Errors
    /// Why there is none, in words.
    pub(super) fn world_from_camera(
        &self,
        poses: &Poses<'_>,
        frame_id: &str,
        stamp: Stamp,
    ) -> Result<Isometry3<f64>, String> {
        let transform = |to: &str, from: &str| {
            let found = self.transforms.at(to, from, stamp, MAX_NANOS);
            found.map_err(|missing| format!("{missing} ({REACH})"))
        };
        match poses {
            Poses::Body { name, body, track, mount } => {
                let pose =
                    track.at(stamp, MAX_NANOS).ok_or_else(|| format!("no poses of {name} around it ({REACH})"))?;
                Ok(pose * mount.map_or_else(|| transform(body, frame_id), Ok)?)
            }
            Poses::Transforms { world, camera } => transform(world, camera),
        }
    }

    /// # Errors
    /// Several topics whose transforms move: each may say where the same frame is.
    fn one_tree(&self, path: &Path, topic: &str) -> Result<(), Error> {
        if self.moving.len() < 2 {
            return Ok(());
        }
        let names: Vec<&str> = self.moving.iter().map(String::as_str).collect();
        Err(field(path, "tf", format!("one topic with transforms that move ({topic})"), names.join(", ")))
    }

    pub(super) fn poses<'a>(&'a self, path: &Path, topic: &str, film: &'a Film) -> Result<Poses<'a>, Error> {
        let asked = self.options.pose_topic.as_deref();
        let is_meant = |name: &str, body: &Body| match asked {
            Some(topic) => name == topic || name.starts_with(&format!("{topic} (")),
            // A single pose is a goal or a first guess.
            None => !body.own && body.track.iter().nth(1).is_some(),
        };
        let fitting: Vec<_> = self.bodies.iter().filter(|((_, name), body)| is_meant(name, body)).collect();
        if let Some(frame) = self.options.world_frame.as_ref().filter(|_| asked.is_some() && !fitting.is_empty()) {
            let expected = format!("nothing where pose_topic names poses of one body ({topic}): it is for /tf");
            return Err(field(path, "world_frame", expected, frame.clone()));
        }
        if fitting.is_empty() || self.options.world_frame.is_some() {
            return self.transformed(path, topic, film);
        }
        let [((_, name), found)] = fitting[..] else {
            let types: BTreeSet<&str> =
                fitting.iter().map(|((of, _), _)| of.name().rsplit('/').next().unwrap_or_default()).collect();
            let types: Vec<&str> = types.into_iter().collect();
            let names: Vec<&str> = fitting.iter().map(|((_, name), _)| name.as_str()).collect();
            let expected = format!("one topic of {} ({topic}), named with pose_topic=NAME", types.join(" or "));
            return Err(field(path, "poses", expected, names.join(", ")));
        };
        let body = self.options.pose_frame.as_ref().unwrap_or(&found.name);
        let no_way = |why: String| {
            let known = self.transforms.connected(&film.frame_id);
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let expected = format!(
                "poses of the images' frame {:?} or of one with transforms to it ({known}), named with pose_frame=NAME \
                 where messages name another ({topic})",
                film.frame_id
            );
            field(path, "pose frame", expected, format!("{name} of frame {body:?}: {why}"))
        };
        // The same at all times, so at any; where it moves, at each image's.
        let mount = match self.transforms.is_static(body, &film.frame_id) {
            Ok(false) => {
                self.one_tree(path, topic)?;
                None
            }
            Ok(true) => self.transforms.at(body, &film.frame_id, Stamp::default(), MAX_NANOS).ok(),
            // A body that was asked for is not guessed at: the images' own frame could have been named as well.
            Err(Missing::Unconnected { .. })
                if self.options.pose_frame.is_none() && body.ends_with("optical_frame") =>
            {
                Some(Isometry3::identity())
            }
            Err(why) => return Err(no_way(why.to_string())),
        };
        Ok(Poses::Body { name, body, track: &found.track, mount })
    }

    /// Poses out of `/tf` alone.
    fn transformed<'a>(&'a self, path: &Path, topic: &str, film: &'a Film) -> Result<Poses<'a>, Error> {
        let none = || Error::Missing { path: path.to_path_buf(), expected: self.lacking(topic, film) };
        let plain = |topic: &str| topic.trim_start_matches('/').to_owned();
        let is_asked = |asked: &String| self.moving.iter().any(|topic| plain(topic) == plain(asked));
        if self.moving.is_empty() || !self.options.pose_topic.as_ref().is_none_or(is_asked) {
            return Err(none());
        }
        self.one_tree(path, topic)?;
        if let Some(frame) = &self.options.pose_frame {
            let expected = format!("nothing where transforms alone say where the images' frame is ({topic})");
            return Err(field(path, "pose_frame", expected, frame.clone()));
        }
        if let Some((said, body)) = self.own_transform().filter(|_| self.options.pose_topic.is_none()) {
            let expected = format!("transforms that our node has not said itself ({topic})");
            let got = format!(
                "{} to {} as {said} has it; pose_topic=/tf (or as it is called) takes them nevertheless",
                body.world, body.name
            );
            return Err(field(path, "tf", expected, got));
        }
        let camera = film.frame_id.as_str();
        let wrong = |why: Missing| {
            let expected = format!("one way up from {camera:?} ({topic}), to the frame that world_frame=NAME names");
            field(path, "tf", expected, why.to_string())
        };
        let world = match &self.options.world_frame {
            Some(world) => world.as_str(),
            None => self.transforms.root(camera).map_err(wrong)?,
        };
        match self.transforms.is_static(world, camera) {
            Ok(false) => Ok(Poses::Transforms { world, camera }),
            Ok(true) => Err(none()),
            Err(Missing::Unconnected { .. }) if self.options.world_frame.is_some() => {
                let frames = self.transforms.connected(camera);
                let expected = format!("a frame with transforms to {camera:?} ({topic}): {}", listed(&frames));
                Err(field(path, "world_frame", expected, world.to_owned()))
            }
            Err(why) => Err(wrong(why)),
        }
    }

    /// What a topic of images has no poses without.
    fn lacking(&self, topic: &str, film: &Film) -> String {
        let kinds = "PoseStamped, Odometry, PoseWithCovarianceStamped, TransformStamped or TFMessage";
        let frame = &film.frame_id;
        let names = |wanted: &dyn Fn(&Body) -> bool| -> Vec<&str> {
            let named = self.bodies.iter().filter(|(_, body)| wanted(body));
            named.map(|((_, name), _)| name.as_str()).collect()
        };
        let expected = match &self.options.pose_topic {
            Some(asked) => {
                let all: Vec<&str> =
                    names(&|_| true).into_iter().chain(self.moving.iter().map(String::as_str)).collect();
                return format!("poses of {asked} ({kinds}); there are {}", listed(&all));
            }
            None if self.moving.is_empty() => format!("a topic with poses: {kinds}"),
            None => format!(
                "a topic with poses: {kinds}; no transforms that move lead to the images' frame {frame:?} ({topic})"
            ),
        };
        let own = names(&|body| body.own);
        if own.is_empty() {
            return expected;
        }
        let own = own.join(", ");
        format!("{expected}, beside {own}, which our node has said itself (pose_topic=NAME takes it nevertheless)")
    }

    /// The body that the node gives poses of, and on which topic, where a transform that moves says the same: it is the node's too.
    fn own_transform(&self) -> Option<(&str, &Body)> {
        let is_same = |body: &Body| {
            let both = body.track.iter().filter_map(|(stamp, pose)| {
                let transform = self.transforms.at(&body.world, &body.name, stamp, 0).ok()?;
                let turn = transform.rotation.angle_to(&pose.rotation);
                Some((transform.translation.vector - pose.translation.vector).norm() < SAME && turn < SAME)
            });
            let both: Vec<bool> = both.collect();
            !both.is_empty() && both.iter().all(|same| *same)
        };
        let own = self.bodies.iter().filter(|(_, body)| body.own && body.world != body.name);
        own.filter(|(_, body)| self.transforms.is_static(&body.world, &body.name) == Ok(false))
            .find(|(_, body)| is_same(body))
            .map(|((_, name), body)| (name.as_str(), body))
    }
}
