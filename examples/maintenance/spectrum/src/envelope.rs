//! Envelope analysis of a rolling bearing (R. B. Randall and J. Antoni, "Rolling element bearing diagnostics: a tutorial",
//! Mechanical Systems and Signal Processing 25, 2011).
//!
//! Each time that a ball passes a fault, the housing rings at its own frequency. Of the signal in that band the envelope
//! is taken; its spectrum has a line at the rate of the passes, and at its multiples.

use rustfft::FftPlanner;
use rustfft::num_complex::Complex;

/// Multiples of a rate that are looked at.
const HARMONICS: usize = 3;
/// Where the floor of the envelope's spectrum is measured, in hertz.
const FLOOR_HZ: (f32, f32) = (20.0, 500.0);
/// Balls slip: a line may be this far from where it should be, as a part of its frequency.
const SLIP: f32 = 0.02;

/// How a machine is measured, and how its bearing is made.
#[derive(Clone, Debug)]
pub struct Bearing {
    pub sample_hz: f32,
    pub shaft_hz: f32,
    /// The band in which the housing rings, in hertz.
    pub resonance_hz: (f32, f32),
    /// Passes of a fault in a turn of the shaft, by the part that has it.
    pub parts: Vec<(String, f32)>,
}

/// What a reading shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Root mean square of the acceleration, in the unit of the samples.
    pub rms: f32,
    /// Its greatest value.
    pub peak: f32,
    /// How far each part's line stands above the floor, as a ratio.
    pub scores: Vec<(String, f32)>,
}

impl Finding {
    /// The part whose line stands highest.
    pub fn worst(&self) -> Option<&(String, f32)> {
        self.scores.iter().max_by(|a, b| a.1.total_cmp(&b.1))
    }
}

/// Looks at a reading; `None` if it is too short for its rates to be told apart.
pub fn analyse(samples: &[f32], bearing: &Bearing) -> Option<Finding> {
    let resolution_hz = bearing.sample_hz / samples.len() as f32;
    if samples.len() < 1024 || resolution_hz > 6.0 {
        return None;
    }
    let mean = samples.iter().sum::<f32>() / samples.len() as f32;
    let square = samples.iter().map(|sample| (sample - mean).powi(2)).sum::<f32>() / samples.len() as f32;
    let peak = samples.iter().map(|sample| (sample - mean).abs()).fold(0.0, f32::max);
    let spectrum = spectrum(&envelope(samples, bearing));
    let at = |hz: f32| (hz / resolution_hz).round() as usize;
    let mut floor = spectrum[at(FLOOR_HZ.0)..at(FLOOR_HZ.1)].to_vec();
    floor.sort_by(f32::total_cmp);
    let floor = floor[floor.len() / 2].max(f32::MIN_POSITIVE);
    let line = |hz: f32| {
        let wide = (hz * SLIP / resolution_hz).ceil() as usize;
        spectrum[at(hz).saturating_sub(wide)..=at(hz) + wide].iter().copied().fold(0.0, f32::max)
    };
    let score = |passes: f32| {
        let rate = passes * bearing.shaft_hz;
        (1..=HARMONICS).map(|n| line(rate * n as f32)).sum::<f32>() / (HARMONICS as f32 * floor)
    };
    let scores = bearing.parts.iter().map(|(part, passes)| (part.clone(), score(*passes))).collect();
    Some(Finding { rms: square.sqrt(), peak, scores })
}

/// The envelope of what is in the band of resonance: the length of the analytic signal.
fn envelope(samples: &[f32], bearing: &Bearing) -> Vec<f32> {
    let mut planner = FftPlanner::new();
    let length = samples.len();
    let mut signal: Vec<_> = samples.iter().map(|sample| Complex::new(*sample, 0.0)).collect();
    planner.plan_fft_forward(length).process(&mut signal);
    let resolution_hz = bearing.sample_hz / length as f32;
    let (low, high) = bearing.resonance_hz;
    for (n, bin) in signal.iter_mut().enumerate() {
        let hz = n as f32 * resolution_hz;
        // Without the negative frequencies, which are the upper half.
        if n > length / 2 || hz < low || hz > high {
            *bin = Complex::ZERO;
        }
    }
    planner.plan_fft_inverse(length).process(&mut signal);
    signal.iter().map(|value| value.norm()).collect()
}

/// The magnitudes of the lower half of a spectrum, with a Hann window.
fn spectrum(values: &[f32]) -> Vec<f32> {
    let length = values.len();
    let mean = values.iter().sum::<f32>() / length as f32;
    let window = |n: usize| 0.5 - 0.5 * (std::f32::consts::TAU * n as f32 / length as f32).cos();
    let mut signal: Vec<_> =
        values.iter().enumerate().map(|(n, value)| Complex::new((value - mean) * window(n), 0.0)).collect();
    FftPlanner::new().plan_fft_forward(length).process(&mut signal);
    signal[..length / 2].iter().map(|bin| bin.norm()).collect()
}
