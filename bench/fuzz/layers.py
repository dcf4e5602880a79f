"""What a random program may do with layers and losses of every kind, with odd options."""

from __future__ import annotations

from .program import Given, Step
from .steps import FLOATS, Hand

#: the layer, and the dims of what it is given; "A" is a size that differs from call to call
LAYERS: tuple[tuple[str, tuple[tuple[int | str, ...], ...]], ...] = (
    ("Linear(3, 2, bias=False)", (("A", 3),)), ("Linear(3, 4)", (("A", 2, 3),)),
    ("Bilinear(2, 3, 2)", (("A", 2), ("A", 3))),
    ("Conv1d(4, 6, 3, groups=2, padding=1, padding_mode='reflect')", (("A", 4, 5),)),
    ("Conv1d(2, 3, 2, stride=2, dilation=2, padding_mode='circular', padding=1)", (("A", 2, 6),)),
    ("Conv1d(3, 3, 3, groups=3, padding='same', bias=False)", (("A", 3, 5),)),
    ("Conv2d(4, 4, 3, groups=2, padding=1)", (("A", 4, 5, 4),)),
    ("Conv2d(3, 2, (1, 3), dilation=(1, 2), padding=(0, 2))", (("A", 3, 3, 5),)),
    ("Conv2d(2, 4, 3, stride=2, padding=1, padding_mode='replicate')", (("A", 2, 5, 5),)),
    ("Conv2d(4, 8, 3, groups=4, padding='valid')", (("A", 4, 4, 4),)),
    ("Conv2d(2, 3, 1, bias=False)", (("A", 2, 3, 3),)), ("Conv3d(2, 2, 2)", (("A", 2, 3, 3, 2),)),
    ("Conv2d(2, 2, 3, padding=1)", ((2, 4, 4),)),
    ("ConvTranspose1d(2, 3, 3, stride=2, output_padding=1)", (("A", 2, 4),)),
    ("ConvTranspose2d(4, 2, 3, stride=2, padding=1, groups=2, dilation=2)", (("A", 4, 3, 3),)),
    ("ConvTranspose2d(2, 2, 2, stride=2, bias=False)", (("A", 2, 3, 2),)), ("BatchNorm1d(3)", (("A", 3),)),
    ("BatchNorm1d(3, affine=False, momentum=None)", (("A", 3, 4),)),
    ("BatchNorm2d(2, track_running_stats=False)", (("A", 2, 3, 3),)),
    ("BatchNorm2d(3, eps=1e-2, momentum=0.3)", (("A", 3, 2, 2),)), ("InstanceNorm1d(2, affine=True)", (("A", 2, 5),)),
    ("InstanceNorm2d(2, track_running_stats=True)", (("A", 2, 3, 3),)), ("GroupNorm(2, 4)", (("A", 4, 3),)),
    ("GroupNorm(4, 4, affine=False)", (("A", 4, 2, 2),)), ("LayerNorm(3, elementwise_affine=False)", (("A", 3),)),
    ("LayerNorm((2, 3), bias=False)", (("A", 2, 3),)), ("RMSNorm(4, eps=1e-3)", (("A", 4),)),
    ("LocalResponseNorm(3)", (("A", 4, 3),)), ("RNN(3, 2, nonlinearity='relu', bidirectional=True)", ((4, "A", 3),)),
    ("RNN(2, 2, 2, batch_first=True, dropout=0.5)", (("A", 3, 2),)), ("LSTM(3, 4, proj_size=2)", ((3, "A", 3),)),
    ("LSTM(2, 3, 2, bidirectional=True, batch_first=True)", (("A", 4, 2),)), ("LSTM(2, 2, bias=False)", ((3, 2),)),
    ("GRU(3, 2, bias=False)", ((4, "A", 3),)), ("GRU(2, 2, 2, dropout=0.25, bidirectional=True)", ((3, "A", 2),)),
    ("LSTMCell(3, 2)", (("A", 3),)), ("GRUCell(3, 2, bias=False)", (("A", 3),)),
    ("RNNCell(3, 2, nonlinearity='relu')", (("A", 3),)),
    ("TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True, norm_first=True)", (("A", 3, 4),)),
    ("TransformerEncoderLayer(4, 1, 6, dropout=0.1, activation='gelu')", ((3, "A", 4),)),
    ("TransformerDecoderLayer(4, 2, 8, dropout=0.0)", ((3, "A", 4), (2, "A", 4))),
    ("MaxPool1d(2, stride=1, padding=1)", (("A", 2, 5),)),
    ("MaxPool2d(3, stride=2, padding=1, ceil_mode=True)", (("A", 2, 6, 5),)),
    ("MaxPool2d(2, dilation=2, return_indices=True)", (("A", 2, 5, 5),)),
    ("AvgPool1d(3, 2, 1, count_include_pad=False)", (("A", 2, 7),)),
    ("AvgPool2d(2, ceil_mode=True, divisor_override=3)", (("A", 2, 5, 5),)), ("LPPool2d(2.0, 2)", (("A", 2, 4, 4),)),
    ("AdaptiveAvgPool2d((2, 3))", (("A", 2, 5, 4),)), ("AdaptiveMaxPool1d(3)", (("A", 2, 7),)),
    ("AdaptiveAvgPool1d(1)", (("A", 3, 5),)),
    ("Upsample(scale_factor=2, mode='bilinear', align_corners=True)", (("A", 2, 3, 3),)),
    ("Upsample(size=5, mode='linear')", (("A", 2, 3),)), ("Upsample(scale_factor=1.5)", (("A", 2, 4, 4),)),
    ("ReflectionPad2d((1, 2, 0, 1))", (("A", 2, 4, 4),)), ("ReplicationPad1d(2)", (("A", 2, 3),)),
    ("ConstantPad2d((1, -1, 0, 2), 0.5)", (("A", 2, 3, 3),)), ("CircularPad1d(1)", (("A", 2, 3),)),
    ("ZeroPad2d(1)", (("A", 1, 2, 2),)), ("PixelShuffle(2)", (("A", 4, 2, 3),)), ("ChannelShuffle(2)", (("A", 4, 3),)),
    ("Unfold(2, padding=1)", (("A", 2, 3, 3),)), ("Fold((3, 3), 2)", (("A", 8, 4),)), ("Flatten(1)", (("A", 2, 3),)),
    ("Unflatten(1, (2, 3))", (("A", 6),)), ("PReLU(3, 0.1)", (("A", 3),)), ("GLU(1)", (("A", 4),)),
    ("RReLU()", (("A", 3),)), ("Softmin(0)", (("A", 3),)), ("Dropout2d(0.5)", (("A", 3, 2, 2),)),
    ("AlphaDropout(0.3)", (("A", 4),)), ("FeatureAlphaDropout(0.5)", (("A", 3, 2),)), ("Hardswish()", (("A", 3),)),
    ("CELU(0.5)", (("A", 3),)), ("Softplus(2.0, 1.0)", (("A", 3),)), ("Threshold(0.5, -1.0)", (("A", 3),)),
    ("CosineSimilarity(1)", (("A", 3), ("A", 3))), ("PairwiseDistance(1.0, keepdim=True)", (("A", 3), ("A", 3))),
    ("Sequential(dg.nn.Linear(3, 4), dg.nn.ReLU(), dg.nn.Dropout(0.5), dg.nn.Linear(4, 2))", (("A", 3),)),
    ("Sequential(dg.nn.Conv2d(2, 3, 3, padding=1), dg.nn.BatchNorm2d(3), dg.nn.ReLU())", (("A", 2, 4, 4),)),
    ("utils.weight_norm(dg.nn.Linear(3, 2))", (("A", 3),)),
    ("utils.parametrizations.spectral_norm(dg.nn.Linear(3, 2))", (("A", 3),)),
)  # fmt: skip
#: with the layer {n}, {call}: a call of it, its first result (of several) taken
USES = (
    "{y} = {call}", "{y} = {call}", "{y} = {call}", "{n}.train(m.count % 2 == 0)\nm.count += 1\n{y} = {call}",
    "{n}.train(not {n}.training)\n{y} = {call}", "{n}.eval()\n{y} = {call}", "{y} = {call} + {call}",
    "{n}.zero_grad()\n{y} = {call}\n({y} * {y}).sum().backward(retain_graph=True)",
    "{y} = {call}\n{y}.sum().backward(retain_graph=True)\nwith dg.no_grad():\n    for p in {n}.parameters():\n"
    "        if p.grad is not None:\n            p -= 0.1 * p.grad\n            p.grad = None",
    "with dg.amp.autocast(dtype=dg.bfloat16):\n    {y} = {call}", "with dg.no_grad():\n    {y} = {call}",
    "with dg.amp.autocast(dtype=dg.float16):\n    {y} = {call}\n{y}.to(dg.float32).sum().backward(retain_graph=True)",
    "{y} = {call}\n{n}.load_state_dict({{k: v * 0.5 for k, v in {n}.state_dict().items()}})",
    "for p in {n}.parameters():\n    p.requires_grad_(m.count % 2 == 0)\nm.count += 1\n{y} = {call}",
)  # fmt: skip
#: state that a recurrent layer hands on from call to call; {h}: all its results
RECURRENT = (
    "{y}, m.last = {n}({row}, m.last)", "{y}, m.last = {n}({row})",
    "{y}, s = {n}({row})\nm.last = s.detach() if isinstance(s, dg.Tensor) else tuple(t.detach() for t in s)",
)  # fmt: skip
#: attention, {q}: float[A, 3, 4], {k}: float[A, 5, 4]
ATTENTION = (
    "{y} = dg.nn.functional.scaled_dot_product_attention({q}, {k}, {k})",
    "{y} = dg.nn.functional.scaled_dot_product_attention({q}, {q}, {q}, is_causal=True)",
    "{y} = dg.nn.functional.scaled_dot_product_attention({q}, {k}, {k}, attn_mask=dg.ones((3, 5), "
    "dtype=dg.bool).tril(), scale=0.3)",
    "{y} = dg.nn.functional.scaled_dot_product_attention({q}, {k}, {k}, attn_mask=dg.linspace(-1, 1, "
    "15).reshape(3, 5).to({q}.dtype))",
    "{y} = dg.nn.functional.scaled_dot_product_attention({q}, {k}, {k}, dropout_p=0.25)",
    "{y}, _ = {mha}({q}, {k}, {k})", "{y}, m.last = {mha}({q}, {q}, {q}, average_attn_weights=False)",
    "{y}, _ = {mha}({q}, {k}, {k}, key_padding_mask=dg.tensor([[False] * 3 + [True] * "
    "2]).expand({k}.shape[0], 5), need_weights=False)",
    "{y}, _ = {mha}({q}, {q}, {q}, attn_mask=dg.ones((3, 3), dtype=dg.bool).triu(1))",
    "{mha}.train(not {mha}.training)\n{y}, _ = {mha}({q}, {k}, {k})",
)  # fmt: skip
MHA = (
    "MultiheadAttention(4, 2, batch_first=True)", "MultiheadAttention(4, 1, batch_first=True, bias=False)",
    "MultiheadAttention(4, 2, dropout=0.5, batch_first=True)",
)  # fmt: skip
#: {i}: int64[A, 3] below 5
EMBEDDINGS = (
    "Embedding(5, 3)", "Embedding(5, 2, padding_idx=0)", "Embedding(5, 3, padding_idx=-1)",
    "Embedding(5, 2, max_norm=0.5)", "EmbeddingBag(5, 3)", "EmbeddingBag(5, 2, mode='max')",
    "EmbeddingBag(5, 2, mode='sum', padding_idx=1)", "Embedding(5, 3, scale_grad_by_freq=True)",
)  # fmt: skip
#: losses: {x}: float[A, 3], {o}: another one, {c}: int64[A] below 3, {w}: three weights, {r}: a reduction
LOSSES = (
    "cross_entropy({x}, {c}, reduction={r})",
    "cross_entropy({x}, {c}, weight={w}, reduction={r}, label_smoothing=0.1)",
    "cross_entropy({x}, {c}, ignore_index=1, reduction={r})", "cross_entropy({x}, {o}.softmax(-1), reduction={r})",
    "cross_entropy({x}, {o}.softmax(-1), weight={w}, reduction={r}, label_smoothing=0.2)",
    "cross_entropy({x}, {c}, weight={w}, ignore_index=0, reduction={r})",
    "nll_loss({x}.log_softmax(-1), {c}, weight={w}, ignore_index=2, reduction={r})",
    "nll_loss({x}, {c}, reduction={r})", "mse_loss({x}, {o}, reduction={r})", "l1_loss({x}, {o}, reduction={r})",
    "huber_loss({x}, {o}, delta=0.5, reduction={r})", "smooth_l1_loss({x}, {o}, beta=0.25, reduction={r})",
    "smooth_l1_loss({x}, {o}, beta=0.0, reduction={r})",
    "binary_cross_entropy({x}.sigmoid(), {o}.sigmoid(), weight={w}, reduction={r})",
    "binary_cross_entropy_with_logits({x}, {o}.sigmoid(), pos_weight={w}, reduction={r})",
    "binary_cross_entropy_with_logits({x}, {o}.sigmoid(), weight={w}, reduction={r})",
    "kl_div({x}.log_softmax(-1), {o}.softmax(-1), reduction='batchmean')",
    "kl_div({x}, {o}, reduction={r}, log_target=True)", "poisson_nll_loss({x}, {o}.abs(), full=True, reduction={r})",
    "poisson_nll_loss({x}.exp(), {o}.abs(), log_input=False, reduction={r})",
    "gaussian_nll_loss({x}, {o}, {x}.square() + 0.1, full=True, reduction={r})",
    "hinge_embedding_loss({x}, {o}.sign(), margin=0.5, reduction={r})",
    "soft_margin_loss({x}, {o}.sign(), reduction={r})",
    "margin_ranking_loss({x}, {o}, {o}.sign(), margin=0.1, reduction={r})",
    "multi_margin_loss({x}, {c}, p=2, weight={w}, reduction={r})",
    "multilabel_soft_margin_loss({x}, ({o} > 0).to({x}.dtype), weight={w}, reduction={r})",
    "triplet_margin_loss({x}, {o}, {o} * 0.5, swap=True, reduction={r})",
    "triplet_margin_loss({x}, {o}, {x} * 2, p=1.0, reduction={r})",
    "cosine_embedding_loss({x}, {o}, dg.ones_like({x}[:, 0]), margin=0.2, reduction={r})",
    "cosine_embedding_loss({x}, {o}, {o}[:, 0].sign(), reduction={r})",
)  # fmt: skip


