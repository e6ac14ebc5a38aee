//! What a run shows of itself: a bar where somebody looks, log lines, curves for TensorBoard.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use model::memory::Resident;
use model::weights::manifest::Point;

use super::tensorboard::EventWriter;

/// Watches a run; mute on all ranks but the first.
pub(super) struct Progress {
    bar: ProgressBar,
    events: Option<EventWriter>,
    lead: bool,
    steps: usize,
    /// Sums since the last log line.
    sums: Vec<f64>,
    norm: f64,
    tokens: f64,
    count: usize,
    since: Instant,
}

impl Progress {
    pub(super) fn new(out: &Path, steps: usize, done: usize, resumed: bool, lead: bool) -> Result<Self> {
        let bar = if lead { ProgressBar::new(steps as u64) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}, {eta} left") {
            bar.set_style(style);
        }
        bar.set_position(done as u64);
        bar.reset_eta();
        bar.enable_steady_tick(Duration::from_millis(500));
        let events = match (lead, resumed) {
            (false, _) => None,
            // Points have the number of steps done: that of the checkpoint stays.
            (true, true) => Some(EventWriter::append(&out.join("events"), done as u64 + 1)?),
            (true, false) => Some(EventWriter::create(&out.join("events"))?),
        };
        Ok(Self { bar, events, lead, steps, sums: Vec::new(), norm: 0.0, tokens: 0.0, count: 0, since: Instant::now() })
    }

    /// Notes a step; the point of the curve where one is due.
    #[expect(clippy::too_many_arguments, reason = "all that a step comes to, once")]
    pub(super) fn step(
        &mut self,
        step: usize,
        names: &[&str],
        terms: &[f64],
        norm: f64,
        rate: f64,
        tokens: f64,
        every: usize,
    ) -> Result<Option<Point>> {
        self.sums.resize(terms.len(), 0.0);
        self.sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
        self.norm += norm;
        self.tokens += tokens;
        self.count += 1;
        self.bar.inc(1);
        if !step.is_multiple_of(every) && step != self.steps {
            return Ok(None);
        }
        let (count, seconds) = (self.count as f64, self.since.elapsed().as_secs_f64());
        let tokens_per_s = self.tokens / seconds.max(1e-9);
        let mib = Resident::of_self().map_or(f64::NAN, |held| held.mib);
        let terms: Vec<(&str, f64)> = names.iter().copied().zip(self.sums.iter().map(|sum| sum / count)).collect();
        let mut scalars =
            vec![("rate", rate), ("grad_norm", self.norm / count), ("tokens_per_s", tokens_per_s), ("mib", mib)];
        scalars.extend(&terms);
        if let Some(events) = &mut self.events {
            for (name, value) in scalars {
                events.scalar(&format!("train/{name}"), step as u64, value as f32)?;
            }
            events.flush()?;
        }
        if self.lead {
            let terms = terms.iter().map(|(name, mean)| format!("{name} {mean:.4}"));
            let terms = terms.collect::<Vec<_>>().join(" ");
            let eta_s = (seconds / count * (self.steps - step) as f64) as u64;
            self.bar.set_message(format!("{terms}, {tokens_per_s:.0} tokens/s, {mib:.0} MiB"));
            self.bar.suspend(|| {
                let (rate, norm) = (format!("{rate:.2e}"), format!("{:.3}", self.norm / count));
                tracing::info!(
                    step,
                    of = self.steps,
                    rate,
                    norm,
                    tokens_per_s = tokens_per_s as u64,
                    mib = mib as u64,
                    eta_s,
                    "{terms}"
                );
            });
        }
        (self.norm, self.tokens, self.count, self.since) = (0.0, 0.0, 0, Instant::now());
        self.sums.clear();
        Ok(Some(Point::new(step, terms)))
    }

    /// Notes figures on the hold-out.
    pub(super) fn figures(&mut self, step: usize, figures: &[(&'static str, f64)]) -> Result<()> {
        if let Some(events) = &mut self.events {
            for (name, value) in figures {
                events.scalar(&format!("eval/{name}"), step as u64, *value as f32)?;
            }
            events.flush()?;
        }
        let text = figures.iter().map(|(name, value)| format!("{name} {value:.4}")).collect::<Vec<_>>().join(" ");
        if !text.is_empty() {
            self.bar.suspend(|| tracing::info!(step, "hold-out: {text}"));
        }
        // Time at the hold-out is none of the training's.
        self.since = Instant::now();
        Ok(())
    }

    pub(super) fn close(&self, word: &'static str) {
        self.bar.finish_with_message(word);
    }
}
