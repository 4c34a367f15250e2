"""Customisation of generators: a subject from a few pictures, in scenes that a prompt asks for."""
