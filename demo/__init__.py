"""`make demo`: both jobs of the store, cache and task store, on real data, each claim checked."""