def layers(h: Hand) -> Step | None:
    """A layer, attention, an embedding or a loss."""
    r = h.rng
    kind = r.choices((_layer, _loss, _attention, _embedding), (55, 25, 12, 8))[0]
    return kind(h)


def kept_layer(h: Hand, text: str) -> str:
    """A layer as state: sometimes one that the program has."""
    return h.keep(Given(f"n{len(h.state)}", (), "made", values=(f"dg.nn.{text}",)))


def given_tensor(h: Hand, dims: tuple[int | str, ...], dtype: str = "", **options: object) -> str:
    """A tensor of these dims that is there, or a new argument."""
    shape = tuple(h.sizes[d] if isinstance(d, str) else d for d in dims)
    kind = dtype or (h.dtype if h.dtype in FLOATS and h.rng.random() < 0.1 else "float32")
    here = (
        h.tensor(lambda t: t.shape == shape and t.dtype.name == kind)
        if h.rng.random() < 0.6 and not options
        else None
    )
    name = f"x{len(h.new)}"
    if here is not None:
        return here
    grad = kind in FLOATS and h.rng.random() < 0.4
    h.give(Given(name, dims, kind, grad=grad, **options))  # type: ignore[arg-type]
    return name


def _layer(h: Hand) -> Step | None:
    text, dims = h.rng.choice(LAYERS)
    n, row, y = kept_layer(h, text), ", ".join(given_tensor(h, d) for d in dims), h.fresh()
    if text.split("(")[0] in ("LSTM", "GRU", "RNN") and h.rng.random() < 0.5:
        return Step(h.rng.choice(RECURRENT).format(n=n, row=row, y=y), (y,))
    several = text.split("(")[0] in ("LSTM", "GRU", "RNN", "LSTMCell") or "return_indices" in text
    return Step(h.rng.choice(USES).format(n=n, row=row, y=y, call=f"{n}({row})" + "[0]" * several), (y,))


