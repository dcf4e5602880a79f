"""The passes of a reduction kernel over its reduced axes.

Pass p computes the reductions that depend on p - 1 others (softmax: 1 the maximum, 2 the sum); the last pass
also stores the outputs of element level, so that an output may take the place of an input.
"""

from __future__ import annotations

from ...core.loops import LoopKernel
from ...core.scalar import Expr, walk


class Passes:
    """Which value belongs to which pass.

    order: all nodes, operands first; elem: ids of the nodes that vary along the reduced axes; fixed: ids of
    those that are the same for the whole kernel; reduces: the `reduce` nodes; elem_roots: the numbers of the
    outputs of element level; count: the number of passes.
    """

    def __init__(self, kernel: LoopKernel):
        self.kernel = kernel
        self.order = walk(kernel.roots)
        self.elem = {k for k, level in kernel.levels().items() if level == "elem"}
        self.reduces = [n for n in self.order if n.op == "reduce"]
        self.elem_roots = [k for k, out in enumerate(kernel.outputs) if not out.row]
        self.fixed: set[int] = set()
        self._stage: dict[int, int] = {}
        for node in self.order:
            below = max((self._stage[id(a)] for a in node.args), default=0)
            self._stage[id(node)] = below + (node.op == "reduce")
            if self._is_fixed(node):
                self.fixed.add(id(node))
        self.count = max(
            max((self._stage[id(n)] for n in self.reduces), default=0),
            max((self._stage[id(kernel.roots[k])] + 1 for k in self.elem_roots), default=0),
        )

    def _is_fixed(self, node: Expr) -> bool:
        if node.op == "arg":
            return self.kernel.inputs[node.value].kind == "scalar"
        return node.op != "reduce" and all(id(a) in self.fixed for a in node.args)

    def of(self, reduce: Expr) -> int:
        """The pass of a `reduce` node."""
        return self._stage[id(reduce)]

    def roots(self, number: int) -> list[Expr]:
        """The outputs that pass `number` stores."""
        return [self.kernel.roots[k] for k in self.elem_roots] if number == self.count else []
