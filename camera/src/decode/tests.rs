use std::io::Cursor;

use image::{DynamicImage, GrayImage, ImageBuffer, ImageFormat, Luma, Rgb, RgbImage};

use super::{DecodeError, SampleRange, SampleStream, inspect};
use crate::message::ImagePayload;

/// An image of a stream that fills all the bits of its samples.
fn decode(payload: &ImagePayload) -> Result<RgbImage, DecodeError> {
    super::decode(payload, SampleRange::FULL)
}

fn raw(width: u32, height: u32, encoding: &str, step: u32, data: Vec<u8>) -> ImagePayload {
    ImagePayload::Raw { width, height, encoding: encoding.to_owned(), is_bigendian: false, step, data }
}

fn big_endian(payload: ImagePayload) -> ImagePayload {
    match payload {
        ImagePayload::Raw { width, height, encoding, step, data, .. } => {
            ImagePayload::Raw { width, height, encoding, is_bigendian: true, step, data }
        }
        other @ ImagePayload::Compressed { .. } => other,
    }
}

fn compressed(format: &str, data: Vec<u8>) -> ImagePayload {
    ImagePayload::Compressed { format: format.to_owned(), data }
}

fn picture() -> RgbImage {
    RgbImage::from_fn(64, 48, |x, y| Rgb([(x * 4) as u8, (y * 5) as u8, 128]))
}