def _loss(h: Hand) -> Step | None:
    x = given_tensor(h, ("A", 3))
    y, r = h.fresh(), h.rng
    c = given_tensor(h, ("A",), "int64", low=0, high=3)
    form = r.choice(LOSSES)
    back = r.choice(("", "", "\n{y}.sum().backward(retain_graph=True)"))
    w = f"dg.tensor([0.5, 2.0, 1.0]).to({x}.dtype)"
    text = ("{y} = dg.nn.functional." + form + back).format(
        x=x, o=given_tensor(h, ("A", 3)), c=c, w=w, y=y, r=repr(r.choice(("mean", "sum", "none")))
    )
    return Step(text, (y,))


def _attention(h: Hand) -> Step | None:
    y = h.fresh()
    form = h.rng.choice(ATTENTION)
    mha = kept_layer(h, h.rng.choice(MHA)) if "{mha}" in form else ""
    return Step(
        form.format(q=given_tensor(h, ("A", 3, 4)), k=given_tensor(h, ("A", 5, 4)), mha=mha, y=y), (y,)
    )


def _embedding(h: Hand) -> Step | None:
    y = h.fresh()
    i = given_tensor(h, ("A", 3), "int64", low=0, high=5)
    n = kept_layer(h, h.rng.choice(EMBEDDINGS))
    return Step(h.rng.choice(USES).format(n=n, row=i, y=y, call=f"{n}({i})"), (y,))
