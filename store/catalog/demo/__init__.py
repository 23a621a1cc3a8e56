"""A catalogue that never was: products, texts and drawn pictures whose true prices are known."""
