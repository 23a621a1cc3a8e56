"""An invented catalogue: products, texts and drawn images whose true prices are known."""