fn file(format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

#[test]
fn interleaved_encodings_become_rgb_and_padding_goes() {
    let rows: [(&str, u32, Vec<u8>, [u8; 6]); 5] = [
        ("rgb8", 8, vec![1, 2, 3, 4, 5, 6, 99, 99], [1, 2, 3, 4, 5, 6]),
        ("bgr8", 6, vec![1, 2, 3, 4, 5, 6], [3, 2, 1, 6, 5, 4]),
        ("rgba8", 9, vec![1, 2, 3, 77, 4, 5, 6, 77, 99], [1, 2, 3, 4, 5, 6]),
        ("bgra8", 8, vec![1, 2, 3, 77, 4, 5, 6, 77], [3, 2, 1, 6, 5, 4]),
        ("mono8", 5, vec![1, 2, 99, 99, 99], [1, 1, 1, 2, 2, 2]),
    ];
    for (encoding, step, row, rgb) in rows {
        let data = [row.clone(), row].concat();
        let payload = raw(2, 2, encoding, step, data);
        let image = decode(&payload).unwrap();
        assert_eq!(inspect(&payload), Ok((2, 2)));
        assert_eq!(image.dimensions(), (2, 2));
        assert_eq!(image.into_raw(), [rgb, rgb].concat(), "{encoding}");
        assert_eq!(decode(&big_endian(payload)).unwrap().into_raw(), [rgb, rgb].concat(), "bytes have no order");
    }
}

#[test]
fn of_16_bit_samples_the_high_byte_stays_in_either_order() {
    // Samples 0x0102, 0x0304, ... as a little-endian camera sends them.
    let samples = |count: u8| (0..count).flat_map(|i| [2 * i + 2, 2 * i + 1]).collect::<Vec<u8>>();
    let rows: [(&str, u8, Vec<u8>); 5] = [
        ("mono16", 1, vec![1, 1, 1, 3, 3, 3]),
        ("rgb16", 3, vec![1, 3, 5, 7, 9, 11]),
        ("bgr16", 3, vec![5, 3, 1, 11, 9, 7]),
        ("rgba16", 4, vec![1, 3, 5, 9, 11, 13]),
        ("bgra16", 4, vec![5, 3, 1, 13, 11, 9]),
    ];
    for (encoding, channels, rgb) in rows {
        let little = [samples(2 * channels), vec![99; 3]].concat();
        let step = little.len() as u32;
        assert_eq!(decode(&raw(2, 1, encoding, step, little.clone())).unwrap().into_raw(), rgb, "{encoding}");
        let swapped = little[..little.len() - 3].chunks_exact(2).flat_map(|p| [p[1], p[0]]).chain([99; 3]).collect();
        assert_eq!(decode(&big_endian(raw(2, 1, encoding, step, swapped))).unwrap().into_raw(), rgb, "{encoding}");
    }
}

/// `picture` as a sensor of so many bits has it in the low ones of 16, by name of its encoding.
fn low_bits(encoding: &str, bits: u32, is_bigendian: bool) -> ImagePayload {
    let picture = picture();
    let sample = |value: u8| {
        let sample = (u16::from(value) << (bits - 8)) | u16::from(value & 1);
        if is_bigendian { sample.to_be_bytes() } else { sample.to_le_bytes() }
    };
    let pixel = |rgb: [u8; 3]| -> Vec<[u8; 2]> {
        let opaque = [u8::MAX; 2];
        match encoding {
            "rgb16" => rgb.map(sample).to_vec(),
            "rgba16" => [&rgb.map(sample)[..], &[opaque]].concat(),
            "bgra16" => [sample(rgb[2]), sample(rgb[1]), sample(rgb[0]), opaque].to_vec(),
            _ => vec![sample(rgb[0])],
        }
    };
    let data: Vec<u8> = picture.pixels().flat_map(|p| pixel(p.0)).flatten().collect();
    let payload = raw(64, 48, encoding, data.len() as u32 / 48, data);
    if is_bigendian { big_endian(payload) } else { payload }
}

#[test]
fn sensors_of_ten_and_twelve_bits_are_as_bright_as_those_of_sixteen() {
    for encoding in ["mono16", "rgb16", "rgba16", "bgra16", "bayer_rggb16", "bayer_gbrg16"] {
        let mut full = SampleStream::default();
        let sixteen = low_bits(encoding, 16, false);
        let wanted = super::decode(&sixteen, full.take(&sixteen)).unwrap();
        assert_eq!(full.range().map(SampleRange::bits), Some(16), "{encoding}");
        for bits in [10, 12, 14] {
            for is_bigendian in [false, true] {
                let payload = low_bits(encoding, bits, is_bigendian);
                let mut stream = SampleStream::default();
                let image = super::decode(&payload, stream.take(&payload)).unwrap();
                assert!(image == wanted, "{encoding} of {bits} bits, big-endian: {is_bigendian}");
                let told = stream.to_string();
                assert!(told.starts_with(encoding) && told.ends_with(&format!("for {bits} bits")), "{told}");
            }
        }
    }
}

#[test]
fn the_range_of_a_stream_only_grows_and_does_not_pump() {
    let grey = |value: u16| raw(2, 1, "mono16", 4, [value.to_le_bytes(), 0_u16.to_le_bytes()].concat());
    let mut stream = SampleStream::default();
    let mut first = |value| {
        let payload = grey(value);
        super::decode(&payload, stream.take(&payload)).unwrap().into_raw()[0]
    };
    // Ten bits until a value says twelve, and twelve from there on, however dark it gets; then sixteen for good.
    let rows = [(0, 0), (800, 200), (400, 100), (3980, 248), (800, 50), (400, 25), (65_535, 255), (3980, 15)];
    for (value, wanted) in rows {
        assert_eq!(first(value), wanted, "{value}");
    }
    let black = grey(0);
    let mut dark = SampleStream::default();
    dark.take(&black);
    assert_eq!(dark.range(), None, "nothing is known of a black picture");
    let eight = raw(2, 1, "mono8", 2, vec![200, 100]);
    stream.take(&eight);
    assert_eq!(stream.range(), None, "another encoding starts afresh");
}

#[test]
fn a_png_of_twelve_bits_is_the_same_as_the_message_of_its_pixels() {
    let values = |bits: u32| (0..64 * 48).map(move |at| ((at % 256) << (bits - 8)) as u16).collect::<Vec<u16>>();
    let little = |bits| values(bits).into_iter().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let png = |bits| {
        let mut file = Cursor::new(Vec::new());
        let image = ImageBuffer::<Luma<u16>, _>::from_raw(64, 48, values(bits)).unwrap();
        DynamicImage::ImageLuma16(image).write_to(&mut file, ImageFormat::Png).unwrap();
        file.into_inner()
    };
    for encoding in ["mono16", "bayer_rggb16"] {
        for bits in [10, 12, 16] {
            let message = raw(64, 48, encoding, 128, little(bits));
            let file = compressed(&format!("{encoding}; png compressed "), png(bits));
            let [message, file] = [message, file].map(|payload| {
                let range = SampleRange::of(&payload);
                assert_eq!(range.bits(), bits, "{encoding}");
                super::decode(&payload, range).unwrap()
            });
            assert!(message == file, "{encoding} of {bits} bits");
            let is_grey = encoding == "mono16";
            assert!(!is_grey || file.get_pixel(7, 1).0 == [64 + 7; 3], "{bits} bits: {:?}", file.get_pixel(7, 1));
        }
    }
}

/// The same two rows of two pixels in both orders, with a byte or more of padding; from OpenCV 5.0:
/// ```python
/// cv2.cvtColor(np.array([[[110, 60], [140, 90]], [[120, 120], [150, 200]]], np.uint8), cv2.COLOR_YUV2RGB_UYVY)
/// ```
#[test]
fn yuv_422_is_read_as_opencv_reads_it() {
    let rgb: [u8; 12] = [70, 48, 15, 105, 83, 50, 156, 106, 105, 249, 199, 198];
    let uyvy = vec![110, 60, 140, 90, 7, 7, 120, 120, 150, 200, 7, 7];
    let yuyv = vec![60, 110, 90, 140, 7, 120, 120, 200, 150, 7];
    for (encoding, step, data) in
        [("uyvy", 6, &uyvy), ("yuv422", 6, &uyvy), ("yuyv", 5, &yuyv), ("yuv422_yuy2", 5, &yuyv)]
    {
        assert_near(&decode(&raw(2, 2, encoding, step, data.clone())).unwrap(), &rgb, encoding);
    }
}

/// No value is off by more than one.
fn assert_near(image: &RgbImage, expected: &[u8], what: &str) {
    assert_eq!(image.as_raw().len(), expected.len(), "{what}");
    let off = image.as_raw().iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(off <= Some(1), "{what}: {:?} in place of {expected:?}", image.as_raw());
}

/// One pixel in OpenCV's fixed point (20 bits), as `cv::cvtColor` has it.
fn opencv(y: u8, u: u8, v: u8) -> [u8; 3] {
    const HALF: i32 = 1 << 19;
    let luma = (i32::from(y) - 16).max(0) * 1_220_542 + HALF; // 255 / 219
    let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
    let red = luma + 1_673_527 * v; // 1.596
    let green = luma - 852_492 * v - 409_993 * u; // 0.813, 0.391
    let blue = luma + 2_116_026 * u; // 2.018
    [red, green, blue].map(|value| (value >> 20).clamp(0, 255) as u8)
}

/// Of every width, so that what is left over by wide steps is seen too.
#[test]
fn yuv_of_any_size_and_padding_is_opencv_s_to_one() {
    let mut state = 1_u32;
    let mut noise = |count: usize| -> Vec<u8> {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..count).map(|_| next()).collect()
    };
    for width in (2..150_usize).step_by(2) {
        let (height, step) = (4, width + width / 3);
        let data = noise(step * 6);
        let chroma = |x: usize, y: usize, at: usize| data[(height + y / 2) * step + x / 2 * 2 + at];
        for (encoding, u) in [("nv12", 0), ("nv21", 1)] {
            let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
            let pixels = pixels.flat_map(|(x, y)| opencv(data[y * step + x], chroma(x, y, u), chroma(x, y, 1 - u)));
            let expected: Vec<u8> = pixels.collect();
            let payload = raw(width as u32, height as u32, encoding, step as u32, data.clone());
            assert_near(&decode(&payload).unwrap(), &expected, &format!("{encoding} of width {width}"));
        }
        let step = 2 * width + 3;
        let data = noise(step * height);
        for (encoding, luma) in [("yuyv", 0), ("uyvy", 1)] {
            let four = |x: usize, y: usize, at: usize| data[y * step + x / 2 * 4 + at];
            let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
            let pixels = pixels
                .flat_map(|(x, y)| opencv(four(x, y, luma + x % 2 * 2), four(x, y, 1 - luma), four(x, y, 3 - luma)));
            let expected: Vec<u8> = pixels.collect();
            let payload = raw(width as u32, height as u32, encoding, step as u32, data.clone());
            assert_near(&decode(&payload).unwrap(), &expected, &format!("{encoding} of width {width}"));
        }
    }
}

