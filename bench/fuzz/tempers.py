"""What kinds of random programs there are: for each temper, the makers of steps with their weights."""

from __future__ import annotations

from collections.abc import Callable

from .caches import CACHES, caches
from .containers import containers
from .effects import attention_like, branch, gradient, in_place, randomness, state
from .functions import functions
from .growing import growing
from .images import IMAGES, images
from .iterators import ITERATORS, iterators, read
from .layers import layers
from .live import live
from .loops import loops
from .near import changed
from .numbers import numbers
from .objects import OBJECTS, objects
from .own_code import arguments, creation, rules
from .program import Step
from .settings import flags
from .steps import (
    Hand,
    along,
    cast,
    einsum,
    index,
    join,
    operator,
    pieces,
    pointwise,
    product,
    reduction,
    sampled,
    softmax_like,
    unary,
    view,
)  # fmt: skip
from .training import training
from .transforms import transforms
from .views import views

TEMPERS: dict[str, dict[Callable[[Hand], Step | None], int]] = {
    "ops": {creation: 1, sampled: 8, pointwise: 4, operator: 2, reduction: 2, view: 2, along: 3, cast: 1},
    "chain": {
        pointwise: 3, operator: 5, unary: 5, reduction: 5, softmax_like: 3, view: 4, join: 1, cast: 1, product: 1,
    },
    "shapes": {view: 6, join: 3, pieces: 3, index: 5, operator: 3, reduction: 2, along: 2, unary: 1},
    "effects": {
        in_place: 8, view: 4, operator: 3, unary: 2, state: 4, branch: 2, randomness: 1, reduction: 1, index: 1,
        training: 1,
    },
    "python": {
        arguments: 3, creation: 1, containers: 8, functions: 4, operator: 2, state: 1, in_place: 1, branch: 1,
        training: 1,
    },
    "functions": {
        functions: 8, containers: 2, loops: 1, arguments: 1, operator: 2, state: 2, in_place: 1, branch: 2, gradient: 1,
        randomness: 1,
    },
    "loops": {loops: 7, functions: 1, operator: 2, unary: 1, reduction: 1, view: 1, gradient: 1, in_place: 1, rules: 1},
    "training": {
        training: 8, functions: 1, containers: 1, operator: 2, branch: 1, in_place: 1, rules: 1, attention_like: 1,
    },
    "gradients": {
        gradient: 5, rules: 3, functions: 1, loops: 1, operator: 4, unary: 4, reduction: 2, softmax_like: 2, view: 2,
        product: 2, in_place: 1, attention_like: 2,
    },
    "own code": {
        rules: 8, arguments: 3, creation: 2, gradient: 2, in_place: 2, view: 2, operator: 2, unary: 1, reduction: 1,
        state: 1, branch: 1,
    },
    "control": {
        arguments: 2, functions: 2, loops: 2, branch: 5, state: 3, operator: 3, unary: 2, randomness: 2, reduction: 2,
        gradient: 1, index: 1,
    },
    "numbers": {
        numbers: 9, operator: 2, unary: 1, state: 1, in_place: 1, branch: 1, gradient: 1, arguments: 1, containers: 1,
        functions: 1, reduction: 1,
    },
    "views": {
        views: 8, view: 2, in_place: 2, operator: 2, unary: 1, gradient: 1, index: 1, reduction: 1, softmax_like: 1,
        rules: 1, state: 1,
    },
    "live numbers": {
        live: 9, numbers: 1, operator: 2, in_place: 1, state: 1, branch: 1, gradient: 1, training: 1, containers: 1,
        view: 1,
    },
    "sizes": {
        growing: 8, operator: 2, unary: 1, reduction: 2, view: 2, in_place: 1, state: 1, softmax_like: 1, index: 1,
        join: 1, training: 1, layers: 2, product: 1,
    },
    "flags": {flags: 8, training: 3, operator: 2, state: 1, in_place: 1, branch: 1, gradient: 1, rules: 1},
    "layers": {layers: 9, operator: 1, unary: 1, reduction: 1, training: 1, gradient: 1, in_place: 1, rules: 1},
    "transforms": {
        transforms: 8, operator: 2, unary: 1, view: 1, loops: 1, rules: 1, in_place: 1, gradient: 1, state: 1,
    },
    "fast": {changed: 9, softmax_like: 1, product: 2, view: 2, join: 1, einsum: 1},
    "onnx": {
        sampled: 5, pointwise: 3, operator: 3, unary: 2, reduction: 2, softmax_like: 2, view: 3, join: 1, pieces: 1,
        index: 2, along: 2, product: 2, einsum: 1, layers: 4, cast: 1, attention_like: 1, loops: 2, creation: 1,
    },
    "models": {
        product: 4, attention_like: 4, softmax_like: 3, einsum: 2, operator: 2, unary: 2, reduction: 1, gradient: 1,
        randomness: 1, training: 1,
    },
}  # fmt: skip
#: those that came later, each after the others
LATER: dict[str, dict[Callable[[Hand], Step | None], int]] = {
    OBJECTS: {
        objects: 16, operator: 2, containers: 1, functions: 1, state: 1, in_place: 1, gradient: 1, rules: 1,
    },
    ITERATORS: {
        iterators: 8, read: 5, operator: 1, unary: 1, containers: 1, functions: 1, state: 1, loops: 1, gradient: 1,
        rules: 1, live: 1, training: 1,
    },
    CACHES: {
        caches: 12, operator: 2, unary: 1, state: 1, in_place: 1, gradient: 1, live: 1, rules: 1,
    },
    IMAGES: {images: 8, layers: 1, operator: 1, unary: 1, reduction: 1, in_place: 1, view: 1, training: 1, state: 1},
}  # fmt: skip
#: the seeds from which on they are drawn where no temper is asked for, so that those before stay the programs they were
SINCE = {OBJECTS: 14_000_000, ITERATORS: 14_000_000, CACHES: 14_200_000, IMAGES: 14_600_000}
#: what threads may do at once: nothing that is kept
APART: dict[Callable[[Hand], Step | None], int] = {
    iterators: 3, operator: 3, unary: 3, reduction: 3, softmax_like: 2, view: 3, product: 2, index: 2, join: 1, cast: 1,
    pointwise: 2, along: 1, gradient: 2, branch: 2, functions: 1, in_place: 2, transforms: 1, loops: 1,
    attention_like: 1,
}  # fmt: skip
