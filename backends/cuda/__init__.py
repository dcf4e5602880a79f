"""The CUDA backend: device, memory, generated pointwise and reduction kernels, hand-written ones. Never run on a GPU.

Its kernels are compiled by NVRTC and run in an emulation (emulate.py) where there is no GPU; that checks
their logic. On a machine with a GPU `pytest tests/test_cuda_*.py` runs every one of them there too, and
`python -m duograd.bench.gpu` says what works and how fast. docs/design.md has the order of a first run.
"""
