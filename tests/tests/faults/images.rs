//! Images that are not what their message says, one among good ones, and unusual ones that are nothing but that.

use std::io::Cursor;

use camera::message::ImagePayload;
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use node::ros::message::DiagnosticLevel::Warn;
use node::status::counters::Fate;

use crate::case::{Case, Expect, from, grey, image, picture};

fn raw(encoding: &str, (width, height): (u32, u32), step: u32, bytes: usize) -> ImagePayload {
    let encoding = encoding.to_owned();
    ImagePayload::Raw { width, height, encoding, is_bigendian: false, step, data: vec![7; bytes] }
}

fn compressed(format: &str, data: Vec<u8>) -> ImagePayload {
    ImagePayload::Compressed { format: format.to_owned(), data }
}

/// A ramp of grey, 8 x 6 pixels, as a file.
fn file(format: ImageFormat) -> Vec<u8> {
    let ramp = RgbImage::from_fn(8, 6, |x, _| Rgb([40 + 4 * x as u8; 3]));
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(ramp).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn place(data: &[u8], what: &[u8]) -> usize {
    data.windows(what.len()).position(|bytes| bytes == what).unwrap()
}

/// An image in the third place that is refused as it comes in: the window does without it.
fn refused(payload: ImagePayload, message: &'static str) {
    let mut case = Case::new();
    case.frames(0..2);
    case.image(image(2, payload));
    case.frames(3..6);
    case.end(&Expect {
        used: 5,
        dropped: &[(Fate::Decode, 1)],
        held: 1,
        answered: 1,
        level: Warn,
        message,
        paths: vec![[0, 1, 3, 4, 5]],
        ..Expect::default()
    });
}

/// An image in the third place of which only its decoder finds out: the window goes with it.
pub fn broken(payload: ImagePayload, message: &'static str) {
    let mut case = Case::new();
    case.frames(0..2);
    case.image(image(2, payload));
    case.frames(3..9);
    case.end(&Expect {
        used: 5,
        dropped: &[(Fate::Decode, 1), (Fate::BrokenWindow, 3)],
        held: 1,
        answered: 1,
        broken: 1,
        level: Warn,
        message,
        paths: vec![from(4)],
        ..Expect::default()
    });
}

/// An image in the third place that is read. The greys around it lie far apart, since a JPEG is not exact.
fn read(payload: ImagePayload) {
    let mut case = Case::new();
    for i in 0..5 {
        case.image(if i == 2 { image(2, payload.clone()) } else { picture(i, 20 * i as u8) });
    }
    case.end(&Expect { used: 5, held: 1, answered: 1, paths: vec![from(0)], ..Expect::default() });
}

#[test]
fn an_encoding_that_is_no_picture() {
    refused(raw("32FC1", (8, 6), 32, 192), "encoding: expected one of rgb8");
}

#[test]
fn an_encoding_of_control_characters() {
    refused(raw("mono8\n\u{1b}[2J", (8, 6), 8, 48), "got `mono8??[2J`");
}

#[test]
fn data_a_byte_too_short() {
    refused(raw("rgb8", (8, 6), 24, 143), "6 rows * step 24 = 144 bytes, got 143");
}

#[test]
fn data_a_row_too_long() {
    refused(raw("bgr8", (8, 6), 24, 168), "6 rows * step 24 = 144 bytes, got 168");
}

#[test]
fn data_that_are_missing() {
    refused(raw("rgba8", (8, 6), 32, 0), "= 192 bytes, got 0");
}

#[test]
fn data_without_their_chroma() {
    refused(raw("nv12", (8, 6), 8, 48), "9 rows * step 8 = 72 bytes, got 48");
}

#[test]
fn a_step_shorter_than_a_row() {
    refused(raw("bgra8", (8, 6), 31, 186), "step: expected at least 32 bytes for a row, got 31");
}

#[test]
fn a_step_of_eight_bits_for_sixteen() {
    refused(raw("mono16", (8, 6), 8, 48), "step: expected at least 16 bytes for a row, got 8");
}

#[test]
fn a_step_of_zero() {
    refused(raw("mono8", (8, 6), 0, 0), "step: expected at least 8 bytes for a row, got 0");
}

#[test]
fn a_size_of_zero() {
    refused(raw("mono8", (0, 0), 0, 0), "image size: expected at least 1x1, got 0x0");
}

#[test]
fn a_size_beyond_all_memory() {
    let most = u32::MAX;
    refused(raw("rgb16", (most, most), most, 4), "image size: expected at most");
}

#[test]
fn an_odd_width_of_yuv422() {
    refused(raw("yuv422_yuy2", (7, 6), 14, 84), "an even width for yuv422_yuy2, got 7x6");
}

#[test]
fn an_odd_height_of_nv12() {
    refused(raw("nv12", (8, 5), 8, 60), "an even width and height for nv12, got 8x5");
}

#[test]
fn a_bayer_mosaic_of_one_row() {
    refused(raw("bayer_grbg8", (8, 1), 8, 8), "a tile of 2x2 for bayer_grbg8, got 8x1");
}

#[test]
fn a_jpeg_that_is_cut() {
    let mut jpeg = file(ImageFormat::Jpeg);
    jpeg.truncate(jpeg.len() - 2);
    refused(compressed("jpeg", jpeg), "JPEG: expected an end-of-image marker");
}

#[test]
fn a_jpeg_of_its_first_bytes() {
    let mut jpeg = file(ImageFormat::Jpeg);
    jpeg.truncate(16);
    refused(compressed("jpeg", jpeg), "last: JPEG: ");
}

#[test]
fn a_jpeg_whose_tables_are_overwritten() {
    let mut jpeg = file(ImageFormat::Jpeg);
    let (tables, scan) = (place(&jpeg, &[0xff, 0xc4]), place(&jpeg, &[0xff, 0xda]));
    jpeg[tables + 5..scan].fill(0xff);
    refused(compressed("jpeg", jpeg), "last: JPEG: ");
}

#[test]
fn a_png_that_is_cut() {
    let mut png = file(ImageFormat::Png);
    png.truncate(place(&png, b"IDAT") + 8);
    broken(compressed("png", png), "last: PNG: ");
}

#[test]
fn a_png_whose_pixels_are_overwritten() {
    let mut png = file(ImageFormat::Png);
    let pixels = place(&png, b"IDAT") + 4;
    png[pixels..pixels + 8].fill(0xff);
    broken(compressed("png", png), "last: PNG: ");
}

#[test]
fn a_video_on_the_topic_of_pictures() {
    refused(compressed("h264", vec![0, 0, 0, 1, 0x67]), "expected a JPEG or PNG file, got 5 bytes of another kind");
}

#[test]
fn a_compressed_image_without_data() {
    refused(compressed("jpeg", Vec::new()), "expected a JPEG or PNG file, got 0 bytes");
}

#[test]
fn a_compressed_image_of_another_size() {
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::new(16, 12).write_to(&mut bytes, ImageFormat::Png).unwrap();
    let mut case = Case::new();
    case.frames(0..2);
    case.image(image(2, compressed("png", bytes.into_inner())));
    case.frames(3..6);
    case.end(&Expect {
        used: 5,
        dropped: &[(Fate::CameraInfoMismatch, 1)],
        held: 1,
        answered: 1,
        level: Warn,
        message: "intrinsics are for 8 x 6 pixels, the image has 16 x 12",
        paths: vec![[0, 1, 3, 4, 5]],
        ..Expect::default()
    });
}

#[test]
fn a_format_that_is_not_that_of_the_file() {
    read(compressed("png", file(ImageFormat::Jpeg)));
    read(compressed("rgb8; jpeg compressed bgr8", file(ImageFormat::Png)));
}

#[test]
fn rows_with_padding() {
    let ImagePayload::Raw { width, height, encoding, is_bigendian, data, .. } = grey(8, 40) else { unreachable!() };
    let data = data.chunks(8).flat_map(|row| [row, &[255; 5]].concat()).collect();
    read(ImagePayload::Raw { width, height, encoding, is_bigendian, step: 13, data });
}

#[test]
fn samples_in_the_other_byte_order() {
    let ImagePayload::Raw { width, height, data, .. } = grey(8, 40) else { unreachable!() };
    // Low bytes that would be out of order as high ones.
    let data = data.iter().flat_map(|high| [*high, 255]).collect();
    let encoding = "mono16".to_owned();
    read(ImagePayload::Raw { width, height, encoding, is_bigendian: true, step: 16, data });
}

/// Images of sensors of so many bits, in the low ones of 16; what is told of them.
fn low_bits(bits: u32) -> String {
    let mut case = Case::new();
    for i in 0..5_u8 {
        let ImagePayload::Raw { width, height, data, .. } = grey(8, 150 + i) else { unreachable!() };
        let data = data.iter().flat_map(|high| (u16::from(*high) << (bits - 8)).to_le_bytes()).collect();
        let encoding = "mono16".to_owned();
        let payload = ImagePayload::Raw { width, height, encoding, is_bigendian: false, step: 16, data };
        case.image(image(i.into(), payload));
    }
    let outputs = case.end(&Expect { used: 5, held: 1, answered: 1, paths: vec![from(0)], ..Expect::default() });
    let (.., values) = outputs.diagnostics.last().unwrap();
    values["image_samples"].clone()
}

#[test]
fn sixteen_bits_of_which_a_sensor_fills_ten_or_twelve() {
    assert_eq!(low_bits(10), "mono16: the largest value is 728, so samples are taken for 10 bits");
    assert_eq!(low_bits(12), "mono16: the largest value is 2912, so samples are taken for 12 bits");
    assert_eq!(low_bits(16), "mono16: the largest value is 46592, so samples are taken for 16 bits");
}
