//! Which CameraInfo is that of a topic of images, and what it leaves open.

use super::{Calibration, Film, Recording, field, listed};
use crate::error::Error;
use camera::info::Images;
use camera::ros::Type;
use camera::transforms::plain;
use std::path::Path;

impl Recording {
    /// Images whose header names no frame are of that of their CameraInfo, as on the robot.
    pub(super) fn name_frames(&mut self, path: &Path) {
        let nameless = self.films.iter().filter(|(_, film)| plain(&film.frame_id).is_empty());
        let found = nameless.filter_map(|(topic, film)| {
            let calibrations = self.calibrations(path, topic, film).ok()?;
            Some((topic.clone(), calibrations.first()?.frame_id.clone()))
        });
        for (topic, frame) in found.collect::<Vec<_>>() {
            tracing::warn!("images of {topic} have no header.frame_id: that of CameraInfo is taken, `{frame}`");
            if let Some(film) = self.films.get_mut(&topic) {
                film.frame_id = frame;
            }
        }
    }

    /// Those that were asked for, of the camera in the namespace of a topic of images (`NAMESPACE/image/compressed` has one name
    /// more), or the only ones, where they are not those of another camera.
    pub(super) fn calibrations(&self, path: &Path, topic: &str, film: &Film) -> Result<&[Calibration], Error> {
        let unknown = || {
            let expected = format!(
                "the sensor_msgs/msg/CameraInfo of {topic}, whose images are of frame {:?}; name it with info_topic=NAME",
                film.frame_id
            );
            let of_frame = |(name, calibrations): (&String, &Vec<Calibration>)| {
                let frame = calibrations.first().map_or("", |first| first.frame_id.as_str());
                format!("{name} of frame {frame:?}")
            };
            let names: Vec<String> = self.calibrations.iter().map(of_frame).collect();
            field(path, "info_topic", expected, listed(&names))
        };
        if let Some(asked) = &self.options.info_topic {
            return self.calibrations.get(asked).map(Vec::as_slice).ok_or_else(unknown);
        }
        let parent = |topic: &str| topic.rsplit_once('/').map(|(namespace, _)| namespace.to_owned());
        let mut namespace = topic.to_owned();
        let levels = if film.message_type == Type::CompressedImage { 2 } else { 1 };
        for _ in 0..levels {
            let Some(above) = parent(&namespace) else { break };
            namespace = above;
            let mut here = self.calibrations.iter().filter(|(name, _)| parent(name).as_ref() == Some(&namespace));
            if let (Some((_, calibrations)), None) = (here.next(), here.next()) {
                return Ok(calibrations);
            }
        }
        let plain = |frame: &str| frame.trim_start_matches('/').to_owned();
        let (images, mut all) = (plain(&film.frame_id), self.calibrations.values());
        let is_of_camera = |calibrations: &&Vec<Calibration>| {
            let mut frames = calibrations.iter().map(|calibration| plain(&calibration.frame_id));
            frames.all(|frame| frame.is_empty() || images.is_empty() || frame == images)
        };
        match (all.next().filter(is_of_camera), all.next()) {
            (Some(only), None) => Ok(only),
            _ => Err(unknown()),
        }
    }

    /// Where a topic is called as image_proc calls what it has rectified, and its CameraInfo says what the lens did, nobody knows
    /// whether that was undone.
    pub(super) fn check_rectified(&self, path: &Path, topic: &str, calibrations: &[Calibration]) -> Result<(), Error> {
        let mut words = topic.split(|c: char| !c.is_alphanumeric());
        let is_called_so = words.any(|word| matches!(word, "rect" | "rectified"));
        let has_lens = |calibration: &Calibration| !matches!(&calibration.model, Ok(model) if model.lens.is_none());
        if self.options.images.is_some() || !is_called_so || !calibrations.iter().any(has_lens) {
            return Ok(());
        }
        let expected = format!(
            "images=rectified, where the images of {topic} are so as its name says and P is their matrix, or images=raw, where \
             K and D of its CameraInfo are for them"
        );
        Err(field(path, "images", expected, "neither".to_owned()))
    }

    /// What the key `images` has to do with a CameraInfo that cannot be used.
    pub(super) fn hint(&self) -> &'static str {
        match self.options.images {
            Some(Images::Rectified) => "P was asked for with images=rectified",
            Some(Images::Raw) | None => "of images that are rectified already, say so with images=rectified",
        }
    }
}
