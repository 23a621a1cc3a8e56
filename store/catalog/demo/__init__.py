"""A catalogue that never was: products, texts and drawn images whose true prices are known."""
