//! Frames, SE(3), cameras, robust poses from image points, Procrustes alignment, five-frame trajectories and the metrics
//! on them.
//!
//! Every part of EgoReasoner that speaks of a pose speaks of it in the types of this crate: the data loaders, the text
//! of the reasoning chain, the reward, the evaluation and the robot's node. What is here is arithmetic: no I/O but TUM
//! text files, no clock, no threads, no global state, and randomness only from a seed that the caller passes.
//!
//! # Conventions
//! * Camera frames are optical: x right, y down, z forward.
//! * `Transform<To, From>` maps points in `From` to points in `To` and is called `to_from_from`, so that adjacent names
//!   of a product match: `odom_from_camera = odom_from_anchor * anchor_from_camera`.
//! * Lengths are scene units: metres where the source is metric, an arbitrary unit where it is not ([`SceneScale`]
//!   says which). Angles are radians inside, degrees in the names that end in `_deg`.
//! * Pixels follow OpenCV: integer coordinates are the centres of pixels.
//!
//! # Limits
//! The frame parameters catch mixed-up frames of one kind at compile time. They cannot tell camera 2 from camera 3, nor
//! one world from another; [`Transform::relabel`] is the marked place where a frame changes its name.
//!
//! # Example
//! ```
//! use geometry::{Base, Camera, Intrinsics, Odom, Transform};
//! use nalgebra::{Point2, Point3, Vector3};
//!
//! # fn main() -> Result<(), geometry::Error> {
//! let odom_from_base = Transform::<Odom, Base>::from_wxyz([1.0, 0.0, 0.0, 0.0], &Vector3::new(1.0, 0.0, 0.0))?;
//! // Half a metre up, looking straight ahead.
//! let base_from_camera = Transform::<Base, Camera>::from_wxyz([0.5, -0.5, 0.5, -0.5], &Vector3::new(0.0, 0.0, 0.5))?;
//! // The other way round does not compile.
//! let odom_from_camera = odom_from_base * base_from_camera;
//!
//! let point_in_camera = Point3::new(0.0, 0.0, 2.0);
//! let point_in_odom = odom_from_camera.transform_point(&point_in_camera);
//! assert!((point_in_odom - Point3::new(3.0, 0.0, 0.5)).norm() < 1e-12);
//!
//! let camera = Intrinsics::new(615.0, 615.0, 319.5, 239.5, 640, 480)?;
//! assert_eq!(camera.project(&point_in_camera), Some(Point2::new(319.5, 239.5)));
//! # Ok(())
//! # }
//! ```
#![deny(missing_docs)]

pub mod adjust;
mod camera;
pub mod epipolar;
mod error;
pub mod five_point;
mod frame;
pub mod homography;
mod linear;
pub mod metrics;
mod odometry;
pub mod pnp;
mod polynomial;
mod procrustes;
pub mod reward;
mod robust;
mod stamp;
mod stated;
mod svd;
mod trajectory;
pub mod tum;
pub mod two_view;
mod units;
mod up_to;

pub use camera::Intrinsics;
pub use error::Error;
pub use frame::{Anchor, Base, Camera, Frame, Odom, Transform, World, nearest_rotation};
pub use metrics::{SceneScale, Summary, WindowErrors};
pub use odometry::{Disagreement, Odometry, Outcome, Push};
pub use procrustes::{RANK_RATIO, Similarity, kabsch, singular_ratio, umeyama};
pub use robust::RobustOptions;
pub use stamp::{Stamp, Stamped};
pub use stated::StatedPose;
pub use trajectory::{WINDOW, WindowTrajectory};
pub use units::{Metres, Radians};
pub use up_to::UpTo;
