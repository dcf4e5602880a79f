"""Importer of ImageDecoder: runs on the host, through Pillow (extra `images`)."""

from __future__ import annotations

import io

import numpy as np

from ...core.errors import MissingExtraError, OnnxError
from .table import adapter


@adapter("ImageDecoder", host=("encoded",), library="Pillow")
def image_decoder(encoded, *, pixel_format="RGB"):
    """The pixels of an encoded image, uint8[height, width, channels]."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        why = "ImageDecoder reads images with Pillow"
        raise MissingExtraError("onnx", why, "pip install duograd[images]") from None
    modes = {"RGB": "RGB", "BGR": "RGB", "Grayscale": "L"}
    if pixel_format not in modes:
        raise OnnxError("onnx", f"the pixel format {pixel_format!r}", f"use one of {', '.join(modes)}")
    try:
        with Image.open(io.BytesIO(encoded.tobytes())) as image:
            pixels = np.asarray(image.convert(modes[pixel_format]))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError) as e:
        raise OnnxError("onnx", f"the image cannot be decoded: {e}", "check the bytes") from None
    if pixel_format == "BGR":
        return np.ascontiguousarray(pixels[..., ::-1])
    return pixels[..., None].copy() if pixel_format == "Grayscale" else pixels.copy()
