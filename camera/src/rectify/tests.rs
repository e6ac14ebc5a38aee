use std::f64::consts::TAU;

use geometry::Intrinsics;
use image::{Rgb, RgbImage};
use nalgebra::{Point2, Point3};
use proptest::prelude::*;

use super::{CameraModel, Lens, Rectifier};

const PLUMB_BOB: [f64; 5] = [-0.3, 0.11, 0.001, -0.002, -0.02];
const RATIONAL: [f64; 8] = [0.8, -0.5, 0.0007, -0.0004, 0.04, 1.1, -0.4, 0.06];
const EQUIDISTANT: [f64; 4] = [-0.02, 0.01, -0.004, 0.0006];

fn lens(model: &str, d: &[f64]) -> Lens {
    Lens::new(model, d).unwrap().unwrap()
}

fn lenses() -> [Lens; 3] {
    [lens("plumb_bob", &PLUMB_BOB), lens("rational_polynomial", &RATIONAL), lens("equidistant", &EQUIDISTANT)]
}

fn raw() -> Intrinsics {
    Intrinsics::new(300.0, 310.0, 161.0, 118.5, 320, 240).unwrap()
}

fn rectifier(raw: Intrinsics, lens: Lens, rectified: Option<Intrinsics>) -> Rectifier {
    Rectifier::new(&CameraModel { raw, lens: Some(lens), rectified }).unwrap().unwrap()
}

/// Where the camera sees a point.
fn project(raw: &Intrinsics, lens: &Lens, point: &Point3<f64>) -> Point2<f64> {
    let [x, y] = lens.distort([point.x / point.z, point.y / point.z]);
    raw.project(&Point3::new(x, y, 1.0)).unwrap()
}

/// From OpenCV 5.0, with the coefficients above:
/// ```python
/// points = np.array([[0, 0, 1], [0.1, -0.2, 1], [0.4, 0.3, 1], [-0.6, 0.45, 1], [0.9, -0.7, 1.5]])
/// K = np.array([[300, 0, 161], [0, 310, 118.5], [0, 0, 1.0]])
/// cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, d)  # and cv2.fisheye.projectPoints
/// ```
#[test]
fn points_are_seen_where_opencv_projects_them() {
    let points = [[0.0, 0.0, 1.0], [0.1, -0.2, 1.0], [0.4, 0.3, 1.0], [-0.6, 0.45, 1.0], [0.9, -0.7, 1.5]];
    let rows: [(Lens, [[f64; 2]; 5]); 4] = [
        (
            lens("plumb_bob", &PLUMB_BOB),
            [
                [161.0, 118.5],
                [190.504175, 57.478205],
                [272.5175, 205.119812],
                [4.81937891, 239.452794],
                [314.768751, -5.18402056],
            ],
        ),
        (
            lens("plumb_bob", &PLUMB_BOB[..4]),
            [
                [161.0, 118.5],
                [190.50425, 57.47805],
                [272.555, 205.148875],
                [4.17865625, 239.949354],
                [315.463111, -5.74208066],
            ],
        ),
        (
            lens("rational_polynomial", &RATIONAL),
            [
                [161.0, 118.5],
                [190.549071, 57.4303695],
                [273.157868, 205.499848],
                [5.16004748, 239.345713],
                [315.684836, -5.75112105],
            ],
        ),
        (
            lens("equidistant", &EQUIDISTANT),
            [
                [161.0, 118.5],
                [190.486595, 57.5610363],
                [271.844154, 204.404219],
                [7.6151046, 237.373294],
                [313.841415, -4.33921129],
            ],
        ),
    ];
    for (lens, pixels) in rows {
        for (point, pixel) in points.into_iter().zip(pixels) {
            let got = project(&raw(), &lens, &Point3::from(point));
            assert!((got - Point2::from(pixel)).norm() < 1e-6, "{lens:?}: {point:?} at {got}, not {pixel:?}");
        }
    }
}

