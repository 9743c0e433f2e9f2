//! What a layer's error is put down to.
//!
//! The error of an int8 result is a sum of differences, each between two computations that differ in one respect:
//!
//! ```text
//! int8 − f32  =   f32 layer on int8 inputs − f32 layer on f32 inputs        inherited
//!               + layer with the plan's weights − f32 layer                 weights        } both on
//!               + layer without the softmax weights the kernel drops − …    softmax        } int8 inputs
//!               + int8 − the last of these                                  rounding, or clipping where a result lies at an end
//! ```
//!
//! Squared and summed up over all elements and photos these are the [`Shares`]; the largest names the cause.

/// Own SQNR below which rounding is no longer taken for granted. 8 bits over a range that normally distributed values fill
/// (4 standard deviations to each side) are worth 40 dB; at 30 dB the root mean square is 9 steps of 255.
const COARSE_DB: f64 = 30.0;

/// A channel is an outlier when the range would be this many times narrower without it and its like.
const OUTLIER: f64 = 4.0;

/// At most one channel in so many is an outlier (and at least one may be): more of them are no exception.
const OUTLIERS_IN: usize = 64;

/// Fewer channels have no outliers.
const OUTLIER_CHANNELS: usize = 8;

/// Sums over one channel, in steps.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct ChannelSums {
    /// The largest f32 magnitude.
    pub(super) peak: f64,
    /// Of the squared f32 values.
    pub(super) power: f64,
    /// Of the squared errors by rounding.
    pub(super) rounding: f64,
}

/// What most of a layer's error comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cause {
    /// The layer computes exactly what it should from exact inputs.
    Exact,
    /// Its inputs: on the same int8 inputs, the f32 layer would be wrong by more than what this one adds.
    Inherited {
        /// The op of the plan whose result is the worst of the inputs.
        from: Option<usize>,
    },
    /// Results that lie at an end of their integers and are at least a step off.
    ClippedRange,
    /// Rounding, with a step that a few channels dictate: without them the range would be at most a quarter as wide, and that
    /// costs the other channels more than [`Cause::Rounding`] may.
    OutlierChannel {
        /// The channel with the largest values.
        channel: usize,
        /// How many times wider it makes the range.
        factor: f64,
    },
    /// Softmax weights below 2⁻¹⁵ of the largest in their row, which 14 bits do not hold.
    SoftmaxUnderflow,
    /// Rounding, with a step that is coarse for the signal: it costs more than [`Cause::Rounding`] may.
    CoarseScale {
        /// Root mean square of the layer's values, in steps.
        rms: f64,
        /// The largest magnitude, in steps.
        peak: f64,
    },
    /// Weights and biases as the plan's integers have them. (Corrected biases are among them.)
    Weights,
    /// Rounding to a range that the values fill: what 8 bits cost.
    Rounding,
}

impl Cause {
    /// The cause's name: `inherited`, `clipped range`, `outlier channel`, `softmax underflow`, `coarse scale`, `weights`, `rounding` or
    /// `exact`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Inherited { .. } => "inherited",
            Self::ClippedRange => "clipped range",
            Self::OutlierChannel { .. } => "outlier channel",
            Self::SoftmaxUnderflow => "softmax underflow",
            Self::CoarseScale { .. } => "coarse scale",
            Self::Weights => "weights",
            Self::Rounding => "rounding",
        }
    }
}

/// Squared errors by where they come from.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Shares {
    pub(super) weights: f64,
    pub(super) underflow: f64,
    pub(super) clipped: f64,
    pub(super) rounding: f64,
}

/// The facts a cause is found from.
pub(super) struct Facts<'a> {
    pub(super) inherited: f64,
    pub(super) own: f64,
    pub(super) shares: Shares,
    /// The op whose result is the worst of the inputs.
    pub(super) worst_input: Option<usize>,
    pub(super) channels: &'a [ChannelSums],
    /// Values of a channel.
    pub(super) rows: u64,
}

impl Facts<'_> {
    /// The cause of most of the error: inherited if the layer adds less than its inputs bring, else the largest share of what it
    /// adds.
    pub(super) fn cause(&self) -> Cause {
        if self.own == 0.0 && self.inherited == 0.0 {
            return Cause::Exact;
        }
        if self.inherited > self.own {
            return Cause::Inherited {
                from: self.worst_input,
            };
        }
        let s = &self.shares;
        // Of equals the last.
        let shares = [
            (s.rounding, self.rounding()),
            (s.weights, Cause::Weights),
            (s.underflow, Cause::SoftmaxUnderflow),
            (s.clipped, Cause::ClippedRange),
        ];
        let largest = shares.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
        largest.map_or(Cause::Exact, |(_, cause)| cause)
    }

    /// Rounding that costs more than it should has a step that is too coarse, because of a channel or for all.
    fn rounding(&self) -> Cause {
        if let Some(cause) = outlier(self.channels) {
            return cause;
        }
        if !is_coarse(self.channels.iter()) {
            return Cause::Rounding;
        }
        let values = self.rows as f64 * self.channels.len() as f64;
        let power: f64 = self.channels.iter().map(|c| c.power).sum();
        Cause::CoarseScale {
            rms: (power / values).sqrt(),
            peak: self.channels.iter().fold(0.0, |m, c| c.peak.max(m)),
        }
    }
}

/// Whether rounding to 8 bits costs some channels more than it should.
fn is_coarse<'c>(channels: impl Iterator<Item = &'c ChannelSums> + Clone) -> bool {
    let power: f64 = channels.clone().map(|c| c.power).sum();
    let rounding: f64 = channels.map(|c| c.rounding).sum();
    10.0 * (power / rounding).log10() < COARSE_DB
}

/// The channel that makes the range at least [`OUTLIER`] times wider than all but a few channels need, at their cost.
fn outlier(channels: &[ChannelSums]) -> Option<Cause> {
    if channels.len() < OUTLIER_CHANNELS {
        return None;
    }
    let mut order: Vec<usize> = (0..channels.len()).collect();
    order.sort_by(|a, b| channels[*b].peak.total_cmp(&channels[*a].peak));
    let few = (channels.len() / OUTLIERS_IN).max(1);
    let (outliers, others) = order.split_at_checked(few)?;
    let (channel, widest) = (*outliers.first()?, *others.first()?);
    let factor = channels[channel].peak / channels[widest].peak;
    let found = factor >= OUTLIER && is_coarse(others.iter().map(|c| &channels[*c]));
    found.then_some(Cause::OutlierChannel { channel, factor })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(peak: f64) -> ChannelSums {
        ChannelSums {
            peak,
            power: peak * peak,
            rounding: 1.0 / 12.0,
        }
    }

    #[test]
    fn one_channel_in_64_may_be_an_outlier() {
        let mut channels = vec![channel(2.0); 128];
        channels[7] = channel(100.0);
        let factor = 50.0;
        let found = Some(Cause::OutlierChannel { channel: 7, factor });
        assert_eq!(outlier(&channels), found);
        channels[100] = channel(90.0);
        assert_eq!(outlier(&channels), found);
        channels[101] = channel(90.0);
        assert_eq!(outlier(&channels), None);
        assert_eq!(outlier(&[channel(9.0), channel(1.0), channel(1.0)]), None);
        assert_eq!(outlier(&[channel(2.0); 64]), None);
    }

    #[test]
    fn an_outlier_that_costs_the_others_nothing_is_none() {
        let mut channels = vec![channel(30.0); 64];
        channels[0] = channel(127.0);
        assert_eq!(outlier(&channels), None);
        assert!(!is_coarse(channels.iter()));
    }
}
