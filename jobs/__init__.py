"""Entry points: options, environment, exit codes; everything else is in `pipelines` and `vtray`."""
