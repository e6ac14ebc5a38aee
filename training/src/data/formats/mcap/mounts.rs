//! How the frames of a robot are mounted on one another: what `/tf_static` says.

use nalgebra::Isometry3;
use std::collections::{BTreeMap, BTreeSet};

/// By child: its parent, and the transform from the child to it.
#[derive(Default)]
pub(super) struct Mounts(BTreeMap<String, (String, Isometry3<f64>)>);

impl Mounts {
    pub(super) fn insert(&mut self, parent: &str, child: &str, parent_from_child: Isometry3<f64>) {
        self.0.insert(plain(child).to_owned(), (plain(parent).to_owned(), parent_from_child));
    }

    /// The transform from the camera to a body; `None` where static transforms do not lead from one to the other.
    pub(super) fn body_from_camera(&self, body: &str, camera: &str) -> Option<Isometry3<f64>> {
        let above_camera = self.ancestors(plain(camera));
        let meet = |(name, above_from_body): (&str, Isometry3<f64>)| {
            let (_, above_from_camera) = above_camera.iter().find(|(other, _)| *other == name)?;
            Some(above_from_body.inverse() * above_from_camera)
        };
        self.ancestors(plain(body)).into_iter().find_map(meet)
    }

    /// The frames other than the camera's from which static transforms lead to it, by name.
    pub(super) fn bodies(&self, camera: &str) -> Vec<&str> {
        let names = self.0.iter().flat_map(|(child, (parent, _))| [child.as_str(), parent.as_str()]);
        let names: BTreeSet<&str> = names.filter(|name| *name != plain(camera)).collect();
        names.into_iter().filter(|body| self.body_from_camera(body, camera).is_some()).collect()
    }

    /// A frame and those above it, each with the transform from the frame to it.
    fn ancestors<'a>(&'a self, frame: &'a str) -> Vec<(&'a str, Isometry3<f64>)> {
        let mut chain = vec![(frame, Isometry3::identity())];
        let (mut name, mut above_from_frame) = (frame, Isometry3::identity());
        // Not more than there are: a ring of transforms has no end.
        for _ in 0..self.0.len() {
            let Some((parent, parent_from_child)) = self.0.get(name) else { break };
            above_from_frame = parent_from_child * above_from_frame;
            name = parent;
            chain.push((name, above_from_frame));
        }
        chain
    }
}

/// Older programs write frames with a slash in front.
fn plain(frame: &str) -> &str {
    frame.trim_start_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_one_tree_lead_to_each_other() {
        let mut mounts = Mounts::default();
        mounts.insert("base", "/mast", Isometry3::translation(0.0, 0.0, 1.0));
        mounts.insert("/mast", "eye", Isometry3::translation(0.5, 0.0, 0.0));
        mounts.insert("base", "imu", Isometry3::translation(0.0, 0.25, 0.0));
        mounts.insert("dock", "plug", Isometry3::identity());
        let place = |body: &str, camera: &str| {
            mounts.body_from_camera(body, camera).map(|transform| <[f64; 3]>::from(transform.translation.vector))
        };
        assert_eq!(place("base", "eye"), Some([0.5, 0.0, 1.0]));
        assert_eq!(place("/imu", "/eye"), Some([0.5, -0.25, 1.0]));
        assert_eq!(place("eye", "imu"), Some([-0.5, 0.25, -1.0]));
        assert_eq!(place("lonely", "lonely"), Some([0.0; 3]));
        assert_eq!(place("dock", "eye").or(place("eye", "plug")), None);
        assert_eq!(mounts.bodies("/eye"), ["base", "imu", "mast"]);
        assert!(mounts.bodies("lonely").is_empty());
    }

    #[test]
    fn a_ring_of_transforms_has_an_end() {
        let mut mounts = Mounts::default();
        mounts.insert("a", "b", Isometry3::identity());
        mounts.insert("b", "a", Isometry3::identity());
        assert!(mounts.body_from_camera("a", "b").is_some());
        assert!(mounts.body_from_camera("a", "c").is_none());
    }
}