/// As OpenCV 5.0 has it, clipped values included:
/// ```python
/// nv12 = np.array([[60, 90, 120, 200], [16, 235, 0, 255], [110, 140, 120, 150]], np.uint8)
/// cv2.cvtColor(nv12, cv2.COLOR_YUV2RGB_NV12)
/// ```
#[test]
fn yuv_420_is_read_as_opencv_reads_it() {
    let rgb: [u8; 24] = [
        70, 48, 15, 105, 83, 50, 156, 106, 105, 249, 199, 198, //
        19, 0, 0, 255, 252, 219, 35, 0, 0, 255, 255, 255,
    ];
    let lumas = [60, 90, 120, 200, 7, 16, 235, 0, 255, 7];
    for (encoding, chroma) in [("nv12", [110, 140, 120, 150, 7]), ("nv21", [140, 110, 150, 120, 7])] {
        let data = [&lumas[..], &chroma].concat();
        let payload = raw(4, 2, encoding, 5, data);
        assert_eq!(inspect(&payload), Ok((4, 2)), "chroma is no part of the height");
        assert_near(&decode(&payload).unwrap(), &rgb, encoding);
    }
}

#[test]
fn each_chroma_of_420_counts_for_two_rows() {
    let data = [vec![100; 16], vec![90, 240, 90, 240], vec![128; 4]].concat();
    let image = decode(&raw(4, 4, "nv12", 4, data)).unwrap();
    let red_rows: Vec<bool> = image.rows().map(|mut row| row.all(|p| p.0[0] > p.0[1])).collect();
    assert_eq!(red_rows, [true, true, false, false]);
}

