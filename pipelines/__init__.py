"""One module per job: Config, Report and `run(config)`. Besides `jobs`, the only place that knows Ray."""
