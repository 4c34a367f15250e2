"""Command line, plan, runner, trainer, measurement, records, statistics."""