/// By hand: each colour of a 2x2 tile is either measured or the mean of what the mirrored tile has around.
#[test]
fn the_smallest_bayer_mosaic_has_the_colours_of_its_tile() {
    let rows: [(&str, [[u8; 3]; 4]); 4] = [
        ("bayer_rggb", [[10, 25, 40], [10, 20, 40], [10, 30, 40], [10, 25, 40]]),
        ("bayer_bggr", [[40, 25, 10], [40, 20, 10], [40, 30, 10], [40, 25, 10]]),
        ("bayer_gbrg", [[30, 10, 20], [30, 25, 20], [30, 25, 20], [30, 40, 20]]),
        ("bayer_grbg", [[20, 10, 30], [20, 25, 30], [20, 25, 30], [20, 40, 30]]),
    ];
    for (pattern, rgb) in rows {
        let eight = raw(2, 2, &format!("{pattern}8"), 3, vec![10, 20, 7, 30, 40, 7]);
        assert_eq!(decode(&eight).unwrap().into_raw(), rgb.concat(), "{pattern}8");
        let little = vec![255, 10, 0, 20, 7, 255, 30, 0, 40, 7];
        let sixteen = raw(2, 2, &format!("{pattern}16"), 5, little);
        assert_eq!(decode(&sixteen).unwrap().into_raw(), rgb.concat(), "{pattern}16");
        let big = vec![10, 255, 20, 0, 7, 30, 255, 40, 0, 7];
        let sixteen = big_endian(raw(2, 2, &format!("{pattern}16"), 5, big));
        assert_eq!(decode(&sixteen).unwrap().into_raw(), rgb.concat(), "{pattern}16, big-endian");
    }
}

const MOSAIC: [u8; 16] = [45, 83, 63, 34, 118, 132, 222, 165, 146, 245, 141, 220, 145, 139, 105, 220];

/// The four pixels inside a 4x4 mosaic are OpenCV's: `cv2.cvtColor(mosaic, cv2.COLOR_BayerRGGB2RGB)[1:3, 1:3]` (5.0).
#[test]
fn the_inside_of_a_bayer_mosaic_is_what_opencv_makes_of_it() {
    let rows: [(&str, [[u8; 3]; 4]); 4] = [
        ("bayer_rggb8", [[99, 167, 132], [102, 222, 149], [144, 245, 136], [141, 198, 164]]),
        ("bayer_bggr8", [[132, 167, 99], [149, 222, 102], [136, 245, 144], [164, 198, 141]]),
        ("bayer_gbrg8", [[170, 132, 164], [222, 125, 146], [148, 140, 245], [164, 141, 233]]),
        ("bayer_grbg8", [[164, 132, 170], [146, 125, 222], [245, 140, 148], [233, 141, 164]]),
    ];
    for (encoding, rgb) in rows {
        let image = decode(&raw(4, 4, encoding, 4, MOSAIC.to_vec())).unwrap();
        let inside = [(1, 1), (2, 1), (1, 2), (2, 2)].map(|(x, y)| image.get_pixel(x, y).0);
        assert_eq!(inside, rgb, "{encoding}");
    }
}

