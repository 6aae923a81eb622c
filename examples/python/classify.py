#!/usr/bin/env python3
"""Classifies image files with an exported TF Lite file, and nothing else.

    pip install ai-edge-litert pillow
    python classify.py student_int8.tflite picture.png [picture.png ...]

The model's file holds the names of its classes and takes raw pixels; any of the exported files will do.
"""

import sys
import zipfile

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

SHOWN = 3


def main(model, *pictures):
    """Prints the likeliest classes of each picture."""
    with zipfile.ZipFile(model) as packed:
        labels = packed.read("labels.txt").decode().splitlines()
    interpreter = Interpreter(model)
    classify = interpreter.get_signature_runner()
    image = classify.get_input_details()["image"]
    answer = classify.get_output_details()["probabilities"]
    for picture in pictures:
        pixels = read(picture, image["shape"])
        probabilities = classify(image=quantized(pixels, image))["probabilities"][0]
        probabilities = dequantized(probabilities, answer)
        best = np.argsort(-probabilities)[:SHOWN]
        told = ", ".join(f"{labels[k]} {probabilities[k]:.1%}" for k in best)
        print(f"{picture}: {told}")


def read(picture, shape):
    """The picture's pixels as the model wants them: [1, height, width, channels], 0..255."""
    _, height, width, channels = shape
    image = Image.open(picture).convert("L" if channels == 1 else "RGB")
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return pixels.reshape(1, height, width, channels)


def quantized(pixels, details):
    """Pixels in the numbers that the input holds: pixel / scale + zero point where it is int8."""
    scale, zero_point = details["quantization"]
    if not scale:
        return pixels.astype(details["dtype"])
    limits = np.iinfo(details["dtype"])
    numbers = np.round(pixels / scale) + zero_point
    return np.clip(numbers, limits.min, limits.max).astype(details["dtype"])


def dequantized(numbers, details):
    """What `quantized` does, undone."""
    scale, zero_point = details["quantization"]
    return (numbers.astype(np.float32) - zero_point) * scale if scale else numbers


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except (OSError, zipfile.BadZipFile) as error:
        sys.exit(str(error))
