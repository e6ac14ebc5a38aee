//! One camera frame on its way from the wire to the model.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use image::RgbImage;

use crate::solve::estimator::{Error, Estimator};
use crate::status::counters::{Fate, Ticket};
use crate::window::View;
use camera::decode::{SampleRange, decode};
use camera::message::ImagePayload;
use camera::optics::Optics;
use camera::quality::{self, Digest};

/// A frame that windows share. It is decoded and rectified when the odometry or the model first needs it, and at most once;
/// it is encoded when the first window that the model reads needs it, and then keeps the embedding in place of the pixels.
#[derive(Debug)]
pub struct Frame<F> {
    ticket: Ticket,
    optics: Optics,
    content: Mutex<Content<F>>,
}

#[derive(Debug)]
enum Content<F> {
    Message(ImagePayload, SampleRange),
    Decoded(Pixels),
    Encoded(Arc<Seen<F>>),
    Broken(String),
}

/// A picture of a pinhole camera.
#[derive(Debug, Clone)]
pub struct Pixels {
    /// Rectified.
    pub image: Arc<RgbImage>,
    /// Why it shows nothing, where it does not.
    pub blank: Option<String>,
    digest: Digest,
}

/// What is kept of a picture.
#[derive(Debug)]
pub struct Seen<F> {
    /// By the model.
    pub embedding: F,
    /// Of the pixels as they came.
    pub digest: Digest,
}

/// What [`Frame::embedding`] found.
#[derive(Debug)]
pub enum Embedding<F> {
    /// Encoded for an earlier window.
    Cached(Arc<Seen<F>>),
    /// Encoded now.
    Fresh(Arc<Seen<F>>),
    /// The pixels cannot be read or show nothing, and why.
    Broken(String),
}

impl<F> Frame<F> {
    /// A frame as it came, the range that its samples are read in, and what makes it a pinhole's.
    pub fn new(payload: ImagePayload, range: SampleRange, optics: Optics, ticket: Ticket) -> Self {
        Self { ticket, optics, content: Mutex::new(Content::Message(payload, range)) }
    }

    /// Notes what became of it.
    pub fn note(&self, fate: Fate) {
        self.ticket.note(fate);
    }

    /// What the model keeps of it, where it has `least_contrast` ([`quality::check`]).
    ///
    /// # Errors
    ///
    /// The model's own failure.
    pub fn embedding<E>(&self, view: &View, least_contrast: f64, estimator: &mut E) -> Result<Embedding<F>, Error>
    where
        E: Estimator<Frame = F>,
    {
        if let Content::Encoded(embedding) = &*self.lock() {
            return Ok(Embedding::Cached(Arc::clone(embedding)));
        }
        // The model is not asked under the lock: it takes its time, and the odometry must not wait for it.
        let reason = match self.pixels(least_contrast) {
            Ok(Pixels { blank: Some(reason), .. }) => reason,
            Ok(Pixels { image, digest, blank: None }) => match estimator.encode(&image, &view.intrinsics) {
                Ok(embedding) => {
                    let seen = Arc::new(Seen { embedding, digest });
                    *self.lock() = Content::Encoded(Arc::clone(&seen));
                    return Ok(Embedding::Fresh(seen));
                }
                Err(Error::Image(reason)) => {
                    self.note(Fate::Decode);
                    reason
                }
                Err(fatal) => return Err(fatal),
            },
            Err(reason) => reason,
        };
        *self.lock() = Content::Broken(reason.clone());
        Ok(Embedding::Broken(reason))
    }

    /// Its pixels, and whether they have `least_contrast` ([`quality::check`]). They are looked at before they are rectified,
    /// which leaves black what the lens did not see.
    ///
    /// # Errors
    ///
    /// Why there are none, or no longer.
    pub fn pixels(&self, least_contrast: f64) -> Result<Pixels, String> {
        let mut content = self.lock();
        let (payload, range) = match &*content {
            Content::Decoded(pixels) => return Ok(pixels.clone()),
            Content::Broken(reason) => return Err(reason.clone()),
            Content::Encoded(_) => return Err("its pixels are gone: the model has them".to_owned()),
            Content::Message(payload, range) => (payload, *range),
        };
        match decode(payload, range) {
            Ok(image) => {
                let blank = quality::check(&image, least_contrast).err().map(|blank| blank.to_string());
                if blank.is_some() {
                    self.note(Fate::Blank);
                }
                let digest = Digest::of(&image);
                let pixels = Pixels { image: Arc::new(self.optics.rectify(image)), blank, digest };
                *content = Content::Decoded(pixels.clone());
                Ok(pixels)
            }
            Err(error) => {
                self.note(Fate::Decode);
                let reason = error.to_string();
                *content = Content::Broken(reason.clone());
                Err(reason)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Content<F>> {
        // A picture is whole or not there.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
