"""Load on any endpoint with NVIDIA's perf_analyzer: `python -m bench.load --help`."""