#[test]
fn the_border_of_a_bayer_mosaic_is_mirrored() {
    let image = decode(&raw(4, 4, "bayer_rggb8", 4, MOSAIC.to_vec())).unwrap();
    assert_eq!(image.get_pixel(0, 0).0, [45, 101, 132], "green: (83 + 83 + 118 + 118) / 4");
    assert_eq!(image.get_pixel(3, 0).0, [63, 34, 165]);
    assert_eq!(image.get_pixel(3, 3).0, [141, 163, 220]);
}

#[test]
fn a_compressed_bayer_mosaic_gets_its_colours() {
    let mosaic = GrayImage::from_fn(8, 6, |x, y| Luma([[[200, 100], [100, 10]][y as usize % 2][x as usize % 2]]));
    let mut png = Cursor::new(Vec::new());
    mosaic.write_to(&mut png, ImageFormat::Png).unwrap();
    let png = png.into_inner();
    let colours = decode(&compressed("bayer_rggb8; png compressed ", png.clone())).unwrap();
    assert!(colours.pixels().all(|p| p.0 == [200, 100, 10]), "{colours:?}");
    let grey = decode(&compressed("mono8; png compressed ", png)).unwrap();
    assert_eq!(grey.get_pixel(1, 1).0, [10; 3]);
    // Where the pixels have colours, the mosaic was resolved before.
    assert_eq!(decode(&compressed("bayer_rggb8; jpeg compressed bgr8", file(ImageFormat::Png))).unwrap(), picture());
}

#[test]
fn jpeg_and_png_are_read_whatever_the_format_field_says() {
    for format in ["jpeg", "rgb8; jpeg compressed bgr8", "bgr8; png compressed bgr8", "png", "nonsense; ;\n", ""] {
        let jpeg = decode(&compressed(format, file(ImageFormat::Jpeg))).unwrap();
        assert_eq!(jpeg.dimensions(), (64, 48));
        let worst = jpeg.iter().zip(picture().iter()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst < Some(40), "{worst:?}");
        assert_eq!(decode(&compressed(format, file(ImageFormat::Png))).unwrap(), picture());
    }
}

#[test]
fn a_jpeg_with_bytes_after_its_end_is_fine() {
    let mut data = file(ImageFormat::Jpeg);
    data.extend([0; 37]);
    assert_eq!(inspect(&compressed("jpeg", data)), Ok((64, 48)));
}

/// Of every kind that `pictures/make.py` writes, and of the encoder here.
fn jpegs() -> Vec<(&'static str, Vec<u8>)> {
    let made: [(&str, &[u8]); 5] = [
        ("progressive", include_bytes!("pictures/progressive.jpg")),
        ("progressive_restarts", include_bytes!("pictures/progressive_restarts.jpg")),
        ("restarts", include_bytes!("pictures/restarts.jpg")),
        ("own_tables", include_bytes!("pictures/own_tables.jpg")),
        ("grey", include_bytes!("pictures/grey.jpg")),
    ];
    let made = made.map(|(name, bytes)| (name, bytes.to_vec()));
    [("baseline", file(ImageFormat::Jpeg))].into_iter().chain(made).collect()
}

#[test]
fn jpegs_of_every_kind_are_whole() {
    for (name, data) in jpegs() {
        assert!(decode(&compressed("jpeg", data)).is_ok(), "{name}");
    }
}

