"""Pictures, a synthetic clip and the run that `make demo` does."""
