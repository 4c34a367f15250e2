"""Which kind of signal a spectrogram shows: rendered signals in noise, through a short-time Fourier transform.

Signals are complex baseband, so the picture's vertical axis runs over the whole sampling band. Each is a burst at a
random frequency, and weak steady carriers of other frequencies may run through the whole picture.
"""

from __future__ import annotations

import numpy as np

from .drawing import SIZE, Rendered

WINDOW = SIZE  # samples, hence frequency bins
HOP = 20
SAMPLES = WINDOW + HOP * (SIZE - 1)
SNR = (-10.0, -1.0)  # dB, of the burst against the noise of the whole band
CARRIERS = 2  # steady ones, at most
CARRIER = (-22.0, -10.0)  # dB, of one steady carrier
DURATION = (0.5, 0.95)  # of the picture
FLOOR, CEILING = -8.0, 16.0  # dB around the median, mapped to black and white
HEAT = np.array([[0.0, 0.0, 0.02], [0.32, 0.07, 0.43], [0.73, 0.22, 0.33], [0.98, 0.55, 0.04], [0.99, 1.0, 0.64]])


class Spectro(Rendered):
    """Frequencies are in cycles per sample, -0.5 to 0.5; time runs over the burst from 0 to 1."""

    SEED = 501

    def draw(self, rng: np.random.Generator, label: int) -> np.ndarray:
        """float64 (56, 56, 3): frequency upwards, time to the right, power as heat."""
        length = int(SAMPLES * rng.uniform(*DURATION))
        start = int(rng.integers(SAMPLES - length + 1))
        burst = signal(rng, self.card.classes[label], length)
        burst *= 10 ** (rng.uniform(*SNR) / 20) / np.sqrt(np.mean(np.abs(burst) ** 2))
        wave = (rng.standard_normal(SAMPLES) + 1j * rng.standard_normal(SAMPLES)) / np.sqrt(2)
        wave[start : start + length] += burst
        for _ in range(rng.integers(CARRIERS + 1)):
            amplitude = 10 ** (rng.uniform(*CARRIER) / 20)
            wave += amplitude * oscillation(rng, np.full(SAMPLES, rng.uniform(-0.45, 0.45)))
        return _heat(wave)


def _heat(wave: np.ndarray) -> np.ndarray:
    frames = np.lib.stride_tricks.sliding_window_view(wave, WINDOW)[::HOP] * np.hanning(WINDOW)
    spectrum = np.fft.fftshift(np.fft.fft(frames, axis=1), axes=1)
    decibel = 10 * np.log10(np.abs(spectrum.T[::-1]) ** 2 + 1e-9)
    level = np.clip((decibel - np.median(decibel) - FLOOR) / (CEILING - FLOOR), 0.0, 1.0) * (len(HEAT) - 1)
    lower = np.minimum(level.astype(int), len(HEAT) - 2)
    share = (level - lower)[..., None]
    heat: np.ndarray = HEAT[lower] * (1 - share) + HEAT[lower + 1] * share
    return heat


def oscillation(rng: np.random.Generator, frequency: np.ndarray) -> np.ndarray:
    """A wave of amplitude 1 with the given frequency at each sample and a random phase."""
    wave: np.ndarray = np.exp(2j * np.pi * (np.cumsum(frequency) + rng.random()))
    return wave


def signal(rng: np.random.Generator, kind: str, length: int) -> np.ndarray:
    """A complex burst of `length` samples whose mean frequency lies anywhere in the band."""
    time = np.arange(length) / length
    width = rng.uniform(0.12, 0.35)  # of the band that moving signals sweep
    centre = rng.uniform(-0.45 + width / 2, 0.45 - width / 2)
    if kind == "tone":
        return oscillation(rng, np.full(length, centre))
    if kind == "rising-chirp":
        return oscillation(rng, centre + width * (time - 0.5))
    if kind == "falling-chirp":
        return oscillation(rng, centre - width * (time - 0.5))
    if kind == "wobble":
        swings = rng.uniform(1.5, 4.5)
        return oscillation(rng, centre + width / 2 * np.sin(2 * np.pi * (swings * time + rng.random())))
    if kind == "hops":
        steps = rng.uniform(-0.5, 0.5, size=int(rng.integers(5, 11)))
        return oscillation(rng, centre + width * steps[(time * len(steps)).astype(int)])
    if kind == "two-tone":
        pair = oscillation(rng, np.full(length, centre - width / 4))
        return pair + oscillation(rng, np.full(length, centre + width / 4))
    if kind == "pulses":
        period, duty = 1 / rng.uniform(4, 9), rng.uniform(0.3, 0.6)
        on = (time / period + rng.random()) % 1.0 < duty
        return oscillation(rng, np.full(length, centre)) * on
    noise = rng.standard_normal(length) + 1j * rng.standard_normal(length)
    smooth = np.convolve(noise, np.hanning(max(5, int(2.5 / width))), mode="same")  # "band-noise"
    return smooth * oscillation(rng, np.full(length, centre))
