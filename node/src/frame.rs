//! One camera frame on its way from the wire to the model.

use std::sync::{Arc, Mutex, PoisonError};

use crate::decode::decode;
use crate::estimator::{Error, Estimator};
use crate::message::ImagePayload;
use crate::rectify::Rectifier;
use crate::stats::{Fate, Ticket};
use crate::window::View;

/// A frame that windows share. It is decoded, rectified and encoded when the first window that the model reads needs it,
/// and then keeps the embedding in place of the pixels: frames of windows that gave way to newer ones cost nothing.
#[derive(Debug)]
pub struct Frame<F> {
    ticket: Ticket,
    rectifier: Option<Arc<Rectifier>>,
    content: Mutex<Content<F>>,
}

#[derive(Debug)]
enum Content<F> {
    Message(ImagePayload),
    Encoded(Arc<F>),
    Broken(String),
}

/// What [`Frame::embedding`] found.
#[derive(Debug)]
pub enum Embedding<F> {
    /// Encoded for an earlier window.
    Cached(Arc<F>),
    /// Encoded now.
    Fresh(Arc<F>),
    /// The pixels cannot be read, and why.
    Broken(String),
}

impl<F> Frame<F> {
    /// A frame as it came, and what makes it a pinhole's.
    pub fn new(payload: ImagePayload, rectifier: Option<Arc<Rectifier>>, ticket: Ticket) -> Self {
        Self { ticket, rectifier, content: Mutex::new(Content::Message(payload)) }
    }

    /// Notes what became of it.
    pub fn note(&self, fate: Fate) {
        self.ticket.note(fate);
    }

    /// What the model keeps of it.
    pub fn embedding<E>(&self, view: &View, estimator: &mut E) -> Result<Embedding<F>, Error>
    where
        E: Estimator<Frame = F>,
    {
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        let payload = match &*content {
            Content::Encoded(embedding) => return Ok(Embedding::Cached(Arc::clone(embedding))),
            Content::Broken(reason) => return Ok(Embedding::Broken(reason.clone())),
            Content::Message(payload) => payload,
        };
        let rectified = decode(payload).map(|image| match &self.rectifier {
            Some(rectifier) => rectifier.apply(&image),
            None => image,
        });
        let reason = match rectified {
            Ok(image) => match estimator.encode(&image, &view.intrinsics) {
                Ok(embedding) => {
                    let embedding = Arc::new(embedding);
                    *content = Content::Encoded(Arc::clone(&embedding));
                    return Ok(Embedding::Fresh(embedding));
                }
                Err(Error::Image(reason)) => reason,
                Err(fatal) => return Err(fatal),
            },
            Err(e) => e.to_string(),
        };
        self.note(Fate::Decode);
        *content = Content::Broken(reason.clone());
        Ok(Embedding::Broken(reason))
    }
}
