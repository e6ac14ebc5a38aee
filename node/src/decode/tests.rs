use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage};

use super::{DecodeError, decode, inspect};
use crate::message::ImagePayload;

fn raw(width: u32, height: u32, encoding: &str, step: u32, data: Vec<u8>) -> ImagePayload {
    ImagePayload::Raw { width, height, encoding: encoding.to_owned(), is_bigendian: false, step, data }
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
fn raw_encodings_become_rgb_and_padding_goes() {
    let rows: [(&str, u32, Vec<u8>, [u8; 6]); 3] = [
        ("rgb8", 8, vec![1, 2, 3, 4, 5, 6, 99, 99], [1, 2, 3, 4, 5, 6]),
        ("bgr8", 6, vec![1, 2, 3, 4, 5, 6], [3, 2, 1, 6, 5, 4]),
        ("mono8", 5, vec![1, 2, 99, 99, 99], [1, 1, 1, 2, 2, 2]),
    ];
    for (encoding, step, row, rgb) in rows {
        let data = [row.clone(), row].concat();
        let image = decode(&raw(2, 2, encoding, step, data)).unwrap();
        assert_eq!(image.dimensions(), (2, 2));
        assert_eq!(image.into_raw(), [rgb, rgb].concat(), "{encoding}");
    }
}

#[test]
fn jpeg_and_png_are_read_whatever_the_format_field_says() {
    for format in ["jpeg", "rgb8; jpeg compressed bgr8", "png", ""] {
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
    for format in [ImageFormat::Jpeg, ImageFormat::Png] {
        let whole = file(format);
        for at in 0..whole.len() {
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
        (raw(2, 2, "bayer_rggb8", 2, vec![0; 4]), vec!["rgb8, bgr8 or mono8", "bayer_rggb8"]),
        (raw(2, 2, "16UC1", 4, vec![0; 8]), vec!["16UC1"]),
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
