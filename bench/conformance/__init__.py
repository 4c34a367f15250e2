"""Conformance: what must hold for every method, on tiny random models of every architecture that the anatomy knows."""
