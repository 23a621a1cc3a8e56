"""Downloads images: links in the catalogue -> content-addressed blobs."""
