"""The whole ensemble on one GPU, measured: engine, real Triton under perf_analyzer, client, peers.

    python -m bench.gpu --output out/gpu

inswapper_128's architecture with random weights (349 GFLOP a face; it swaps no face), YuNet, 1080p
I420, float16, the pip-only server. Every number is a cell of OUTPUT/results.json, measured in the
order of what it says; a run that is cut short (`--minutes`) goes on where it stopped, a cell that
failed is tried again, and what was not run is listed as not run. Report: OUTPUT/report.md, plots
beside it.
"""
