"""A small rendered world with exact truth: scenes, questions, pixels and encoded files."""