/// `cv2.initUndistortRectifyMap(K, d, None, P, (320, 240), cv2.CV_32FC1)` at four pixels (OpenCV 5.0).
#[test]
fn with_p_a_rectified_pixel_comes_from_where_opencv_takes_it() {
    let p = Intrinsics::new(260.0, 270.0, 155.0, 122.0, 320, 240).unwrap();
    let rectifier = rectifier(raw(), lens("plumb_bob", &PLUMB_BOB), Some(p));
    assert_eq!(rectifier.intrinsics(), p);
    for (pixel, wanted) in [
        ([160.0, 120.0], [166.76772, 116.20434]),
        ([300.0, 20.0], [308.23807, 15.387206]),
        ([40.0, 200.0], [37.859608, 201.58237]),
    ] {
        let got = rectifier.map.source(pixel[0], pixel[1]).unwrap();
        assert!((got - Point2::from(wanted)).norm() < 1e-4, "{pixel:?} from {got}, not {wanted:?}");
    }
    assert_eq!(rectifier.map.source(0.0, 0.0), None, "OpenCV has (6.04, -2.43): above the raw image");
}

#[test]
fn a_camera_without_distortion_needs_no_rectifier() {
    let model = CameraModel { raw: raw(), lens: None, rectified: None };
    assert!(Rectifier::new(&model).unwrap().is_none());
}

/// Points are seen through the lens and painted as soft dots; after rectification each dot's centre is where the pinhole
/// of the rectified image projects its point.
#[test]
fn rectified_points_are_where_the_pinhole_projects_them() {
    let narrow = raw();
    let wide = Intrinsics::new(150.0, 152.0, 161.0, 118.5, 320, 240).unwrap();
    for (raw, lens) in [narrow, narrow, wide].into_iter().zip(lenses()) {
        let rectifier = rectifier(raw, lens, None);
        let k = rectifier.intrinsics();
        let pixels = (1..7).flat_map(|i| (1..5).map(move |j| Point2::new(45.0 * f64::from(i), 47.0 * f64::from(j))));
        let points: Vec<Point3<f64>> =
            pixels.enumerate().map(|(i, pixel)| k.back_project(&pixel, 1.0 + 0.1 * i as f64)).collect();
        let dots: Vec<Point2<f64>> = points.iter().map(|point| project(&raw, &lens, point)).collect();
        let seen = RgbImage::from_fn(raw.width, raw.height, |x, y| {
            let at = Point2::new(f64::from(x), f64::from(y));
            let light: f64 = dots.iter().map(|dot| (-(at - dot).norm_squared() / 4.0).exp()).sum();
            Rgb([(250.0 * light) as u8; 3])
        });
        let rectified = rectifier.apply(&seen);
        for point in &points {
            let wanted = k.project(point).unwrap();
            let (mut weight, mut centre) = (0.0, Point2::origin());
            for y in wanted.y as u32 - 12..wanted.y as u32 + 13 {
                for x in wanted.x as u32 - 12..wanted.x as u32 + 13 {
                    let light = f64::from(rectified.get_pixel(x, y).0[0]);
                    weight += light;
                    centre += nalgebra::Vector2::new(f64::from(x), f64::from(y)) * light;
                }
            }
            let off = (centre / weight - wanted).norm();
            // A lens that bends makes a dot of 1.4 px lopsided by about a tenth.
            assert!(off < 0.15, "{lens:?}: {wanted} is off by {off:.3} px");
        }
    }
}

#[test]
fn without_p_every_pixel_has_a_source_and_no_wider_view_would() {
    let wide = Intrinsics::new(150.0, 150.0, 161.0, 118.5, 320, 240).unwrap();
    let fisheye = Intrinsics::new(100.0, 100.0, 159.5, 119.5, 320, 240).unwrap();
    let pincushion = lens("plumb_bob", &[0.2, 0.05, 0.0, 0.0]);
    let cameras = [raw(), raw(), wide].into_iter().zip(lenses());
    for (raw, lens) in cameras.chain([(fisheye, lens("equidistant", &EQUIDISTANT)), (raw(), pincushion)]) {
        let rectifier = rectifier(raw, lens, None);
        let k = rectifier.intrinsics();
        assert_eq!((k.width, k.height), (raw.width, raw.height));
        assert_eq!((k.cx.to_bits(), k.cy.to_bits()), (raw.cx.to_bits(), raw.cy.to_bits()));
        assert!((k.fx / raw.fx - k.fy / raw.fy).abs() < 1e-12, "pixels keep their shape");
        assert!(rectifier.map.table().iter().all(Option::is_some), "{lens:?}");
        let mut wider = rectifier.map;
        wider.rectified.fx *= 0.995;
        wider.rectified.fy *= 0.995;
        assert!(!wider.is_filled(), "{lens:?}");
    }
}

