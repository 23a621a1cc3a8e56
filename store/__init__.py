"""What lies on disk, and the contracts around it. Imports no sibling package."""
