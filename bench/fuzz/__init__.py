"""A fuzzer of the two modes: random programs from the op registry run eagerly and as graphs, and must agree.

`python -m duograd.bench.fuzz --programs 20000 --seed 0 --jobs 2`. A program is data (`program.py`): inputs,
state and a short list of steps; it prints as a Python file that runs alone. `build.py` draws one, from the steps
of `steps.py`; `judge.py` runs it both ways and says what differs; `shrink.py` makes a failing one small.
"""

from .judge import Difference, judge
from .program import Given, Program, Step, given

__all__ = ["Difference", "Given", "Program", "Step", "given", "judge"]
