//! What a recording holds, and which of its topics the node listens to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use camera::optics::UseFixed;
use camera::recording::{Channel, Damage, bag, scan};
use camera::ros::Type;
use geometry::Stamp;

use super::Error;
use super::entry::decode_input;
use crate::ros::message::Input;
use crate::ros::transport::topics::Topics;

/// What a file or a bag holds, as far as it can be read.
#[derive(Debug)]
pub struct Recording {
    path: PathBuf,
    /// In the order of their messages.
    files: Vec<PathBuf>,
    /// With their messages.
    channels: BTreeMap<Channel, u64>,
    damage: Vec<Damage>,
}

/// The topics of a recording that the node plays.
#[derive(Debug)]
pub struct Camera<'a> {
    path: &'a Path,
    files: &'a [PathBuf],
    image: &'a Channel,
    info: Option<&'a Channel>,
    /// The odometry that gives the scale.
    reference: Option<&'a Channel>,
    /// The program that the odometry follows.
    followed: Option<&'a Channel>,
    images: u64,
}

impl Recording {
    /// Goes through a file, or those of a bag, once. One that ends in the middle or is damaged is opened as far as it goes, and
    /// what is there is held against what the files and the bag's list count: see [`Recording::damage`].
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let bag = bag::open(path)?;
        let mut channels: BTreeMap<Channel, u64> = BTreeMap::new();
        let mut damage = Vec::new();
        for file in &bag.files {
            let broken = scan(file, |message| {
                match channels.get_mut(message.channel) {
                    Some(messages) => *messages += 1,
                    None => {
                        channels.insert(message.channel.clone(), 1);
                    }
                }
                Ok::<(), Error>(())
            })?;
            damage.extend(broken);
        }
        let mut read: BTreeMap<String, u64> = BTreeMap::new();
        for (channel, messages) in &channels {
            *read.entry(channel.topic.clone()).or_default() += messages;
        }
        damage.extend(bag.missing(&read));
        Ok(Self { path: path.to_owned(), files: bag.files, channels, damage })
    }

    /// The files that it is read from.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Why messages may be missing: where files cannot be read to their end, or count more than there is.
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// The topics that the config names, or else the only ones of their types; without CameraInfo where the config's
    /// intrinsics always count. Odometries go by their names alone: the node's own is of their type.
    ///
    /// # Errors
    ///
    /// [`Error::NoImages`], [`Error::Ambiguous`], and [`Error::Encoding`].
    pub fn camera(&self, topics: &Topics, use_fixed: UseFixed) -> Result<Camera<'_>, Error> {
        let is_image = |of: Type| matches!(of, Type::Image | Type::CompressedImage);
        let image = self.choose(is_image, "topics.image", &topics.image)?.ok_or_else(|| self.no_images())?;
        let info = match use_fixed {
            UseFixed::Always => None,
            UseFixed::Never | UseFixed::UntilCameraInfo => {
                self.choose(|of| of == Type::CameraInfo, "topics.camera_info", &topics.camera_info)?
            }
        };
        let odometry = |name: &Option<String>| match name {
            None => Ok(None),
            Some(name) => self.named(name, Type::Odometry),
        };
        let (reference, followed) = (odometry(&topics.reference_odometry)?, odometry(&topics.followed_odometry)?);
        Ok(Camera {
            path: &self.path,
            files: &self.files,
            image,
            info,
            reference,
            followed,
            images: self.channels[image],
        })
    }

    fn choose(
        &self,
        is_wanted: impl Fn(Type) -> bool,
        key: &'static str,
        wanted: &str,
    ) -> Result<Option<&Channel>, Error> {
        let fitting: Vec<&Channel> =
            self.channels.keys().filter(|channel| channel.message_type().is_some_and(&is_wanted)).collect();
        let named = fitting.iter().find(|channel| channel.topic == wanted);
        let only = fitting.first().filter(|_| fitting.len() == 1);
        let Some(&chosen) = named.or(only) else {
            if fitting.is_empty() {
                return Ok(None);
            }
            let names: Vec<&str> = fitting.iter().map(|channel| channel.topic.as_str()).collect();
            let (path, wanted) = (self.path.clone(), wanted.to_owned());
            return Err(Error::Ambiguous { path, key, wanted, got: names.join(", ") });
        };
        self.readable(chosen).map(Some)
    }

    /// The topic of this name, where its messages are of this type.
    fn named(&self, name: &str, of: Type) -> Result<Option<&Channel>, Error> {
        let found = self.channels.keys().find(|channel| channel.topic == name && channel.message_type() == Some(of));
        found.map(|channel| self.readable(channel)).transpose()
    }

    fn readable<'a>(&self, channel: &'a Channel) -> Result<&'a Channel, Error> {
        if channel.is_cdr() {
            Ok(channel)
        } else {
            let (topic, got) = (channel.topic.clone(), channel.encoding.clone());
            Err(Error::Encoding { path: self.path.clone(), topic, got })
        }
    }

    fn no_images(&self) -> Error {
        let mut got: Vec<String> = self.channels.keys().map(|c| format!("{} of {}", c.topic, c.schema)).collect();
        if got.is_empty() {
            got.push("no messages".to_owned());
        }
        got.extend(self.damage.iter().map(|damage| format!("a file that {damage}")));
        Error::NoImages { path: self.path.clone(), got: got.join(", ") }
    }
}

