//! What a lens does to rays: the three distortion models of `sensor_msgs/distortion_models.hpp`.

use std::f64::consts::TAU;

use crate::error::InfoError;

/// Rays further than this from the optical axis are never asked for: a plane stretches what lies there beyond use.
const MAX_OFF_AXIS_DEG: f64 = 70.0;
/// Circles and directions on which [`Lens::field`] tries the lens.
const CIRCLES: u32 = 280;
const DIRECTIONS: u32 = 32;

/// A lens, as a map of the plane z = 1 to itself: where the ray through (x, y) would meet it were the camera a pinhole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lens {
    /// `plumb_bob` and `rational_polynomial`: Brown-Conrady, as OpenCV's `cv::projectPoints` has it.
    Brown {
        /// k1, k2, k3, of the second, fourth and sixth power of the radius.
        radial: [f64; 3],
        /// p1, p2.
        tangential: [f64; 2],
        /// k4, k5, k6, of the same powers below the fraction bar; zeros for `plumb_bob`.
        denominator: [f64; 3],
    },
    /// `equidistant`: Kannala-Brandt, as OpenCV's `cv::fisheye` has it.
    Equidistant {
        /// k1 to k4, of the second, fourth, sixth and eighth power of the angle off the axis.
        k: [f64; 4],
    },
}

impl Lens {
    /// The lens of a CameraInfo's `distortion_model` and `D`; none where D is empty or all zero, whatever the model, as
    /// image_geometry reads it too.
    ///
    /// # Errors
    /// A model that is not known, or coefficients that are not finite or not as many as the model has.
    pub fn new(model: &str, d: &[f64]) -> Result<Option<Self>, InfoError> {
        if let Some(got) = d.iter().find(|v| !v.is_finite()) {
            return Err(InfoError::new("D", "finite numbers", got));
        }
        if d.iter().all(|v| *v == 0.0) {
            return Ok(None);
        }
        let length = |expected: &str| Err(InfoError::new("D", expected, d.len()));
        let lens = match (model, d) {
            ("plumb_bob", &[k1, k2, p1, p2]) => Self::brown([k1, k2, 0.0], [p1, p2], [0.0; 3]),
            ("plumb_bob", &[k1, k2, p1, p2, k3]) => Self::brown([k1, k2, k3], [p1, p2], [0.0; 3]),
            ("rational_polynomial", &[k1, k2, p1, p2, k3, k4, k5, k6]) => {
                Self::brown([k1, k2, k3], [p1, p2], [k4, k5, k6])
            }
            ("equidistant", &[k1, k2, k3, k4]) => Self::Equidistant { k: [k1, k2, k3, k4] },
            ("plumb_bob", _) => return length("4 or 5 coefficients for plumb_bob"),
            ("rational_polynomial", _) => return length("8 coefficients for rational_polynomial"),
            ("equidistant", _) => return length("4 coefficients for equidistant"),
            (other, _) => {
                let got = format!("{:?}", other.chars().take(64).collect::<String>());
                return Err(InfoError::new("distortion_model", "plumb_bob, rational_polynomial or equidistant", got));
            }
        };
        Ok(Some(lens))
    }

    fn brown(radial: [f64; 3], tangential: [f64; 2], denominator: [f64; 3]) -> Self {
        Self::Brown { radial, tangential, denominator }
    }

    /// Where a ray comes to lie.
    pub(crate) fn distort(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let r2 = x * x + y * y;
        match *self {
            Self::Brown { radial, tangential: [p1, p2], denominator } => {
                let ratio = polynomial(radial, r2) / polynomial(denominator, r2);
                [
                    x * ratio + 2.0 * p1 * x * y + p2 * (r2 + 2.0 * x * x),
                    y * ratio + p1 * (r2 + 2.0 * y * y) + 2.0 * p2 * x * y,
                ]
            }
            Self::Equidistant { k: [k1, k2, k3, k4] } => {
                let r = r2.sqrt();
                let theta = r.atan();
                let t2 = theta * theta;
                let distorted = theta * (1.0 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))));
                let ratio = if r > 0.0 { distorted / r } else { 1.0 };
                [x * ratio, y * ratio]
            }
        }
    }

    /// Radius of the disc about the axis, on the plane z = 1, where rays further out come to lie further out and the map
    /// keeps its orientation, and has no pole: up to there it is one to one. Beyond, polynomials fold over, and rays that
    /// the camera never saw land in its image.
    pub(crate) fn field(&self) -> f64 {
        let circles = (1..=CIRCLES).map(|i| (MAX_OFF_AXIS_DEG * f64::from(i) / f64::from(CIRCLES)).to_radians().tan());
        let is_one_to_one = |radius: f64| {
            let has_pole = match *self {
                Self::Brown { denominator, .. } => polynomial(denominator, radius * radius) <= 0.0,
                Self::Equidistant { .. } => false,
            };
            !has_pole
                && (0..DIRECTIONS).all(|i| {
                    let (sin, cos) = (TAU * f64::from(i) / f64::from(DIRECTIONS)).sin_cos();
                    let [[xx, xy], [yx, yy]] = self.jacobian([radius * cos, radius * sin]);
                    let outwards = cos * (xx * cos + xy * sin) + sin * (yx * cos + yy * sin);
                    outwards > 0.0 && xx * yy - xy * yx > 0.0
                })
        };
        circles.take_while(|radius| is_one_to_one(*radius)).last().unwrap_or(0.0)
    }

    /// [`Self::field`], where that ends because the lens folds and not because nobody asks for what is beyond.
    pub(crate) fn folds_at(&self) -> Option<f64> {
        let field = self.field();
        (field < MAX_OFF_AXIS_DEG.to_radians().tan()).then_some(field)
    }

    /// By central differences, one function for every model; row-major.
    pub(crate) fn jacobian(&self, [x, y]: [f64; 2]) -> [[f64; 2]; 2] {
        const H: f64 = 1e-6;
        let slope = |ahead: [f64; 2], behind: [f64; 2]| {
            let (ahead, behind) = (self.distort(ahead), self.distort(behind));
            [(ahead[0] - behind[0]) / (2.0 * H), (ahead[1] - behind[1]) / (2.0 * H)]
        };
        let [xx, yx] = slope([x + H, y], [x - H, y]);
        let [xy, yy] = slope([x, y + H], [x, y - H]);
        [[xx, xy], [yx, yy]]
    }
}

/// `1 + a x + b x^2 + c x^3`.
fn polynomial([a, b, c]: [f64; 3], x: f64) -> f64 {
    1.0 + x * (a + x * (b + x * c))
}
