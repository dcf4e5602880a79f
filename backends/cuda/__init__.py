"""The CUDA backend, first floor: device, memory, and generated pointwise and reduction kernels.

Its kernels are compiled by NVRTC and run in an emulation (emulate.py) where there is no GPU; that checks
their logic. `pytest tests/test_cuda_emit.py` on a machine with a GPU runs every one of them there.
"""
