"""The commands: a module for each group, and `main`, which runs them."""
