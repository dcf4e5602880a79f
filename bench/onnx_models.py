"""Models for ONNX round trips: every layer of nn, losses, and composed networks at small widths.

Each is a `Case`: how to make it, example inputs, which axes are dynamic. `onnx_round_trip.py` runs them all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .. import nn
from . import onnx_networks as N
from . import onnx_quantised as Q
from . import onnx_sequence as S
from . import onnx_vision as V

Axes = dict[int, str]
BATCH: Axes = {0: "batch"}


class Case(NamedTuple):
    """One model.

    make: gives the module or function; inputs: example arrays; axes: dynamic axes of each input; since: the lowest
    opset that has what it needs; scale: tolerance beside the usual one; smooth: whether gradients are compared.
    """

    name: str
    make: Callable[[], Any]
    inputs: tuple[np.ndarray, ...]
    axes: tuple[Axes, ...]
    since: int = 13
    scale: float = 1.0
    smooth: bool = True


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    """Numbers between -1 and 1, no two alike."""
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def tokens(*shape: int, count: int = 16) -> np.ndarray:
    """Token numbers."""
    return np.random.default_rng(1).integers(0, count, shape)


# ---------------------------------------------------------------- layers: (class, arguments, options)

_LINE, _IMAGE, _VOLUME = (2, 4, 12), (2, 4, 8, 8), (1, 4, 6, 6, 6)

#: input shape -> the layers that take it
LAYERS: dict[tuple[int, ...], list[tuple[str, tuple[Any, ...], dict[str, Any]]]] = {
    (3, 6): [
        *[(name, (), {}) for name in (
            "CELU ELU GELU Hardshrink Hardsigmoid Hardswish Hardtanh Identity LeakyReLU LogSigmoid Mish ReLU ReLU6 "
            "SELU SiLU Sigmoid Softplus Softshrink Softsign Tanh Tanhshrink Dropout AlphaDropout PReLU RReLU").split()],
        ("GELU", (), {"approximate": "tanh"}), ("Threshold", (0.1, -2.0), {}), ("GLU", (), {}), ("Softmax", (-1,), {}),
        ("LogSoftmax", (-1,), {}), ("Softmin", (-1,), {}), ("Linear", (6, 4), {}), ("Linear", (6, 4), {"bias": False}),
        ("BatchNorm1d", (6,), {}), ("LayerNorm", (6,), {}), ("RMSNorm", (6,), {}), ("GroupNorm", (2, 6), {}),
        ("Unflatten", (1, (2, 3)), {}), ("RNNCell", (6, 5), {}), ("LSTMCell", (6, 5), {}), ("GRUCell", (6, 5), {}),
    ],
    _LINE: [
        ("Conv1d", (4, 6, 3), {"padding": 1}), ("Conv1d", (4, 4, 3), {"groups": 2, "dilation": 2}),
        ("ConvTranspose1d", (4, 3, 3), {"stride": 2, "output_padding": 1}), ("MaxPool1d", (3,), {"stride": 2}),
        ("AvgPool1d", (2,), {}), ("LPPool1d", (2.0, 3), {}), ("AdaptiveAvgPool1d", (5,), {}),
        ("AdaptiveMaxPool1d", (5,), {}), ("BatchNorm1d", (4,), {}), ("InstanceNorm1d", (4,), {"affine": True}),
        ("Dropout1d", (), {}), ("ConstantPad1d", ((1, 2), 0.5), {}), ("ZeroPad1d", (1,), {}),
        ("ReflectionPad1d", (2,), {}), ("ReplicationPad1d", ((1, 3),), {}), ("CircularPad1d", (2,), {}),
        ("Flatten", (), {}), ("Upsample", (), {"scale_factor": 2}),
        ("RNN", (12, 5), {"batch_first": True}), ("RNN", (12, 5), {"nonlinearity": "relu", "bidirectional": True}),
        ("LSTM", (12, 5), {"batch_first": True, "num_layers": 2}), ("LSTM", (12, 5), {"bidirectional": True}),
        ("GRU", (12, 5), {"batch_first": True}), ("GRU", (12, 5), {"bidirectional": True, "num_layers": 2}),
        ("LSTM", (12, 5), {"proj_size": 3, "num_layers": 2}),
        ("TransformerEncoderLayer", (12, 3, 16), {"batch_first": True}), ("FeatureAlphaDropout", (), {}),
    ],
    _IMAGE: [
        ("Conv2d", (4, 6, 3), {"padding": 1}), ("Conv2d", (4, 8, 3), {"groups": 4, "stride": 2}),
        ("Conv2d", (4, 4, 3), {"padding": "same", "dilation": 2, "bias": False}),
        ("ConvTranspose2d", (4, 3, 2), {"stride": 2}), ("ConvTranspose2d", (4, 4, 3), {"groups": 2, "padding": 1}),
        ("MaxPool2d", (2,), {}), ("MaxPool2d", (3, 2, 1), {"ceil_mode": True}), ("AvgPool2d", (3, 2, 1), {}),
        ("AvgPool2d", (2,), {"ceil_mode": True, "count_include_pad": False}), ("LPPool2d", (2.0, 2), {}),
        ("AdaptiveAvgPool2d", (1,), {}), ("AdaptiveAvgPool2d", ((3, 5),), {}), ("AdaptiveMaxPool2d", (2,), {}),
        ("BatchNorm2d", (4,), {}), ("InstanceNorm2d", (4,), {}), ("GroupNorm", (2, 4), {}),
        ("LayerNorm", ((8, 8),), {}),
        ("LocalResponseNorm", (3,), {}), ("Dropout2d", (), {}), ("PReLU", (4,), {}), ("ConstantPad2d", (1, 2.0), {}),
        ("ZeroPad2d", ((1, 0, 2, 1),), {}), ("ReflectionPad2d", (2,), {}), ("ReplicationPad2d", (1,), {}),
        ("CircularPad2d", (1,), {}), ("PixelShuffle", (2,), {}), ("PixelUnshuffle", (2,), {}),
        ("ChannelShuffle", (2,), {}),
        ("Upsample", (), {"scale_factor": 2, "mode": "nearest"}), ("Upsample", ((5, 11),), {"mode": "bilinear"}),
        ("Upsample", (), {"scale_factor": 2, "mode": "bicubic"}), ("UpsamplingBilinear2d", (), {"scale_factor": 2}),
        ("UpsamplingNearest2d", ((4, 4),), {}), ("Unfold", (3,), {"padding": 1}),
    ],
    _VOLUME: [
        ("Conv3d", (4, 3, 3), {"padding": 1}), ("ConvTranspose3d", (4, 2, 2), {"stride": 2}), ("MaxPool3d", (2,), {}),
        ("AvgPool3d", (3,), {"stride": 2}), ("LPPool3d", (2.0, 2), {}), ("AdaptiveAvgPool3d", (2,), {}),
        ("AdaptiveMaxPool3d", (3,), {}), ("BatchNorm3d", (4,), {}), ("InstanceNorm3d", (4,), {}), ("Dropout3d", (), {}),
        ("ConstantPad3d", (1, 0.0), {}), ("ZeroPad3d", (1,), {}), ("ReflectionPad3d", (1,), {}),
        ("ReplicationPad3d", (1,), {}),
        ("CircularPad3d", (1,), {}), ("Upsample", (), {"scale_factor": 2, "mode": "trilinear"}),
    ],
}  # fmt: skip


def _layer(name: str, args: tuple[Any, ...], options: dict[str, Any], shape: tuple[int, ...]) -> Case:
    recurrent = name in ("RNN", "LSTM", "GRU")
    axes = {1: "batch"} if recurrent and not options.get("batch_first") else BATCH
    label = "_".join([name, *(str(k) for k in options)])
    return Case(label, lambda: getattr(nn, name)(*args, **options), (floats(*shape),), (axes,))


def _encoder_layer() -> Any:
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)


def _layers() -> list[Case]:
    found = [_layer(*entry, shape) for shape, rows in LAYERS.items() for entry in rows]
    pairs = [
        ("Bilinear", lambda: nn.Bilinear(4, 5, 3), (floats(3, 4), floats(3, 5, seed=1))),
        ("CosineSimilarity", lambda: nn.CosineSimilarity(), (floats(3, 4), floats(3, 4, seed=1))),
        ("PairwiseDistance", lambda: nn.PairwiseDistance(), (floats(3, 4), floats(3, 4, seed=1))),
        ("MultiheadAttention", lambda: S.Attend(8, 2), (floats(3, 5, 8), floats(3, 4, 8, seed=1))),
        ("TransformerDecoderLayer", lambda: nn.TransformerDecoderLayer(8, 2, 16, batch_first=True),
         (floats(2, 5, 8), floats(2, 4, 8, seed=1))),
        ("TransformerEncoder", lambda: N.Ignoring(nn.TransformerEncoder(_encoder_layer(), 2)),
         (floats(2, 5, 8), floats(2, 4, 8, seed=1))),
        ("TransformerDecoder", lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 2),
         (floats(2, 5, 8), floats(2, 4, 8, seed=1))),
        ("Transformer", lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True),
         (floats(2, 5, 8), floats(2, 4, 8, seed=1))),
    ]  # fmt: skip
    found += [Case(name, make, inputs, (BATCH, BATCH)) for name, make, inputs in pairs]
    found += [
        Case("Embedding", lambda: nn.Embedding(16, 5), (tokens(3, 4),), ({0: "batch", 1: "time"},)),
        Case("EmbeddingBag", lambda: nn.EmbeddingBag(16, 5), (tokens(3, 4),), (BATCH,)),
        Case("MaxUnpool1d", N.Unpool1d, (floats(*_LINE),), (BATCH,), 16),
        Case("MaxUnpool2d", N.Unpool2d, (floats(*_IMAGE),), (BATCH,), 16),
        Case("MaxUnpool3d", N.Unpool3d, (floats(*_VOLUME),), (BATCH,), 16),
        Case(
            "FractionalMaxPool2d",
            N.Fractional2d,
            (floats(*_IMAGE), abs(floats(2, 4, 2, seed=1))),
            (BATCH, BATCH),
        ),
        Case(
            "FractionalMaxPool3d",
            N.Fractional3d,
            (floats(*_VOLUME), abs(floats(1, 4, 3, seed=1))),
            (BATCH, BATCH),
        ),
        Case("Fold", lambda: nn.Fold((5, 5), 2), (floats(2, 12, 16),), (BATCH,), 18),
        Case("ModuleList", N.Listed, (floats(3, 4),), (BATCH,)),
        Case("ParameterList", N.Weighted, (floats(3, 4),), (BATCH,)),
    ]
    return found


#: losses: class, options, whether the second input is class numbers, probabilities or signs
LOSSES: list[tuple[str, dict[str, Any], str]] = [
    ("MSELoss", {}, "floats"), ("L1Loss", {}, "floats"), ("SmoothL1Loss", {}, "floats"),
    ("HuberLoss", {"delta": 0.5}, "floats"),
    ("CrossEntropyLoss", {"label_smoothing": 0.1}, "classes"), ("CrossEntropyLoss", {}, "classes"),
    ("BCEWithLogitsLoss", {}, "probabilities"), ("KLDivLoss", {"reduction": "batchmean"}, "probabilities"),
    ("NLLLoss", {}, "classes"), ("PoissonNLLLoss", {}, "floats"), ("HingeEmbeddingLoss", {}, "signs"),
    ("SoftMarginLoss", {}, "signs"), ("MultiMarginLoss", {}, "classes"),
    ("MultiLabelSoftMarginLoss", {}, "probabilities"),
    ("BCELoss", {}, "probabilities"),
]  # fmt: skip


def _loss(name: str, options: dict[str, Any]) -> Any:
    return N.Headed(getattr(nn, name)(**options), name == "BCELoss")


def _losses() -> list[Case]:
    kinds = {
        "floats": floats(4, 5, seed=3), "classes": tokens(4, count=5), "probabilities": abs(floats(4, 5, seed=3)),
        "signs": np.where(floats(4, 5, seed=3) > 0, 1.0, -1.0).astype(np.float32),
    }  # fmt: skip
    out = []
    for name, options, kind in LOSSES:
        label = "_".join([name, *options])
        x = abs(floats(4, 5)) if name == "BCELoss" else floats(4, 5)
        out.append(Case(label, partial(_loss, name, options), (x, kinds[kind]), (BATCH, BATCH)))
    triple = (floats(4, 5), floats(4, 5, seed=1), floats(4, 5, seed=2))
    out += [
        Case("TripletMarginLoss", nn.TripletMarginLoss, triple, (BATCH,) * 3),
        Case(
            "MarginRankingLoss",
            nn.MarginRankingLoss,
            (floats(4), floats(4, seed=1), np.sign(floats(4, seed=2))),
            (BATCH,) * 3,
        ),
        Case(
            "CosineEmbeddingLoss",
            nn.CosineEmbeddingLoss,
            (*triple[:2], np.sign(floats(4, seed=2))),
            (BATCH,) * 3,
        ),
        Case("GaussianNLLLoss", nn.GaussianNLLLoss, (*triple[:2], abs(triple[2])), (BATCH,) * 3),
    ]
    return out


# ---------------------------------------------------------------- composed networks

_SEQUENCE: Axes = {0: "batch", 1: "time"}
_PHOTO = (2, 3, 16, 16)


def _composed() -> list[Case]:
    image, sequence, ids = floats(*_PHOTO), floats(2, 6, 8), tokens(2, 6)
    x = (image,), (BATCH,)
    s = (sequence,), (_SEQUENCE,)
    t = (ids,), (_SEQUENCE,)
    cache = floats(2, 2, 3, 4, seed=5)
    past: Axes = {0: "batch", 2: "past"}
    boxes = np.array([[0, 1.5, 2, 20, 19], [1, -4, 3, 9, 30], [1, 5, 5, 6, 6]], np.float32)
    state, edges = (floats(1, 2, 5), floats(1, 2, 5)), tokens(9, count=6)
    return [
        Case("mlp", N.mlp, (floats(3, 6),), (BATCH,)),
        Case("mlp_residual", N.ResidualMlp, (floats(3, 6),), (BATCH,)),
        Case("autoencoder", N.autoencoder, (floats(3, 6),), (BATCH,)),
        Case("variational_mean", N.VariationalMean, (floats(3, 6),), (BATCH,)),
        Case("mixture_of_experts", N.Experts, (floats(3, 6),), (BATCH,)),
        Case("hypernetwork", N.HyperNetwork, (floats(3, 6), floats(3, 4)), (BATCH, BATCH)),
        Case("deep_and_wide", N.DeepAndWide, (floats(3, 6), tokens(3, 4)), (BATCH, BATCH)),
        Case("two_towers", N.TwoTowers, (tokens(3, 4), tokens(3, 5)), (BATCH, BATCH)),
        Case("kernel_regression", N.KernelRegression, (floats(3, 6),), (BATCH,)),
        Case("lenet", V.lenet, *x),
        Case("vgg", V.vgg, *x),
        Case("resnet", V.ResNet, *x),
        Case("resnet_preactivation", V.PreActivation, *x),
        Case("resnext", V.ResNeXt, *x),
        Case("densenet", V.DenseNet, *x),
        Case("mobilenet", V.MobileNet, *x),
        Case("efficientnet", V.EfficientNet, *x),
        Case("shufflenet", V.ShuffleNet, *x),
        Case("squeezenet", V.SqueezeNet, *x),
        Case("inception", V.Inception, *x),
        Case("convnext", V.ConvNeXt, *x),
        Case("highway_cnn", V.HighwayCnn, *x),
        Case("stn", V.SpatialTransformer, *x, 16),
        Case("unet", V.UNet, *x),
        Case("unet_bilinear", V.UNetBilinear, *x),
        Case("segnet", V.SegNet, *x, 16),
        Case("fpn", V.FeaturePyramid, *x),
        Case("fully_convolutional", V.fully_convolutional, (floats(2, 3, 16, 16),), ({0: "batch", 2: "h", 3: "w"},)),
        Case("deeplab", V.DeepLab, *x),
        Case("super_resolution", V.super_resolution, *x),
        Case("gan_generator", V.generator, (floats(2, 6),), (BATCH,)),
        Case("gan_discriminator", V.discriminator, *x),
        Case("style_modulation", V.StyleBlock, (floats(2, 4, 8, 8), floats(2, 6)), (BATCH, BATCH)),
        Case("vision_transformer", V.VisionTransformer, *x),
        Case("swin_block", V.SwinBlock, (floats(2, 8, 8, 8),), (BATCH,)),
        Case("mlp_mixer", V.Mixer, *x),
        Case("perceiver", S.Perceiver, *s),
        Case("video_conv3d", V.video, (floats(2, 3, 4, 8, 8),), (BATCH,)),
        Case("audio_conv1d", S.audio, (floats(2, 1, 64),), (BATCH,)),
        Case("wavenet", S.WaveNet, (floats(2, 4, 20),), (BATCH,)),
        Case("temporal_conv", S.TemporalConv, (floats(2, 4, 20),), (BATCH,)),
        Case("encoder", S.Encoder, *t),
        Case("encoder_padding_mask", S.MaskedEncoder, (ids, tokens(2, count=6) + 1), (_SEQUENCE, BATCH)),
        Case("gpt", S.Gpt, *t),
        Case("gpt_tied", S.TiedGpt, *t),
        Case("gpt_cached_step", S.CachedStep, (tokens(2, 1), cache, cache + 0.5), (BATCH, past, past)),
        Case("llama_block", S.LlamaBlock, *s),
        Case("llama_cached_step", S.LlamaCached, (floats(2, 2, 8), cache, cache + 0.5), (BATCH, past, past)),
        Case("grouped_query", S.GroupedQuery, *s),
        Case("sliding_window", S.SlidingWindow, *s),
        Case("alibi", S.Alibi, *s),
        Case("relative_positions", S.RelativePositions, (floats(2, 6, 8),), (BATCH,)),
        Case("linear_attention", S.LinearAttention, *s),
        Case("encoder_decoder", S.EncoderDecoder, (ids, tokens(2, 4)), (_SEQUENCE, {0: "batch", 1: "time_out"})),
        Case("cross_attention", S.Attend, (floats(2, 5, 8), floats(2, 4, 8)), (_SEQUENCE, {0: "batch", 1: "keys"})),
        Case("pooling_attention", S.AttentionPooling, *s),
        Case("lstm_tagger", S.LstmTagger, *t),
        Case("gru_classifier", S.GruClassifier, *t),
        Case("rnn_language_model", S.RnnLanguageModel, *t),
        Case("lstm_states", S.LstmStates, (sequence, *state), (_SEQUENCE, {1: "batch"}, {1: "batch"})),
        Case("lstm_lengths", S.LstmLengths, (floats(2, 6, 8), np.array([6, 4])), (BATCH, BATCH)),
        Case("lstm_packed", S.Packed, (floats(2, 6, 8),), ({},)),
        Case("lstm_unrolled", S.Unrolled, (floats(2, 4, 6),), (BATCH,)),
        Case("seq2seq_attention", S.Seq2Seq, (ids, tokens(2, 4)), (_SEQUENCE, BATCH)),
        Case("crnn", V.Crnn, *x),
        Case("conv_lstm", V.ConvLstm, (floats(2, 3, 3, 6, 6),), (BATCH,)),
        Case("neural_ode_euler", N.Euler, (floats(3, 6),), (BATCH,)),
        Case("state_space", N.StateSpace, (floats(2, 6, 4),), (BATCH,)),
        Case("graph_convolution", N.GraphConvolution, (floats(2, 5, 4), abs(floats(2, 5, 5))), (BATCH, BATCH)),
        Case("graph_attention", N.GraphAttention, (floats(2, 5, 4), abs(floats(2, 5, 5))), (BATCH, BATCH)),
        Case("message_passing", N.MessagePassing, (floats(6, 4), edges, edges[::-1]), ({}, {0: "e"}, {0: "e"}), 16),
        Case("point_net", V.PointNet, (floats(2, 9, 3),), ({0: "batch", 1: "points"},)),
        Case("deep_sets", N.DeepSets, (floats(2, 9, 3),), ({0: "batch", 1: "points"},)),
        Case("yolo_head", V.YoloHead, *x),
        Case("ssd_head", V.SsdHead, *x),
        Case("center_net", V.CenterNet, *x, smooth=False),
        Case("anchors_topk", V.AnchorsTopK, *x, smooth=False),
        Case("detector_nms", V.DetectorNms, *x, smooth=False),
        Case("region_head", N.Regions, (image, boxes), (BATCH, {0: "boxes"})),
        Case("mask_head", V.MaskHead, *x, 16),
        Case("keypoints_softargmax", V.SoftArgmax, *x),
        Case("stereo_cost_volume", V.CostVolume, (image, floats(*_PHOTO, seed=4)), (BATCH, BATCH)),
        Case("vector_quantiser", N.VectorQuantiser, (floats(3, 6),), (BATCH,), smooth=False),
        Case("quantised_mlp", Q.QuantisedMlp, (floats(3, 6),), (BATCH,), smooth=False),
        Case("fake_quantised_conv", Q.FakeQuantised, *x),
        Case("quantised_cnn", Q.QuantisedCnn, (floats(2, 3, 8, 8),), (BATCH,), smooth=False),
        Case("quantised_attention", Q.QuantisedAttention, (floats(2, 5, 8),), (BATCH,), smooth=False),
        Case("quantised_product", Q.QuantisedProduct, (floats(3, 4), floats(4, 5, seed=1)), ({}, {}), smooth=False),
        Case("trained_quantised", Q.TrainedQuantised, (floats(2, 3, 8, 8),), (BATCH,)),
        Case("contrastive", N.Contrastive, (floats(4, 6), floats(4, 6, seed=1)), (BATCH, BATCH)),
        Case("beam_step", N.BeamStep, (floats(2, 3), tokens(2, 3)), (BATCH, BATCH), smooth=False),
        Case("siren", N.Siren, (floats(3, 2),), (BATCH,)),
        Case("fourier_features", N.FourierFeatures, (floats(3, 2),), (BATCH,)),
        Case("radial_basis", N.RadialBasis, (floats(3, 2),), (BATCH,)),
        Case("normalizing_flow", N.Flow, (floats(3, 6),), (BATCH,)),
        Case("crf_scores", N.CrfScores, (floats(2, 5, 4),), (BATCH,)),
    ]  # fmt: skip


def cases() -> dict[str, Case]:
    """Every model by name; equal names get a number."""
    found: dict[str, Case] = {}
    for case in (*_layers(), *_losses(), *_composed()):
        name, k = case.name, 2
        while name in found:
            name, k = f"{case.name}_{k}", k + 1
        found[name] = case._replace(name=name)
    return found


def composed() -> list[str]:
    """The names of the composed networks."""
    return [c.name for c in _composed()]
