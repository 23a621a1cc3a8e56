"""Catalogue text -> fields: name, quantities, units, packs, sizes."""