/// As a camera sends it that lost packets on the way: the marker at the end is there.
#[test]
fn a_jpeg_of_which_a_part_was_lost_is_refused() {
    for (name, data) in jpegs() {
        let scan = data.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap() + 14;
        let (begin, end) = (scan + (data.len() - scan) / 3, scan + (data.len() - scan) * 2 / 3);
        let half = scan.midpoint(data.len());
        let mut zeros = data.clone();
        zeros[begin..end].fill(0);
        let damaged = [
            ("its second half", [&data[..half], &[0xff, 0xd9]].concat()),
            ("its last eighth", [&data[..data.len() - (data.len() - scan) / 8], &[0xff, 0xd9]].concat()),
            ("its middle third", [&data[..begin], &data[end..]].concat()),
            ("its middle third, which is zeros", zeros),
        ];
        for (what, data) in damaged {
            let payload = compressed("jpeg", data);
            assert!(inspect(&payload).is_ok(), "{name} without {what}: its header is whole");
            let refused = decode(&payload).expect_err(&format!("{name} without {what}"));
            assert!(matches!(refused, DecodeError::Damaged { .. }), "{name} without {what}: {refused}");
        }
    }
}

/// A scan for each component, as some encoders of cameras write them; the last never came.
#[test]
fn a_jpeg_whose_last_scan_is_missing_is_refused() {
    let (_, data) = jpegs().swap_remove(1);
    let last = data.windows(2).rposition(|pair| pair == [0xff, 0xda]).unwrap();
    let message = decode(&compressed("jpeg", [&data[..last], &[0xff, 0xd9]].concat())).unwrap_err().to_string();
    assert!(message.contains("never came"), "{message}");
}

#[test]
fn words_that_an_encoder_fills_up_are_no_damage() {
    let data = file(ImageFormat::Jpeg);
    let padded = [&data[..data.len() - 2], &[0; 12], &data[data.len() - 2..]].concat();
    assert_eq!(decode(&compressed("jpeg", padded)), decode(&compressed("jpeg", data)));
}

/// As USB cameras send motion JPEG.
#[test]
fn a_jpeg_without_huffman_tables_has_the_standard_ones() {
    let whole = file(ImageFormat::Jpeg);
    let (mut bare, mut at) = (whole.clone(), 2);
    while bare[at + 1] != 0xda {
        let length = 2 + usize::from(u16::from_be_bytes([bare[at + 2], bare[at + 3]]));
        if bare[at + 1] == 0xc4 {
            bare.drain(at..at + length);
        } else {
            at += length;
        }
    }
    assert!(bare.len() + 400 < whole.len(), "the tables are out");
    assert_eq!(decode(&compressed("jpeg", bare)).unwrap(), decode(&compressed("jpeg", whole)).unwrap());
}

/// A text of a megabyte for each kilobyte of the file, and a colour profile: neither is looked at, broken or not.
#[test]
fn texts_and_profiles_in_a_png_are_passed_over() {
    let whole = file(ImageFormat::Png);
    let chunk = |kind: &[u8; 4], data: &[u8]| {
        let body = [kind, data].concat();
        [&(data.len() as u32).to_be_bytes()[..], &body, &crc32(&body).to_be_bytes()].concat()
    };
    for (kind, data) in
        [(b"zTXt", &b"words\0\0no deflate"[..]), (b"iCCP", b"profile\0\0no deflate"), (b"tEXt", b"no keyword")]
    {
        // Behind the header, which is 33 bytes with the signature.
        let png = [&whole[..33], &chunk(kind, data), &whole[33..]].concat();
        assert_eq!(decode(&compressed("png", png)).unwrap(), picture(), "{kind:?}");
    }
}

#[test]
fn every_cut_of_a_jpeg_or_png_is_refused() {
    for format in [ImageFormat::Jpeg, ImageFormat::Png] {
        let whole = file(format);
        for length in 0..whole.len() - 1 {
            let payload = compressed("jpeg", whole[..length].to_vec());
            // The last 12 bytes of a PNG are an empty chunk: all pixels are there before it.
            let complete = format == ImageFormat::Png && length + 12 >= whole.len();
            assert!(decode(&payload).is_err() || complete, "{format:?} cut to {length}");
        }
    }
    let mut cut = file(ImageFormat::Jpeg);
    cut.truncate(cut.len() * 2 / 3);
    let length = cut.len();
    assert_eq!(
        inspect(&compressed("jpeg", cut)),
        Err(DecodeError::Truncated { got: length }),
        "found without decoding"
    );
}

#[test]
fn no_noise_in_a_file_makes_the_decoder_panic() {
    let files = jpegs().into_iter().map(|(_, data)| data).chain([file(ImageFormat::Png)]);
    for whole in files {
        // Every place of the headers, and some of the rest.
        for at in (0..whole.len()).filter(|at| *at < 700 || at % 13 == 0) {
            for flip in [0x01, 0x80, 0xff] {
                let mut data = whole.clone();
                data[at] ^= flip;
                let _ = decode(&compressed("jpeg", data));
            }
        }
    }
}

