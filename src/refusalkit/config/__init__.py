"""One run's configuration: defaults < preset < TOML file < command line."""
