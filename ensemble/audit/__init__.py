"""Does the honest score deserve its name? Five checks of the rows that it stands on, each with a verdict."""
