"""The `nefbench` command: one file per verb; heavy imports stay inside the verb."""
