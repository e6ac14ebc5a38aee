//! Messages of the camera topics.

use camera::decode::{SampleRange, decode, inspect};
use camera::info::Images;
use camera::message::{CameraInfoMessage, ImageMessage, ImagePayload};
use camera::optics::{CameraRules, CameraState, UseFixed};
use camera::ros;
use geometry::Intrinsics;
use image::RgbImage;

use crate::hook::let_panics_be_caught;
use crate::memory::within;
use crate::reader::Reader;

/// Images of more pixels are looked at and not decoded: thousands of inputs a second are worth more than large ones.
const MOST_PIXELS: usize = 1 << 18;
/// What a message may cost beside its own size: sentences of errors, and serde's first guess at a sequence.
const SLACK: usize = 2 << 20;

/// Copies of a sample: its fields, and the message.
const SAMPLE: usize = 4;

/// What `CompressedImage.format` says, by drivers and by image_transport.
const FORMATS: [&str; 8] = [
    "jpeg",
    "png",
    "rgb8; jpeg compressed bgr8",
    "bayer_rggb8; jpeg compressed ",
    "bayer_bggr8; png compressed ",
    "bayer_grbg16; png compressed ",
    "16UC1; compressedDepth png",
    "",
];

/// `sensor_msgs/Image` of any fields: name of the encoding, flags, width, height, step, then the data. A first flag is the
/// byte order; a second makes size and data fit each other, since chance hardly ever does.
pub fn raw_image(data: &[u8]) -> bool {
    let mut reader = Reader(data);
    let encoding = reader.text();
    let flags = reader.byte();
    let [mut width, mut height, mut step] = std::array::from_fn(|_| reader.word());
    let mut data = reader.0.to_vec();
    if flags & 2 != 0 {
        (width, height, step) = (width % 64, height % 64, step % 1024);
        let rows = if encoding.starts_with("nv") { height / 2 * 3 } else { height };
        data.resize(rows as usize * step as usize, 0);
    }
    read(&ImagePayload::Raw { width, height, encoding, is_bigendian: flags & 1 != 0, step, data })
}

/// `sensor_msgs/CompressedImage`: which format it says to be, then the file.
pub fn compressed_image(data: &[u8]) -> bool {
    let mut reader = Reader(data);
    let format = FORMATS[usize::from(reader.byte()) % FORMATS.len()].to_owned();
    read(&ImagePayload::Compressed { format, data: reader.0.to_vec() })
}

/// A sample as it comes over the wire, read as an image of either type.
pub fn cdr(data: &[u8]) -> bool {
    let mut through = false;
    let limit = SAMPLE * data.len() + SLACK;
    let raw = within(limit, || camera::cdr::decode::<ros::Image>(data).map(ImageMessage::from));
    let compressed = within(limit, || camera::cdr::decode::<ros::CompressedImage>(data).map(ImageMessage::from));
    for image in [raw, compressed].into_iter().flatten() {
        through |= read(&image.payload);
    }
    through
}

/// What every image must hold to, whatever its fields; whether it has pixels, and few enough to be decoded here.
pub(crate) fn read(payload: &ImagePayload) -> bool {
    let_panics_be_caught();
    let length = match payload {
        ImagePayload::Raw { data, .. } | ImagePayload::Compressed { data, .. } => data.len(),
    };
    let (width, height) = match within(8 * length + SLACK, || inspect(payload)) {
        Ok(size) => size,
        Err(refused) => {
            let decoded = within(8 * length + SLACK, || decode(payload, SampleRange::of(payload)));
            assert_eq!(decoded.map(|image| image.dimensions()), Err(refused), "what inspect refuses, decode refuses");
            return false;
        }
    };
    assert!(width > 0 && height > 0, "{width}x{height}");
    let pixels = width as usize * height as usize;
    if pixels > MOST_PIXELS {
        return false;
    }
    // Files hold less than their pixels: those of the widest kind, as samples and as coefficients, and the RGB of them. JPEG
    // has whole blocks of 8, up to four of them together: a picture of one row is 32 rows of coefficients and samples.
    let padded = (width.next_multiple_of(32) as usize) * (height.next_multiple_of(32) as usize);
    let limit = match payload {
        ImagePayload::Raw { .. } => 8 * length + SLACK,
        ImagePayload::Compressed { .. } => 8 * length + 64 * pixels + 16 * padded + SLACK,
    };
    match (within(limit, || decode(payload, SampleRange::of(payload))), payload) {
        (Ok(image), _) => assert_eq!(image.dimensions(), (width, height)),
        (Err(refused), ImagePayload::Raw { .. }) => panic!("inspect gave {width}x{height}, decode: {refused}"),
        (Err(_), ImagePayload::Compressed { .. }) => return false,
    }
    true
}

/// `sensor_msgs/CameraInfo` as a sample: what it says of images of its own size, raw and rectified, and a small one that is
/// rectified by it.
pub fn camera_info(data: &[u8]) -> bool {
    let limit = SAMPLE * data.len() + SLACK;
    let info = within(limit, || camera::cdr::decode::<ros::CameraInfo>(data).map(CameraInfoMessage::from));
    let Ok(info) = info else { return false };
    let Ok(intrinsics) = Intrinsics::new(1.0, 1.0, 0.5, 0.5, 1, 1) else { unreachable!("a pixel has a focal length") };
    let mut is_usable = false;
    for images in [Images::Raw, Images::Rectified] {
        let mut camera = CameraState::new(&CameraRules { use_fixed: UseFixed::Never, intrinsics, images });
        // Cheap, whatever the size of the camera: tables of its pixels wait for the first image.
        within(16 * data.len() + SLACK, || camera.update(&info));
        let Ok(optics) = camera.latest() else { continue };
        let k = optics.intrinsics;
        assert!(k.width > 0 && k.height > 0, "{k:?}");
        assert!(
            [k.fx, k.fy].iter().all(|f| f.is_finite() && *f > 0.0) && k.cx.is_finite() && k.cy.is_finite(),
            "{k:?}"
        );
        assert!(camera.optics(k.width, k.height).is_ok(), "{k:?}");
        if let Some(rectifier) = &optics.rectifier
            && k.width as usize * k.height as usize <= MOST_PIXELS / 64
        {
            let image = RgbImage::from_pixel(k.width, k.height, image::Rgb([255; 3]));
            assert_eq!(rectifier.apply(&image).dimensions(), image.dimensions());
        }
        is_usable = true;
    }
    is_usable
}
