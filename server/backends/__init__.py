"""Python-based Triton backends with the names, file names and parameters of NVIDIA's C++ ones."""
