//! What an accelerometer on a machine says, by physics: the shaft and its harmonics, noise, and where a bearing has a fault, a
//! ringing of the housing each time that a ball passes it (P. D. McFadden and J. D. Smith, "Model for the vibration produced
//! by a single point defect in a rolling element bearing", Journal of Sound and Vibration 96, 1984).

use std::f64::consts::TAU;

use crate::kill::random;

pub const SAMPLES: usize = 4096;
const SAMPLE_HZ: f64 = 12_000.0;
const SHAFT_HZ: f64 = 29.95;
/// How the housing rings: its frequency, and how fast it ceases.
const RING_HZ: f64 = 3_400.0;
const RING_S: f64 = 0.0012;

/// What is the matter with a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    Healthy,
    /// A healthy one beside something loud.
    Noisy,
    /// Its shaft is not straight: strong lines at multiples of its speed, and a healthy bearing.
    Misaligned,
    OuterRace,
    InnerRace,
}

impl Machine {
    pub fn has_fault(self) -> bool {
        matches!(self, Self::OuterRace | Self::InnerRace)
    }
}

/// A reading: samples as a device sends them.
pub fn reading(machine: Machine, seed: &mut u64) -> Vec<u8> {
    let phase = unit(seed) * TAU;
    let (first, second, noise) = match machine {
        Machine::Misaligned => (0.5, 1.2, 0.1),
        Machine::Noisy => (0.3, 0.1, 0.35),
        _ => (0.3, 0.1, 0.1),
    };
    let mut signal: Vec<f64> = (0..SAMPLES)
        .map(|n| {
            let turn = TAU * SHAFT_HZ * n as f64 / SAMPLE_HZ + phase;
            first * turn.sin() + second * (2.0 * turn).sin() + noise * normal(seed)
        })
        .collect();
    match machine {
        // The load is always on the same place of the outer race; the inner one turns through it.
        Machine::OuterRace => pass(&mut signal, 3.585, |_| 0.5, seed),
        Machine::InnerRace => pass(&mut signal, 5.415, |at| 0.35 * (1.0 + (TAU * SHAFT_HZ * at).cos()), seed),
        _ => {}
    }
    signal.iter().flat_map(|sample| (*sample as f32).to_le_bytes()).collect()
}

/// Balls pass a fault, not quite regularly, because they slip.
fn pass(signal: &mut [f64], passes: f64, strength: impl Fn(f64) -> f64, seed: &mut u64) {
    let period_s = 1.0 / (passes * SHAFT_HZ);
    let mut at = unit(seed) * period_s;
    while at < SAMPLES as f64 / SAMPLE_HZ {
        let strength = strength(at);
        let first = (at * SAMPLE_HZ).ceil() as usize;
        for (n, sample) in signal.iter_mut().enumerate().skip(first).take(200) {
            let since = n as f64 / SAMPLE_HZ - at;
            *sample += strength * (-since / RING_S).exp() * (TAU * RING_HZ * since).sin();
        }
        at += period_s * (1.0 + 0.01 * normal(seed));
    }
}

/// Above 0 and up to 1.
fn unit(seed: &mut u64) -> f64 {
    ((random(seed) >> 11) + 1) as f64 / (1u64 << 53) as f64
}

/// Normally distributed, of variance 1 (Box and Muller 1958).
fn normal(seed: &mut u64) -> f64 {
    (-2.0 * unit(seed).ln()).sqrt() * (TAU * unit(seed)).cos()
}