#[test]
fn the_field_ends_where_the_lens_folds_over() {
    // d/dr (r + k1 r^3) = 0 at r^2 = -1 / (3 k1); the pole of the second lens is at r^2 = 2.
    let folds = lens("plumb_bob", &[-0.5, 0.0, 0.0, 0.0]).field();
    let end = (1.0 / 1.5_f64).sqrt();
    assert!((0.98 * end..end).contains(&folds), "{folds} of {end}");
    let pole = lens("rational_polynomial", &[0.0, 0.0, 0.0, 0.0, 0.0, -0.5, 0.0, 0.0]).field();
    assert!((1.38..2.0_f64.sqrt()).contains(&pole), "{pole}");
    for steep in [-1e3, -1e9, 1e300, -1e300] {
        assert!(lens("plumb_bob", &[steep, 0.0, 0.0, 0.0]).field().is_finite());
        assert!(lens("equidistant", &[steep, 0.0, 0.0, 0.0]).field().is_finite());
    }
    for lens in lenses() {
        assert!(lens.field() > 0.9, "{lens:?} ends at {}", lens.field());
    }
}

#[test]
fn beyond_the_field_a_rectified_image_is_black_and_has_no_ghosts() {
    let raw = raw();
    let lens = lens("plumb_bob", &[-0.5, 0.0, 0.0, 0.0]);
    let p = Intrinsics::new(150.0, 300.0, 160.0, 120.0, 320, 240).unwrap();
    let rectifier = rectifier(raw, lens, Some(p));
    let corner = p.back_project(&Point2::new(10.0, 120.0), 1.0);
    assert!(raw.contains(&project(&raw, &lens, &corner)), "folded back into the raw image");
    let image = rectifier.apply(&RgbImage::from_pixel(320, 240, Rgb([200; 3])));
    assert_eq!(image.get_pixel(160, 120).0, [200; 3]);
    assert_eq!(image.get_pixel(10, 120).0, [0; 3]);
    for source in rectifier.map.table().into_iter().flatten() {
        assert!((0.0..320.0).contains(&source[0]) && (0.0..240.0).contains(&source[1]), "{source:?}");
    }
}

#[test]
fn lenses_and_projections_that_leave_no_view_are_refused() {
    let narrow = Intrinsics::new(3000.0, 3000.0, 159.5, 119.5, 320, 240).unwrap();
    let outside = Intrinsics::new(300.0, 300.0, -100.0, 119.5, 320, 240).unwrap();
    let away = Intrinsics::new(300.0, 300.0, 500.0, 118.5, 320, 240).unwrap();
    let mild = lens("plumb_bob", &[-0.1, 0.0, 0.0, 0.0]);
    for (raw, lens, rectified, wanted) in [
        (raw(), lens("plumb_bob", &[-100.0, 0.0, 0.0, 0.0]), None, "D: expected a lens"),
        (narrow, lens("plumb_bob", &[-1e6, 0.0, 0.0, 0.0]), None, "D: expected a lens"),
        (outside, mild, None, "D: expected a lens"),
        (raw(), mild, Some(away), "P: expected at least 50 %"),
    ] {
        let message = Rectifier::new(&CameraModel { raw, lens: Some(lens), rectified }).unwrap_err().to_string();
        assert!(message.contains(wanted), "`{wanted}` is not in: {message}");
    }
}

