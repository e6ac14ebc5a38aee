//! One camera frame on its way from the wire to the model.

use std::sync::{Arc, Mutex, PoisonError};

use image::RgbImage;

use crate::solve::estimator::{Error, Estimator};
use crate::status::counters::{Fate, Ticket};
use crate::window::View;
use camera::decode::decode;
use camera::message::ImagePayload;
use camera::optics::Optics;
use camera::quality::{self, Digest};

/// A frame that windows share. It is decoded, rectified and encoded when the first window that the model reads needs it,
/// and then keeps the embedding in place of the pixels: frames of windows that gave way to newer ones cost nothing.
#[derive(Debug)]
pub struct Frame<F> {
    ticket: Ticket,
    optics: Optics,
    content: Mutex<Content<F>>,
}

#[derive(Debug)]
enum Content<F> {
    Message(ImagePayload),
    Encoded(Arc<Seen<F>>),
    Broken(String),
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
    /// A frame as it came, and what makes it a pinhole's.
    pub fn new(payload: ImagePayload, optics: Optics, ticket: Ticket) -> Self {
        Self { ticket, optics, content: Mutex::new(Content::Message(payload)) }
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
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        let payload = match &*content {
            Content::Encoded(embedding) => return Ok(Embedding::Cached(Arc::clone(embedding))),
            Content::Broken(reason) => return Ok(Embedding::Broken(reason.clone())),
            Content::Message(payload) => payload,
        };
        let (fate, reason) = match self.picture(payload, least_contrast) {
            Ok((image, digest)) => match estimator.encode(&image, &view.intrinsics) {
                Ok(embedding) => {
                    let seen = Arc::new(Seen { embedding, digest });
                    *content = Content::Encoded(Arc::clone(&seen));
                    return Ok(Embedding::Fresh(seen));
                }
                Err(Error::Image(reason)) => (Fate::Decode, reason),
                Err(fatal) => return Err(fatal),
            },
            Err(refused) => refused,
        };
        self.note(fate);
        *content = Content::Broken(reason.clone());
        Ok(Embedding::Broken(reason))
    }

    /// The pixels for the model. They are looked at before they are rectified, which leaves black what the lens did not see.
    fn picture(&self, payload: &ImagePayload, least_contrast: f64) -> Result<(RgbImage, Digest), (Fate, String)> {
        let image = decode(payload).map_err(|e| (Fate::Decode, e.to_string()))?;
        quality::check(&image, least_contrast).map_err(|blank| (Fate::Blank, blank.to_string()))?;
        let digest = Digest::of(&image);
        Ok((self.optics.rectify(image), digest))
    }
}
