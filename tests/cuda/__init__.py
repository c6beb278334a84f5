"""The CUDA kernels without a card: compiled by NVRTC, run on the CPU through a shim."""
