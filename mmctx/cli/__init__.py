"""What the tools share: their options, configs, checks beforehand, runs and reports of errors."""
