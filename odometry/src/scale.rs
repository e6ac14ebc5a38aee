//! Metres for a unit of the tracks: a quantity with a variance, from sources that are named.
//!
//! One camera cannot see scale. What can be known of it comes in readings of `log(metres / unit)`, each with its noise,
//! from a program whose poses are followed, from another odometry, from the camera's height over the ground, or from the model. The readings of a source average out;
//! its bias, which all of them share, does not, and is the least that its standard deviation ever is. A source whose
//! readings are spread much wider than they say contradicts itself, and one that differs from a better source by more than both
//! allow contradicts the others: it is held off, and says so, until it no longer does.

use std::collections::VecDeque;
use std::fmt;

/// Readings of a source that are remembered: what is older than these may be of another unit, since tracks drift.
const READINGS: usize = 12;
/// Readings from which the spread among them is believed.
const ENOUGH: usize = 5;
/// The least spread of the readings over what they say of themselves that is believed: a dozen may agree by chance.
const LEAST_SPREAD: f64 = 0.3;
/// Spread of the readings over what they say of themselves, from which a source contradicts itself.
const MOST_SPREAD: f64 = 4.0;
/// Joint standard deviations from which two sources contradict each other.
const MOST_DIFFERENCE: f64 = 3.0;
/// Standard deviation of the change of a unit where a segment begins.
const SEGMENT_SIGMA: f64 = 0.3;
/// Of a Gaussian: its standard deviation over the median of what is left without sign, and the noise of a median over that
/// of a mean.
const SIGMA_OF_MEDIAN: f64 = 1.4826;
const MEDIAN_OVER_MEAN: f64 = 1.2533;

/// Standard deviation of a scale that is hardly known: for a source that tells more it is waited, and on what says less it is
/// changed late.
pub(crate) const UNTOLD_SIGMA: f64 = 0.3;

/// What says what a unit is in metres, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The program whose poses are followed, which has them in metres.
    Topic,
    /// Another odometry, such as that of wheels.
    Odometry,
    /// The height of the camera over the ground.
    CameraHeight,
    /// The lengths that the model says.
    Model,
}

impl Source {
    /// All, the best first.
    pub const ALL: [Self; 4] = [Self::Topic, Self::Odometry, Self::CameraHeight, Self::Model];

    /// As it is reported.
    pub fn name(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Odometry => "odometry",
            Self::CameraHeight => "camera_height",
            Self::Model => "model",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is known of a scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Belief {
    /// Natural logarithm of the metres for a unit.
    pub log: f64,
    /// Its standard deviation.
    pub sigma: f64,
    /// What tells it most; `None` where nothing does, and it is what scenes are like.
    pub source: Option<Source>,
}

impl Belief {
    /// Metres for a unit.
    pub fn metres(&self) -> f64 {
        self.log.exp()
    }
}

/// Standard deviations of what all readings of a source share: of each, in the order of [`Source::ALL`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Biases(pub [f64; 4]);

impl Default for Biases {
    /// Another program and wheels that are a hundredth off, a height that is known to a fiftieth, and nothing known of the model's.
    fn default() -> Self {
        Self([0.01, 0.01, 0.02, 1.0])
    }
}

/// Metres for a unit of the tracks, from what several sources say.
#[derive(Clone, Debug)]
pub struct Scale {
    biases: Biases,
    prior: Option<Belief>,
    sources: [Readings; 4],
}

/// The last readings of a source: logarithm and noise.
#[derive(Clone, Debug, Default)]
struct Readings(VecDeque<(f64, f64)>);

impl Scale {
    /// Before any reading.
    pub fn new(biases: Biases) -> Self {
        Self { biases, prior: None, sources: Default::default() }
    }

    /// Takes sources for as biased as this from now on.
    pub fn set_biases(&mut self, biases: Biases) {
        self.biases = biases;
    }

    /// What is taken for the scale as long as no source tells it.
    pub fn expect(&mut self, log: f64, sigma: f64) {
        self.prior = Some(Belief { log, sigma, source: None });
    }

    /// Whether anything tells a scale, if only what scenes are like.
    pub fn is_expected(&self) -> bool {
        self.prior.is_some()
    }

    /// Takes a reading of `log(metres / unit)` and the standard deviation of its noise; what is not finite is none.
    pub fn take(&mut self, source: Source, log: f64, sigma: f64) {
        if !(log.is_finite() && sigma.is_finite() && sigma > 0.0) {
            return;
        }
        let readings = &mut self.sources[source as usize].0;
        if readings.len() == READINGS {
            readings.pop_front();
        }
        readings.push_back((log, sigma));
    }

    /// Whether a source has given a reading in this unit.
    pub fn has_read(&self, source: Source) -> bool {
        !self.sources[source as usize].0.is_empty()
    }

    /// Another unit begins, which follows from the last one roughly.
    pub fn begin_segment(&mut self) {
        if let Some(belief) = self.belief() {
            self.expect(belief.log, belief.sigma.hypot(SEGMENT_SIGMA));
        }
        self.sources = Default::default();
    }

    /// Another unit begins, of which nothing is known.
    pub fn forget(&mut self) {
        *self = Self::new(self.biases);
    }

    /// What is known, from all sources that are not held off; `None` before anything is.
    pub fn belief(&self) -> Option<Belief> {
        self.judged().0
    }

    /// Sources that are held off, and why.
    pub fn held_off(&self) -> Vec<(Source, String)> {
        self.judged().1
    }

    fn judged(&self) -> (Option<Belief>, Vec<(Source, String)>) {
        let (mut known, mut held_off): (Option<Belief>, _) = (None, Vec::new());
        for source in Source::ALL {
            let readings = &self.sources[source as usize];
            let Some((log, noise, spread)) = readings.summary() else { continue };
            if spread > MOST_SPREAD {
                held_off.push((source, format!("{source} contradicts itself: its readings are spread {spread:.1} times as wide as they should be")));
                continue;
            }
            let sigma = noise.hypot(self.biases.0[source as usize]);
            let own = Belief { log, sigma, source: Some(source) };
            known = match known {
                None => Some(own),
                Some(best) if (own.log - best.log).abs() > MOST_DIFFERENCE * own.sigma.hypot(best.sigma) => {
                    let (says, other) = (own.metres(), best.metres());
                    let better = best.source.map_or("", Source::name);
                    held_off.push((source, format!("{source} says {says:.4} m for a unit, {better} {other:.4}")));
                    Some(best)
                }
                Some(best) => Some(merged(&best, &own)),
            };
        }
        let belief = match (known, self.prior) {
            (Some(known), Some(prior)) => Some(merged(&known, &prior)),
            (known, prior) => known.or(prior),
        };
        (belief, held_off)
    }
}

/// The scale that steps are made with: what it was, unless what is known says otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Applied {
    /// A logarithm.
    log: Option<f64>,
}

impl Applied {
    /// Metres for a unit; `None` before the first step.
    pub fn metres(&self) -> Option<f64> {
        self.log.map(f64::exp)
    }

