"""Thin client of the frameswap Triton ensembles."""
