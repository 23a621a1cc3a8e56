"""Images from the open web: links in the catalogue -> content-addressed blobs, safely and repeatably."""