#[test]
fn bad_raw_images_are_refused_with_what_was_expected() {
    let rows = [
        (raw(2, 2, "16UC1", 4, vec![0; 8]), vec!["encoding", "rgb8, bgr8", "nv12", "bayer_grbg16", "`16UC1`"]),
        (raw(2, 2, "RGB8\n", 6, vec![0; 12]), vec!["`RGB8?`"]),
        (raw(2, 2, "", 4, vec![0; 8]), vec!["encoding"]),
        (raw(2, 2, "rgb8", 6, vec![0; 11]), vec!["12 bytes", "got 11"]),
        (raw(2, 2, "rgb8", 6, vec![0; 13]), vec!["12 bytes", "got 13"]),
        (raw(2, 2, "rgb8", 6, vec![]), vec!["12 bytes", "got 0"]),
        (raw(2, 2, "rgb8", 5, vec![0; 10]), vec!["at least 6", "got 5"]),
        (raw(2, 2, "rgb8", 0, vec![]), vec!["at least 6", "got 0"]),
        (raw(0, 2, "rgb8", 6, vec![0; 12]), vec!["0x2"]),
        (raw(2, 0, "rgb8", 6, vec![]), vec!["2x0"]),
        (raw(u32::MAX, u32::MAX, "mono8", u32::MAX, vec![0; 4]), vec!["pixels"]),
        (raw(u32::MAX, 1, "rgb8", u32::MAX, vec![0; 4]), vec!["pixels"]),
        (raw(u32::MAX, u32::MAX, "nv12", u32::MAX, vec![0; 4]), vec!["pixels"]),
        (raw(8192, 8192, "rgba16", u32::MAX, vec![0; 4]), vec!["data", "got 4"]),
        (raw(2, 2, "bgra8", 7, vec![0; 14]), vec!["step", "at least 8", "got 7"]),
        (raw(2, 2, "mono16", 3, vec![0; 6]), vec!["step", "at least 4", "got 3"]),
        (raw(2, 2, "bayer_rggb16", 3, vec![0; 6]), vec!["step", "at least 4", "got 3"]),
        (raw(3, 2, "yuyv", 8, vec![0; 16]), vec!["image size", "an even width for yuyv", "got 3x2"]),
        (raw(2, 2, "uyvy", 3, vec![0; 6]), vec!["step", "at least 4", "got 3"]),
        (raw(3, 2, "nv12", 4, vec![0; 12]), vec!["an even width and height for nv12", "got 3x2"]),
        (raw(2, 3, "nv21", 2, vec![0; 6]), vec!["an even width and height for nv21", "got 2x3"]),
        (raw(2, 2, "nv12", 2, vec![0; 4]), vec!["3 rows * step 2 = 6 bytes", "got 4"]),
        (raw(4, 2, "nv12", 3, vec![0; 9]), vec!["step", "at least 4", "got 3"]),
        (raw(1, 2, "bayer_rggb8", 1, vec![0; 2]), vec!["a tile of 2x2 for bayer_rggb8", "got 1x2"]),
    ];
    for (payload, wanted) in rows {
        let message = decode(&payload).unwrap_err().to_string();
        assert_eq!(inspect(&payload).unwrap_err().to_string(), message);
        for part in wanted {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
    }
}

#[test]
fn files_of_other_formats_are_refused_with_the_list() {
    for data in [vec![], b"GIF89a..............".to_vec(), vec![0; 64], b"BM......".to_vec()] {
        let message = decode(&compressed("theora\n", data)).unwrap_err().to_string();
        assert!(message.contains("JPEG or PNG") && message.contains("`theora?`"), "{message}");
    }
}

/// A PNG header that claims 60,000 x 60,000 pixels in 45 bytes.
#[test]
fn a_decompression_bomb_is_refused_by_its_header() {
    let mut bomb = file(ImageFormat::Png);
    bomb[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
    bomb[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
    let crc = crc32(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(decode(&compressed("png", bomb)), Err(DecodeError::TooLarge { width: 60_000, height: 60_000 }));
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    })
}
