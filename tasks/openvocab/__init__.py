"""Open-vocabulary tasks: pictures are told apart by the names of their classes."""
