"""One fitted model: a folder that prices new products, with intervals and reasons, without a workspace."""