impl Camera<'_> {
    /// The topic of the images.
    pub fn topic(&self) -> &str {
        &self.image.topic
    }

    /// The topic of the CameraInfo, where there is one.
    pub fn info_topic(&self) -> Option<&str> {
        self.info.map(|channel| channel.topic.as_str())
    }

    /// The topic of the odometry that gives the scale, where there is one.
    pub fn reference_topic(&self) -> Option<&str> {
        self.reference.map(|channel| channel.topic.as_str())
    }

    /// The topic of the program that the odometry follows, where there is one.
    pub fn followed_topic(&self) -> Option<&str> {
        self.followed.map(|channel| channel.topic.as_str())
    }

    /// Images in the recording.
    pub fn images(&self) -> u64 {
        self.images
    }

    /// The error of images that the node does not read.
    pub(crate) fn refuse(&self, reason: String) -> Error {
        Error::Images { path: self.path.to_owned(), topic: self.topic().to_owned(), reason }
    }

    /// Hands over what the camera and the odometry said, with the time at which it was heard, in the files' order, which is
    /// that of their coming; a message that is not what its type says, as what is wrong with it.
    ///
    /// # Errors
    ///
    /// [`Error::File`], and those of `each`, which end it.
    pub fn play<E: From<Error>>(
        &self,
        mut each: impl FnMut(Stamp, Result<Input, String>) -> Result<(), E>,
    ) -> Result<(), E> {
        for file in self.files {
            // What is broken was told when the file was opened.
            scan(file, |message| {
                let channel = Some(message.channel);
                let message_type = if channel == self.reference || channel == self.followed {
                    Some(Type::Odometry)
                } else if message.channel == self.image || channel == self.info {
                    message.channel.message_type()
                } else {
                    None
                };
                let Some(of) = message_type else { return Ok(()) };
                let input = match decode_input(of, message.data) {
                    Ok(Input::Odometry(odometry)) if channel == self.followed => Ok(Input::Followed(odometry)),
                    other => other,
                };
                each(message.log_time, input).map_err(Ended::By)
            })
            .map_err(|ended| match ended {
                Ended::File(error) => Error::File(error).into(),
                Ended::By(error) => error,
            })?;
        }
        Ok(())
    }
}

/// Why a scan did not reach the end.
enum Ended<E> {
    File(camera::recording::Error),
    By(E),
}

impl<E> From<camera::recording::Error> for Ended<E> {
    fn from(error: camera::recording::Error) -> Self {
        Self::File(error)
    }
}
