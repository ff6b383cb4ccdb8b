"""What the tools share: options, configs, checks before a run, runs and reports of errors."""