    /// The scale of the next step, with how far that may be off.
    pub fn choose(&mut self, known: &Belief) -> Belief {
        let most = known.sigma * (1.0 + (known.sigma / UNTOLD_SIGMA).min(1.0));
        let log = self.log.filter(|applied| (known.log - applied).abs() <= most).unwrap_or(known.log);
        self.log = Some(log);
        Belief { log, sigma: known.sigma.hypot(known.log - log), source: known.source }
    }
}

/// By information; the source is that of the surer one.
fn merged(a: &Belief, b: &Belief) -> Belief {
    let (wa, wb) = (a.sigma.powi(-2), b.sigma.powi(-2));
    let source = match (a.source, b.source) {
        (Some(_), Some(_)) if wb > wa => b.source,
        (own, other) => own.or(other),
    };
    Belief { log: (wa * a.log + wb * b.log) / (wa + wb), sigma: (wa + wb).sqrt().recip(), source }
}

impl Readings {
    /// Their weighted median, its noise, and how much wider they are spread than they say, 1 or more. Weights are those of least
    /// absolute errors: with those of least squares one long way that is wrong would outweigh many short ones.
    fn summary(&self) -> Option<(f64, f64, f64)> {
        let middle = weighted_median(self.0.iter().map(|(log, sigma)| (*log, sigma.recip())))?;
        let own = weighted_median(self.0.iter().map(|(log, sigma)| ((log - middle).abs() / sigma, 1.0)))?;
        let information: f64 = self.0.iter().map(|(_, sigma)| sigma.powi(-2)).sum();
        // Few cannot speak against each other: they are taken for half as sure as they say. Of many it is seen how sure they are.
        let is_enough = self.0.len() >= ENOUGH;
        let spread = if is_enough { SIGMA_OF_MEDIAN * own } else { 1.0 };
        let caution = if is_enough { spread.max(LEAST_SPREAD) } else { 2.0 };
        Some((middle, caution * MEDIAN_OVER_MEAN / information.sqrt(), spread.max(1.0)))
    }
}

fn weighted_median(values: impl Iterator<Item = (f64, f64)>) -> Option<f64> {
    let mut sorted: Vec<(f64, f64)> = values.collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let half = 0.5 * sorted.iter().map(|(_, weight)| weight).sum::<f64>();
    let mut below = 0.0;
    sorted.iter().find_map(|(value, weight)| {
        below += weight;
        (below >= half).then_some(*value)
    })
}
