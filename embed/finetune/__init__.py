"""Frozen, then fine-tuned: encoders and a head trained together for log price, fold by fold."""