/// A lens that does next to nothing and a P that moves the image by a quarter of a pixel: the weights by hand.
#[test]
fn between_pixels_values_are_bilinear() {
    let raw = Intrinsics::new(10.0, 10.0, 1.0, 0.0, 3, 2).unwrap();
    let p = Intrinsics { cx: 0.75, cy: -0.5, ..raw };
    let rectifier = rectifier(raw, lens("plumb_bob", &[1e-12, 0.0, 0.0, 0.0]), Some(p));
    let values = [[[0, 8, 16], [40, 8, 16], [80, 0, 0]], [[100, 8, 32], [140, 8, 32], [180, 0, 0]]];
    let image = RgbImage::from_fn(3, 2, |x, y| Rgb(values[y as usize][x as usize]));
    let rectified = rectifier.apply(&image);
    // Sources are a quarter of a pixel to the right and half a pixel below.
    assert_eq!(rectified.get_pixel(0, 0).0, [60, 8, 24]);
    assert_eq!(rectified.get_pixel(1, 0).0, [100, 6, 18]);
}

/// The ray that comes to lie at `distorted`, by Newton's method along the way from the axis.
fn undistort(lens: &Lens, distorted: [f64; 2]) -> [f64; 2] {
    const STEPS: u32 = 100;
    let [mut x, mut y] = [0.0, 0.0];
    for step in 1..=STEPS {
        let share = f64::from(step) / f64::from(STEPS);
        // Near a lens's fold its slope is small, and four steps leave more than 1e-9.
        for _ in 0..if step < STEPS { 4 } else { 20 } {
            let at = lens.distort([x, y]);
            let (du, dv) = (share * distorted[0] - at[0], share * distorted[1] - at[1]);
            let [[xx, xy], [yx, yy]] = lens.jacobian([x, y]);
            let determinant = xx * yy - xy * yx;
            x += (yy * du - xy * dv) / determinant;
            y += (xx * dv - yx * du) / determinant;
        }
    }
    [x, y]
}

fn a_lens() -> impl Strategy<Value = Lens> {
    let radial = prop::array::uniform3(-0.4..0.4);
    let tangential = prop::array::uniform2(-0.005..0.005);
    let denominator = prop::array::uniform3(-0.2..0.2);
    prop_oneof![
        (radial, tangential, denominator).prop_map(|(radial, tangential, denominator)| Lens::Brown {
            radial,
            tangential,
            denominator
        }),
        prop::array::uniform4(-0.1..0.1).prop_map(|k| Lens::Equidistant { k }),
    ]
}

proptest! {
    #[test]
    fn in_the_field_a_ray_comes_back_from_where_it_lies(lens in a_lens(), share in 0.0..0.9, angle in 0.0..TAU) {
        let radius = share * lens.field();
        let ray = [radius * angle.cos(), radius * angle.sin()];
        let distorted = lens.distort(ray);
        let [x, y] = undistort(&lens, distorted);
        prop_assert!((x - ray[0]).hypot(y - ray[1]) < 1e-6, "{:?} came back as {:?}", ray, [x, y]);
        let [u, v] = lens.distort([x, y]);
        prop_assert!((u - distorted[0]).hypot(v - distorted[1]) < 1e-9);
    }

    #[test]
    fn no_camera_makes_a_source_outside_of_its_image(
        lens in a_lens(),
        focal in 30.0..600.0,
        centre in prop::array::uniform2(0.2..0.8),
        p in prop::option::of(20.0..600.0),
    ) {
        let k = |focal: f64| Intrinsics::new(focal, focal * 1.1, 32.0 * centre[0], 24.0 * centre[1], 32, 24).unwrap();
        let model = CameraModel { raw: k(focal), lens: Some(lens), rectified: p.map(k) };
        let Ok(Some(rectifier)) = Rectifier::new(&model) else { return Ok(()) };
        let table = rectifier.map.table();
        prop_assert_eq!(table.len(), 32 * 24);
        prop_assert!(p.is_some() || table.iter().all(Option::is_some));
        for [u, v] in table.into_iter().flatten() {
            prop_assert!((0.0..=31.0).contains(&u) && (0.0..=23.0).contains(&v), "{}, {}", u, v);
        }
        rectifier.apply(&RgbImage::new(32, 24));
    }
}
