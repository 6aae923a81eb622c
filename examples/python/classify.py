#!/usr/bin/env python3
"""Classifies pictures with an exported TF Lite file.

    pip install ai-edge-litert pillow
    python classify.py student_int8.tflite picture.png [picture.png ...]

Any of the exported TF Lite files works. The file contains the class names and how pictures are
resized, and normalizes the pixels itself, so neither TensorFlow nor dfa_tf is needed.
"""

import json
import sys
import zipfile

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps

TOP_CLASSES = 3


def main(model, *pictures):
    """Prints the most probable classes of each picture."""
    try:
        with zipfile.ZipFile(model) as archive:
            labels = archive.read("labels.txt").decode().splitlines()
            preprocessing = json.loads(archive.read("about.json"))["input"]
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        sys.exit(f"{model}: not a TF Lite file of bin/export ({error})")
    interpreter = Interpreter(model)
    classify = interpreter.get_signature_runner()
    image_details = classify.get_input_details()["image"]
    output_details = classify.get_output_details()["probabilities"]
    for picture in pictures:
        pixels = read_picture(picture, image_details["shape"], preprocessing)
        output = classify(image=quantize(pixels, image_details))["probabilities"][0]
        probabilities = dequantize(output, output_details)
        best = np.argsort(-probabilities)[:TOP_CLASSES]
        classes = ", ".join(f"{labels[k]} {probabilities[k]:.1%}" for k in best)
        print(f"{picture}: {classes}")


def read_picture(path, shape, preprocessing):
    """Returns a picture as the model's input, uint8 [1, height, width, channels]."""
    _, height, width, channels = shape
    try:
        image = ImageOps.exif_transpose(Image.open(path))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        sys.exit(f"{path}: {error}")
    if image.mode.startswith("I;16"):  # Pillow's conversion would clip the values to 255
        image = image.point(lambda value: value / 256).convert("L")
    image = image.convert("L" if channels == 1 else "RGB")
    if preprocessing["resize"] == "crop":
        image = centre(image, height, width, preprocessing["crop_fraction"])
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return pixels.reshape(1, height, width, channels)


def centre(image, height, width, fraction):
    """Returns the centred window with this aspect ratio, `fraction` of the largest one."""
    scale = fraction * min(image.height / height, image.width / width)
    rows, columns = max(int(scale * height + 0.5), 1), max(int(scale * width + 0.5), 1)
    top, left = (image.height - rows) // 2, (image.width - columns) // 2
    return image.crop((left, top, left + columns, top + rows))


def quantize(pixels, details):
    """Converts pixels to the input's dtype: pixel / scale + zero point in an integer file."""
    scale, zero_point = details["quantization"]
    if not scale:
        return pixels.astype(details["dtype"])
    limits = np.iinfo(details["dtype"])
    values = np.round(pixels / scale) + zero_point
    return np.clip(values, limits.min, limits.max).astype(details["dtype"])


def dequantize(values, details):
    """Converts an output to float32: (value - zero point) * scale in an integer file."""
    scale, zero_point = details["quantization"]
    return (values.astype(np.float32) - zero_point) * scale if scale else values


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
