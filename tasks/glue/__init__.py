"""GLUE: eight tasks of language understanding, from the hub."""
