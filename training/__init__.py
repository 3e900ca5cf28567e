"""Training of the project's own face swapper; the product never imports this package."""
