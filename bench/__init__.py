"""Measurements of the store beside its peers. `make bench` runs them; they are no tests, and nothing imports them."""
