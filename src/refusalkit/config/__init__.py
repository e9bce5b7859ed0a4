"""One run's configuration: defaults < preset < TOML file < environment < command line."""
