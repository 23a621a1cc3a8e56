"""Does the honest score deserve its name? Checks of the rows that it stands on, each with a verdict."""
