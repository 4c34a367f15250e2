"""Adapters that read weights in place of activations."""
